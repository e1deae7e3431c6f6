"""Runs a search: here alone, as the chief of workers, or as a worker."""

import contextlib
import dataclasses
import hashlib
import json
import os
import pathlib
import re
import shlex
import shutil
import sys
import threading
import time

import keras
import keras_tuner as kt

from lca_keras import callbacks, console, files, training
from lca_keras.config import Config
from lca_keras.console import UserError
from lca_keras.data import split
from tuning import oracle as oracles
from tuning import space as spaces
from tuning import trials

_HEARTBEAT_SECONDS = 2.0
# A worker that shows no sign of life for so long is given up.
PATIENCE_SECONDS = 30.0
_RPC_SECONDS = 20
_ASK_SECONDS = 5.0
# A trial that was begun so often without an end is taken for failed.
_ATTEMPTS = 8
_BEGUN = "attempts.json"
_FAILED = "failed.json"
# Written by a chief at the end, for workers that come after it.
_FINISHED = "finished.json"


def base_config(search):
    """The configuration that all trials of a search share."""
    return Config.from_dict(search.config)


def prepare(folder, search, job):
    """What trains the trials of a search; the test songs are left alone.

    Args:
        folder: Folder of the search.
        search: `tuning.search.Search`.
        job: `lca_keras.training.Job`, where the data is.

    Returns:
        `tuning.trials.Trainer`.

    Raises:
        UserError: No validation songs, or data that cannot be used.
    """
    sources, artists = open_parts(folder, search, job, ("train", "validation"))
    return trials.Trainer(folder, sources, len(artists), search.objective)


def open_parts(folder, search, job, parts):
    """Features of some parts of a search's songs.

    Args:
        folder: Folder of the search.
        search: `tuning.search.Search`.
        job: `lca_keras.training.Job`, where the data is.
        parts: Names of the parts.

    Returns:
        Tuple of a dict from part to `ClipSource`, and the list of artists.

    Raises:
        UserError: A part without songs, or data that cannot be used.
    """
    config = base_config(search)
    corpus = training.prepare_corpus(job, config)
    hashes = [[s.key, corpus.store.records[s.key].content_hash] for s in corpus.songs]
    identity = {"songs": hashlib.sha256(json.dumps(hashes).encode()).hexdigest()}
    with files.lock(folder / ".split.lock"):
        known = folder / "corpus.json"
        if known.exists() and files.read_json(known) != identity:
            raise UserError(
                f"the songs are not those that the search in {folder} was begun with: "
                "choose another --name, or give it the same songs"
            )
        part_of, artists = training.divide(config, corpus, folder)
        if not (folder / "split.csv").exists():
            split.write_split(folder / "split.csv", corpus.songs, part_of)
        files.write_json(known, identity)
    sources = training.sources_of(corpus, part_of, artists, config, parts)
    for part, source in sources.items():
        print(f"  {part:<10} {len(source.labels):5d} songs {source.num_clips:7d} clips")
        if not source.num_clips:
            raise UserError(f"no {part} songs: a search cannot go without")
    return sources, artists


class _Stopwatch(keras.callbacks.Callback):
    """Keeps one line on the screen up to date: trial, seed, epoch."""

    def __init__(self, title, epochs):
        super().__init__()
        self.title, self.epochs = title, epochs

    def on_epoch_begin(self, epoch, logs=None):
        """Rewrites the line."""
        show(f"{self.title}, epoch {epoch + 1}/{self.epochs}")


def show(text):
    """Writes over the last line of a terminal; says nothing elsewhere."""
    if sys.stderr.isatty():
        print(f"\r{text:<78}", end="", file=sys.stderr, flush=True)


class _DeadlyTrial(Exception):
    """A trial in which process after process has died."""


