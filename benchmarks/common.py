"""What measurements share."""

import argparse
import concurrent.futures
import multiprocessing
import subprocess
import sys
import time

from lca_keras.base import console

# What the resources of a process count begins with those of its parent; this does not.
_MEASURED = """
import importlib, re, sys
code = importlib.import_module(sys.argv[1]).main(sys.argv[2:])
print(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1])
sys.exit(code)
"""
SPAWN = multiprocessing.get_context("spawn")


def parser(about):
    """An argument parser with the first line of a module's docstring."""
    return argparse.ArgumentParser(description=about.splitlines()[0])


def make_corpus(folder, stems=False, **sizes):
    """Synthesises a corpus of such sizes unless it is there; returns its folder."""
    from lca_keras.corpora import synthesis

    with console.progress(f"Synthesising {folder}") as progress:
        config = synthesis.SynthesisConfig(**sizes)
        synthesis.write_corpus(config, folder, stems, progress=progress)
    return folder


def export_network(preset, folder):
    """Exports a preset's network with random weights; returns path and `Config`."""
    from lca_keras.base.config import get_preset
    from lca_keras.exports.export import export_model
    from lca_keras.models.factory import build_network

    config = get_preset(preset)
    network = build_network(config, 20)
    names = [f"artist {number}" for number in range(20)]
    return export_model(network, names, config, folder, preset, {}), config


def run(*words):
    """Runs Python in a new process; returns seconds and what it printed."""
    command = [sys.executable, *map(str, words)]
    start = time.perf_counter()
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return time.perf_counter() - start, done.stdout


def run_command(name, *words):
    """Runs a command, by its module's name; returns seconds and peak MiB."""
    seconds, printed = run("-c", _MEASURED, name, *words)
    return seconds, float(printed.split()[-1]) / 1024


def apart(function, *arguments):
    """Calls a function of a module in a process of its own; returns its result."""
    with concurrent.futures.ProcessPoolExecutor(1, mp_context=SPAWN) as pool:
        return pool.submit(function, *arguments).result()
