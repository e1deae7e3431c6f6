"""Times `predict`: one song in a fresh process, and many songs.

Run `python -m benchmarks.predict`. It exports networks with random weights (time does
not depend on them) and starts the command as a user does.
"""

import functools
import os
import pathlib
import shutil
import tempfile
import time

from benchmarks import common


def main(argv=None):
    """Prepares models and songs, runs the command, prints the tables."""
    parser = common.parser(__doc__)
    parser.add_argument("--minutes", type=float, default=4.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--songs", type=int, default=100)
    args = parser.parse_args(argv)

    import numpy as np
    import soundfile

    from lca_keras.base import hardware

    predict = functools.partial(common.run_command, "lca_keras.predict")
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        exports = {k: common.export_network(k, folder)[0] for k in ("demo", "paper")}
        (folder / "songs").mkdir()
        rng = np.random.default_rng(0)
        sound = rng.normal(0, 0.1, (int(args.minutes * 60 * 44100), 2))
        song = folder / "songs" / "0000.mp3"
        soundfile.write(song, sound, 44100)
        for number in range(1, args.songs):
            shutil.copy(song, folder / "songs" / f"{number:04d}.mp3")
        print(f"{args.minutes:g}-minute songs, MP3, 44.1 kHz stereo, 20 artists\n")
        print("one song, from the start of the process to its end")
        for preset, export in exports.items():
            for runtime in ("litert", "tensorflow"):
                words = ("--model", export, "--runtime", runtime, song)
                rows = [predict(*words) for _ in range(args.rounds)]
                took, peak = min(rows)[0], max(mib for _, mib in rows)
                print(f"  {preset:<6} {runtime:<11} {took:6.2f} s  {peak:6.0f} MiB")
        print(f"\n{args.songs} songs, a process for each core")
        faster = [("precision", "bfloat16")] * hardware.multiplies_bfloat16()
        ways = [("runtime", "litert"), *faster]
        for preset, export in exports.items():
            for option, way in ways:
                words = ["--model", export, f"--{option}", way, folder / "songs"]
                words += ["--workers", os.cpu_count(), "--out", folder / "o.csv"]
                speed = args.songs / predict(*words)[0]
                (folder / "o.csv").unlink()
                print(f"  {preset:<6} {way:<11} {speed:6.2f} songs/s, start included")
                # Apart: TensorFlow's threads are counted before its first call.
                print(common.apart(_shares, export, song, {option: way}))


def _shares(export, song, options):
    """What one core does with a song, for people: decode, features, network."""
    os.environ["TF_NUM_INTRAOP_THREADS"] = "1"
    from lca_keras.audio.decode import decode
    from lca_keras.features import silence
    from lca_keras.inference.identification import Identifier

    identifier = Identifier(export, threads=1, **options)
    config = identifier.config
    front_end = config.front_end
    for _ in range(3):
        start = time.perf_counter()
        sound = decode(song, front_end.sample_rate)
        decoded = time.perf_counter()
        sound = silence.Passages(sound, silence.passages(sound, front_end.range_db))
        arrays = front_end.frames(sound)
        heard = time.perf_counter()
        starts = front_end.starts(front_end.frames_of(arrays), config.clip_frames)
        clips = front_end.cut(arrays, starts, config.clip_frames)
        identifier.runtime.answers(clips)
        done = time.perf_counter()
        # The first decoder has to start, the first spectrogram to load.
        times = {"decode": decoded - start, "features": heard - decoded}
        times["network"] = done - heard
    total = done - start
    shares = ", ".join(f"{k} {v / total:.0%} ({v:.2f} s)" for k, v in times.items())
    return f"         one core, a song: {shares}"


if __name__ == "__main__":
    main()
