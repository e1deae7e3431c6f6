"""Trains a singer identifier on a folder of songs, evaluates and exports it.

`python -m lca_keras.fit --data PATH` takes an `artist/album/song.ext` tree or a CSV
manifest. Without `--data` it makes and uses the built-in corpus.
"""

import argparse
import dataclasses
import datetime
import os
import pathlib
import shlex
import sys
import time

from lca_keras.base import console, files
from lca_keras.base.config import Config
from lca_keras.base.errors import UserError
from lca_keras.base.registry import NETWORKS
from lca_keras.base.sections import LOSS_WEIGHTS, SplitConfig
from lca_keras.terminal import arguments, resolving, screen

# Fields of the configuration that options change.
_TRAINING = (
    *("model.name", "train.method", "train.effect", "train.detach_counterfactual"),
    *("train.embedding_loss", "train.embedding_weight"),
    *("train.clip_seconds", "train.clip_overlap", "train.class_weights"),
    *("train.epochs", "train.warmup_epochs", *arguments.AUGMENT),
    *("train.batch_size", "train.learning_rate", "train.objective", "train.seed"),
    *("train.precision", "train.deterministic"),
)
_STRANGERS = ("open_set.left_out", "open_set.false_alarm")
# Times, a second apart, that the first of several processes may not be reached.
_PATIENCE = 5


def parse_args(argv=None):
    """Parses the command line; options that were not given are `None`."""
    parser = argparse.ArgumentParser(
        prog="python -m lca_keras.fit", description=__doc__.splitlines()[0]
    )
    data = parser.add_argument_group("data")
    arguments.add_data_options(data)
    what = parser.add_argument_group("model and training")
    arguments.add_preset_option(
        what,
        " for your own songs; for the built-in ones demo, with --source stems "
        "--augment remix",
    )
    what.add_argument("--config", help="YAML, such as runs/NAME/config.yaml")
    what.add_argument(
        "--continue-from",
        metavar="MODEL",
        help="saved_models/NAME: begin with its network and its configuration; artists "
        "may come and go",
    )
    arguments.add_fields(what, *_TRAINING)
    what.add_argument("--loss-weights", choices=LOSS_WEIGHTS, help="a named set")
    arguments.add_strategy_option(what)
    nobody = parser.add_argument_group("songs by none of the singers")
    nobody.add_argument(
        "--unknown",
        metavar="PATH",
        help="songs by artists who are not to be learned, a folder or a manifest: what "
        "the model makes of them is measured, instead of a side training",
    )
    arguments.add_fields(nobody, *_STRANGERS)
    where = parser.add_argument_group("where")
    where.add_argument("--name", help="name of the run and of the exported model")
    where.add_argument(
        "--resume",
        metavar="RUN",
        help="continue a run that stopped; with more --epochs: train on",
    )
    where.add_argument("--runs", default="runs", help="folder of runs")
    where.add_argument("--exports", default="saved_models", help="folder of exports")
    where.add_argument(
        "--keep",
        type=int,
        help="exports to keep, older ones go once another has been newer for a minute; "
        "default: all",
    )
    console.add_debug_flag(parser)
    return parser.parse_args(argv)


def config_from(args):
    """Builds the configuration: preset or file first, then single options.

    Returns:
        Tuple of `lca_keras.base.config.Config` and `lca_keras.data.corpus.DataSource`.

    Raises:
        UserError: A combination that cannot be used.
    """
    own = args.data or args.store
    config = resolving.base_config(args.config, args.preset, "paper" if own else "demo")
    exported = None
    if args.continue_from:
        config, exported = continued(args)
    if not own and not args.config:
        # The built-in corpus has its stems: what is recommended, there it is done.
        args.source = args.source or "stems"
        if args.source == "stems" and args.augment is None:
            args.augment = ["remix"]
    network = NETWORKS.get(args.model)
    sung = network is not None and "melody" in network.streams
    if sung and config.features.melody == "none" and not args.store:
        args.melody = args.melody or "pyin"
    method = args.method
    if network and not network.attention and method is None:
        method = "none"  # The one method that these networks can be trained with.
    if args.embedding_weight is not None and not (
        args.embedding_loss or config.train.embedding_loss != "none"
    ):
        raise UserError("--embedding-weight is for --embedding-loss supcon or aam")
    if args.unknown and args.left_out:
        raise UserError("with --unknown no artists are left out: drop --left-out")
    if (method or config.train.method) == "none":
        for option in ("effect", "detach_counterfactual"):
            if getattr(args, option) is not None:
                given = "--" + option.replace("_", "-")
                raise UserError(f"{given} is for --method cal or lca")
    sections = arguments.sections(args, *_TRAINING, *_STRANGERS)
    sections["train"] |= {"method": method, "continue_from": exported}
    if args.loss_weights:
        sections["loss"] = vars(LOSS_WEIGHTS[args.loss_weights])
    before = config
    config, source = resolving.resolve_data(args, config, **sections)
    if exported and (config.model, config.served_features) != (
        before.model,
        before.served_features,
    ):
        raise UserError(
            f"--continue-from {args.continue_from}: its network has another shape, or "
            "hears other features, than these options ask for"
        )
    return config, dataclasses.replace(source, unknown=args.unknown)


