"""What several commands share: options with what they mean, and what they print."""

import collections
import contextlib
import dataclasses
import functools
import os
import re
import shlex
import sys

import numpy as np

from lca_keras import console, files
from lca_keras.config import (
    AUGMENTATIONS,
    LEVELS,
    MELODIES,
    PRESETS,
    SOURCES,
    STRATEGIES,
    Config,
    SplitConfig,
    get_preset,
)
from lca_keras.errors import UserError

# Files that are named one by one for the same reason.
_LISTED = 10
# Difference of F1 between training and validation that is worth a word.
_BY_HEART = 0.3


def add_feature_options(parser):
    """Adds `--source`, `--separator`, `--level` and `--melody`."""
    parser.add_argument(
        "--source",
        choices=SOURCES,
        help="what is heard; stems hears the mixture and keeps vocals and "
        "accompaniment for remixing. Default: mixture",
    )
    parser.add_argument(
        "--separator",
        metavar="umxl|umxhq|FOLDER",
        help="Open-Unmix model for --source vocals or stems, where the manifest has "
        "no vocals_path; default: umxl",
    )
    parser.add_argument(
        "--level",
        choices=LEVELS,
        help="song: all songs are brought to one level; none: as loud as their files, "
        "as published. Default: song",
    )
    parser.add_argument(
        "--melody", choices=MELODIES, help="tracker of the melody; default: none"
    )


def add_corpus_options(parser, option="--data", **settings):
    """Adds what says which songs there are."""
    parser.add_argument(
        option, help="artist/album/song.ext folder, or a CSV manifest", **settings
    )
    parser.add_argument(
        "--tags",
        action="store_true",
        help="artist, album and title are those in the files' tags, in any folders",
    )
    parser.add_argument(
        "--data-root",
        metavar="FOLDER",
        help="that a manifest's paths are relative to; they may be absolute then. "
        "Default: the manifest's folder",
    )


def add_data_options(parser):
    """Adds what says where the data is, which features it has, and its parts."""
    add_corpus_options(parser)
    parser.add_argument(
        "--store", help="feature store of `python -m pipelines.extract`, instead"
    )
    add_feature_options(parser)
    parser.add_argument(
        "--split", choices=["album", "song"], help="what is held out; default: album"
    )
    parser.add_argument("--split-file", help="CSV: artist, album, song, part")
    for part in ("validation", "test"):
        parser.add_argument(
            f"--{part}-share",
            type=float,
            metavar="SHARE",
            help="of each artist's albums (songs), at least one; default: one album, "
            "a tenth of the songs",
        )
    parser.add_argument(
        "--fold", metavar="K/N", help="the K-th of N folds of a cross-validation"
    )
    parser.add_argument(
        "--strict", action="store_true", help="an unusable or doubtful song is an error"
    )
    parser.add_argument(
        "--features", default="features", help="folder of feature stores"
    )


def add_augment_options(parser):
    """Adds what is done to training clips."""
    parser.add_argument(
        "--augment",
        nargs="+",
        choices=["none", *AUGMENTATIONS],
        help="of training clips: remix (voices over other bands; needs --source "
        "stems), specaugment (masks), both, or none",
    )
    parser.add_argument(
        "--remix-share", type=float, help="of clips that are remixed; default: 0.8"
    )
    parser.add_argument(
        "--remix-gain-db",
        type=float,
        metavar="DB",
        help="the voice's level changes by up to so much; default: 6",
    )


def augment_section(args, config):
    """The augmentation options as fields of `lca_keras.config.AugmentConfig`.

    Raises:
        UserError: `none` together with something, or how to remix without remixing;
            `config` is what the options change.
    """
    kinds = args.augment
    if kinds is not None:
        kinds = tuple(kind for kind in kinds if kind != "none")
        if kinds and len(kinds) < len(args.augment):
            raise UserError(f"--augment none excludes {', '.join(kinds)}")
    given = (args.remix_share, args.remix_gain_db) != (None, None)
    remixed = "remix" in (config.augment.kinds if kinds is None else kinds)
    if given and not remixed:
        raise UserError("--remix-share and --remix-gain-db are for --augment remix")
    return {
        "kinds": kinds,
        "remix_share": args.remix_share,
        "remix_gain_db": args.remix_gain_db,
    }


