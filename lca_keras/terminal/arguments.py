"""Arguments that several commands take, and what they mean."""

import dataclasses
import re

from lca_keras.base.config import (
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
from lca_keras.base.errors import UserError


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
    """The augmentation options as fields of `lca_keras.base.config.AugmentConfig`.

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
    """Turns the data options into a `Config` and a `lca_keras.data.corpus.DataSource`.

    Args:
        args: Parsed arguments.
        config: `Config` to begin with.
        **sections: Further changes as for `Config.replace`; what belongs together is
            changed together.

    Raises:
        UserError: Options that exclude each other, or contradict a store.
    """
    from lca_keras.data.corpus import DataSource

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
    """The corpus options as fields of `lca_keras.data.corpus.DataSource`."""
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


def add_strategy_option(parser):
    """Adds `--strategy`."""
    parser.add_argument(
        "--strategy",
        choices=STRATEGIES,
        help="mirrored: all GPUs of this machine; multiworker: as many processes as "
        "TF_CONFIG lists, each started with the same command",
    )
