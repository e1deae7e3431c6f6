"""Trains a singer identifier on a folder of songs, evaluates and exports it.

`python -m lca_keras.fit --data PATH` takes an `artist/album/song.ext` tree or a CSV
manifest. Without `--data` it makes and uses the built-in corpus.
"""

import argparse
import dataclasses
import datetime
import pathlib
import re
import shlex
import sys

from lca_keras import console, feature_options, predict
from lca_keras.config import (
    CLIP_FRAMES,
    LOSS_WEIGHTS,
    MODELS,
    PRESETS,
    Config,
    get_preset,
)

BUILT_IN_CORPUS = "corpus/built-in"


def parse_args(argv=None):
    """Parses the command line.

    Args:
        argv: Optional list of strings.

    Returns:
        `argparse.Namespace`; options that were not given are `None`.
    """
    parser = argparse.ArgumentParser(
        prog="python -m lca_keras.fit", description=__doc__.splitlines()[0]
    )
    data = parser.add_argument_group("data")
    data.add_argument("--data", help="artist/album/song.ext folder, or a CSV manifest")
    data.add_argument(
        "--store", help="feature store of `python -m pipelines.extract`, instead"
    )
    feature_options.add_feature_options(data)
    data.add_argument(
        "--split", choices=["album", "song"], help="what is held out; default: album"
    )
    data.add_argument("--split-file", help="CSV: artist, album, song, part")
    data.add_argument(
        "--strict", action="store_true", help="an unusable song is an error"
    )
    what = parser.add_argument_group("model and training")
    what.add_argument(
        "--preset",
        choices=PRESETS,
        help="paper: the published training; demo: a narrow network, minutes. "
        "Default: paper for your own songs, demo for the built-in ones",
    )
    what.add_argument("--config", help="YAML, such as runs/NAME/config.yaml")
    what.add_argument("--model", choices=MODELS, help="default: crnn_fgnl")
    what.add_argument(
        "--method",
        choices=["none", "cal", "lca"],
        help="no counterfactual, a random or a learned one; default: lca",
    )
    what.add_argument("--loss-weights", choices=LOSS_WEIGHTS, help="a named set")
    what.add_argument("--clip-seconds", type=int, choices=sorted(CLIP_FRAMES))
    what.add_argument("--epochs", type=int, help="warm-up included")
    what.add_argument(
        "--warmup-epochs", type=int, help="first epochs, without counterfactual terms"
    )
    what.add_argument("--batch-size", type=int, help="default: 16")
    what.add_argument("--learning-rate", type=float, help="of Adam")
    what.add_argument("--seed", type=int, help="of everything; default: 0")
    what.add_argument(
        "--precision",
        choices=["auto", "float32", "mixed_bfloat16"],
        help="default: auto, bfloat16 where the processor multiplies it",
    )
    what.add_argument(
        "--deterministic",
        action="store_true",
        default=None,
        help="bit-identical repeats (slower)",
    )
    where = parser.add_argument_group("where")
    where.add_argument("--name", help="name of the run and of the exported model")
    where.add_argument("--resume", metavar="RUN", help="continue a run that stopped")
    where.add_argument("--runs", default="runs", help="folder of runs")
    where.add_argument("--exports", default="saved_models", help="folder of exports")
    where.add_argument(
        "--features", default="features", help="folder of feature stores"
    )
    console.add_debug_flag(parser)
    return parser.parse_args(argv)


def config_from(args):
    """Builds the configuration: preset or file first, then single options.

    Args:
        args: What `parse_args` returned.

    Returns:
        Tuple of `lca_keras.config.Config` and the separator's folder, or `None`.

    Raises:
        UserError: A combination that cannot be used.
    """
    if args.config and args.preset:
        raise console.UserError("--config and --preset exclude each other")
    if args.data and args.store:
        raise console.UserError("--data and --store exclude each other")
    if args.config:
        config = Config.load(args.config)
    else:
        own = args.data or args.store
        config = get_preset(args.preset or ("paper" if own else "demo"))
    method = args.method
    if args.model in ("crnn", "crnnm") and method is None:
        method = "none"  # The one method that these networks can be trained with.
    if args.store:
        features, separator = _stored_features(args, config), args.separator
    else:
        features, separator = feature_options.resolve(args, config.features)
        if (args.model, config.features.melody, args.melody) == ("crnnm", "none", None):
            features["melody"] = "pyin"
    sections = {
        "features": features,
        "split": {"kind": args.split, "file": args.split_file},
        "train": {
            "method": method,
            "clip_seconds": args.clip_seconds,
            "epochs": args.epochs,
            "warmup_epochs": args.warmup_epochs,
            "batch_size": args.batch_size,
            "learning_rate": args.learning_rate,
            "seed": args.seed,
            "precision": args.precision,
            "deterministic": args.deterministic,
        },
        "model": {"name": args.model},
    }
    if args.loss_weights:
        sections["loss"] = vars(LOSS_WEIGHTS[args.loss_weights])
    return config.replace(**sections), separator