class Tuner(kt.engine.base_tuner.BaseTuner):
    """KerasTuner's loop around our trials.

    Args:
        oracle: What `tuning.oracle.make_oracle` gave.
        folder: Folder of the search.
        search: `tuning.search.Search`.
        trainer: `tuning.trials.Trainer`, or `None` for a chief.
        scratch: Name of KerasTuner's own folder, deleted at every start.
    """

    def __init__(self, oracle, folder, search, trainer, scratch):
        shutil.rmtree(folder / scratch, ignore_errors=True)
        super().__init__(oracle, directory=str(folder), project_name=scratch)
        self.folder = folder
        self.run = search
        self.trainer = trainer
        self.idle = False

    def pre_create_trial(self):
        """Waits a moment if there was nothing to do."""
        if self.idle:
            time.sleep(0.5)
        self.idle = True

    def on_trial_begin(self, trial):
        """There is something to do."""
        self.idle = False

    def save(self):
        """Writes nothing: the events are the state."""

    def run_trial(self, trial, *args, **kwargs):
        """Trains all seeds of a trial; returns the mean objective.

        Raises:
            keras_tuner.errors.FailedTrialError: The weights make training diverge, or
                memory ran out; the search goes on.
            keras_tuner.errors.FatalError: Anything else; it would happen again.
        """
        import tensorflow as tf

        values, why = trial.hyperparameters.values, None
        try:
            scores = run_seeds(
                self.folder, self.run, self.trainer, trial.trial_id, values
            )
        except (callbacks.DivergenceError, _DeadlyTrial) as error:
            why = str(error)
        except (MemoryError, tf.errors.ResourceExhaustedError) as error:
            why = f"out of memory: {(str(error).splitlines() or [''])[0]}"
        except Exception as error:
            if console.is_interrupt(error):
                raise KeyboardInterrupt from error
            raise kt.errors.FatalError(str(error)) from error
        if why:
            # KerasTuner's messages to a chief have no room for it.
            note = self.folder / "trials" / trial.trial_id / _FAILED
            files.write_json(note, {"reason": why})
            raise kt.errors.FailedTrialError(why)
        return {"score": trials.mean_score(scores, self.run.objective)}


def run_seeds(folder, search, trainer, trial_id, values):
    """Trains what is missing of a trial; finished seeds are read.

    Args:
        folder: Folder of the search.
        search: `tuning.search.Search`.
        trainer: `tuning.trials.Trainer`.
        trial_id: Identifier of the trial.
        values: Dict of its hyperparameters.

    Returns:
        List of `tuning.trials.Scores`, one a seed.
    """
    config = trials.trial_config(values, base_config(search))
    here = folder / "trials" / trial_id
    here.mkdir(parents=True, exist_ok=True)
    known = {
        "loss": dataclasses.asdict(config.loss),
        "train": dataclasses.asdict(config.train),
    }
    _count_attempt(here)
    result = []
    for number in range(search.seeds):
        seed = config.train.seed + number
        path = here / f"seed-{seed}.json"
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            done = files.read_json(path)
            if done["settings"] == known:
                result.append(trials.Scores(**done["scores"]))
                continue
        start = time.monotonic()
        scores, _ = trainer.train(
            config,
            seed,
            _Stopwatch(f"trial {trial_id}, seed {seed}", config.train.epochs),
            **_checkpoints(folder, here, seed, config, values),
        )
        report = {
            "settings": known,
            "scores": dataclasses.asdict(scores),
            "seconds": round(time.monotonic() - start, 2),
        }
        files.write_json(path, report)
        files.write_json(here / _BEGUN, 1)  # It gets on: only this start counts.
        _write_hparams(here / f"seed-{seed}", config, scores)
        result.append(scores)
    return result


def _count_attempt(here):
    """Raises if a trial was begun too often without an end."""
    path = here / _BEGUN
    count = files.read_json(path) if path.exists() else 0
    if count >= _ATTEMPTS:
        raise _DeadlyTrial(
            f"begun {count} times, and each time its process ended before it did (for "
            "lack of memory?)"
        )
    files.write_json(path, count + 1)


def _checkpoints(folder, here, seed, config, values):
    """Hyperband goes on from promoted trials: where from, and where to."""
    if spaces.BUDGET not in values:
        return {}
    paths = {"keep": here / f"seed-{seed}" / f"epoch-{config.train.epochs:04d}.keras"}
    paths["keep"].parent.mkdir(exist_ok=True)
    before = values.get("tuner/trial_id")
    if before:
        found = (folder / "trials" / before / f"seed-{seed}").glob("epoch-*.keras")
        paths["resume"] = max(found)
    return paths


def _write_hparams(folder, config, scores):
    """Adds a training to TensorBoard's HParams."""
    import tensorflow as tf
    from tensorboard.plugins.hparams import api

    weights = dataclasses.asdict(config.loss)
    train = config.train
    searched = {
        **weights,
        "learning_rate": train.learning_rate,
        "cf_dropout": train.cf_dropout,
        "warmup_epochs": train.warmup_epochs,
        "seed": train.seed,
    }
    with tf.summary.create_file_writer(os.fspath(folder)).as_default():
        api.hparams(searched)
        for name, value in dataclasses.asdict(scores).items():
            if value is not None:
                tf.summary.scalar(name, value, step=scores.epoch)


