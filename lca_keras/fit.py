"""Trains a singer identifier on a folder of songs, evaluates and exports it.

`python -m lca_keras.fit --data PATH` takes an `artist/album/song.ext` tree or a CSV
manifest. Without `--data` it makes and uses the built-in corpus.
"""

import dataclasses
import datetime
import operator
import os
import pathlib
import shlex
import sys

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
_STRANGERS = ("gallery.left_out", "gallery.false_alarm")


def parse_args(argv=None):
    """Parses the command line; options that were not given are `None`."""
    parser = arguments.parser_of("lca_keras.fit", __doc__)
    arguments.add_data_options(parser.add_argument_group("data"))
    what = parser.add_argument_group("model and training")
    built_in = "for the built-in ones demo, with --source stems --augment remix"
    arguments.add_preset_option(what, f" for your own songs; {built_in}")
    add = what.add_argument
    add("--config", help="YAML, such as runs/NAME/config.yaml")
    told = (
        "saved_models/NAME: begin with its network and its configuration; artists may "
        "come and go"
    )
    add("--continue-from", metavar="MODEL", help=told)
    arguments.add_fields(what, *_TRAINING)
    add("--loss-weights", choices=LOSS_WEIGHTS, help="a named set")
    arguments.add_strategy_option(what)
    nobody = parser.add_argument_group("songs by none of the singers")
    told = (
        "songs by artists who are not to be learned, a folder or a manifest: what the "
        "model makes of them is measured, instead of a side training"
    )
    nobody.add_argument("--unknown", metavar="PATH", help=told)
    arguments.add_fields(nobody, *_STRANGERS)
    add = parser.add_argument_group("where").add_argument
    add("--name", help="name of the run and of the exported model")
    told = "continue a run that stopped; with more --epochs: train on"
    add("--resume", metavar="RUN", help=told)
    add("--runs", default="runs", help="folder of runs")
    add("--exports", default="saved_models", help="folder of exports")
    told = "exports to keep, older ones go once another has been newer for a minute"
    add("--keep", help=f"{told}; default: all", **arguments.WHOLE)
    console.add_debug_flag(parser)
    return parser.parse_args(argv)


def config_from(args):
    """`Config` and `DataSource`: a preset or a file first, then single options."""
    own = args.data or args.store
    config = resolving.base_config(args.config, args.preset, "paper" if own else "demo")
    exported = None
    if args.continue_from:
        config, exported = _continued(args)
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
    embedding = args.embedding_loss or config.train.embedding_loss != "none"
    if args.embedding_weight is not None and not embedding:
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
    shape = operator.attrgetter("model", "served_features")
    before = shape(config)
    config, source = resolving.resolve_data(args, config, **sections)
    if exported and shape(config) != before:
        raise UserError(
            f"--continue-from {args.continue_from}: its network has another shape, or "
            "hears other features, than these options ask for"
        )
    return config, dataclasses.replace(source, unknown=args.unknown)


def _continued(args):
    """The configuration of an exported model to begin with, and its folder."""
    from lca_keras.exports import integrity, versions

    if args.config or args.preset:
        own = "--continue-from brings its own configuration"
        raise UserError(f"{own}: leave out --preset and --config")
    place = pathlib.Path(args.exports, args.continue_from)
    if not place.exists():
        place = pathlib.Path(args.continue_from)
    folder = versions.find_version(place)
    integrity.check(folder)
    config = Config.from_dict(files.read_json(folder / versions.METADATA)["config"])
    # Which songs were in which part is its corpus's matter.
    config = dataclasses.replace(config, split=SplitConfig())
    return config, os.path.abspath(folder)


def main(argv=None):
    """Command line of training."""
    return arguments.command(parse_args, _fit, argv)


