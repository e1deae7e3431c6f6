"""The main job: from a corpus to a trained, evaluated and exported model."""

import collections
import contextlib
import dataclasses
import datetime
import hashlib
import os
import pathlib
import platform
import subprocess
import sys
import time

from lca_keras import callbacks, console, evaluate, files, plots
from lca_keras.config import Config
from lca_keras.console import UserError
from lca_keras.data import catalogue, split
from lca_keras.data.extraction import Extractor
from lca_keras.data.pipeline import ClipSource
from lca_keras.data.store import FeatureStore


@dataclasses.dataclass(frozen=True)
class Job:
    """What `fit` was asked to do, apart from what decides the result (`Config`).

    Attributes:
        data: Corpus, a folder or a manifest; or `None`, with `store`.
        name: Name of the run and of the exported model.
        runs: Folder of all runs.
        exports: Folder of all exports.
        features: Folder of all feature stores.
        strict: Whether an unusable song is an error.
        store: Optional feature store that takes the place of `data`.
        separator: Optional folder of the separator that the features need.
    """

    data: str | None
    name: str
    runs: str = "runs"
    exports: str = "saved_models"
    features: str = "features"
    strict: bool = False
    store: str | None = None
    separator: str | None = None

    @property
    def folder(self):
        """The run folder."""
        return pathlib.Path(self.runs, self.name)


@dataclasses.dataclass(frozen=True)
class Corpus:
    """A corpus that is ready to be learned from.

    Attributes:
        store: `FeatureStore`.
        songs: Usable songs.
        skipped: Dict from path to the reason why a file was left out.
    """

    store: FeatureStore
    songs: list[catalogue.Song]
    skipped: dict[str, str]


def prepare_corpus(job, config):
    """Lists the songs of a job and brings their features up to date.

    Args:
        job: `Job`.
        config: `lca_keras.config.Config`.

    Returns:
        `Corpus`.

    Raises:
        UserError: No songs, none usable, or unusable ones under `strict`.
    """
    if job.store:
        store = _open_store(job.store, config)
        songs = [record.as_song for record in store.records.values()]
        skipped = {failure.path: failure.reason for failure in store.failed.values()}
        how = f"features: {job.store}"
    else:
        store, songs, skipped, how = _extract(job, config)
    usable = []
    clip_frames = config.train.clip_frames
    clip = clip_frames * config.features.hop_length / config.features.sample_rate
    for song in sorted(songs):
        if store.records[song.key].frames < clip_frames:
            seconds = store.records[song.key].duration
            reason = f"too short: {seconds:.1f} s, a clip takes {clip:.1f} s"
            skipped[str(song.path)] = reason
        else:
            usable.append(song)
    print(f"{len(usable)} songs ready, {len(skipped)} skipped ({how})")
    for path, reason in skipped.items():
        print(f"  skipped {path}: {reason}")
    if skipped and job.strict:
        raise UserError(f"--strict: {len(skipped)} files cannot be used, see above")
    if not usable:
        total = len(songs) + len(skipped)
        raise UserError(f"{job.data or job.store}: none of {total} songs can be used")
    return Corpus(store, usable, skipped)


def _open_store(folder, config):
    """Opens a store to train from, without the shards that cannot be read."""
    store = FeatureStore(folder, config.features)
    corrupt = sorted({*store.damaged_shards(), *store.corrupt_shards()})
    if not corrupt:
        return store
    rest = store.without_shards(corrupt)
    for path in corrupt:
        print(f"{path} is damaged or missing")
    print(
        f"{len(store.records) - len(rest.records)} songs are left out for that. "
        "`python -m pipelines.extract` computes them again once the damaged files "
        "are deleted."
    )
    return rest


def _extract(job, config):
    """Computes missing features; returns store, songs, skipped files, summary."""
    songs = catalogue.load(job.data)
    where = pathlib.Path(job.data).resolve()
    tag = hashlib.sha256(os.fsencode(where)).hexdigest()[:8]
    name = f"{where.name}-{tag}-{config.features.digest}"
    store = FeatureStore(pathlib.Path(job.features, name), config.features)
    for path in store.damaged_shards():
        print(f"{path} is missing or truncated: computing its songs again")
    with console.progress("Features") as progress:
        extractor = Extractor(config.features, job.separator)
        report = store.update(songs, progress, extractor)
    skipped = {
        str(song.path): report.failed[song.key]
        for song in songs
        if song.key in report.failed
    }
    how = f"features: {report.computed} computed, {report.reused} reused"
    return store, [s for s in songs if s.key not in report.failed], skipped, how


