"""What `tuning.search` and `tuning.report` print."""

import pathlib
import shlex
import sys

import keras

from tuning import oracle, study, trials
from tuning import space as spaces
from tuning.journal import Journal


def show(text):
    """Writes over the last line of a terminal; says nothing elsewhere."""
    if sys.stderr.isatty():
        print(f"\r{text:<78}\r", end="", file=sys.stderr, flush=True)


class Table:
    """Prints a line for every trial that ends, in whatever process."""

    def __init__(self, search):
        self.search = search
        space = spaces.from_json(search.space)
        self.size = oracle.size(search.algorithm, space, search.trials)
        self.names = [name for name, entry in space.items() if not entry.fixed]
        if search.algorithm == "hyperband":
            self.names.append(spaces.BUDGET)
        # Events and scores, by trial; seconds.
        self.begun, self.ended, self.durations = {}, {}, []

    def begin(self, worker):
        """Prints the head, after the events of the past."""
        if self.ended:
            print(f"continuing; trials that have ended: {len(self.ended)}")
        train = self.search.base.train
        warmup = "searched" if "warmup_epochs" in self.names else train.warmup_epochs
        print(
            f"trials: {self.size or 'as many as hyperband takes'}, trainings each: "
            f"{self.search.seeds}, epochs: {train.epochs}, of these warm-up: {warmup}; "
            f"this process is {worker}"
        )
        titles = ["lca_epochs" if n == spaces.BUDGET else n for n in self.names]
        print(f"{'trial':>5}  " + "".join(f"{n:>15}" for n in titles), end="")
        print(f"{train.objective:>11}{'best':>8}{'left':>9}", flush=True)

    def add(self, event, past):
        """Takes an event in; prints the trial's line if it ends one now."""
        trial = event["trial"]
        if event["event"] == "start":
            self.begun[trial] = event
            self.ended.pop(trial, None)  # Begun anew after it failed.
        if event["event"] == "abandon" and not past:
            show("")
            print(f"{event['worker']} is gone; trial {trial} waits for another process")
        if event["event"] != "end":
            return
        score = self.ended[trial] = event["score"]
        if score is not None:
            self.durations.append(event["time"] - self.begun[trial]["time"])
        if past:
            return
        show("")  # The line below takes the place of the stopwatch's.
        mine = self.begun[trial]["values"]
        values = "".join(f"{spaces.shown(mine[name]):>15}" for name in self.names)
        scores = [value for value in self.ended.values() if value is not None]
        best = f"{max(scores):.4f}" if scores else "-"
        shown = "failed" if score is None else f"{score:.4f}"
        print(f"{trial:>5}  {values}{shown:>11}{best:>8}{self._left():>9}", flush=True)
        if score is None:
            print(f"       {event['message']}", flush=True)

    def _left(self):
        """Time that the remaining trials will take, at the pace of the last ones."""
        if not self.size or not self.durations:
            return ""
        mean = sum(self.durations[-5:]) / len(self.durations[-5:])
        running = max(1, len(self.begun) - len(self.ended))
        minutes = mean * max(0, self.size - len(self.ended)) / running / 60
        return f"{minutes:.0f} min" if minutes >= 1 else f"{60 * minutes:.0f} s"


def stopwatch(trial, seed):
    """Keras callbacks that keep one line on the screen up to date."""

    def begin(epoch, logs=None):
        epochs = watch.params["epochs"]
        show(f"trial {trial}, seed {seed}, epoch {epoch + 1}/{epochs}")

    watch = keras.callbacks.LambdaCallback(on_epoch_begin=begin)
    return [watch]


def print_best(folder):
    """Prints the best trial and writes its `best.yaml`; returns all `Result`s."""
    search = study.Search.load(folder)
    rows = trials.results(folder, Journal(folder / "events.jsonl").read())
    best, config = trials.best_of(folder, rows, search)
    config.save(folder / "best.yaml")
    weights = "  ".join(f"{k} {v:.4g}" for k, v in vars(config.loss).items())
    score = f"{config.train.objective} {best.score:.4f}"
    print(f"\nbest       trial {best.trial}, {score}")
    print(f"weights    {weights}")
    source = study.load_source(folder)
    given = ["--store", source.store] if source.store else ["--data", source.data]
    given += ["--config", str(folder / "best.yaml"), "--name", f"{folder.name}-best"]
    given += ["--tags"] * source.tags
    given += ["--data-root", source.data_root] if source.data_root else []
    given += ["--separator", source.separator] if source.separator else []
    print(f"train      python -m lca_keras.fit {shlex.join(given)}")
    elsewhere = folder.parent != pathlib.Path("searches")
    given = [folder.name, *["--searches", str(folder.parent)] * elsewhere]
    print(f"report     python -m tuning.report {shlex.join(given)}")
    return rows
