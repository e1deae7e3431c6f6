"""Configuration of a run: frozen dataclasses of names and numbers, kept as YAML."""

import dataclasses
import json

import yaml

from lca_keras.base import files, registry
from lca_keras.base.fields import ConfigError, build, require
from lca_keras.base.sections import (
    AugmentConfig,
    FeatureConfig,
    GalleryConfig,
    LossWeights,
    ModelConfig,
    SplitConfig,
    TrainConfig,
)

# Raised when a field changes its meaning, so that an old file is not misread.
CONFIG_VERSION = 2


@dataclasses.dataclass(frozen=True)
class Config:
    """Everything that decides the result of a run, apart from the audio."""

    features: FeatureConfig = dataclasses.field(default_factory=FeatureConfig)
    split: SplitConfig = dataclasses.field(default_factory=SplitConfig)
    model: ModelConfig = dataclasses.field(default_factory=ModelConfig)
    loss: LossWeights = dataclasses.field(default_factory=LossWeights)
    train: TrainConfig = dataclasses.field(default_factory=TrainConfig)
    augment: AugmentConfig = dataclasses.field(default_factory=AugmentConfig)
    gallery: GalleryConfig = dataclasses.field(default_factory=GalleryConfig)

    def __post_init__(self):
        require(
            "remix" not in self.augment.kinds or self.features.source == "stems",
            "remixing needs the stems of every song, and the features are of source "
            f"{self.features.source!r}: use --source stems (a separator makes them, or "
            "the manifest's vocals_path), or --augment none.",
        )
        front_end = self.front_end
        if self.features.source == "stems":
            front_end.require_mixing("--source stems")
        if "specaugment" in self.augment.kinds:
            front_end.require_frequencies("--augment specaugment")
            bands, frames = front_end.clip_shape(self.streams[0], self.clip_frames)[:2]
            for name, size in (("mask_bands", bands), ("mask_frames", frames)):
                widest = getattr(self.augment, name)
                require(
                    widest < size,
                    f"augment: {name} must be below {size}, a whole clip: {widest}",
                )
        require(
            self.network.attention or self.train.method == "none",
            f"The {self.model.name!r} model has no attention to train against a "
            "counterfactual: use --method none with it, or --model crnn_fgnl.",
        )
        there = {stream.name for stream in front_end.streams}
        lacking = [name for name in self.streams if name not in there]
        require(
            not lacking,
            f"The {self.model.name!r} model takes {', '.join(lacking)} beside what the "
            "features have: choose --melody pyin or crepe."
            if lacking == ["melody"]
            else f"The {self.model.name!r} model takes {', '.join(self.streams)}, and "
            f"the front end {self.features.front_end!r} gives "
            f"{', '.join(sorted(there))}.",
        )
        frames, least = self.clip_frames, self.network.least_frames
        require(
            frames >= least,
            f"a clip of {self.train.clip_seconds} s has {frames} frames at "
            f"{front_end.frame_rate:g} a second; {self.model.name!r} needs {least}",
        )

    @property
    def network(self):
        """The `lca_keras.base.registry.Network` that is trained."""
        return registry.NETWORKS[self.model.name]

    @property
    def streams(self):
        """Names of the front end's streams that the network takes."""
        return self.network.streams

    @property
    def front_end(self):
        """The `lca_keras.features.front_end.FrontEnd` of the features."""
        return registry.load("lca_keras.features.front_end:front_end_of")(self.features)

    @property
    def clip_frames(self):
        """Frames of a clip, those of the front end's first stream."""
        return self.front_end.clip_frames(self.train.clip_seconds)

    @property
    def clip_shapes(self):
        """Dict from each stream that the network takes to the shape of a clip."""
        shape, frames = self.front_end.clip_shape, self.clip_frames
        return {name: shape(name, frames) for name in self.streams}

    @property
    def hop_frames(self):
        """Frames from the beginning of a training clip to that of the next."""
        return max(1, round(self.clip_frames * (1 - self.train.clip_overlap)))

    @property
    def least_seconds(self):
        """Length of the shortest song that has a clip."""
        front_end = self.front_end
        return front_end.clip_samples(self.clip_frames) / front_end.sample_rate

    @property
    def side_epochs(self):
        """Epochs of the side training that leaves artists out."""
        train = self.train
        return min(train.epochs, max(train.warmup_epochs + 2, train.epochs // 4))

    @property
    def served_features(self):
        """`FeatureConfig` of what a trained model is given, to name a singer.

        Less than what it was trained with: stems are for training, and a melody is
        only for the model that takes one.
        """
        features = self.features
        if "melody" in self.streams:
            return features
        features = dataclasses.replace(features, melody="none")
        if features.source == "stems":
            features = dataclasses.replace(features, source="mixture", separator="")
        return features

    def replace(self, **sections):
        """A copy with other fields, a dict by section; `None` leaves one as it is."""
        changes = {
            name: dataclasses.replace(
                getattr(self, name), **{k: v for k, v in new.items() if v is not None}
            )
            for name, new in sections.items()
        }
        return dataclasses.replace(self, **changes)

    def to_dict(self):
        """Plain dicts, lists and scalars, with the version."""
        sections = json.loads(json.dumps(dataclasses.asdict(self)))
        return {"version": CONFIG_VERSION, **sections}

    @classmethod
    def from_dict(cls, raw):
        """Builds a `Config` from `to_dict`'s form.

        Missing fields are those of the preset that an entry `preset` names, or the
        defaults, the paper's. Raises a `ConfigError`: unknown or ill-typed fields, or
        another version.
        """
        require(isinstance(raw, dict), "a config must be a mapping of sections")
        raw = dict(raw)
        version = raw.pop("version", None)
        require(
            version == CONFIG_VERSION,
            f"config version {version!r} is not {CONFIG_VERSION}, the version that "
            "this release reads. Write the fields you need into a new file "
            f"that begins with 'version: {CONFIG_VERSION}'.",
        )
        preset = raw.pop("preset", None)
        sections = {field.name: field.type for field in dataclasses.fields(cls)}
        unknown, known = sorted(set(raw) - set(sections), key=str), ", ".join(sections)
        require(
            not unknown,
            f"unknown sections {unknown}; known: version, preset, {known}, and for "
            "pipelines.run also pipeline",
        )
        if preset is not None:
            for name, values in get_preset(str(preset)).to_dict().items():
                own = raw.get(name, {})
                if name in sections and isinstance(own, dict):
                    raw[name] = {**values, **own}
        return cls(**{name: build(name, sections[name], raw[name]) for name in raw})

    def save(self, path):
        """Writes YAML that `load` and `--config` read back."""
        text = yaml.safe_dump(self.to_dict(), sort_keys=False)
        with files.atomic_path(path) as temporary:
            temporary.write_text(text, encoding="utf-8")

    @classmethod
    def load(cls, path):
        """Reads a YAML file; a `ConfigError` names it."""
        with files.yaml_content(path, "config", ConfigError) as raw:
            return cls.from_dict(raw)


def field_of(name):
    """The dataclass field of a name such as `train.epochs`."""
    section, key = name.split(".")
    return type(getattr(Config(), section)).__dataclass_fields__[key]


PRESETS = {
    "paper": Config(),
    # The same, with voices laid over other songs' bands in training.
    "voice": Config(
        features=FeatureConfig(source="stems", separator="umxl"),
        augment=AugmentConfig(kinds=("remix",)),
    ),
    # A narrower network (C' stays 4) that trains in minutes on two CPU cores.
    "demo": Config(
        model=ModelConfig(filters=(16, 32, 32, 32), reduction=8),
        train=TrainConfig(
            epochs=20, warmup_epochs=6, learning_rate=1e-3, clip_seconds=3
        ),
    ),
}


def get_preset(name):
    """The `Config` of a name in `PRESETS`."""
    require(name in PRESETS, f"unknown preset {name!r}; known: {list(PRESETS)}")
    return PRESETS[name]
