"""`lca-keras COMMAND …`: all commands under one name."""

import argparse
import importlib
import os
import sys

from lca_keras.base import console

# Name, module, and a line of help: the one list of commands.
COMMANDS = {
    "fit": ("lca_keras.fit", "train, evaluate and export a model"),
    "predict": ("lca_keras.predict", "name the singer of songs"),
    "client": ("lca_keras.client", "the same, with a model that a server serves"),
    "enroll": ("lca_keras.enroll", "add a singer by a few songs, without training"),
    "similar": ("lca_keras.similar", "find songs whose voices are like a song's"),
    "explain": ("lca_keras.explain", "show what in a song speaks for a singer"),
    "evaluate": ("lca_keras.evaluate", "score a finished run again, or on other songs"),
    "doctor": ("lca_keras.doctor", "find what is wrong with a corpus before training"),
    "export": ("lca_keras.export", "list, push, label, sign exports; TFLite files"),
    "extract": ("pipelines.extract", "compute features on many processes or machines"),
    "pipeline": ("pipelines.run", "from songs to a pushed model, if it is good enough"),
    "search": ("tuning.search", "search the loss weights"),
    "report": ("tuning.report", "show what a search found"),
    "experiments": ("lca_keras.experiments", "the papers' tables and figures, anew"),
    "synthesis": ("lca_keras.synthesis", "write a corpus of invented singers"),
    "separator": ("lca_keras.separator", "train or apply a separator of voices"),
    "bias": ("lca_keras.bias", "copy a corpus with noise on some artists' songs"),
}


def main():
    """Runs the command named first."""
    arguments = sys.argv[1:]
    if "_ARGCOMPLETE" in os.environ:  # A shell asks; the line is not in `sys.argv`.
        line = os.environ["COMP_LINE"][: int(os.environ["COMP_POINT"])]
        # The last word is still being written.
        arguments = line.split(" ")[1:-1]
        if arguments and arguments[0] in COMMANDS:
            os.environ["_ARGCOMPLETE"] = "2"  # Words that are not the command's own.
    if not arguments or arguments[0] not in COMMANDS:
        parser = argparse.ArgumentParser(
            prog="lca-keras", description=__doc__, epilog="each has --help"
        )
        commands = parser.add_subparsers(dest="command", metavar="COMMAND")
        commands.required = True
        for name, (_, what) in COMMANDS.items():
            commands.add_parser(name, help=what)
        console.complete(parser)
        parser.parse_args(arguments)
    module, _ = COMMANDS[arguments[0]]
    return importlib.import_module(module).main(arguments[1:])


if __name__ == "__main__":
    sys.exit(main())