class Table:
    """Prints a line for every trial that ends.

    Args:
        search: `tuning.search.Search`.
        events: List of the events so far.
        size: Number of trials of the search, or `None` if nobody knows.
    """

    def __init__(self, search, events, size):
        self.search = search
        self.size = size
        self.values, self.begun, self.durations = {}, {}, []
        self.best, self.count = None, 0
        self.names = [n for n, p in search.space.items() if len(p["values"]) != 1]
        if search.algorithm == "hyperband":
            self.names.append(spaces.BUDGET)
        for event in events:
            self.add(event["event"], event, event["time"], printed=False)
        if events:
            print(f"continuing; trials that have ended: {self.count}")
        train = base_config(search).train
        warmup = "searched" if "warmup_epochs" in self.names else train.warmup_epochs
        print(
            f"trials: {size or 'as many as hyperband takes'}, trainings each: "
            f"{search.seeds}, epochs: {train.epochs}, of these warm-up: {warmup}"
        )
        titles = ["lca_epochs" if n == spaces.BUDGET else n for n in self.names]
        print(f"{'trial':>5}  " + "".join(f"{n:>15}" for n in titles), end="")
        print(f"{search.objective:>11}{'best':>8}{'left':>9}")

    def add(self, event, facts, now=None, printed=True):
        """Takes an event in; prints the trial's line if it ends one."""
        now = time.time() if now is None else now
        trial = facts.get("trial")
        if event == "start":
            self.values[trial], self.begun[trial] = facts["values"], now
        if event != "end":
            return
        self.count += 1
        score = facts["score"]
        if score is not None:
            self.best = score if self.best is None else max(self.best, score)
            self.durations.append(now - self.begun[trial])
        if not printed:
            return
        show("")  # The line below takes the place of the stopwatch's.
        values = "".join(f"{self.values[trial][name]:15.4g}" for name in self.names)
        best = "-" if self.best is None else f"{self.best:.4f}"
        shown = "failed" if score is None else f"{score:.4f}"
        again = "\r" if sys.stderr.isatty() else ""
        print(
            f"{again}{trial:>5}  {values}{shown:>11}{best:>8}{self._left():>9}",
            flush=True,
        )
        if score is None:
            print(f"       {facts['message']}", flush=True)

    def _left(self):
        """Time that the remaining trials will take, one after the other."""
        if not self.size or not self.durations:
            return ""
        mean = sum(self.durations[-5:]) / len(self.durations[-5:])
        minutes = mean * max(0, self.size - self.count) / 60
        return f"{minutes:.0f} min" if minutes >= 1 else f"{60 * minutes:.0f} s"


def _make_oracle(search, space):
    config = base_config(search)
    lca_epochs = config.train.epochs - spaces.longest_warmup(space, config)
    return oracles.make_oracle(
        search.algorithm, space, search.trials, lca_epochs, config.train.seed
    )


def _begin(folder, search, space, trainer, scratch):
    """The oracle and its tuner where the search stands."""
    log = oracles.EventLog(folder / "events.jsonl")
    log.trim()
    events = log.read()
    files.write_json(folder / "search.json", dataclasses.asdict(search))
    oracle = _make_oracle(search, space)
    tuner = Tuner(oracle, folder, search, trainer, scratch)
    oracles.replay(oracle, events)
    oracle.log = log

    def explain(trial_id):
        with contextlib.suppress(OSError, ValueError):
            return files.read_json(folder / "trials" / trial_id / _FAILED)["reason"]

    oracle.explain = explain
    size = oracles.size(search.algorithm, space, search.trials)
    oracle.on_event = Table(search, events, size).add
    return oracle, tuner


def search(folder, search, space, job):
    """Runs or continues a search in this process.

    Args:
        folder: Folder of the search.
        search: `tuning.search.Search`.
        space: Dict from name to `tuning.space.Parameter`.
        job: `lca_keras.training.Job`.

    Raises:
        UserError: Several trials failed in a row, or data that cannot be used.
    """
    with files.lock(folder / ".lock", wait=False):
        trainer = prepare(folder, search, job)
        files.write_json(folder / "job.json", dataclasses.asdict(job))
        oracle, tuner = _begin(folder, search, space, trainer, "keras-tuner")
        for worker in set(oracle.ongoing_trials) - {tuner.tuner_id}:
            oracle.abandon(worker)  # Of a chief that was here before.
        oracle.tuner_ids &= {tuner.tuner_id}
        _run(tuner)
        _raise_if_stopped(oracle)


def _run(tuner):
    """KerasTuner's loop, with the user's own errors let through."""
    try:
        tuner.search()
    except kt.errors.FatalError as error:
        if isinstance(error.__cause__, UserError):
            raise error.__cause__ from error
        raise


