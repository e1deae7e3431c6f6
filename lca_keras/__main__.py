"""`lca-keras COMMAND …`: the commands under one name."""

import argparse
import importlib
import os
import sys

from lca_keras import console

COMMANDS = {
    "fit": "lca_keras.fit",
    "predict": "lca_keras.predict",
    "client": "lca_keras.client",
    "enroll": "lca_keras.enroll",
    "similar": "lca_keras.similar",
    "evaluate": "lca_keras.evaluate",
    "explain": "lca_keras.explain",
    "experiments": "lca_keras.experiments.__main__",
    "export": "lca_keras.export.__main__",
    "extract": "pipelines.extract",
    "pipeline": "pipelines.run",
    "search": "tuning.search",
    "report": "tuning.report",
    "doctor": "lca_keras.corpora.doctor",
    "synthesis": "lca_keras.corpora.synthesis",
    "separator": "lca_keras.corpora.separator",
    "bias": "lca_keras.corpora.bias",
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
        parser = argparse.ArgumentParser(prog="lca-keras")
        parser.add_argument("command", choices=COMMANDS, help="each has --help")
        console.complete(parser)
        parser.parse_args(arguments)
    return importlib.import_module(COMMANDS[arguments[0]]).main(arguments[1:])


if __name__ == "__main__":
    sys.exit(main())
