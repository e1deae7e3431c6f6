"""Fields of configurations: each knows its choices, its limits and its help."""

import collections.abc
import dataclasses
import math
import typing

from lca_keras.base.errors import UserError


class ConfigError(UserError):
    """A configuration that cannot be used; the message says which field and why."""


def require(condition, message):
    """Raises a `ConfigError` with a message unless something holds."""
    if not condition:
        raise ConfigError(message)


@dataclasses.dataclass(frozen=True)
class Limits:
    """Bounds of a number, which is finite too."""

    least: float = -math.inf
    most: float = math.inf
    above: float = -math.inf
    below: float = math.inf

    def allow(self, number):
        """Whether a number keeps to the bounds."""
        within = self.least <= number <= self.most
        return within and self.above < number < self.below and math.isfinite(number)

    def __str__(self):
        words = {"above": self.above, "below": self.below}
        words = {"at least": self.least, "at most": self.most, **words}
        bounds = [f"{word} {n}" for word, n in words.items() if math.isfinite(n)]
        return " and ".join(bounds)


@dataclasses.dataclass(frozen=True)
class Rule(Limits):
    """What a field knows of its values, or of each of them if they are several.

    `choices` may be a function that returns them; they are asked at every check, so
    that what is registered later is known. `count` is how many values there are.
    """

    help: str = ""
    choices: collections.abc.Collection | collections.abc.Callable = ()
    option: str | None = None  # Its name on the command line, if not the field's.
    count: int | None = None
    distinct: bool = False  # None may come twice.


def field(default=dataclasses.MISSING, help="", **rule):
    """A field of a `Section`, by its `Rule`; without a default, it has to be given."""
    known = Rule(help=help, **rule)
    return dataclasses.field(default=default, metadata={"rule": known})


class Section:
    """Base of frozen dataclasses that check their fields, or raise a `ConfigError`.

    `class TrainConfig(Section, name="train")` is named `train` in errors. An int is
    taken for a float, and a list for a tuple; a default needs not be a choice.
    """

    def __init_subclass__(cls, name):
        super().__init_subclass__()
        cls._name = name

    def __post_init__(self):
        for each in dataclasses.fields(self):
            where = f"{self._name}.{each.name}"
            value = _checked(where, each, getattr(self, each.name))
            object.__setattr__(self, each.name, value)


def rule_of(field):
    """The `Rule` of a dataclass's field."""
    return field.metadata.get("rule") or Rule()


def choices_of(field):
    """What a field can be, a tuple; empty if it is not chosen from a list."""
    choices = rule_of(field).choices
    return tuple(choices() if callable(choices) else choices)


def kind_of(field):
    """Type of a field's value, or of each of them; whether they are several."""
    kinds = typing.get_args(field.type) or (field.type,)
    return kinds[0], typing.get_origin(field.type) is tuple


def build(where, kind, raw):
    """Makes a dataclass, `where` in errors, and those within it of dicts and lists."""
    require(isinstance(raw, dict), f"{where}: expected a mapping, received {raw!r}")
    known = {each.name: each for each in dataclasses.fields(kind)}
    unknown = sorted(set(raw) - set(known), key=str)
    require(not unknown, f"{where}: unknown fields {unknown}; known: {list(known)}")
    missing = [
        name
        for name, each in known.items()
        if each.default is each.default_factory is dataclasses.MISSING
        and name not in raw
    ]
    require(not missing, f"{where}: {', '.join(missing)} is needed")
    return kind(
        **{name: _built(f"{where}.{name}", known[name], raw[name]) for name in raw}
    )


def _built(where, field, value):
    kind, several = kind_of(field)
    if dataclasses.is_dataclass(kind) and not several:
        return build(where, kind, value)
    if dataclasses.is_dataclass(kind) and isinstance(value, list):
        return tuple(build(f"{where}[{n}]", kind, each) for n, each in enumerate(value))
    return _checked(where, field, value)


def _checked(where, field, value):
    """The value of a field in its type, or an error that names the field."""
    if value is None and type(None) in typing.get_args(field.type):
        return None
    (kind, several), rule = kind_of(field), rule_of(field)
    listed = isinstance(value, list | tuple)
    values = value if several and listed else [value]
    if kind is float:
        values = [float(each) if type(each) is int else each for each in values]
    if (
        (several and not listed)
        or rule.count not in (None, len(values))
        or not all(_fits(field, each) for each in values)
        or (rule.distinct and len(set(values)) < len(values))
    ):
        raise ConfigError(f"{where}: expected {_expected(field)}, received {value!r}")
    return tuple(values) if several else values[0]


def _fits(field, value):
    kind, choices = kind_of(field)[0], choices_of(field)
    # To Python a bool is an int.
    if not isinstance(value, kind) or isinstance(value, bool) > (kind is bool):
        return False
    if choices and value not in choices and value != field.default:
        return False
    return kind not in (int, float) or rule_of(field).allow(value)


def _expected(field):
    """A field's values in words, such as `int, at least 1`."""
    (kind, several), rule = kind_of(field), rule_of(field)
    of = "one of " + ", ".join(map(str, choices_of(field)))
    if several:
        count = "" if rule.count is None else f"{rule.count} "
        words = [f"a list of {count}{kind.__name__}s"]
        words += [f"each {of}"] if rule.choices else []
        words += [f"each {rule}"] if str(rule) else []
        words += ["none of them twice"] if rule.distinct else []
    else:
        name = "finite float" if kind is float else kind.__name__
        words = [of if rule.choices else name]
        words += [str(rule)] if str(rule) else []
    if type(None) in typing.get_args(field.type):
        words.append("or null")
    return ", ".join(words)