def _raise_if_stopped(oracle):
    if oracle.fatal:
        raise UserError(
            f"the search has stopped; {oracles.MAX_FAILURES} trials failed in a row, "
            f"or worse: {oracle.fatal} Mend this and run the same command again: "
            "failed trials are tried once more."
        )


def serve(folder, search, space, job, address):
    """Hands trials to workers until the search ends.

    Args:
        folder: Folder of the search, which all workers see.
        search: `tuning.search.Search`.
        space: Dict from name to `tuning.space.Parameter`.
        job: `lca_keras.training.Job`; its features are computed before workers begin.
        address: `HOST:PORT` to listen at.

    Raises:
        UserError: The port is taken, or several trials failed in a row.
    """
    from concurrent import futures

    import grpc
    from keras_tuner.src import protos
    from keras_tuner.src.distribute import oracle_chief

    with files.lock(folder / ".lock", wait=False):
        (folder / _FINISHED).unlink(missing_ok=True)
        prepare(folder, search, job)
        files.write_json(folder / "job.json", dataclasses.asdict(job))
        with _distributed(address, "chief"):
            oracle, _ = _begin(folder, search, space, None, "keras-tuner")
            server = grpc.server(
                futures.ThreadPoolExecutor(max_workers=1),
                # Otherwise a second chief could share the port, and its workers.
                options=[("grpc.so_reuseport", 0)],
            )
            servicer = oracle_chief.OracleServicer(oracle)
            protos.get_service_grpc().add_OracleServicer_to_server(servicer, server)
            try:
                bound = server.add_insecure_port(address)
            except RuntimeError:
                bound = 0
            if not bound:
                raise UserError(f"--chief {address}: cannot listen there")
            server.start()
            shutil.rmtree(folder / "workers", ignore_errors=True)
            print(f"chief at {address}, waiting for workers", flush=True)
            try:
                _watch(folder, oracle, lambda: _is_over(folder, search, space))
                end = {"fatal": oracle.fatal, "time": time.time()}
                files.write_json(folder / _FINISHED, end)
            finally:
                server.stop(grace=2).wait()
        _raise_if_stopped(oracle)


def _is_over(folder, search, space):
    """Whether there is no trial left to propose, asked of a copy of the oracle."""
    copy = _make_oracle(search, space)
    oracles.replay(copy, oracles.EventLog(folder / "events.jsonl").read())
    return copy.create_trial("nobody").status == "STOPPED"


def _watch(folder, oracle, is_over):
    """Returns when the search has ended; gives up workers that have died."""
    pulse, asked = {}, -_ASK_SECONDS
    while True:
        time.sleep(0.5)
        now = time.monotonic()
        for path in (folder / "workers").glob("*.beat"):
            # By the chief's own clock; other machines' may differ.
            with contextlib.suppress(OSError):
                beat = path.read_bytes()
                if pulse.get(path.stem, (None,))[0] != beat:
                    pulse[path.stem] = (beat, now)
        for worker in {*oracle.tuner_ids, *oracle.ongoing_trials}:
            _, last = pulse.setdefault(worker, (None, now))
            if now - last > PATIENCE_SECONDS:
                trial = oracle.abandon(worker)
                if trial is not None:
                    print(
                        f"worker {worker} is gone; trial {trial.trial_id} waits for "
                        "another one",
                        flush=True,
                    )
        idle = not oracle.ongoing_trials and not oracle.tuner_ids
        if idle and now - asked > _ASK_SECONDS:
            if oracle.fatal or is_over():
                return
            asked = now


class _Patient:
    """A worker's connection to the chief that outlives a chief's restart.

    Args:
        client: KerasTuner's `OracleClient`.
        folder: Folder of the search.
        address: Where the chief is, for messages.
    """

    def __init__(self, client, folder, address):
        self._client = client
        self._finished = folder / _FINISHED
        self._address = address
        # Of a search that ended before: a chief may be about to lengthen it.
        self._old = _content(self._finished)

    def __getattr__(self, name):
        import grpc

        method = getattr(self._client, name)
        if not callable(method):
            return method
        lost = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)

        def call(*args, **kwargs):
            said, since = False, time.monotonic()
            while True:
                try:
                    return method(*args, **kwargs)
                except grpc.RpcError as error:
                    if error.code() not in lost:
                        raise
                finished = _content(self._finished)
                waited = time.monotonic() - since > PATIENCE_SECONDS
                if finished and (finished != self._old or waited):
                    trial = kt.engine.trial.Trial(kt.HyperParameters())
                    trial.status = "STOPPED"
                    return trial
                if not said:
                    print(f"no answer from the chief at {self._address}, waiting")
                    said = True
                time.sleep(1)

        return call


