"""Settings of a pipeline: the section `pipeline` of its configuration file."""

import dataclasses

from lca_keras.base import files
from lca_keras.base.config import Config
from lca_keras.base.fields import ConfigError, Section, build, field
from pipelines.statistics import Schema

LEVELS = ("song", "frame")
_SCORES = ("f1", "f1_macro", "accuracy")
METRICS = (*(f"{level}_{score}" for level in LEVELS for score in _SCORES), "band_share")
SLICES = ("artist", "album", "clip_seconds", "origin", "heard")


@dataclasses.dataclass(frozen=True)
class Threshold(Section, name="pipeline.thresholds"):
    """What a candidate has to reach to be blessed, on all test songs or by slice.

    `band_share` is of songs put together from two artists: those named after the band.
    """

    metric: str = field(choices=METRICS)
    slice: str = field("", "every slice of this kind has to reach it", choices=SLICES)
    value: str = field("", "one slice of it alone")
    at_least: float | None = field(None, "least value", least=0, most=1)
    at_most: float | None = field(None, "greatest value", least=0, most=1)
    change_at_least: float | None = field(
        None, "least difference to the pushed version, if any", least=-1, most=1
    )

    def __post_init__(self):
        super().__post_init__()
        if self.value and not self.slice:
            raise ConfigError(f"value {self.value!r} needs a slice that it is of")
        if self.slice and (self.metric == "band_share" or "f1" in self.metric):
            raise ConfigError(
                f"{self.metric} is of all songs: of the songs of a slice, one artist's "
                "say, take song_accuracy or frame_accuracy"
            )
        if len(self.limits) != 1:
            raise ConfigError(
                f"{self.metric}: give one of at_least, at_most and change_at_least"
            )
        if self.metric == "band_share" and self.change_at_least is not None:
            raise ConfigError("band_share has no change: give at_most")

    @property
    def limits(self):
        """Names and values of the limits that are given: one."""
        names = ("at_least", "at_most", "change_at_least")
        given = [(name, getattr(self, name)) for name in names]
        return [each for each in given if each[1] is not None]

    def describe(self):
        """It in words, such as `frame_accuracy by artist, at least 0.1`."""
        where = f" by {self.slice}" if self.slice else ""
        where = f" of {self.slice} {self.value}" if self.value else where
        [(kind, limit)] = self.limits
        return f"{self.metric}{where}, {kind.replace('_', ' ')} {limit:g}"


@dataclasses.dataclass(frozen=True)
class Infra(Section, name="pipeline.infra"):
    """What a candidate may need where it is served."""

    memory_mb: float = field(4096.0, "of its process, with an hour of song", above=0)
    seconds_per_hour: float = field(600.0, "time for an hour of song", above=0)
    first_answer_seconds: float = field(120.0, "to load it and warm it up", above=0)
    tolerance: float = field(1e-4, "of probabilities, to the trainer's", least=0)
    songs: int = field(20, "validation songs that are compared", least=1)


@dataclasses.dataclass(frozen=True)
class Settings(Section, name="pipeline"):
    """Of all stages."""

    schema: Schema = dataclasses.field(default_factory=Schema)  # Of ExampleValidator.
    trials: int = field(0, "trainings of Tuner's search; 0 leaves it out", least=0)
    thresholds: tuple[Threshold, ...] = (  # Of Evaluator.
        Threshold("song_f1", at_least=0.3),
        Threshold("song_f1", change_at_least=-0.02),
        Threshold("frame_accuracy", slice="artist", at_least=0.1),
        Threshold("frame_accuracy", slice="artist", change_at_least=-0.25),
        Threshold("band_share", at_most=0.5),
    )
    may_drop: tuple[str, ...] = field((), "artists whom a candidate need not know")
    infra: Infra = Infra()  # Of InfraValidator.
    canary: bool = field(False, "whether Pusher labels a version canary, not stable")
    keep: int | None = field(None, "versions that Pusher keeps; null: all", least=1)


def load(path):
    """The `Config` and the `Settings`, section `pipeline`, of a configuration file."""
    with files.yaml_content(path, "config", ConfigError) as raw:
        settings = build("pipeline", Settings, raw.pop("pipeline", None) or {})
        return Config.from_dict(raw), settings