def continued(args):
    """The configuration of an exported model to begin with, and its folder.

    Raises:
        UserError: There is none, or a preset or a file says something else.
    """
    from lca_keras.exports import integrity, versions

    if args.config or args.preset:
        raise UserError(
            "--continue-from brings its own configuration: leave out --preset and "
            "--config"
        )
    place = pathlib.Path(args.exports, args.continue_from)
    if not place.exists():
        place = pathlib.Path(args.continue_from)
    folder = versions.find_version(place)
    integrity.check(folder)
    told = files.read_json(folder / versions.METADATA)
    config = Config.from_dict(told["config"])
    # Which songs were in which part is its corpus's matter.
    config = dataclasses.replace(config, split=SplitConfig())
    return config, os.path.abspath(folder)


def main(argv=None):
    """Command line of training."""
    args = parse_args(argv)
    return console.guard(lambda: fit(args), args.debug)


def fit(args):
    """Runs the job that the parsed arguments describe."""
    if args.keep is not None and args.keep < 1:
        raise UserError(f"--keep must be at least 1, not {args.keep}")
    console.quiet_tensorflow()
    from lca_keras.data import corpus, split
    from lca_keras.models import distribution
    from lca_keras.workflow import run
    from lca_keras.workflow.training import TrainingState

    strategy = distribution.start(args.strategy)
    if args.strategy == "multiworker" and not (args.name or args.resume):
        raise UserError("--strategy multiworker needs a --name that all processes know")
    if not distribution.is_chief(strategy):
        return assist(args, strategy)
    job = resumed(args) if args.resume else new_run(args)
    config = job.config
    for option, path in (("--exports", job.exports), ("--runs", job.folder.parent)):
        check_writable(option, path)
    if job.source.data and not args.resume and not config.split.file:
        # Needs only the names: said before hours of feature extraction.
        songs = job.source.songs()
        split.split_songs(songs, config.split, config.train.seed)
    tell_of_stems(job.source)
    # The data comes first: a corpus that cannot be used leaves no run behind.
    songs = screen.prepare_corpus(job.source, config)
    division = corpus.divide(config, songs, job.folder)
    strange = screen.prepare_strangers(job.source, config, division.artists)
    if config.train.continue_from and not args.resume:
        tell_of_known(config, songs, division)
    if not args.resume:
        job.save()
    recommend(config, songs.songs)
    with job.working(songs.store):
        if args.resume:
            job.save_changes()
        corpus.keep_split(job.folder, songs, division)
        artists = division.artists
        sources = corpus.clip_sources(songs, division.part_of, artists, config)
        screen.print_parts(division, sources)
        again = ["python", "-m", "lca_keras.fit", "--resume", str(job.folder)]
        with console.resumable(again), screen.restarting(resume_command(job)):
            screen.train(job, sources, artists, strategy)
        state = TrainingState.load(job.checkpoints)
        print(
            f"best epoch {state.best_epoch} of {state.epoch}, by "
            f"{config.train.objective} of validation: the one that is evaluated and "
            "exported"
        )
        with console.working("Calibrating"):
            model = job.calibrate(sources["validation"], len(artists))
        if not 0.021 < model.temperature < 49:
            print(
                f"note: the fitted temperature, {model.temperature:.3g}, is at its "
                "limit: on validation the network is at chance or never wrong, and its "
                "probabilities mean little"
            )
        held_out = {part: sources[part] for part in ("validation", "test")}
        with console.working("Evaluating"):
            found = run.evaluate(job.folder, model, held_out, artists)
        screen.print_scores(found)
        screen.print_advice(state, config.train, found["test"], artists)
        listen(job, model, sources["test"], artists, songs.songs)
        with console.resumable(again):
            screen.set_up_gallery(job, model, sources, artists, strange)
        tell_of_enrolled(job)
        with console.working("Exporting the main branch"):
            exported = job.export(model, artists, args.keep)
    # A store may have travelled without the music.
    tested = (song for song in songs.songs if division.part_of[song.key] == "test")
    song = next((song for song in tested if song.path.exists()), None)
    show_export(job, exported, song)