def base_config(path, preset, default, option="--config"):
    """The configuration that single options change: of a YAML file or a preset.

    Raises:
        UserError: Both are given, or the file cannot be used.
    """
    if path and preset:
        raise UserError(f"{option} and --preset exclude each other")
    if path:
        return Config.load(path)
    return get_preset(preset or default)


def resolve_features(args, features):
    """Turns the feature options into a `FeatureConfig`, and the separator's folder.

    Raises:
        UserError: A separator for a mixture, or one that is not there.
    """
    from lca_keras.audio import separation

    fields = {"source": args.source, "melody": args.melody, "level": args.level}
    folder = None
    if (args.source or features.source) == "mixture":
        if args.separator:
            raise UserError("--separator is for --source vocals or stems")
        fields["separator"] = ""
    elif not args.separator:
        fields["separator"] = features.separator or separation.DEFAULT
    else:
        fields["separator"] = separation.separator_id(args.separator)
        if args.separator not in separation.PRETRAINED:
            folder = args.separator
    given = {name: value for name, value in fields.items() if value is not None}
    return dataclasses.replace(features, **given), folder


def resolve_data(args, config, **sections):
    """Turns the data options into a `Config` and a `lca_keras.corpus.DataSource`.

    Args:
        args: Parsed arguments.
        config: `Config` to begin with.
        **sections: Further changes as for `Config.replace`; what belongs together is
            changed together.

    Raises:
        UserError: Options that exclude each other, or contradict a store.
    """
    from lca_keras.corpus import DataSource

    if args.data and args.store:
        raise UserError("--data and --store exclude each other")
    if (args.tags or args.data_root) and not args.data:
        raise UserError("--tags and --data-root say how to read --data")
    if args.store:
        features, separator = _stored_features(args, config), args.separator
    else:
        features, separator = resolve_features(args, config.features)
    config = config.replace(
        features=dataclasses.asdict(features),
        **sections,
    )
    config = dataclasses.replace(config, split=_divided(args, config.split))
    return config, DataSource(
        **corpus_source(args),
        store=args.store,
        features=args.features,
        separator=separator,
        strict=args.strict,
    )


def asks_for_split(args):
    """Whether an option says how the songs are divided."""
    names = ("split", "split_file", "validation_share", "test_share", "fold")
    return any(getattr(args, name) is not None for name in names)


def _divided(args, split):
    """A `SplitConfig` with the split options; one way takes the place of another."""
    kind = args.split or split.kind
    if args.split_file:
        ways = {"file": args.split_file}
    elif args.fold is not None:
        numbers = re.fullmatch(r"(\d+)/(\d+)", args.fold)
        if numbers is None:
            raise UserError(f"--fold {args.fold!r}: not of the form 2/5")
        ways = {"fold": int(numbers[1]), "folds": int(numbers[2])}
    else:
        ways = {}
    shares = ("validation_share", "test_share")
    ways |= {n: getattr(args, n) for n in shares if getattr(args, n) is not None}
    if not ways:
        return dataclasses.replace(split, kind=kind)
    return SplitConfig(kind=kind, **ways)


def corpus_source(args):
    """The corpus options as fields of `lca_keras.corpus.DataSource`."""
    return {"data": args.data, "data_root": args.data_root, "tags": args.tags}


def _stored_features(args, config):
    """The features in `--store`, which decides them.

    What a configuration or an option asks for, apart from the defaults, must be so.
    """
    from lca_keras.data.store import FeatureStore, StoreError

    stored = FeatureStore.open(args.store).config
    usual = dataclasses.asdict(type(stored)())
    wanted = {
        name: value
        for name, value in dataclasses.asdict(config.features).items()
        if value != usual[name]
    }
    if args.preset:
        wanted.pop("separator", None)  # A preset asks for stems, not for whose.
    options = {"source": args.source, "melody": args.melody, "level": args.level}
    wanted.update({k: v for k, v in options.items() if v is not None})
    for name, value in wanted.items():
        if getattr(stored, name) != value:
            raise StoreError(
                f"{args.store} holds features with {name} {getattr(stored, name)!r}, "
                f"but {value!r} was asked for. Extract those with `python -m "
                "pipelines.extract` into another folder."
            )
    return stored


def check_name(name):
    """Returns `name` if it can name a folder here and in exports.

    Raises:
        UserError: It is empty, hidden, or contains path separators.
    """
    if not re.fullmatch(r"[\w][\w .@+-]*", name):
        raise UserError(
            f"--name {name!r}: use letters, digits, space and . _ - @ +, beginning "
            "with a letter or digit"
        )
    return name


