"""Times `predict`: start-up, and a song from the file to the singer.

Run `python -m benchmarks.predict`. It exports the paper's network with random weights
(time does not depend on them), writes songs as MP3 and WAV, and starts fresh
processes: one that only imports TensorFlow, and one that does what `predict` does.
"""

import argparse
import json
import pathlib
import subprocess
import sys
import tempfile
import time


def worker(folder, songs):
    """Start-up and identification, timed from the inside; prints JSON."""
    start = time.perf_counter()
    from lca_keras import console

    console.quiet_tensorflow()
    imported = time.perf_counter()
    from lca_keras.inference import Identifier

    identifier = Identifier(folder)
    loaded = time.perf_counter()
    seconds = {}
    for song in songs:
        begin = time.perf_counter()
        identifier.identify(song)
        seconds[song] = time.perf_counter() - begin
    result = {
        "import": imported - start,
        "load": loaded - imported,
        "identify": seconds,
    }
    print(json.dumps(result))


def main(argv=None):
    """Prepares model and songs, runs the workers, prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=4.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--worker", nargs="+", help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.worker:
        worker(args.worker[0], args.worker[1:])
        return

    import numpy as np
    import soundfile

    from lca_keras.config import get_preset
    from lca_keras.export import export_model
    from lca_keras.models import CRNNFGNL

    with tempfile.TemporaryDirectory() as folder:
        names = [f"artist {i}" for i in range(20)]
        export = export_model(
            CRNNFGNL(20), names, get_preset("paper"), folder, "paper", {}
        )
        rng = np.random.default_rng(0)
        sound = rng.normal(0, 0.1, (int(args.minutes * 60 * 44100), 2))
        songs = [
            str(pathlib.Path(folder, name)) for name in ("a.mp3", "b.mp3", "c.wav")
        ]
        for song in songs:
            soundfile.write(song, sound, 44100)
        rows = []
        for _ in range(args.rounds):
            start = time.perf_counter()
            subprocess.run(
                [sys.executable, "-c", "import tensorflow"],
                check=True,
                stderr=subprocess.DEVNULL,
            )
            bare = time.perf_counter() - start
            command = [sys.executable, "-m", "benchmarks.predict", "--worker"]
            done = subprocess.run(
                [*command, str(export), *songs],
                check=True,
                capture_output=True,
                text=True,
            )
            rows.append((bare, json.loads(done.stdout.splitlines()[-1])))
        print(
            f"{args.minutes:g}-minute song, 44.1 kHz stereo, 20 artists, paper network"
        )
        best = {
            "import tensorflow alone": min(bare for bare, _ in rows),
            "start-up beyond that": min(
                row["import"] + row["load"] - bare for bare, row in rows
            ),
            "first song (mp3)": min(r["identify"][songs[0]] for _, r in rows),
            "next song (mp3)": min(r["identify"][songs[1]] for _, r in rows),
            "next song (wav)": min(r["identify"][songs[2]] for _, r in rows),
        }
        for title, seconds in best.items():
            print(f"{title:<26} {seconds:6.2f} s")


if __name__ == "__main__":
    main()
