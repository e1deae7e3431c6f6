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
    defaults = SynthesisConfig()
    parser = argparse.ArgumentParser(
        prog="python -m lca_keras.synthesis", description=__doc__.split("\n")[0]
    )
    parser.add_argument("out", help="folder to write the corpus to")
    parser.add_argument("--artists", type=int, default=defaults.artists)
    parser.add_argument("--albums", type=int, default=defaults.albums)
    parser.add_argument("--songs", type=int, default=defaults.songs)
    parser.add_argument("--seconds", type=float, default=defaults.seconds)
    parser.add_argument("--confounding", type=float, default=defaults.confounding)
    parser.add_argument("--voice-db", type=float, default=defaults.voice_db)
    parser.add_argument("--sample-rate", type=int, default=defaults.sample_rate)
    parser.add_argument("--seed", type=int, default=defaults.seed)
    parser.add_argument(
        "--test-bands",
        choices=TEST_BANDS,
        default=defaults.test_bands,
        help="who plays in the last two albums; default: any",
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
