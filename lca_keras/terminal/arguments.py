"""Arguments that several commands take; those of a configuration from its fields."""

import argparse
import dataclasses
import os
import pathlib
import re

from lca_keras.base import console
from lca_keras.base.config import PRESETS, Config, field_of, get_preset
from lca_keras.base.errors import UserError
from lca_keras.base.fields import Limits, choices_of, kind_of, rule_of
from lca_keras.base.sections import STRATEGIES

FEATURES = ("features.source", "features.level", "features.melody")
AUGMENT = ("augment.kinds", "augment.remix_share", "augment.remix_gain_db")


def parser_of(module, about):
    """A parser for a command, of the name of its module and its docstring."""
    said = about.splitlines()[0]
    return argparse.ArgumentParser(f"python -m {module}", description=said)


def finish(parser, job, argv=None):
    """The last line of a command: adds `--debug`, and then as `command`."""
    console.add_debug_flag(parser)
    return command(parser.parse_args, job, argv)


def command(parse, job, argv=None):
    """Parses a command's options, `--debug` among them, and does its job.

    `parse` takes words and `job` what it returns; the result is the exit code, as of
    `lca_keras.base.console.guard`.
    """
    parsed = []
    failed = console.guard(lambda: parsed.append(parse(argv)))
    return failed or console.guard(lambda: job(parsed[0]), parsed[0].debug)


class Limited(argparse.Action):
    """An option whose number has limits: `action=Limited, type=int, least=1`."""

    def __init__(self, *words, **settings):
        names = [field.name for field in dataclasses.fields(Limits)]
        limits = {name: settings.pop(name) for name in names if name in settings}
        super().__init__(*words, **settings)
        self.limits = Limits(**limits)

    def __call__(self, parser, namespace, value, option=None):
        """Keeps the value, or raises a `UserError` that names the option."""
        if not self.limits.allow(value):
            raise UserError(f"{option} must be {self.limits}, not {value}")
        setattr(namespace, self.dest, value)


# Settings of an option with a whole number from 1.
WHOLE = {"type": int, "action": Limited, "least": 1, "metavar": "N"}
JOBS = {"help": "processes; default: all cores", **WHOLE}


class Output(argparse.Action):
    """An option with a file to be written; `ending` is one, or a tuple of them."""

    def __init__(self, *words, ending="", **settings):
        super().__init__(*words, **settings)
        self.endings = (ending,) if isinstance(ending, str) else ending

    def __call__(self, parser, namespace, value, option=None):
        """Keeps the value, or raises a `UserError` that names the option."""
        check_output(option or self.metavar or self.dest, value, *self.endings)
        setattr(namespace, self.dest, value)


def check_output(option, path, *endings):
    """Raises a `UserError` if a file cannot be written, or has another ending."""
    if any(endings) and pathlib.Path(path).suffix.lower() not in endings:
        said = f"the name has to end in {endings[0]}"
        if len(endings) == 2:
            said = f"expected a {' or a '.join(endings)}"
        elif len(endings) > 2:
            said = f"expected one of {', '.join(endings)}"
        raise UserError(f"{option} {path}: {said}")
    folder = pathlib.Path(path).absolute().parent
    if not folder.is_dir():
        raise UserError(f"{option} {path}: no such folder")
    if not os.access(folder, os.W_OK):
        raise UserError(f"{option} {path}: no permission to write there")


def check_folder(option, path):
    """Raises a `UserError` if a folder cannot be made or written to."""
    try:
        pathlib.Path(path).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{option} {path}: {error.strerror}") from error
    if not os.access(path, os.W_OK):
        raise UserError(f"{option} {path}: no permission to write there")


def check_name(name):
    """Returns `name` if it can name a folder: not empty or hidden, no separators."""
    if not re.fullmatch(r"[\w][\w .@+-]*", name):
        raise UserError(
            f"--name {name!r}: use letters, digits, space and . _ - @ +, beginning "
            "with a letter or digit"
        )
    return name


