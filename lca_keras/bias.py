"""Copies a corpus with band-limited noise on the recordings of some artists."""

import pathlib
import shlex
import sys

from lca_keras.base import console
from lca_keras.base.sections import FeatureConfig
from lca_keras.corpora.bias import write_biased
from lca_keras.data import catalogue
from lca_keras.terminal import arguments, screen


def main(argv=None):
    """Command line of the biased copy."""
    parser = arguments.parser_of("lca_keras.bias", __doc__)
    arguments.add_corpus_options(parser, required=True)
    add, two = parser.add_argument, {"nargs": 2, "metavar": ("LOW", "HIGH")}
    add("--out", required=True, help="new folder for the copy")
    add("--band", type=float, required=True, help="Hz", **two)
    told = "recording over noise, decibels"
    add("--snr-db", type=float, required=True, help=told)
    add("--artists", nargs="+", required=True, metavar="NAME")
    add("--seed", type=int, default=0)
    add("--jobs", **arguments.JOBS)

    def run(args):
        reasons = {}
        songs = catalogue.load(args.data, args.data_root, args.tags, reasons)
        path = pathlib.Path(args.data).absolute()
        beside = path if path.is_dir() else path.parent
        screen.print_reasons("left out", reasons)
        with console.progress("Writing songs") as progress:
            where = pathlib.Path(args.data_root or beside).absolute(), args.out
            noise = args.artists, args.band, args.snr_db, args.seed
            found = write_biased(songs, *where, *noise, args.jobs, progress)
            left_out, clipped = found
        screen.print_reasons("left out", left_out)
        if clipped:
            print(
                f"note: noise took {len(clipped)} songs beyond full scale, up to "
                f"{max(clipped.values()):.3%} of the samples of one; these are clipped"
            )
        if args.band[1] > (heard := FeatureConfig().fmax):
            above = f"that is above {heard:g} Hz"
            print(f"note: no model hears the part of the band {above}")
        manifest = shlex.quote(str(pathlib.Path(args.out, "manifest.csv")))
        print(f"corpus with noise for {len(args.artists)} artists: --data {manifest}")
        if left_out:
            print(f"{len(left_out)} songs could not be written", file=sys.stderr)
        return 1 if left_out else 0

    return arguments.finish(parser, run, argv)


if __name__ == "__main__":
    sys.exit(main())
