"""The search space: loss weights that keep the principles of LCA by construction.

The effect's weight is the yardstick, 1; the main branch weighs more than the
counterfactual, whose entropy weighs more than the main branch's. So what is sampled is
`main` and `cf_ratio` = cf / main, `ent_cf` and `ent_main_ratio` = ent_main / ent_cf,
with ratios below 1, and `att`.
"""

import dataclasses

from lca_keras.base import files
from lca_keras.base.config import field_of
from lca_keras.base.errors import UserError
from lca_keras.base.fields import Limits, choices_of, rule_of

# Here, and not beside the oracles, so that `--help` loads no KerasTuner.
ALGORITHMS = ("bayesian", "hyperband", "random", "grid")
LINEAR, LOG = "linear", "log"
# Where Hyperband keeps the epochs that a trial trains after the warm-up.
BUDGET = "tuner/epochs"


class SpaceError(UserError):
    """A search space that cannot be used; the message says which entry and why."""


@dataclasses.dataclass(frozen=True)
class Parameter:
    """One dimension: a range with its ends, or instead values to choose from."""

    name: str
    low: float = 0.0
    high: float = 0.0
    scale: str = LINEAR
    values: tuple[float | str, ...] = ()

    @property
    def fixed(self):
        """Whether there is nothing to choose."""
        return len(self.values) == 1

    def grid(self, points):
        """The same dimension as so many values, evenly spaced on its scale."""
        if self.values:
            return self
        import numpy as np

        spaced = np.geomspace if self.scale == LOG else np.linspace
        values = spaced(self.low, self.high, points).tolist()
        whole = self.name in _WHOLE
        values = {round(each) if whole else float(f"{each:.4g}") for each in values}
        return dataclasses.replace(self, values=tuple(sorted(values)))


# Names of what is no loss weight, and the fields of a `Config` where the values go.
FIELDS = {
    "warmup_epochs": "train.warmup_epochs",
    "cf_dropout": "train.cf_dropout",
    "learning_rate": "train.learning_rate",
    "effect_form": "train.effect",
    "detach_counterfactual": "train.detach_counterfactual",
    "remix_share": "augment.remix_share",
    "remix_gain_db": "augment.remix_gain_db",
}
_KNOWN = {name: field_of(place) for name, place in FIELDS.items()}
_WHOLE = {name for name, field in _KNOWN.items() if field.type is int}
# What has no order: every value that may be listed.
# (KerasTuner would make numbers of true and false.)
_CHOICES = {
    name: choices_of(field) or ("false", "true")
    for name, field in _KNOWN.items()
    if field.type in (str, bool)
}
_RATIO = Limits(least=0, most=0.999)  # Rounding must not take it to 1.
_LIMITS = {
    "main": Limits(above=0),
    "cf_ratio": _RATIO,
    "ent_cf": Limits(above=0),
    "ent_main_ratio": _RATIO,
    "att": Limits(least=0),
    **{n: rule_of(field) for n, field in _KNOWN.items() if n not in _CHOICES},
}
_WHY = {
    "cf_ratio": ", for main must weigh more than cf",
    "ent_main_ratio": ", for ent_cf must weigh more than ent_main",
}

# Decades around the default weights. The entropy of the main branch stays small: above
# `main` it flattens the predictions.
DEFAULT = {
    "main": Parameter("main", 0.3, 3.0, LOG),
    "cf_ratio": Parameter("cf_ratio", 0.1, 0.95),
    "ent_cf": Parameter("ent_cf", 0.05, 2.0, LOG),
    "ent_main_ratio": Parameter("ent_main_ratio", 0.01, 0.9, LOG),
    "att": Parameter("att", 0.05, 2.0, LOG),
}


def load_space(path=None):
    """Reads a space: the default one, or that changed by a YAML file.

    A number fixes a parameter, `{low: 0.1, high: 1, scale: log}` is a range, and
    `{values: [0.5, 1]}` a choice.
    """
    if path is None:
        return dict(DEFAULT)
    with files.yaml_content(path, "space", SpaceError) as raw:
        space = DEFAULT | {name: _parameter(name, entry) for name, entry in raw.items()}
        if all(parameter.fixed for parameter in space.values()):
            raise SpaceError("every parameter is fixed, nothing to search")
        return space