def fit(config, job, resume=False):
    """Trains, evaluates and exports.

    Args:
        config: `lca_keras.config.Config`.
        job: `Job`.
        resume: Whether to continue the run in `job.folder`.

    Returns:
        Dict of what `metrics.json` holds, `export` (the version's folder) included.

    Raises:
        UserError: What the user can mend: data, options, a run that exists.
    """
    import keras

    # All seeds before any layer is made.
    keras.utils.set_random_seed(config.train.seed)
    if config.train.deterministic:
        import tensorflow as tf

        tf.config.experimental.enable_op_determinism()
    folder = job.folder
    if resume and not (folder / "config.yaml").exists():
        raise UserError(f"{folder}: no run to resume (config.yaml is missing)")
    if not resume and folder.exists():
        raise UserError(
            f"{folder} exists already. Choose another --name, continue it with "
            f"--resume {folder}, or delete it."
        )
    for option, path in (("--exports", job.exports), ("--runs", job.runs)):
        _check_writable(option, path)
    if job.data and not resume and not config.split.file:
        # Needs only the names: said before hours of feature extraction.
        songs = catalogue.load(job.data)
        split.split_songs(songs, config.split.kind, config.train.seed)
    # The data comes first: a corpus that cannot be used leaves no run behind.
    corpus = prepare_corpus(job, config)
    part_of, artists = divide(config, corpus, folder)
    if not resume:
        _make_run_folder(config, job)
    with files.lock(folder / ".lock", wait=False), _corrupt_shards_named(corpus.store):
        if not (folder / "split.csv").exists():
            split.write_split(folder / "split.csv", corpus.songs, part_of)
        sources = sources_of(corpus, part_of, artists, config)
        for part, source in sources.items():
            songs, clips = len(source.labels), source.num_clips
            print(f"  {part:<10} {songs:5d} songs {clips:7d} clips")
        train = config.train
        if train.method != "none" and train.warmup_epochs >= train.epochs:
            print(
                f"note: warm-up ({train.warmup_epochs} epochs) outlasts training "
                f"({train.epochs}): the counterfactual terms never act"
            )
        again = ["python", "-m", "lca_keras.fit", "--resume", str(folder)]
        with console.resumable(again):
            state = _train(config, folder, sources, artists)
        model = _calibrated_best(config, folder, state, sources, artists)
        results = _evaluate(folder, model, sources, artists, state)
        return _export(config, job, model, artists, results)


def _check_writable(option, path):
    """Raises if a folder cannot be made or written to, naming the option."""
    try:
        pathlib.Path(path).mkdir(parents=True, exist_ok=True)
        writable = os.access(path, os.W_OK)
    except OSError as error:
        raise UserError(f"{option} {path}: {error.strerror}") from error
    if not writable:
        raise UserError(f"{option} {path}: no permission to write there")


def _make_run_folder(config, job):
    """Makes the folder of a new run with what is needed to resume it, in one step."""
    with files.atomic_path(job.folder) as temporary:
        temporary.mkdir(parents=True)
        files.write_json(temporary / "environment.json", environment(config))
        files.write_json(temporary / "job.json", dataclasses.asdict(job))
        config.save(temporary / "config.yaml")


@contextlib.contextmanager
def _corrupt_shards_named(store):
    """Turns TensorFlow's 'corrupted record' into the shard's name and what to do."""
    import tensorflow as tf

    try:
        yield
    except tf.errors.OpError as error:
        corrupt = store.corrupt_shards()
        if not corrupt:
            raise
        raise UserError(
            f"feature store damaged: {', '.join(map(str, corrupt))}. Delete "
            f"{'these files' if len(corrupt) > 1 else 'this file'} and continue: the "
            "songs in it are computed again."
        ) from error


