"""What the options of commands mean: a `Config`, and a `DataSource`."""

import dataclasses
import re

from lca_keras.base.config import Config, get_preset
from lca_keras.base.errors import UserError
from lca_keras.base.sections import SplitConfig
from lca_keras.terminal import arguments


def base_config(path, preset, default, option="--config"):
    """The configuration that single options change: of a YAML file or a preset."""
    if path and preset:
        raise UserError(f"{option} and --preset exclude each other")
    if path:
        return Config.load(path)
    return get_preset(preset or default)


def resolve_features(args, features):
    """Turns the feature options into a `FeatureConfig`, and the separator's folder."""
    from lca_keras.audio import separation

    fields = arguments.sections(args, *arguments.FEATURES)["features"]
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

    `config` is the one to begin with, and `sections` are further changes as for its
    `replace`: what belongs together is changed together.
    """
    from lca_keras.data.corpus import DataSource

    if args.data and args.store:
        raise UserError("--data and --store exclude each other")
    if (args.tags or args.data_root) and not args.data:
        raise UserError("--tags and --data-root say how to read --data")
    augment = sections.get("augment", {})
    kinds = augment.get("kinds")
    kinds = config.augment.kinds if kinds is None else kinds
    given = {augment.get("remix_share"), augment.get("remix_gain_db")} != {None}
    if given and "remix" not in kinds:
        raise UserError("--remix-share and --remix-gain-db are for --augment remix")
    if args.store:
        features, separator = _stored_features(args, config), args.separator
    else:
        features, separator = resolve_features(args, config.features)
    config = config.replace(features=dataclasses.asdict(features), **sections)
    config = dataclasses.replace(config, split=_divided(args, config.split))
    return config, DataSource(
        **arguments.corpus_source(args),
        store=args.store,
        features=args.features,
        separator=separator,
        strict=args.strict,
    )


def _divided(args, split):
    """A `SplitConfig` with the split options; one way takes the place of another."""
    kind, ways = args.split or split.kind, {}
    if args.split_file:
        ways = {"file": args.split_file}
    elif args.fold is not None:
        numbers = re.fullmatch(r"(\d+)/(\d+)", args.fold)
        if numbers is None:
            raise UserError(f"--fold {args.fold!r}: not of the form 2/5")
        ways = {"fold": int(numbers[1]), "folds": int(numbers[2])}
    shares = ("validation_share", "test_share")
    ways |= {n: getattr(args, n) for n in shares if getattr(args, n) is not None}
    if not ways:
        return dataclasses.replace(split, kind=kind)
    return SplitConfig(kind=kind, **ways)


def _stored_features(args, config):
    """The features in `--store`, which has to have what is asked for apart from it."""
    from lca_keras.data.store import FeatureStore, StoreError

    stored, asked = FeatureStore.open(args.store).config, vars(config.features)
    usual = vars(type(stored)())
    wanted = {name: value for name, value in asked.items() if value != usual[name]}
    if args.preset:
        wanted.pop("separator", None)  # A preset asks for stems, not for whose.
    options = arguments.sections(args, *arguments.FEATURES)["features"]
    wanted |= {k: v for k, v in options.items() if v is not None}
    for name, value in wanted.items():
        if getattr(stored, name) != value:
            raise StoreError(
                f"{args.store} holds features with {name} {getattr(stored, name)!r}, "
                f"but {value!r} was asked for. Extract those with `python -m "
                "pipelines.extract` into another folder."
            )
    return stored