def assist(args, strategy):
    """Trains along with the first process, which does all the rest.

    They share the folders of the run and of its features.
    """
    from lca_keras.models import distribution
    from lca_keras.workflow.run import Run

    if args.resume:
        job = resumed(args)
    else:
        folder = pathlib.Path(args.runs, args.name)
        print(f"waiting for the first process to begin {folder}", flush=True)
        missed = 0
        while not (folder / "split.csv").exists():
            time.sleep(1)
            missed = 0 if distribution.reaches_first() else missed + 1
            if missed == _PATIENCE:
                raise UserError(
                    f"the first process is gone and has not begun {folder}: see what "
                    "it says, and start all anew"
                )
        job = Run.load(folder)
    songs = screen.prepare_corpus(job.source, job.config)
    screen.train_along(job, songs, strategy, resume_command(job))


def resume_command(job):
    """The words of a shell that continue a training on several processes."""
    module = ["python", "-m", "lca_keras.fit"]
    return [*module, "--resume", str(job.folder), "--strategy", "multiworker"]


def new_run(args):
    """The `Run` that the arguments describe."""
    from lca_keras.workflow.run import Run

    config, source = config_from(args)
    name = (
        default_name(config) if args.name is None else arguments.check_name(args.name)
    )
    if source.data is None and source.store is None:
        from lca_keras.corpora import synthesis

        with console.progress("Synthesising songs") as progress:
            folder = synthesis.write_built_in(progress)
        source = dataclasses.replace(source, data=str(folder / "manifest.csv"))
        if not arguments.asks_for_split(args) and not args.config:
            # Its own split: the albums whose bands do not tell the artist.
            config = config.replace(split={"file": str(folder / "split.csv")})
    folder = pathlib.Path(args.runs, name)
    if folder.exists():
        raise UserError(
            f"{folder} exists already. Choose another --name, continue it with "
            f"--resume {folder}, or delete it."
        )
    return Run(folder=folder, config=config, source=source, exports=args.exports)


def resumed(args):
    """The `Run` to continue, with what has moved since."""
    from lca_keras.workflow.run import Run

    usual = vars(parse_args([]))
    given = {
        name: value
        for name, value in vars(args).items()
        if value != usual[name] and name not in ("resume", "debug", "keep", "strategy")
    }
    # Where things are may change between two starts, and how long to train; what is
    # trained may not.
    places = {"data", "data_root", "exports", "features", "separator", "store", "tags"}
    places |= {"unknown"}
    others = sorted(set(given) - places - {"epochs"})
    if others:
        listed = ["--" + name.replace("_", "-") for name in others]
        raise UserError(
            "--resume continues with the run's own options; leave out "
            + ", ".join(listed)
        )
    job = Run.load(args.resume)
    exports, config = given.pop("exports", job.exports), job.config
    if epochs := given.pop("epochs", None):
        if epochs < config.train.epochs:
            raise UserError(
                f"{job.folder} is a run of {config.train.epochs} epochs: --epochs can "
                "lengthen it"
            )
        config = config.replace(train={"epochs": epochs})
    if {"data", "store"} <= set(given):
        raise UserError("--data and --store exclude each other")
    if {"data", "store"} & set(given):
        given = {"data": None, "store": None, **given}
    source = dataclasses.replace(job.source, **given)
    return dataclasses.replace(job, config=config, source=source, exports=exports)


def check_writable(option, path):
    """Raises if a folder cannot be made or written to, naming the option."""
    try:
        pathlib.Path(path).mkdir(parents=True, exist_ok=True)
        writable = os.access(path, os.W_OK)
    except OSError as error:
        raise UserError(f"{option} {path}: {error.strerror}") from error
    if not writable:
        raise UserError(f"{option} {path}: no permission to write there")