def load_job(folder):
    """Reads the job and the configuration of a run folder.

    Args:
        folder: Run folder.

    Returns:
        Tuple `(Job, Config)`.

    Raises:
        UserError: It is not a run folder.
    """
    folder = pathlib.Path(folder)
    try:
        job = Job(**files.read_json(folder / "job.json"))
    except (OSError, ValueError, TypeError) as error:
        raise UserError(f"{folder} is not a run folder ({error})") from error
    # The folder may have been moved or renamed since.
    job = dataclasses.replace(job, runs=str(folder.parent), name=folder.name)
    return job, Config.load(folder / "config.yaml")


def environment(config):
    """Versions, seed and commit: what a paper or a colleague needs to repeat a run.

    Args:
        config: `Config`, for the seed.

    Returns:
        Dict.
    """
    from importlib import metadata

    packages = ("lca-keras", "tensorflow", "keras", "numpy", "librosa", "soundfile")
    versions = {}
    for package in packages:
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions[package] = metadata.version(package)
    commit = None
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        commit = subprocess.run(
            ["git", "rev-parse", "HEAD"],
            cwd=pathlib.Path(__file__).parent,
            check=True,
            capture_output=True,
            text=True,
        ).stdout.strip()
    return {
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "command": sys.argv,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": versions,
        "seed": config.train.seed,
        "commit": commit,
    }


def divide(config, corpus, folder):
    """Reads the split of a folder or of the user, or draws it; and checks it.

    Args:
        config: `Config`.
        corpus: `Corpus`.
        folder: Folder whose `split.csv` goes before `config.split`.

    Returns:
        Tuple of a dict from song key to part, and the list of artists.

    Raises:
        UserError: The split is broken, or the corpus is too small for it.
    """
    own = pathlib.Path(folder, "split.csv")
    path = own if own.exists() else config.split.file
    if path:
        part_of = split.read_split(path, corpus.songs)
        unknown = split.unknown_songs(path, corpus.songs)
        if unknown:
            print(
                f"note: {len(unknown)} lines of {path} name no usable song of the "
                f"corpus, the first is {unknown[0]}"
            )
    else:
        part_of = split.split_songs(corpus.songs, config.split.kind, config.train.seed)
    hashes = {key: r.content_hash for key, r in corpus.store.records.items()}
    split.check_split(corpus.songs, part_of, hashes, config.split.kind)
    return part_of, sorted({song.artist for song in corpus.songs})


def sources_of(corpus, part_of, artists, config, parts=split.PARTS):
    """The clips of each part.

    Args:
        corpus: `Corpus`.
        part_of: Dict from song key to part.
        artists: List of class names.
        config: `Config`.
        parts: Parts that are asked for.

    Returns:
        Dict from part to `ClipSource`.
    """
    labels = collections.defaultdict(dict)
    for song in corpus.songs:
        labels[part_of[song.key]][song.key] = artists.index(song.artist)
    return {part: clip_source(corpus.store, labels[part], config) for part in parts}


def clip_source(store, labels, config):
    """The clips of some songs as the configured network takes them.

    Args:
        store: `FeatureStore`.
        labels: Dict from song key to class index.
        config: `Config`.

    Returns:
        `ClipSource`.
    """
    melody = config.model.name == "crnnm"
    return ClipSource(store, labels, config.train.clip_frames, melody)


def _train(config, folder, sources, artists):
    """Runs the epochs that are left; returns the `TrainingState`."""
    import keras

    from lca_keras.models.factory import build_training_model

    train = config.train
    checkpoints = folder / "checkpoints"
    checkpoints.mkdir(exist_ok=True)
    state = callbacks.TrainingState.load(checkpoints)
    if state.epoch >= train.epochs:
        print(f"training was finished ({state.epoch} epochs)")
        return state
    if state.last:
        print(f"resuming after epoch {state.epoch}")
        model = keras.saving.load_model(checkpoints / state.last)
    else:
        model = build_training_model(config, len(artists))
    training = sources["train"].training(
        train.batch_size, train.seed, state.epoch, train.epochs
    )
    steps = sources["train"].steps(train.batch_size)
    validation = sources["validation"].ordered(2 * train.batch_size)
    tensorboard = folder / "tensorboard"
    if not state.epoch:
        write_spectrograms(tensorboard, sources["train"])
    progress = callbacks.EpochProgress(train.epochs, steps, train.warmup_epochs)
    with progress:
        model.fit(
            training,
            steps_per_epoch=steps,
            initial_epoch=state.epoch,
            epochs=train.epochs,
            validation_data=validation.map(lambda inputs, label, key: (inputs, label)),
            callbacks=[
                callbacks.WarmUp(train.warmup_epochs),
                callbacks.EpochSeed(train.seed),
                callbacks.StopOnDivergence(),
                callbacks.LossWeightLog(),
                callbacks.Checkpoint(checkpoints, state),
                callbacks.HistoryFile(folder / "history.csv", state),
                callbacks.tensorboard(tensorboard),
                progress,
            ],
            shuffle=False,  # The pipeline shuffles.
            verbose=0,
        )
    return state


