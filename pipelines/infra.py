"""Whether a candidate can be served: it is asked in a process without this package."""

import dataclasses
import json
import os
import pathlib
import subprocess
import sys
import tempfile

import numpy as np

from lca_keras.base import files
from lca_keras.base.config import Config
from lca_keras.base.errors import UserError
from lca_keras.data.examples import to_example
from lca_keras.exports import integrity
from lca_keras.exports.versions import METADATA

_PROBE = pathlib.Path(__file__).with_name("probe.py")
# An answer that depends on what else is in the batch by more than rounding.
_ROUNDING = 1e-4


@dataclasses.dataclass(frozen=True)
class Check:
    """Something that a candidate was tried for: what, whether it passed, and why."""

    what: str
    passed: bool
    said: str


def validate(export, store, expected, limits):
    """Tries a version; a list of `Check`.

    `expected` is a dict from the key of a song in the store to float array
    `(classes,)`, the trainer's mean probabilities; `limits` a `settings.Infra`.
    """
    try:
        integrity.check(export)
        about = files.read_json(pathlib.Path(export, METADATA))
        config = Config.from_dict(about["config"])
    except (UserError, OSError, ValueError, KeyError) as error:
        return [Check("sums", False, str(error))]
    checks = [Check("sums", True, "all files are as exported")]
    keys = list(expected)[: limits.songs]
    try:
        found, probabilities = _ask(export, config, about, store, keys, limits)
    except UserError as error:
        return [*checks, Check("answers", False, str(error))]
    for name, seconds, limit in (
        ("loaded and warm", found["first_answer_seconds"], limits.first_answer_seconds),
        ("an hour of song", found["hour_seconds"], limits.seconds_per_hour),
    ):
        said = f"{seconds:.1f} s, {limit:g} s are allowed"
        checks.append(Check(name, seconds <= limit, said))
    memory = f"{found['memory_mb']:.0f} MB, {limits.memory_mb:g} MB are allowed"
    checks.append(Check("memory", found["memory_mb"] <= limits.memory_mb, memory))
    for name, difference in found["batches"].items():
        said = f"differs by {difference:.1e} among batches of 1, 7 and 64"
        checks.append(Check(f"signature {name}", difference <= _ROUNDING, said))
    wanted = np.stack([expected[key] for key in keys])
    passed = wanted.shape == probabilities.shape
    said = f"{probabilities.shape} probabilities, the trainer's {wanted.shape}"
    if passed:
        difference = float(np.abs(wanted - probabilities).max())
        passed = difference <= limits.tolerance
        said = (
            f"{len(keys)} songs differ from the trainer's by up to {difference:.1e}, "
            f"{limits.tolerance:g} is allowed"
        )
    return [*checks, Check("the trainer's answers", passed, said)]


def _ask(export, config, about, store, keys, limits):
    """Runs the probe; returns what it found, and probabilities `(songs, classes)`."""
    front_end = config.front_end
    streams = [front_end.stream(name) for name in config.streams]
    names = [stream.name for stream in streams]
    given = [stream.name for stream in streams if not stream.in_graph]
    signatures = {front_end.signature: names, "clips": names}
    if front_end.layer() is not None:
        signatures["serving_default"] = signatures["embed"] = ["waveform", *given]
        signatures["songs"] = ["waveform", "lengths", *given]
        if not given:
            signatures["audio_bytes"] = []
    # What takes strings: see `pipelines.probe`.
    signatures |= {"examples": [], "labels": [], "about": []}
    settings = {
        "sample_rate": front_end.sample_rate,
        "hop": front_end.main.hop,
        "clip_frames": config.clip_frames,
        "clip_samples": front_end.clip_samples(config.clip_frames),
        "clip_seconds": about["clip_seconds"],
        "streams": [dataclasses.asdict(stream) for stream in streams],
        "signatures": signatures,
    }
    with tempfile.TemporaryDirectory(prefix="infra-") as folder:
        requests, answers = pathlib.Path(folder, "in"), pathlib.Path(folder, "out.npz")
        requests.mkdir()
        for number, key in enumerate(keys):
            arrays, record = store.read(key).arrays, store.records[key]
            song = to_example(key, record, arrays, store.config)
            (requests / f"{number:04d}.song").write_bytes(song)
        files.write_json(requests / "settings.json", settings)
        allowed = limits.first_answer_seconds + 2 * limits.seconds_per_hour
        command = [sys.executable, "-I", _PROBE, os.path.abspath(export)]
        try:
            done = subprocess.run(
                [*command, requests, answers],
                env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
                capture_output=True,
                text=True,
                timeout=allowed,
                cwd=folder,
            )
        except subprocess.TimeoutExpired as error:
            raise UserError(f"no answers within {allowed:g} s") from error
        if done.returncode:
            lines = done.stderr.strip().splitlines() or [f"exit {done.returncode}"]
            raise UserError(lines[-1])
        with np.load(answers, allow_pickle=False) as arrays:
            return json.loads(str(arrays["found"])), arrays["probabilities"]
