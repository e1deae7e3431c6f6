"""Speed and memory of feature extraction, and of reading the features again.

Run `python -m benchmarks.extract`. It synthesises songs of the built-in corpus (kept in
`corpus/benchmark-…`, 200 songs of four minutes take several minutes). Workers have a
fixed cost of some seconds (processes, Beam, TensorFlow's import), so songs have to be
long or many for the slope to show.
"""

import itertools
import pathlib
import shutil
import tempfile
import time

from benchmarks import common
from lca_keras.base import console, files

_SIZES = (50, 100, 200, 400, 800)

# The bare function, song after song.
_LOOP = """
import sys
from lca_keras.base.config import FeatureConfig
from lca_keras.data import catalogue
from lca_keras.data.extraction import Extractor
extractor = Extractor(FeatureConfig(melody=sys.argv[2]))
for song in catalogue.load(sys.argv[1]):
    extractor.extract(song)
"""


def make_corpus(songs, seconds, stems=False):
    """Synthesises a corpus of so many songs unless it is there; returns its folder."""
    folder = pathlib.Path("corpus", f"benchmark-{songs}x{seconds:g}")
    sizes = {"artists": 2, "albums": 5, "songs": songs // 10, "seconds": seconds}
    return common.make_corpus(folder, stems, **sizes)


def extract(data, out, *options):
    """Runs `pipelines.extract` in a new process; returns seconds and peak MiB."""
    what = ("--data", data, "--out", out, *options)
    return common.run_command("pipelines.extract", *what)


def workers(songs, seconds, melody, out):
    """Compares a loop, one worker and two."""
    what = (make_corpus(songs, seconds), out, "--melody", melody)
    print(f"{songs} songs of {seconds:g} s, melody {melody}; whole commands")
    loop, _ = common.run("-c", _LOOP, what[0], melody)
    print(f"  bare function in a loop  {loop:6.1f} s", flush=True)
    one, _ = extract(*what)
    print(f"  one worker               {one:6.1f} s   {one / loop:.2f} of the loop")
    shutil.rmtree(out)
    two, _ = extract(*what, "--workers", "2")
    print(f"  two workers              {two:6.1f} s   {two / one:.2f} of one worker")
    took, _ = extract(*what)
    print(f"  once more, all reused    {took:6.1f} s", flush=True)


def scaling(seconds, out):
    """Songs per second and peak memory of one worker, by the number of songs."""
    data = make_corpus(max(_SIZES), seconds)
    rows = files.read_csv(data / "manifest.csv")
    print(f"one worker, songs of {seconds:g} s\n  songs  seconds  songs/s  peak MiB")
    for size in _SIZES:
        manifest = data / f"first-{size}.csv"
        files.write_csv(manifest, list(rows[0]), rows[:size])
        shutil.rmtree(out, ignore_errors=True)
        took, peak = extract(manifest, out)
        print(f"  {size:5d}  {took:7.1f}  {size / took:7.1f}  {peak:8.0f}")


def reading(out):
    """Seconds that a pass over a sixth of the songs takes."""
    from lca_keras.data.clips import ClipSource
    from lca_keras.data.store import FeatureStore

    store = FeatureStore.open(out)
    labels = {key: index % 20 for index, key in enumerate(store.records)}
    # The validation part: every sixth song, once an epoch.
    keys = sorted(labels)[::6]
    part = ClipSource(store, {key: labels[key] for key in keys}, 94)
    for title in ("first pass", "pass"):
        start = time.perf_counter()
        count = sum(len(label) for _, label in part.ordered(32))
        took = time.perf_counter() - start
        print(f"a sixth of {len(labels)} songs, {title}: {took:.2f} s, {count} clips")


def augmenting(seconds, out):
    """Clips per second of the input pipeline, by augmentation, against training's."""
    from lca_keras.base.config import get_preset
    from lca_keras.base.sections import AugmentConfig
    from lca_keras.data.clips import ClipSource
    from lca_keras.data.store import FeatureStore
    from lca_keras.models.factory import build_training_model

    data = make_corpus(200, seconds, stems=True)
    extract(data / "manifest.csv", out, "--source", "stems")
    store = FeatureStore.open(out)
    labels = {key: index % 20 for index, key in enumerate(store.records)}
    print("input pipeline against training, clips a second")
    for preset in ("demo", "paper"):
        config = get_preset(preset)
        source = ClipSource(store, labels, config.clip_frames)
        batch = config.train.batch_size
        model = build_training_model(config, 20)
        batches = list(itertools.islice(source.training(batch, 0, 0, 1), 12))
        model.train_on_batch(*batches[0])
        model.train_on_batch(*batches[1])
        start = time.perf_counter()
        for mel, label in batches[2:]:
            model.train_on_batch(mel, label)
        consumed = 10 * batch / (time.perf_counter() - start)
        for kinds in ((), ("remix",), ("specaugment",), ("remix", "specaugment")):
            batches = source.training(batch, 0, 0, 4, AugmentConfig(kinds=kinds))
            start, count = None, 0
            for mel, _ in batches:
                # The first epoch traces the graph and fills the page cache.
                if start is None and count >= source.num_clips:
                    start, before = time.perf_counter(), count
                count += len(mel)
            delivered = (count - before) / (time.perf_counter() - start)
            print(
                f"  {preset:<6} {'+'.join(kinds) or 'no augmentation':<18} pipeline "
                f"{delivered:7.0f}  training {consumed:5.0f}  ratio "
                f"{delivered / consumed:.0f}"
            )


def main(argv=None):
    """Runs all measurements."""
    parser = common.parser(__doc__)
    parser.add_argument("--songs", type=int, default=200, help="a multiple of ten")
    parser.add_argument("--seconds", type=float, default=240.0, help="of a song")
    parser.add_argument("--melody", default="none", help="none, pyin or crepe")
    parser.add_argument("--short-seconds", type=float, default=16.0)
    parser.add_argument("--workers-only", action="store_true", help="no other parts")
    args = parser.parse_args(argv)
    console.quiet_tensorflow()
    with tempfile.TemporaryDirectory() as folder:
        out = pathlib.Path(folder, "store")
        workers(args.songs, args.seconds, args.melody, out)
        if args.workers_only:
            return
        scaling(args.short_seconds, out)
        reading(out)
        augmenting(args.short_seconds, pathlib.Path(folder, "stems"))


if __name__ == "__main__":
    main()
