"""Time of a grid search by one process, and by two, on this machine.

Run `python -m benchmarks.search`. TensorFlow is given one thread, so that a trial alone
leaves other cores idle, as one on an accelerator would. Start-up costs each process
some ten seconds: the time from the first start of a trial to the last end is told too.
"""

import os
import pathlib
import subprocess
import sys
import tempfile
import time

from benchmarks import common
from lca_keras.base import console
from lca_keras.base.config import get_preset

_THREADS = ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "OMP_NUM_THREADS")


def search(folder, data, name, *options, processes=1):
    """Seconds until so many processes, with one TensorFlow thread each, are done."""
    words = [sys.executable, "-m", "tuning.search", "--data", data, "--name", name]
    words += ["--split-file", data / "split.csv", "--algorithm", "grid"]
    words += ["--base-config", folder / "base.yaml", "--space", folder / "space.yaml"]
    words += ["--features", folder / "features", "--searches", folder / "searches"]
    words = [*map(str, words), *options]
    how = {"env": os.environ | dict.fromkeys(_THREADS, "1")}
    how["stdout"] = subprocess.DEVNULL
    begun = time.perf_counter()
    running = [subprocess.Popen(words, **how) for _ in range(processes)]
    if any([process.wait() for process in running]):
        raise SystemExit(f"{' '.join(words)} failed")
    return time.perf_counter() - begun


def main(argv=None):
    """Runs the measurement."""
    parser = common.parser(__doc__)
    parser.add_argument("--trials", type=int, default=8)
    parser.add_argument("--epochs", type=int, default=9, help="one of them warm-up")
    args = parser.parse_args(argv)
    console.quiet_tensorflow()
    from tuning import trials
    from tuning.journal import Journal

    data = pathlib.Path("corpus", "benchmark-search")
    common.make_corpus(data, artists=6, albums=4, songs=4)
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        train = {"epochs": args.epochs, "warmup_epochs": 1}
        get_preset("demo").replace(train=train).save(folder / "base.yaml")
        att = [number / 10 for number in range(1, args.trials + 1)]
        fixed = "main: 1\ncf_ratio: 0.5\nent_cf: 0.5\nent_main_ratio: 0.1\n"
        (folder / "space.yaml").write_text(f"{fixed}att: {{values: {att}}}\n")
        # Features and the files of Python and TensorFlow, read once.
        search(folder, data, "first", "--trials", "1")
        words = f"{args.trials} trials of {args.epochs - 1} epochs"
        print(f"{words}, one TensorFlow thread")
        results = []
        for count, title in enumerate(("one process", "two processes"), start=1):
            name = title.replace(" ", "-")
            took = search(folder, data, name, processes=count)
            made = folder / "searches" / name
            events = Journal(made / "events.jsonl").read()
            rows = trials.results(made, events)
            scores = {tuple(row.values.items()): row.score for row in rows}
            within = events[-1]["time"] - events[0]["time"]
            results.append((took, within, scores))
            print(f"  {title:<13} {took:6.1f} s, trials {within:6.1f} s", flush=True)
        (alone, alone_trials, scores), (two, two_trials, others) = results
        print(
            f"  ratio         {two / alone:6.2f}    trials "
            f"{two_trials / alone_trials:6.2f}    same weights and scores: "
            f"{scores == others}"
        )


if __name__ == "__main__":
    main()