def write_spectrograms(folder, source, count=4):
    """Writes the spectrograms of a few clips to TensorBoard.

    Args:
        folder: TensorBoard log folder.
        source: `ClipSource`.
        count: Int, number of clips.
    """
    import tensorflow as tf

    clips = dataclasses.replace(source, melody=False)
    mel, *_ = next(iter(clips.ordered(count)))
    low, high = tf.reduce_min(mel), tf.reduce_max(mel)
    images = (mel - low) / (high - low + 1e-6)
    with tf.summary.create_file_writer(os.fspath(folder)).as_default():
        # Low frequencies at the bottom.
        tf.summary.image("mel_spectrogram", images[:, ::-1], step=0, max_outputs=count)


def _calibrated_best(config, folder, state, sources, artists):
    """The best epoch's model in float32, its temperature fitted on validation clips."""
    import keras

    from lca_keras import metrics
    from lca_keras.models.factory import build_training_model

    best = keras.saving.load_model(folder / "checkpoints" / state.best)
    # The weights are float32 under every policy; scores are those of the export.
    model = build_training_model(
        config.replace(train={"precision": "float32"}), len(artists)
    )
    model.set_weights(best.get_weights())
    predictions = evaluate.predict_clips(model, sources["validation"])
    model.temperature = metrics.fit_temperature(predictions.logits, predictions.labels)
    if not 0.021 < model.temperature < 49:
        print(
            f"note: the fitted temperature, {model.temperature:.3g}, is at its limit: "
            "on validation the network is at chance or never wrong, and its "
            "probabilities mean little"
        )
    with files.atomic_path(folder / "model.keras") as temporary:
        model.save(temporary)
    return model


def _evaluate(folder, model, sources, artists, state):
    """Scores, tables and pictures of validation and test; returns the scores."""
    results = {
        "best_epoch": state.best_epoch,
        "temperature": model.temperature,
        "parameters": model.backbone.count_params(),
        "artists": artists,
    }
    for part in ("validation", "test"):
        start = time.perf_counter()
        results[part] = report_part(folder, part, model, sources[part], artists)
        seconds = time.perf_counter() - start
    # From features on, and on the last part: the first one traces the graph.
    results["seconds_per_song"] = seconds / results["test"]["song"]["count"]
    files.write_json(folder / "metrics.json", results)
    return results


def report_part(folder, part, model, source, artists):
    """Evaluates one part and writes its tables and pictures.

    Args:
        folder: Folder to write to.
        part: Name of the part.
        model: `LCAModel`, calibrated.
        source: `ClipSource`.
        artists: List of class names.

    Returns:
        Dict of scores.
    """
    import tensorflow as tf

    scores, predictions = evaluate.evaluate_part(model, source)
    temperature = model.temperature
    evaluate.write_predictions(
        folder, part, predictions, temperature, artists, source.store.records
    )
    table = evaluate.artist_table(predictions, temperature, artists)
    (folder / f"artists_{part}.txt").write_text(table, encoding="utf-8")
    figure = evaluate.confusion_figure(
        predictions, temperature, artists, f"{part}, songs"
    )
    picture = folder / f"confusion_{part}.png"
    plots.save_figure(figure, picture)
    with tf.summary.create_file_writer(str(folder / "tensorboard")).as_default():
        image = tf.io.decode_png(picture.read_bytes(), channels=3)
        tf.summary.image(f"confusion_{part}", image[None], step=0)
    print(
        f"{part:<10} F1  clips {scores['frame']['f1']:.3f}  songs "
        f"{scores['song']['f1']:.3f}   ({scores['song']['count']} songs; macro "
        f"{scores['frame']['f1_macro']:.3f} / {scores['song']['f1_macro']:.3f}; "
        f"calibration error {scores['calibration_error_before']:.3f} -> "
        f"{scores['calibration_error_after']:.3f})"
    )
    if "cf_frame" in scores:
        print(
            f"           counterfactual clips {scores['cf_frame']['f1']:.3f}  songs "
            f"{scores['cf_song']['f1']:.3f}   mean |A-A~| "
            f"{scores['attention_distance']:.3f}"
        )
    return scores