def add_preset_option(parser, note=""):
    """Adds `--preset`."""
    parser.add_argument(
        "--preset",
        choices=PRESETS,
        help="paper: the published training; voice: the same with --source stems "
        "--augment remix; demo: a narrow network, minutes. "
        f"Default: paper{note}",
    )


def prepare_corpus(source, config):
    """`lca_keras.corpus.prepare` with a progress bar; says what came of it.

    Raises:
        UserError: As that function.
    """
    from lca_keras import corpus

    with contextlib.ExitStack() as stack:
        show = None
        if source.data:
            show = stack.enter_context(console.progress("Features"))
        found = corpus.prepare(source, config, show)
    how, *notes = found.notes
    for note in notes:
        print(note)
    print(f"{len(found.songs)} songs ready, {len(found.skipped)} skipped ({how})")
    print_reasons("skipped", found.skipped)
    print_reasons("note", found.doubtful)
    return found


def print_reasons(what, reasons, file=None):
    """Prints a line for each path of a dict; of many with the same reason, a few."""
    show = functools.partial(print, file=file)
    count = collections.Counter(reasons.values())
    seen = collections.Counter()
    for path, reason in reasons.items():
        seen[reason] += 1
        if count[reason] <= _LISTED or seen[reason] < _LISTED:
            show(f"  {what} {path}: {reason}")
        elif seen[reason] == count[reason]:
            show(f"  {what} {count[reason] - _LISTED + 1} more: {reason}")


def print_parts(division, sources):
    """Prints the songs and clips of each part."""
    if division.unknown:
        print(
            f"note: {len(division.unknown)} lines of {division.file} name no usable "
            f"song of the corpus, the first is {division.unknown[0]}"
        )
    print_new(division.new)
    for part, source in sources.items():
        print(f"  {part:<10} {len(source.labels):5d} songs {source.num_clips:7d} clips")
        there = set(source.labels.values())
        lacking = [a for n, a in enumerate(division.artists) if n not in there]
        if lacking:  # A fold may have none.
            print(f"  note: no {part} songs of {', '.join(lacking)}")


def print_new(songs):
    """Says which songs came to a corpus after a run had begun."""
    if songs:
        print(
            f"note: {len(songs)} songs are new since the run began, and left out; the "
            f"first is {songs[0]}"
        )


def print_learned_from(seen, songs):
    """Says how many of some songs a model knows; `corpus.learned_from` found them."""
    parts = collections.Counter(seen[s.key] for s in songs if s.key in seen)
    if parts:
        counts = " and ".join(f"{n} by {part}" for part, n in sorted(parts.items()))
        print(
            f"note: the model knows {sum(parts.values())} of these {len(songs)} songs "
            f"({counts} of its run): scores on them say little. Without --data its "
            "test songs are evaluated, with --moved-to where they are now"
        )


def print_advice(state, train, evaluation, artists):
    """Says what a training's scores mean where they are not as they should be.

    Args:
        state: `lca_keras.training.TrainingState`.
        train: `lca_keras.config.TrainConfig`.
        evaluation: `lca_keras.evaluation.Evaluation` of the test songs.
        artists: List of class names.
    """
    logs = state.best_logs
    if logs["f1"] - logs["val_f1"] > _BY_HEART:
        print(
            f"note: F1 is {logs['f1']:.2f} on training clips and {logs['val_f1']:.2f} "
            "on validation clips: much of it is learned by heart. More albums of each "
            "artist help, and voices over other bands (--preset voice)"
        )
    counterfactual = logs.get("val_cf_f1", -1.0)
    if state.best_epoch > train.warmup_epochs and counterfactual >= logs["val_f1"]:
        print(
            f"note: the counterfactual names validation clips as well as the main "
            f"branch (F1 {counterfactual:.2f} and {logs['val_f1']:.2f}): the loss "
            "weights don't do their work here. Train longer, or search them "
            "(`python -m tuning.search`)"
        )
    truth, votes = evaluation.main.song_labels, evaluation.main.votes
    never = [artists[i] for i in np.unique(truth) if not (votes[truth == i] == i).any()]
    if never:
        print(f"note: no test song of {', '.join(never)} is named rightly")