def add_fields(parser, *names):
    """Adds an option for each field of a `Config`, such as `train.epochs`.

    Its name, type, choices, help and default are the field's; presets that have another
    default are named with theirs.
    """
    for name in names:
        field = field_of(name)
        (kind, several), choices = kind_of(field), choices_of(field)
        settings = {"help": _told(name)}
        if kind is bool:
            settings |= {"action": "store_true", "default": None}
        elif several:
            settings |= {"nargs": "+", "choices": ["none", *choices]}
        elif choices:
            settings |= {"type": kind, "choices": choices}
        else:
            settings |= {"type": kind, "metavar": _METAVARS[kind]}
        parser.add_argument(_option(name), **settings)


_METAVARS = {int: "N", float: "X", str: "FILE"}


def sections(args, *names):
    """What the options of `add_fields` say, as sections for `Config.replace`."""
    found = {}
    for name in names:
        section, key = name.split(".")
        value = getattr(args, _option(name)[2:].replace("-", "_"))
        if isinstance(value, list):
            others = tuple(each for each in value if each != "none")
            if others and len(others) < len(value):
                raise UserError(f"{_option(name)} none excludes {', '.join(others)}")
            value = others
        found.setdefault(section, {})[key] = value
    return found


def _option(name):
    key = rule_of(field_of(name)).option or field_of(name).name
    return "--" + key.replace("_", "-")


def _told(name):
    """Help of a field, with its default and those of presets that have another."""
    section, key = name.split(".")
    usual, said = getattr(getattr(Config(), section), key), []
    if usual is not None and usual is not False:
        said.append(f"default: {_shown(usual)}")
    for preset in PRESETS:
        value = getattr(getattr(get_preset(preset), section), key)
        if value != usual:
            said.append(f"{preset}: {_shown(value)}")
    help = rule_of(field_of(name)).help
    return f"{help} ({'; '.join(said)})" if said else help


def _shown(value):
    if isinstance(value, tuple):
        return " ".join(value) or "none"
    return f"{value:g}" if isinstance(value, float) else value


def add_feature_options(parser):
    """Adds `--source`, `--separator`, `--level` and `--melody`."""
    add_fields(parser, *FEATURES)
    parser.add_argument(
        "--separator",
        metavar="umxl|umxhq|FOLDER",
        help="Open-Unmix model for --source vocals or stems, where the manifest has "
        "no vocals_path; default: umxl",
    )


def add_corpus_options(parser, option="--data", **settings):
    """Adds what says which songs there are."""
    add, told = parser.add_argument, "artist/album/song.ext folder, or a CSV manifest"
    add(option, help=told, **settings)
    told = "artist, album and title are those in the files' tags, in any folders"
    add("--tags", action="store_true", help=told)
    told = (
        "that a manifest's paths are relative to; they may be absolute then. Default: "
        "the manifest's folder"
    )
    add("--data-root", metavar="FOLDER", help=told)


def add_data_options(parser):
    """Adds what says where the data is, which features it has, and its parts."""
    add, told = parser.add_argument, "feature store of `python -m pipelines.extract`"
    add_corpus_options(parser)
    add("--store", help=f"{told}, instead")
    add_feature_options(parser)
    shares = ("split.validation_share", "split.test_share")
    add_fields(parser, "split.kind", "split.file", *shares)
    told = "the K-th of N folds of a cross-validation"
    add("--fold", metavar="K/N", help=told)
    told = "an unusable or doubtful song is an error"
    add("--strict", action="store_true", help=told)
    add("--features", default="features", help="folder of feature stores")


def add_preset_option(parser, note=""):
    """Adds `--preset`."""
    told = (
        "paper: the published training; voice: the same with --source stems --augment "
        f"remix; demo: a narrow network, minutes. Default: paper{note}"
    )
    parser.add_argument("--preset", choices=PRESETS, help=told)


def add_strategy_option(parser):
    """Adds `--strategy`."""
    told = (
        "mirrored: all GPUs of this machine; multiworker: as many processes as "
        "TF_CONFIG lists, each started with the same command"
    )
    parser.add_argument("--strategy", choices=STRATEGIES, help=told)


def corpus_source(args):
    """The corpus options as fields of `lca_keras.data.corpus.DataSource`."""
    return {"data": args.data, "data_root": args.data_root, "tags": args.tags}