def _content(path):
    """Bytes of a file, or `None`."""
    with contextlib.suppress(OSError):
        return path.read_bytes()


def work(folder, search, space, job, address, name):
    """Runs trials that a chief hands out, until the search ends.

    Args:
        folder: Folder of the search, the chief's.
        search: `tuning.search.Search`.
        space: Dict from name to `tuning.space.Parameter`.
        job: `lca_keras.training.Job`.
        address: `HOST:PORT` of the chief.
        name: Name of this worker, another one for each.

    Raises:
        UserError: Another worker has this name, or data that cannot be used.
    """
    from keras_tuner.src.distribute import oracle_client

    if not re.fullmatch(r"[\w-]+", name) or "chief" in name:
        raise UserError(
            f"--worker {name!r}: use letters, digits, - and _, and not 'chief'"
        )
    workers = folder / "workers"
    workers.mkdir(exist_ok=True)
    with files.lock(folder / f".worker-{name}.lock", wait=False):
        trainer = prepare(folder, search, job)
        print(f"worker {name}: asking the chief at {address} for trials", flush=True)
        oracle = _make_oracle(search, space)
        with _distributed(address, name), _heartbeat(workers / f"{name}.beat"):
            # An hour, by default, in which nobody notices that the search has ended.
            oracle_client.TIMEOUT = _RPC_SECONDS
            tuner = Tuner(oracle, folder, search, trainer, f"keras-tuner-{name}")
            tuner.oracle = _Patient(tuner.oracle, folder, address)
            _run(tuner)
    print(f"worker {name}: the search has ended")


@contextlib.contextmanager
def _distributed(address, name):
    """Tells KerasTuner who this process is."""
    host, _, port = address.rpartition(":")
    settings = {
        "KERASTUNER_TUNER_ID": name,
        "KERASTUNER_ORACLE_IP": host,
        "KERASTUNER_ORACLE_PORT": port,
    }
    os.environ.update(settings)
    try:
        yield
    finally:
        for key in settings:
            os.environ.pop(key, None)


@contextlib.contextmanager
def _heartbeat(path):
    """Shows the chief that this process lives."""
    stop = threading.Event()

    def beat():
        count = 0
        while True:
            with contextlib.suppress(OSError):
                path.parent.mkdir(exist_ok=True)
                path.write_text(f"{os.getpid()} {count}")
            count += 1
            if stop.wait(_HEARTBEAT_SECONDS):
                return

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
        with contextlib.suppress(OSError):
            path.unlink()


def results(folder, search):
    """What is known of a search's trials.

    Args:
        folder: Folder of the search.
        search: `tuning.search.Search`.

    Returns:
        List of dicts with `trial`, `values`, `score` (`None` if it failed), `reason`,
        and `seeds`, a list of `tuning.trials.Scores`.
    """
    begun, rows = {}, []
    for event in oracles.EventLog(folder / "events.jsonl").read():
        if event["event"] == "start":
            begun[event["trial"]] = event["values"]
        elif event["event"] == "end":
            trial = event["trial"]
            paths = sorted((folder / "trials" / trial).glob("seed-*.json"))
            seeds = [trials.Scores(**files.read_json(p)["scores"]) for p in paths]
            rows.append(
                {
                    "trial": trial,
                    "values": begun[trial],
                    "score": event["score"],
                    "reason": event["message"] or "",
                    "seeds": seeds,
                }
            )
    return rows


def print_best(folder, search):
    """Prints the best trial, and writes its configuration to `best.yaml`."""
    done = [row for row in results(folder, search) if row["score"] is not None]
    if not done:
        raise UserError(f"{folder}: no trial succeeded")
    best = max(done, key=lambda row: row["score"])
    config = trials.trial_config(
        {k: v for k, v in best["values"].items() if not k.startswith("tuner/")},
        base_config(search),
    )
    config.save(folder / "best.yaml")
    weights = "  ".join(f"{k} {v:.4g}" for k, v in vars(config.loss).items())
    print(f"\nbest       trial {best['trial']}, {search.objective} {best['score']:.4f}")
    print(f"weights    {weights}")
    job = files.read_json(folder / "job.json")
    given = ["--store", job["store"]] if job["store"] else ["--data", job["data"]]
    given += ["--config", str(folder / "best.yaml"), "--name", f"{folder.name}-best"]
    if job.get("separator"):
        given += ["--separator", job["separator"]]
    print(f"train      python -m lca_keras.fit {shlex.join(given)}")
    given = [folder.name]
    if folder.parent != pathlib.Path("searches"):
        given += ["--searches", str(folder.parent)]
    print(f"report     python -m tuning.report {shlex.join(given)}")