def add_strategy_option(parser):
    """Adds `--strategy`."""
    parser.add_argument(
        "--strategy",
        choices=STRATEGIES,
        help="mirrored: all GPUs of this machine; multiworker: as many processes as "
        "TF_CONFIG lists, each started with the same command",
    )


def train(job, sources, artists, strategy=None):
    """Trains with a bar over the steps and a line for every epoch.

    Args:
        job: `lca_keras.run.Run`.
        sources: Dict from part to `lca_keras.data.clips.ClipSource`.
        artists: List of class names.
        strategy: Optional `tf.distribute.Strategy`.
    """
    from lca_keras.callbacks import EpochProgress
    from lca_keras.training import TrainingState

    settings = job.config.train
    if settings.method != "none" and settings.warmup_epochs >= settings.epochs:
        print(
            f"note: warm-up ({settings.warmup_epochs} epochs) outlasts training "
            f"({settings.epochs}): the counterfactual terms never act"
        )
    done = TrainingState.load(job.checkpoints).epoch
    if done >= settings.epochs:
        print(f"training was finished ({done} epochs)")
        return
    if done:
        print(f"resuming after epoch {done}")
    steps = sources["train"].steps(settings.batch_size)
    with EpochProgress(settings.epochs, steps, settings.warmup_epochs) as progress:
        job.train(sources, len(artists), [progress], strategy)


def train_along(job, songs, strategy, again):
    """Trains as another process than the first, which does all the rest.

    Args:
        job: `lca_keras.run.Run` that the first process has begun.
        songs: `lca_keras.corpus.Corpus`.
        strategy: `tf.distribute.Strategy`.
        again: Words of the command that `restarting` starts.
    """
    from lca_keras import corpus, training

    division = corpus.divide(job.config, songs, job.folder)
    sources = corpus.clip_sources(
        songs, division.part_of, division.artists, job.config, ("train", "validation")
    )
    classes = len(division.artists)
    with restarting(again):
        folder, build = job.checkpoints, job.build()
        state = training.train(
            job.config, sources, classes, folder, (), build, strategy
        )
    print(f"trained along to epoch {state.epoch}; the first process does the rest")


@contextlib.contextmanager
def restarting(again):
    """Where another process of the training ends, this one begins anew and waits.

    TensorFlow cannot take a process into a cluster that has lost one.

    Args:
        again: Words of the command that goes on with the training, `python` first.
    """
    from lca_keras.distribution import WorkerGoneError

    try:
        yield
    except WorkerGoneError as error:
        print(
            f"\n{error}. Start it again: {shlex.join(again)}. This process waits for "
            "it, and all go on from the last epoch",
            file=sys.stderr,
            flush=True,
        )
        os.execv(sys.executable, [sys.executable, *again[1:]])


def print_scores(evaluations):
    """Prints `lca_keras.evaluation.Evaluation`s by part."""
    for part, evaluation in evaluations.items():
        scores = evaluation.scores
        print(
            f"{part:<10} F1  clips {scores['frame']['f1']:.3f}  songs "
            f"{scores['song']['f1']:.3f}   ({scores['song']['count']} songs; macro F1 "
            f"clips {scores['frame']['f1_macro']:.3f}, songs "
            f"{scores['song']['f1_macro']:.3f}; "
            f"calibration error {scores['calibration_error_before']:.3f} -> "
            f"{scores['calibration_error_after']:.3f})"
        )
        if "cf_frame" in scores:
            print(
                f"           counterfactual clips {scores['cf_frame']['f1']:.3f}  "
                f"songs {scores['cf_song']['f1']:.3f}   mean |A-A~| "
                f"{scores['attention_distance']:.3f}"
            )


def prepare_strangers(source, config, artists):
    """`lca_keras.corpus.strangers` with a progress bar; `None` if none are given."""
    from lca_keras import corpus

    if source.unknown is None:
        return None
    with console.progress("Features of strangers") as show:
        found, clips = corpus.strangers(source, config, artists, show)
    singers = len({song.artist for song in found.songs})
    print(f"{len(found.songs)} songs of {singers} strangers")
    print_reasons("skipped", found.skipped)
    print_reasons("note", found.doubtful)
    return clips