def _parameter(name, entry):
    if name == "effect":
        raise SpaceError(
            "effect is the yardstick of the other weights and always 1; its form is "
            "effect_form"
        )
    if name in ("cf", "ent_main"):
        raise SpaceError(
            f"{name} is not searched by itself; give {name}_ratio, its share of "
            f"{'main' if name == 'cf' else 'ent_cf'}, which is below 1"
        )
    if name not in _LIMITS and name not in _CHOICES:
        known = ", ".join([*_LIMITS, *_CHOICES])
        raise SpaceError(f"unknown name {name!r}; known: {known}")
    if not isinstance(entry, dict):
        return Parameter(name, values=(_value(name, entry),))
    unknown = sorted(map(str, set(entry) - {"low", "high", "scale", "values"}))
    if unknown:
        raise SpaceError(
            f"{name}: unknown {', '.join(unknown)}; expected low and high (and scale), "
            "or values"
        )
    if "values" in entry:
        values = entry["values"]
        if len(entry) > 1 or not isinstance(values, list) or not values:
            raise SpaceError(
                f"{name}: values is a list of at least one, and stands alone"
            )
        chosen = tuple(sorted({_value(name, value) for value in values}))
        return Parameter(name, values=chosen)
    if name in _CHOICES:
        listed = ", ".join(_CHOICES[name])
        raise SpaceError(f"{name} has no range: list values, of {listed}")
    if not {"low", "high"} <= set(entry):
        raise SpaceError(f"{name}: expected low and high, received {entry}")
    low, high = _value(name, entry["low"]), _value(name, entry["high"])
    scale = entry.get("scale", LINEAR)
    if low >= high:
        raise SpaceError(f"{name}: low {low:g} is not below high {high:g}")
    if scale not in (LINEAR, LOG):
        raise SpaceError(f"{name}: scale is linear or log, not {scale!r}")
    if scale == LOG and low <= 0:
        raise SpaceError(f"{name}: a log scale has no {low:g}; low must be above 0")
    return Parameter(name, low, high, scale)


def _value(name, value):
    """A number within the limits of its parameter, or one of its choices."""
    if name in _CHOICES:
        value = str(value).lower() if isinstance(value, bool) else value
        if value not in _CHOICES[name]:
            raise SpaceError(
                f"{name}: {value!r} is none of {', '.join(_CHOICES[name])}"
            )
        return value
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise SpaceError(f"{name}: expected a number, received {value!r}")
    limits = _LIMITS[name]
    if not limits.allow(value):
        told = f"{limits}{_WHY.get(name, '')}"
        raise SpaceError(f"{name}: {value:g} is out of bounds; it must be {told}")
    if name in _WHOLE:
        if value != int(value):
            raise SpaceError(f"{name}: expected a whole number, received {value:g}")
        return int(value)
    return float(value)


def check(space, config):
    """Raises unless every value that is searched has a say in a training."""
    if config.train.continue_from:
        raise SpaceError(
            "a search trains from nothing: take train.continue_from out of the "
            "configuration"
        )
    idle = [name for name in space if name.startswith("remix_")]
    if idle and "remix" not in config.augment.kinds:
        raise SpaceError(
            f"{', '.join(idle)} cannot be searched without remixing: add --source "
            "stems --augment remix"
        )


def shown(value):
    """A value of a trial, for people."""
    return value if isinstance(value, str) else f"{value:.4g}"


def hyperparameters(space):
    """A space as `keras_tuner.HyperParameters`."""
    import keras_tuner as kt

    result = kt.HyperParameters()
    for name, parameter in space.items():
        if parameter.fixed:
            result.Fixed(name, parameter.values[0])
        elif parameter.values:
            ordered = None if name in _CHOICES else True
            result.Choice(name, list(parameter.values), ordered=ordered)
        elif name in _WHOLE:
            result.Int(name, int(parameter.low), int(parameter.high))
        else:
            result.Float(name, parameter.low, parameter.high, sampling=parameter.scale)
    return result


def apply(values, config):
    """Puts sampled values into a `Config`; other names are ignored."""
    weights = {name: values[name] for name in ("main", "ent_cf", "att")}
    weights["effect"] = 1.0
    weights["cf"] = values["main"] * values["cf_ratio"]
    weights["ent_main"] = values["ent_cf"] * values["ent_main_ratio"]
    sections = {"loss": weights, "train": {}, "augment": {}}
    for name, place in FIELDS.items():
        (section, field), value = place.split("."), values.get(name)
        if name == "detach_counterfactual" and value is not None:
            value = value == "true"
        sections[section][field] = value
    return config.replace(**sections)


def longest_warmup(space, config):
    """Most warm-up epochs that a trial can have."""
    if parameter := space.get("warmup_epochs"):
        return int(max(parameter.values, default=parameter.high))
    return config.train.warmup_epochs


def to_json(space):
    """A space as plain dicts and lists."""
    return {name: dataclasses.asdict(parameter) for name, parameter in space.items()}


def from_json(raw):
    """A space from `to_json`'s form, read as JSON."""
    own = {name: {"values": tuple(entry["values"])} for name, entry in raw.items()}
    return {name: Parameter(**{**raw[name], **own[name]}) for name in raw}
