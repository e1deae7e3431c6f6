"""Settings of a pipeline: the section `pipeline` of its configuration file."""

import dataclasses

from lca_keras.base.config import Config, ConfigError, content, section
from pipelines.statistics import Schema

LEVELS = ("song", "frame")
_SCORES = ("f1", "f1_macro", "accuracy")
METRICS = (*(f"{level}_{score}" for level in LEVELS for score in _SCORES), "band_share")
SLICES = ("artist", "album", "clip_seconds", "origin", "heard")


@dataclasses.dataclass(frozen=True)
class Threshold:
    """What a candidate has to reach to be blessed, on all test songs or by slice.

    Attributes:
        metric: One of `METRICS`; `band_share` is the share of songs put together from
            two artists that are named after the band.
        slice: One of `SLICES`, every slice of which has to reach it; or of all songs.
        value: One slice of it, or every one.
        at_least: Least value.
        at_most: Greatest value.
        change_at_least: Least difference to the pushed version, where there is one.
    """

    metric: str
    slice: str = ""
    value: str = ""
    at_least: float | None = None
    at_most: float | None = None
    change_at_least: float | None = None

    def __post_init__(self):
        limits = (self.at_least, self.at_most, self.change_at_least)
        if self.metric not in METRICS:
            raise ConfigError(f"metric {self.metric!r}: one of {', '.join(METRICS)}")
        if self.slice and self.slice not in SLICES:
            raise ConfigError(f"slice {self.slice!r}: one of {', '.join(SLICES)}")
        if self.value and not self.slice:
            raise ConfigError(f"value {self.value!r} needs a slice that it is of")
        if self.slice and (self.metric == "band_share" or "f1" in self.metric):
            raise ConfigError(
                f"{self.metric} is of all songs: of the songs of a slice, one artist's "
                "say, take song_accuracy or frame_accuracy"
            )
        if sum(limit is not None for limit in limits) != 1:
            raise ConfigError(
                f"{self.metric}: give one of at_least, at_most and change_at_least"
            )
        [limit] = [limit for limit in limits if limit is not None]
        least = 0 if self.change_at_least is None else -1
        if not least <= limit <= 1:
            raise ConfigError(
                f"{self.metric}: {limit:g} is not in its range, {least} to 1"
            )
        if self.metric == "band_share" and self.change_at_least is not None:
            raise ConfigError("band_share has no change: give at_most")

    @property
    def limit(self):
        """Name and value of the limit that is given."""
        names = ("at_least", "at_most", "change_at_least")
        given = ((name, getattr(self, name)) for name in names)
        return next(each for each in given if each[1] is not None)

    def describe(self):
        """It in words, such as `frame_accuracy by artist, at least 0.1`."""
        where = f" by {self.slice}" if self.slice else ""
        where = f" of {self.slice} {self.value}" if self.value else where
        kind, limit = self.limit
        return f"{self.metric}{where}, {kind.replace('_', ' ')} {limit:g}"


@dataclasses.dataclass(frozen=True)
class Infra:
    """What a candidate may need where it is served.

    Attributes:
        memory_mb: Resident memory of a process that serves it, an hour of song
            included.
        seconds_per_hour: Time for an hour of song.
        first_answer_seconds: Time to load it and to answer the warm-up requests.
        tolerance: Greatest difference of a probability to the trainer's.
        songs: Test songs that are compared.
    """

    memory_mb: float = 4096.0
    seconds_per_hour: float = 600.0
    first_answer_seconds: float = 120.0
    tolerance: float = 1e-4
    songs: int = 20


@dataclasses.dataclass(frozen=True)
class Settings:
    """Of all stages.

    Attributes:
        schema: `Schema` of ExampleValidator.
        trials: Trainings of Tuner's search of the loss weights; 0 leaves it out.
        thresholds: Tuple of `Threshold` of Evaluator.
        may_drop: Artists that a candidate need not know any more.
        infra: `Infra` of InfraValidator.
        canary: Whether Pusher labels a version canary instead of stable.
        keep: Versions that Pusher keeps, or `None` for all.
    """

    schema: Schema = dataclasses.field(default_factory=Schema)
    trials: int = 0
    thresholds: tuple[Threshold, ...] = (
        Threshold("song_f1", at_least=0.3),
        Threshold("song_f1", change_at_least=-0.02),
        Threshold("frame_accuracy", slice="artist", at_least=0.1),
        Threshold("frame_accuracy", slice="artist", change_at_least=-0.25),
        Threshold("band_share", at_most=0.5),
    )
    may_drop: tuple[str, ...] = ()
    infra: Infra = dataclasses.field(default_factory=Infra)
    canary: bool = False
    keep: int | None = None

    @classmethod
    def from_dict(cls, raw):
        """Builds settings from a section of YAML; missing fields take defaults.

        Raises:
            ConfigError: Unknown or ill-typed fields.
        """
        raw, parts = dict(raw or {}), {}
        for name, kind in (("schema", Schema), ("infra", Infra)):
            if name in raw:
                parts[name] = section(f"pipeline.{name}", kind, raw.pop(name))
        listed = raw.pop("thresholds", None)
        if listed is not None:
            if not isinstance(listed, list):
                raise ConfigError("pipeline.thresholds: expected a list")
            parts["thresholds"] = tuple(
                section(f"pipeline.thresholds[{number}]", Threshold, each)
                for number, each in enumerate(listed)
            )
        return dataclasses.replace(section("pipeline", cls, raw), **parts)


def load(path):
    """Reads a configuration file with an optional section `pipeline`.

    Returns:
        `lca_keras.base.config.Config` and `Settings`.

    Raises:
        ConfigError: The file is missing, not YAML, or not valid.
    """
    with content(path) as raw:
        settings = Settings.from_dict(raw.pop("pipeline", None))
        return Config.from_dict(raw), settings