def set_up_gallery(job, model, sources, artists, strange=None):
    """Sets up the gallery of a run, with a bar over a side training; prints its worth.

    Args:
        job: `lca_keras.run.Run`.
        model: `lca_keras.models.LCAModel`, calibrated.
        sources: Dict from part to `lca_keras.data.clips.ClipSource`.
        artists: List of class names.
        strange: What `prepare_strangers` returned.
    """
    import keras

    try:
        with console.working("Comparing voiceprints"):
            gallery, known = job.set_up_gallery(model, sources, artists)
    except UserError as error:  # The model is there all the same.
        print(f"nobody is unknown to it, every song gets a name: {error}")
        return
    epochs, why = job.config.side_epochs, ""
    with console.progress("Side training without some artists") as show:
        log = keras.callbacks.LambdaCallback(
            on_train_begin=lambda logs: show(0, epochs),
            on_epoch_end=lambda epoch, logs: show(epoch + 1, epochs),
        )
        try:
            job.measure_strangers(
                model, gallery, known, sources, artists, strange, [log]
            )
        except UserError as error:
            why = f"the side training has failed. {error}"
    print_open_set(files.read_json(job.folder / "metrics.json")["open_set"], why)


def print_open_set(told, why=""):
    """Prints what a run's gallery is worth, of `open_set` in `metrics.json`.

    `why` says what kept it from being measured on strangers.
    """
    if "test" in told:
        print(
            f"unknown    {told['test']['unknown']:.1%} of the test songs, "
            f"{told['false_alarm']:.0%} were aimed at; no voice in "
            f"{told['test']['no_voice']:.1%}"
        )
    strange = told.get("strangers")
    if why or strange is None:
        why = why or "no artists were left out, and no songs given (fit --unknown PATH)"
        print(f"           not measured on strangers: {why}")
    else:
        who = "strangers"
        if not strange.get("given"):
            epochs, names = strange["epochs"], ", ".join(strange["artists"])
            who = f"{names}, whom {epochs} epochs of a side training left out"
        print(
            f"           {strange['unknown']:.1%} of {strange['songs']} songs by "
            f"{who}; AUROC {strange['auroc_songs']:.3f}"
        )
    detector = told["detector"]
    print(
        f"voice      told from {detector['heard']}: right on {detector['voice']:.1%} "
        f"of validation clips that have one, {detector['no_voice']:.1%} of others"
    )


def check_voice_report(config):
    """Raises unless the model of a `Config` can have a voice report.

    Raises:
        UserError: It hears vocals alone, or takes the melody of a mixture.
    """
    features = config.features
    if features.source == "stems":
        return
    if features.source == "vocals" or config.model.name == "crnnm":
        raise UserError(
            "a voice report is for models that hear the mixture; this one hears vocals "
            "alone, or the melody of a mixture. One that `fit --source stems` trains "
            "has a report"
        )


def voice_report(folder, model, clips, artists, source, config, songs):
    """Lets a run's model hear songs in parts and remixed; prints what came of it.

    Args:
        folder: Folder for the results.
        model: `lca_keras.models.LCAModel`.
        clips: `lca_keras.data.clips.ClipSource` of the songs.
        artists: List of class names.
        source: `lca_keras.corpus.DataSource`, which says where a separator is.
        config: `lca_keras.config.Config` of the run.
        songs: List of the songs.

    Raises:
        UserError: The model hears vocals alone, or stems cannot be had.
    """
    from lca_keras import corpus, run

    check_voice_report(config)
    if config.features.source != "stems":
        with console.progress("Stems") as show:
            store, reasons = corpus.stems_of(source, config, songs, show)
        labels = {k: v for k, v in clips.labels.items() if k in store.records}
        clips = dataclasses.replace(clips, store=store, labels=labels)
        for path, reason in reasons.items():
            print(f"  not in the voice report: {path}: {reason}")
    with console.working("Listening for voices and bands"):
        report = run.listen(folder, model, clips, artists)
    print_voice_report(report, len(clips.labels))


def print_voice_report(report, count):
    """Prints a `lca_keras.voice_report.VoiceReport` of so many songs."""
    from lca_keras.voice_report import HEARINGS, verdict

    title = f"What it listens to ({count} songs), F1"
    print(f"\n{title:<53} clips  songs")
    for name, heard in HEARINGS.items():
        scores = report.scores[name]
        print(f"  {heard:<51} {scores['frame']:.3f}  {scores['song']:.3f}")
    print(verdict(report.shares))