def _fit(args):
    console.quiet_tensorflow()
    from lca_keras.models import distribution
    from lca_keras.workflow import course

    strategy = distribution.start(args.strategy)
    if args.strategy == "multiworker" and not (args.name or args.resume):
        raise UserError("--strategy multiworker needs a --name that all processes know")
    if not distribution.is_chief(strategy):
        return _assist(args, strategy)
    job = _resumed(args) if args.resume else _new_run(args)
    arguments.check_folder("--exports", job.exports)
    arguments.check_folder("--runs", job.folder.parent)
    # The data comes first: a corpus that cannot be used leaves no run behind.
    way = course.prepare(job, screen.Screen())
    again = _resume_command(job, args.strategy)
    with console.resumable(again), screen.restarting(again):
        result = job.complete(course=way, strategy=strategy, keep=args.keep, anew=True)
    tested = way.sources["test"].labels
    songs = (song for song in way.corpus.songs if song.key in tested)
    # A store may have travelled without the music.
    song = next((song for song in songs if song.path.exists()), None)
    _show_export(job, result.export, song)


def _assist(args, strategy):
    """Trains along with the first process; they share folders of runs and features."""
    from lca_keras.workflow.run import Run

    if args.resume:
        job = _resumed(args)
    else:
        folder = pathlib.Path(args.runs, args.name)
        screen.wait_for_first(folder)
        job = Run.load(folder)
    songs = screen.prepare_corpus(job.source, job.config)
    screen.train_along(job, songs, strategy, _resume_command(job, args.strategy))


def _resume_command(job, strategy):
    """The words of a shell that continue a training, spread as it was."""
    words = ["python", "-m", "lca_keras.fit", "--resume", str(job.folder)]
    return [*words, "--strategy", strategy] if strategy else words


def _new_run(args):
    from lca_keras.workflow.run import Run, use_built_in

    config, source = config_from(args)
    now = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
    name = f"{config.model.name}-{config.train.method}-{now}"
    if args.name is not None:
        name = arguments.check_name(args.name)
    if source.data is None and source.store is None:
        source, own = use_built_in(source, screen.Screen())
        ways = args.split, args.split_file, args.validation_share, args.test_share
        if not args.config and {*ways, args.fold} == {None}:
            config = config.replace(split=own)
    folder = pathlib.Path(args.runs, name)
    if folder.exists():
        raise UserError(
            f"{folder} exists already. Choose another --name, continue it with "
            f"--resume {folder}, or delete it."
        )
    return Run(folder=folder, config=config, source=source, exports=args.exports)


def _resumed(args):
    """The `Run` to continue, with what has moved since."""
    from lca_keras.workflow.run import Run

    usual, apart = vars(parse_args([])), ("resume", "debug", "keep", "strategy")
    given = {name: v for name, v in vars(args).items() if v != usual[name]}
    given = {name: value for name, value in given.items() if name not in apart}
    # Where things are may change between two starts, and how long to train; what is
    # trained may not.
    may = {"data", "data_root", "exports", "features", "separator", "store", "tags"}
    if others := sorted(set(given) - may - {"unknown", "epochs"}):
        listed = ", ".join("--" + name.replace("_", "-") for name in others)
        own = "--resume continues with the run's own options"
        raise UserError(f"{own}; leave out {listed}")
    job = Run.load(args.resume)
    exports, config = given.pop("exports", job.exports), job.config
    if epochs := given.pop("epochs", None):
        if epochs < (before := config.train.epochs):
            told = f"{job.folder} is a run of {before} epochs"
            raise UserError(f"{told}: --epochs can lengthen it")
        config = config.replace(train={"epochs": epochs})
    if {"data", "store"} <= set(given):
        raise UserError("--data and --store exclude each other")
    if {"data", "store"} & set(given):
        given = {"data": None, "store": None, **given}
    source = dataclasses.replace(job.source, **given)
    return dataclasses.replace(job, config=config, source=source, exports=exports)


def _show_export(job, exported, song):
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
            here, shown = pathlib.Path.cwd(), song.path
            if shown.is_relative_to(here):
                shown = shown.relative_to(here)
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


if __name__ == "__main__":
    sys.exit(main())
