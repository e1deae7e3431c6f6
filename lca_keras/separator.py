"""Trains a small Open-Unmix on a corpus with vocal stems, or applies one to a song."""

import importlib.util
import pathlib
import sys

import numpy as np

from lca_keras.audio.decode import AudioError
from lca_keras.audio.separation import Separator, SeparatorError
from lca_keras.base import console, files
from lca_keras.base.errors import UserError
from lca_keras.base.sections import SplitConfig
from lca_keras.corpora.separator import load_stems, separation_quality, train
from lca_keras.data import catalogue, split
from lca_keras.terminal import arguments


def main(argv=None):
    """Command line: `train` a separator, or `apply` one to a song."""
    parser = arguments.parser_of("lca_keras.separator", __doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    told = "train a small Open-Unmix on a corpus with vocal stems"
    train = commands.add_parser("train", help=told)
    add = train.add_argument
    told = (
        "manifest with the column vocals_path, or the folder of a built-in corpus made "
        "with --stems"
    )
    add("--data", required=True, help=told)
    add("--out", required=True, help="folder to write the model to")
    add("--split-file", help="CSV: artist, album, song, part; default: by album")
    add("--sample-rate", type=int, default=16000, help="Hz")
    add("--hidden-size", type=int, default=256, help="network's width")
    add("--epochs", default=20, **arguments.WHOLE)
    add("--seed", type=int, default=0)
    train.set_defaults(job=_run_train)
    console.add_debug_flag(train)
    apply = commands.add_parser("apply", help="write the vocals of a song")
    add = apply.add_argument
    add("song", help="audio file")
    add("out", action=arguments.Output, help="FLAC file to write")
    told = "umxl, umxhq or a folder; default: umxl"
    add("--separator", default="umxl", help=told)
    apply.set_defaults(job=_run_apply)
    console.add_debug_flag(apply)
    return arguments.command(parser.parse_args, lambda args: args.job(args), argv)


def _run_apply(args):
    separator = Separator(args.separator)
    try:
        with files.atomic_path(args.out) as temporary:
            separator.separate(args.song, separator.sample_rate, keep=temporary)
    except AudioError as error:
        raise UserError(f"{args.song}: {error}") from error
    print(f"vocals written to {args.out}")


def _run_train(args):
    if importlib.util.find_spec("openunmix") is None:
        raise SeparatorError(
            "training a separator needs openunmix: pip install 'lca-keras[vocals]'"
        )
    if args.hidden_size < 2 or args.hidden_size % 2:
        raise UserError(f"--hidden-size must be even, not {args.hidden_size}")
    if pathlib.Path(args.out).exists():
        raise UserError(f"{args.out} exists already: choose another --out")
    data = pathlib.Path(args.data)
    manifest = data / "manifest.csv" if data.is_dir() else data
    songs = catalogue.load(manifest)
    without = [song for song in songs if song.vocals_path is None]
    if without:
        raise UserError(
            f"{manifest}: {len(without)} of {len(songs)} songs have no vocals_path, "
            f"the first is {without[0].label}. `python -m lca_keras.synthesis "
            "OUT --stems` writes a corpus that has them."
        )
    if args.split_file:
        part_of = split.read_split(args.split_file, songs)
    else:
        part_of = split.split_songs(songs, SplitConfig(), args.seed)
    parts = {
        part: [song for song in songs if part_of[song.key] == part]
        for part in split.PARTS
    }

    def report(epoch, loss, held_out):
        scores = f"loss {loss:.4f}  validation {held_out:.4f}"
        print(f"epoch {epoch:2d}/{args.epochs}  {scores}", flush=True)

    stems = [load_stems(parts[name], args.sample_rate) for name in split.PARTS[:2]]
    settings = args.sample_rate, args.hidden_size, args.epochs, args.seed
    train(*stems, args.out, *settings, report)
    rows = separation_quality(Separator(args.out), parts["test"])
    before, after = np.median([row[1:] for row in rows], axis=0)
    print(
        f"test: vocals' SDR {before:.1f} dB in the mixture, {after:.1f} dB separated "
        f"(median of {len(rows)} songs)\nseparator written to {args.out}"
    )


if __name__ == "__main__":
    sys.exit(main())