def tell_of_known(config, songs, division):
    """Says how many held-out songs the network that is gone on from has learned."""
    from lca_keras.data import corpus
    from lca_keras.exports import versions
    from lca_keras.workflow.run import Run

    told = files.read_json(pathlib.Path(config.train.continue_from, versions.METADATA))
    try:
        before = Run.load(told.get("run", ""))
    except UserError:
        print(
            "note: the run of the network that this goes on from is gone: whether it "
            "has learned the songs that are held out now is not known"
        )
        return
    seen = corpus.learned_from(before.source, before.config, before.folder, songs)
    held_out = [
        song
        for song in songs.songs
        if division.part_of.get(song.key) in ("validation", "test")
        and seen.get(song.key) == "train"
    ]
    if held_out:
        print(
            f"note: {len(held_out)} songs that are held out now, {held_out[0].label} "
            "say, the network has learned before: scores and thresholds will look "
            "better than they are. A --split-file can keep them in training"
        )


def tell_of_enrolled(job):
    """Says who was enrolled in the version before, and is not in the next one."""
    from lca_keras.exports import versions

    folder = pathlib.Path(job.exports, job.folder.name)
    if not versions.versions(folder):
        return
    told = files.read_json(versions.find_version(folder) / versions.METADATA)
    enrolled = (told.get("gallery") or {}).get("enrolled")
    if enrolled:
        print(
            f"note: {', '.join(enrolled)} were enrolled in the version before; the "
            "next one, of another network, does not know them: enroll them again"
        )


def tell_of_stems(source):
    """Says what a built-in corpus brings along that its folder alone does not say."""
    from lca_keras.corpora import synthesis

    if source.data and os.path.isdir(source.data):
        own = synthesis.own_split(source.data)
        if own:
            manifest = own.with_name("manifest.csv")
            print(
                f"note: a built-in corpus; --data {manifest} knows its stems, and "
                f"--split-file {own} is its own split"
            )


def recommend(config, songs):
    """Says so where stems are at hand and their best use is not made."""
    from lca_keras.data.extraction import has_stem

    source, remixed = config.features.source, "remix" in config.augment.kinds
    if source == "stems" and not remixed:
        print("note: the stems are not used in training; --augment remix does")
    elif source == "mixture" and all(has_stem(song) for song in songs):
        print(
            "note: these songs have stems; --source stems --augment remix teaches the "
            "network the voice instead of the band"
        )


def listen(job, model, clips, artists, songs):
    """Adds the voice report where stems are at hand: in the store or as files."""
    songs = [song for song in songs if song.key in clips.labels]
    source = job.config.features.source
    files = [song.vocals_path or song.accompaniment_path for song in songs]
    at_hand = all(file and file.exists() for file in files)
    if source != "stems" and not (source == "mixture" and at_hand):
        return
    try:
        screen.voice_report(
            job.folder, model, clips, artists, job.source, job.config, songs
        )
    except (UserError, OSError) as error:
        print(f"no voice report: {error}")  # The model is there all the same.


def show_export(job, exported, song):
    """Names the singer of a held-out song, and says what can be done next."""
    from lca_keras.inference import identification
    from lca_keras.terminal import answers

    separator = job.source.separator
    if song is None:
        print("\nno test song is where it was: the export is not tried on one")
    else:
        print(f"\nThe exported model on a held-out song by {song.artist}:")
        try:
            identifier = identification.Identifier(exported, separator)
            identifier.check([song.vocals_path])
            result = identifier.identify(song.path, song.vocals_path)
            here = pathlib.Path.cwd()
            within = song.path.is_relative_to(here)
            shown = song.path.relative_to(here) if within else song.path
            print(answers.describe(shown, result, top=3))
        except (UserError, identification.AudioError) as error:
            print(f"  not identified: {error}")  # The model is there all the same.
    model = shlex.quote(str(exported))
    if separator and job.config.served_features.source != "mixture":
        model += f" --separator {shlex.quote(str(separator))}"
    print(f"\nrun        {job.folder}")
    print(f"model      {exported}")
    print(f"try it     python -m lca_keras.predict --model {model} SONG")
    print(f"watch it   tensorboard --logdir {shlex.quote(str(job.folder))}")


def default_name(config):
    """Model, method and time, such as `crnn_fgnl-lca-20250131-235959`."""
    now = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
    return f"{config.model.name}-{config.train.method}-{now}"


if __name__ == "__main__":
    sys.exit(main())
