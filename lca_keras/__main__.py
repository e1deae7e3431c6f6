"""`lca-keras COMMAND …`: the commands under one name."""

import importlib
import sys

COMMANDS = {
    "fit": "lca_keras.fit",
    "predict": "lca_keras.predict",
    "evaluate": "lca_keras.evaluate",
    "extract": "pipelines.extract",
    "search": "tuning.search",
    "report": "tuning.report",
    "doctor": "lca_keras.corpora.doctor",
    "synthesis": "lca_keras.corpora.synthesis",
    "separator": "lca_keras.corpora.separator",
    "bias": "lca_keras.corpora.bias",
}


def main():
    """Runs the command named first."""
    if len(sys.argv) < 2 or sys.argv[1] not in COMMANDS:
        print(f"usage: lca-keras {{{','.join(COMMANDS)}}} …  (each has --help)")
        return 0 if sys.argv[1:] in (["-h"], ["--help"]) else 2
    return importlib.import_module(COMMANDS[sys.argv[1]]).main(sys.argv[2:])


if __name__ == "__main__":
    sys.exit(main())
