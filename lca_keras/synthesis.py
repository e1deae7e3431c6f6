"""Writes the built-in corpus: invented singers over invented bands."""

import argparse
import dataclasses
import pathlib
import shlex
import sys

from lca_keras.base import console
from lca_keras.corpora.synthesis import TEST_BANDS, SynthesisConfig, write_corpus


def main(argv=None):
    """Command line of the built-in corpus."""
    parser = argparse.ArgumentParser(
        prog="python -m lca_keras.synthesis", description=__doc__.split("\n")[0]
    )
    parser.add_argument("out", help="folder to write the corpus to")
    for field in dataclasses.fields(SynthesisConfig):
        bands, who = field.name == "test_bands", "who plays in the last two albums; "
        parser.add_argument(
            f"--{field.name.replace('_', '-')}",
            type=field.type,
            default=field.default,
            choices=TEST_BANDS if bands else None,
            help=f"{who if bands else ''}default: {field.default}",
        )
    parser.add_argument("--stems", action="store_true", help="write the stems too")
    parser.add_argument("--jobs", type=int, help="processes; default: all cores")
    console.add_debug_flag(parser)
    args = parser.parse_args(argv)

    def run():
        fields = dataclasses.fields(SynthesisConfig)
        corpus = SynthesisConfig(**{f.name: getattr(args, f.name) for f in fields})
        with console.progress("Synthesising songs") as progress:
            rows = write_corpus(corpus, args.out, args.stems, args.jobs, progress)
        listed = shlex.quote(str(pathlib.Path(args.out, "manifest.csv")))
        print(
            f"{len(rows)} songs of {corpus.artists} artists in {args.out}; for other "
            f"commands: --data {listed}"
        )

    return console.guard(run, args.debug)


if __name__ == "__main__":
    sys.exit(main())
