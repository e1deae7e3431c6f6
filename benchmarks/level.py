"""Songs of any loudness: one level for all, or random gain in training?

`python -m benchmarks.level --data CORPUS --out FOLDER` copies a built-in corpus with a
random level for each song, and trains the plain network of the demo on it in three
ways. Finished trainings are kept in FOLDER; several processes share the work.
"""

import functools
import pathlib
import shutil
import sys

import numpy as np

from benchmarks import common
from lca_keras.base import console, files
from lca_keras.base.config import get_preset
from lca_keras.base.errors import UserError
from lca_keras.data.clips import ClipSource
from lca_keras.drawing import markdown
from lca_keras.studies.statistics import over_seeds
from lca_keras.terminal import arguments

_RANGE_DB = (-20.0, 12.0)
# Name of a way: level of the features, and whether training clips get random gain.
_WAYS = {
    "as loud as their files": ("none", False),
    "random gain in training": ("none", True),
    "one level for all songs": ("song", False),
}


class RandomGain(ClipSource):
    """A `ClipSource` whose training clips are as loud as they may come."""

    def training(self, batch_size, seed, first_epoch, epochs, augment=None):
        """As `ClipSource.training`; the gain depends on seed, epoch and step alone."""
        import tensorflow as tf

        batches = super().training(batch_size, seed, first_epoch, epochs, augment)
        # The published decibels are 20 log10 of power: they count double.
        low, high = (2 * gain for gain in _RANGE_DB)

        def louder(step, batch):
            mel, label = batch
            seeds = tf.stack([tf.constant(seed, tf.int64), step])
            shape = (tf.shape(mel)[0], 1, 1, 1)
            return mel + tf.random.stateless_uniform(shape, seeds, low, high), label

        first = first_epoch * self.steps(batch_size)
        return batches.enumerate(first).map(louder)


def copy_at_random_levels(corpus, folder):
    """Writes a built-in corpus's songs at random levels, in float, and its split."""
    import soundfile

    rng = np.random.default_rng(0)
    rows = files.read_csv(corpus / "manifest.csv", ("path", "artist", "album", "song"))
    with files.atomic_path(folder) as temporary:
        for row in sorted(rows, key=lambda row: row["path"]):
            samples, rate = soundfile.read(corpus / row["path"], dtype="float32")
            gain = np.float32(10 ** (rng.uniform(*_RANGE_DB) / 20))
            names = (row["artist"], row["album"], row["song"])
            path = temporary.joinpath(*names).with_suffix(".wav")
            path.parent.mkdir(parents=True, exist_ok=True)
            soundfile.write(path, gain * samples, rate, subtype="FLOAT")
        shutil.copyfile(corpus / "split.csv", temporary / "split.csv")


def score(config, songs, folder, gain):
    """Trains in a folder; weighted F1 of the best epoch over test clips and songs."""
    from lca_keras.data import corpus
    from lca_keras.evaluation import scoring
    from lca_keras.workflow import training

    division = corpus.divide(config, songs)
    artists = division.artists
    sources = corpus.clip_sources(songs, division.part_of, artists, config)
    if gain:
        plain = sources["train"]
        sources["train"] = RandomGain(plain.store, plain.labels, plain.clip_frames)
    training.train(config, sources, len(artists), folder / "checkpoints")
    model = training.best_model(config, len(artists), folder / "checkpoints")
    scores = scoring.evaluate(model, sources["test"]).scores
    return {level: scores[level]["f1"] for level in ("frame", "song")}


def main(argv=None):
    """Command line of the comparison."""
    parser = common.parser(__doc__)
    parser.add_argument("--data", required=True, help="built-in corpus")
    parser.add_argument("--out", required=True, help="folder for what is computed")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2, 3, 4])
    parser.add_argument("--epochs", type=int, default=12)
    console.add_debug_flag(parser)
    return arguments.command(parser.parse_args, compare, argv)


def compare(args):
    """Does what the arguments say."""
    console.quiet_tensorflow()
    from lca_keras.data import corpus
    from lca_keras.terminal import screen
    from lca_keras.workflow import cells

    out, data = pathlib.Path(args.out), pathlib.Path(args.data)
    if not (data / "manifest.csv").exists():
        raise UserError(f"--data {data}: not a built-in corpus (no manifest.csv)")
    out.mkdir(parents=True, exist_ok=True)
    songs = out / "songs"
    with files.lock(out / ".lock"):
        if not songs.exists():
            copy_at_random_levels(data, songs)
    source = corpus.DataSource(data=str(songs), features=str(out / "features"))
    wanted = {}
    for seed in args.seeds:
        for way, (level, gain) in _WAYS.items():
            config = get_preset("demo").replace(
                features={"level": level},
                split={"file": str(songs / "split.csv")},
                train={"method": "none", "epochs": args.epochs, "seed": seed},
            )
            prepared = screen.prepare_corpus(source, config)
            folder = out / "cells" / way.replace(" ", "-") / f"seed-{seed}"
            work = functools.partial(score, config, prepared, folder, gain)
            wanted[way, seed] = folder, {**config.to_dict(), "gain": gain}, work
    found = dict(cells.cells(wanted))
    table = [[way, len(args.seeds)] for way in _WAYS]
    for row in table:
        for level in ("frame", "song"):
            values = [found[row[0], seed][level] for seed in args.seeds]
            row.append(f"{np.mean(values):.3f} ± {over_seeds(values):.3f}")
    print(markdown.table(["features", "seeds", "test clips", "test songs"], table))


if __name__ == "__main__":
    sys.exit(main())
