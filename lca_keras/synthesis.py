"""Writes the built-in corpus: invented singers over invented bands."""

import dataclasses
import pathlib
import shlex
import sys

from lca_keras.base import console
from lca_keras.corpora.synthesis import TEST_BANDS, SynthesisConfig, write_corpus
from lca_keras.terminal import arguments


def main(argv=None):
    """Command line of the built-in corpus."""
    parser = arguments.parser_of("lca_keras.synthesis", __doc__)
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
    parser.add_argument("--jobs", **arguments.JOBS)

    def run(args):
        names = [field.name for field in dataclasses.fields(SynthesisConfig)]
        corpus = SynthesisConfig(**{name: getattr(args, name) for name in names})
        with console.progress("Synthesising songs") as progress:
            rows = write_corpus(corpus, args.out, args.stems, args.jobs, progress)
        listed = shlex.quote(str(pathlib.Path(args.out, "manifest.csv")))
        print(
            f"{len(rows)} songs of {corpus.artists} artists in {args.out}; for other "
            f"commands: --data {listed}"
        )

    return arguments.finish(parser, run, argv)


if __name__ == "__main__":
    sys.exit(main())