def _export(config, job, model, artists, results):
    """Exports the main branch and records where."""
    from lca_keras.export import export_model

    print("exporting the main branch")
    exported = export_model(
        model.main_branch(),
        artists,
        config,
        job.exports,
        job.name,
        {part: results[part] for part in ("validation", "test")},
        {"run": str(job.folder), "environment": environment(config)},
    )
    results["export"] = str(exported.folder)
    files.write_json(job.folder / "metrics.json", results)
    return results


def held_out_song(job):
    """Returns a song of the run's test part whose audio is at hand.

    Args:
        job: `Job`.

    Returns:
        `lca_keras.data.catalogue.Song`, or `None`: a store may have travelled without
        the music.
    """
    tested = files.read_csv(job.folder / "predictions_test_song.csv")
    names = {(row["artist"], row["album"], row["song"]) for row in tested}
    if job.data:
        songs = catalogue.load(job.data)
    else:
        records = FeatureStore.open(job.store).records.values()
        songs = [record.as_song for record in records]
    named = (s for s in songs if (s.artist, s.album, s.song) in names)
    return next((song for song in named if song.path.exists()), None)


def evaluate_run(run, data=None, out=None, separator=None):
    """Evaluates a finished run again.

    Args:
        run: Run folder.
        data: Optional corpus; default is the run's validation and test songs. All
            songs of a given corpus whose artist the model knows are scored.
        out: Optional folder for the results; default is the run folder, or a folder
            in it for another corpus.
        separator: Optional folder of the separator; default is the run's.

    Returns:
        Dict of scores by part.

    Raises:
        UserError: The run is not finished, or the corpus has no known artist.
    """
    import keras

    import lca_keras.models  # noqa: F401  Registers the classes of the saved model.

    job, config = load_job(run)
    model_path = job.folder / "model.keras"
    if not model_path.exists():
        raise UserError(
            f"{job.folder} is not finished. Continue it with "
            f"`python -m lca_keras.fit --resume {job.folder}`."
        )
    model = keras.saving.load_model(model_path)
    artists = files.read_json(job.folder / "metrics.json")["artists"]
    if data:
        job = dataclasses.replace(job, data=data, store=None)
    if separator:
        job = dataclasses.replace(job, separator=separator)
    corpus = prepare_corpus(job, config)
    if data:
        known = [song for song in corpus.songs if song.artist in artists]
        unknown = sorted({s.artist for s in corpus.songs} - set(artists))
        if unknown:
            print(f"left out, unknown to the model: {', '.join(unknown)}")
        if not known:
            raise UserError(f"{data}: no song of an artist that the model knows")
        labels = {song.key: artists.index(song.artist) for song in known}
        name = pathlib.Path(data).resolve().name
        sources = {name: clip_source(corpus.store, labels, config)}
        folder = pathlib.Path(out or job.folder / f"evaluation-{name}")
    else:
        part_of = split.read_split(job.folder / "split.csv", corpus.songs)
        sources = sources_of(corpus, part_of, artists, config, ("validation", "test"))
        folder = pathlib.Path(out or job.folder)
    folder.mkdir(parents=True, exist_ok=True)
    results = {}
    for part, source in sources.items():
        results[part] = report_part(folder, part, model, source, artists)
        print((folder / f"artists_{part}.txt").read_text(encoding="utf-8"))
    path = folder / "metrics.json"
    kept = files.read_json(path) if path.exists() else {}
    files.write_json(path, {**kept, **results})
    print(f"written to {folder}")
    return results