def _stored_features(args, config):
    """Fields of the features in `--store`, which decides them.

    What a configuration or an option asks for, apart from the defaults, must be so.
    """
    from lca_keras.data.store import FeatureStore, StoreError

    stored = dataclasses.asdict(FeatureStore.open(args.store).config)
    usual = dataclasses.asdict(type(config.features)())
    wanted = {
        name: value
        for name, value in dataclasses.asdict(config.features).items()
        if value != usual[name]
    }
    options = {"source": args.source, "melody": args.melody}
    wanted.update({k: v for k, v in options.items() if v is not None})
    for name, value in wanted.items():
        if stored[name] != value:
            raise StoreError(
                f"{args.store} holds features with {name} {stored[name]!r}, but "
                f"{value!r} was asked for. Extract those with `python -m "
                "pipelines.extract` into another folder."
            )
    return stored


def check_name(name):
    """Returns `name` if it can name a folder here and in exports.

    Raises:
        UserError: It is empty, hidden, or contains path separators.
    """
    if not re.fullmatch(r"[\w][\w .@+-]*", name):
        raise console.UserError(
            f"--name {name!r}: use letters, digits, space and . _ - @ +, beginning "
            "with a letter or digit"
        )
    return name


def make_built_in_corpus():
    """Synthesises the built-in corpus unless it is there; returns its folder."""
    from lca_keras.audio import synthesis

    folder = pathlib.Path(BUILT_IN_CORPUS)
    with console.progress("Synthesising songs") as progress:
        synthesis.write_corpus(synthesis.Corpus(), folder, progress=progress)
    return folder


def main(argv=None):
    """Command line of training."""
    args = parse_args(argv)
    return console.guard(lambda: run(args), args.debug)


def run(args):
    """Runs the job that the parsed arguments describe."""
    if args.resume:
        defaults = parse_args([])
        given = {
            name
            for name, value in vars(args).items()
            if value != getattr(defaults, name) and name not in ("resume", "debug")
        }
        # Where things are may change between two starts; what they are may not.
        moved = given & {"data", "exports", "features", "separator", "store"}
        if given - moved:
            options = ["--" + name.replace("_", "-") for name in sorted(given - moved)]
            raise console.UserError(
                "--resume continues with the run's own options; leave out "
                + ", ".join(options)
            )
        console.quiet_tensorflow()
        from lca_keras import training

        job, config = training.load_job(args.resume)
        if {"data", "store"} <= moved:
            raise console.UserError("--data and --store exclude each other")
        for one, other in (("data", "store"), ("store", "data")):
            if one in moved:
                job = dataclasses.replace(job, **{other: None})
        job = dataclasses.replace(job, **{name: getattr(args, name) for name in moved})
    else:
        config, separator = config_from(args)
        name = default_name(config) if args.name is None else check_name(args.name)
        data = args.data
        if data is None and args.store is None:
            data = make_built_in_corpus()
            if (args.split, args.split_file, args.config) == (None, None, None):
                # Its own split: the albums whose bands do not tell the artist.
                config = config.replace(split={"file": str(data / "split.csv")})
        console.quiet_tensorflow()
        from lca_keras import training

        job = training.Job(
            data and str(data),
            name,
            args.runs,
            args.exports,
            args.features,
            args.strict,
            args.store,
            separator,
        )
    results = training.fit(config, job, resume=bool(args.resume))
    song = training.held_out_song(job)
    model = shlex.quote(results["export"])
    if song is not None:
        print(f"\nThe exported model on a held-out song by {song.artist}:")
        try:
            predict.run_songs(
                results["export"],
                [song.path],
                top=3,
                separator=job.separator,
                vocals={song.path: song.vocals_path},
            )
        except console.UserError as error:  # The model is there all the same.
            print(f"  not identified: {error}")
    print(f"\nrun        {job.folder}")
    print(f"model      {results['export']}")
    if job.separator:
        model += f" --separator {shlex.quote(str(job.separator))}"
    print(f"try it     python -m lca_keras.predict --model {model} SONG")
    print(f"watch it   tensorboard --logdir {shlex.quote(str(job.folder))}")


def default_name(config):
    """Model, method and time, such as `crnn_fgnl-lca-20250131-235959`."""
    now = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
    return f"{config.model.name}-{config.train.method}-{now}"


if __name__ == "__main__":
    sys.exit(main())
