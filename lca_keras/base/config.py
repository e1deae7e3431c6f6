"""Typed, validated, serialisable configuration of a training run.

A `Config` is a tree of frozen dataclasses that holds names and numbers only, so
that it travels as YAML: `runs/<name>/config.yaml` is one, and `--config` takes it
back. Presets are ordinary `Config` objects; `get_preset` returns one by name.
"""

import contextlib
import dataclasses
import hashlib
import json
import math
import pathlib
import typing

import yaml

from lca_keras.base import registry
from lca_keras.base.errors import UserError

# Raised when a field changes its meaning, so that an old file is not misread.
CONFIG_VERSION = 2

CLIP_SECONDS = (3, 5, 10)  # Those of the papers.
METHODS = ("none", "cal", "lca")
CLASS_WEIGHTS = ("none", "balanced")
OBJECTIVES = ("frame_f1", "song_f1")
# How a training is spread over devices or processes.
STRATEGIES = ("mirrored", "multiworker")

LEVELS = ("song", "none")
SOURCES = ("mixture", "vocals", "stems")
EFFECTS = ("probability", "logit", "product")
EMBEDDING_LOSSES = ("none", "supcon", "aam")
AUGMENTATIONS = ("remix", "specaugment")
MELODIES = ("none", "pyin", "crepe")


class ConfigError(UserError):
    """A configuration that cannot be used; the message says which field and why."""


def _require(condition, message):
    if not condition:
        raise ConfigError(message)


@dataclasses.dataclass(frozen=True)
class FeatureConfig:
    """What is heard of sound; `DESIGN.md` section 3 fixes the defaults.

    Attributes:
        front_end: Name of the front end, of `lca_keras.base.registry.FRONT_ENDS`; the
            sizes and frequencies below are those of `"mel"`.
        sample_rate: Samples per second after resampling, in Hz.
        n_fft: STFT window and FFT length, in samples.
        hop_length: Samples from one frame to the next.
        mel_bins: Number of Slaney-normalised mel bands.
        fmin: Lower edge of the first band, in Hz.
        fmax: Upper edge of the last band, in Hz.
        decibel: `"amplitude"` is the published chain, `20 log10` of the *power*
            spectrogram; `"power"` is the usual `10 log10`.
        top_db: Dynamic range kept below the song's maximum, in decibels.
        level: `"song"` brings each song to one level and takes a constant offset out of
            it, so features don't depend on how loud a file is; `"none"`, the published
            chain, keeps it as it is.
        source: What is heard, the whole `"mixture"` or the `"vocals"` alone;
            `"stems"` hears the mixture and keeps vocals and accompaniment beside it,
            which remixing and the voice report need.
        separator: What takes the vocals out of a mixture: `"umxl"`, `"umxhq"`, or
            `"local-"` and the hash of a folder of weights, as
            `lca_keras.audio.separation.separator_id` gives it. Empty for `"mixture"`.
        melody: Tracker of the melody contour, `"none"`, `"pyin"` or `"crepe"`. It
            follows the vocals where these are there, otherwise the mixture.
    """

    front_end: str = "mel"
    sample_rate: int = 16000
    n_fft: int = 2048
    hop_length: int = 512
    mel_bins: int = 128
    fmin: float = 0.0
    fmax: float = 8000.0
    decibel: str = "amplitude"
    top_db: float = 80.0
    level: str = "song"
    source: str = "mixture"
    separator: str = ""
    melody: str = "none"

    def __post_init__(self):
        _require(
            self.front_end in registry.FRONT_ENDS,
            f"features: front_end must be one of {', '.join(registry.FRONT_ENDS)}. "
            f"Received: front_end={self.front_end!r}",
        )
        _require(
            min(self.sample_rate, self.n_fft, self.hop_length, self.mel_bins) > 0,
            f"features: sizes must be positive. Received: {self}",
        )
        _require(
            0 <= self.fmin < self.fmax <= self.sample_rate / 2,
            "features: need 0 <= fmin < fmax <= sample_rate / 2. Received: "
            f"fmin={self.fmin}, fmax={self.fmax}, sample_rate={self.sample_rate}",
        )
        _require(
            self.decibel in ("amplitude", "power"),
            "features: decibel must be 'amplitude' or 'power'. "
            f"Received: decibel={self.decibel!r}",
        )
        _require(self.top_db > 0, f"features: top_db must be > 0: {self.top_db}")
        _require(
            self.level in LEVELS,
            f"features: level must be one of {', '.join(LEVELS)}. "
            f"Received: level={self.level!r}",
        )
        _require(
            self.source in SOURCES,
            f"features: source must be one of {', '.join(SOURCES)}. "
            f"Received: source={self.source!r}",
        )
        _require(
            bool(self.separator) == (self.source != "mixture"),
            "features: a separator goes with source 'vocals' or 'stems', and only "
            "with these. "
            f"Received: source={self.source!r}, separator={self.separator!r}",
        )
        _require(
            self.melody in MELODIES,
            f"features: melody must be one of {', '.join(MELODIES)}. "
            f"Received: melody={self.melody!r}",
        )

    @property
    def digest(self):
        """Short hash that names a feature configuration in stores and exports."""
        text = json.dumps(dataclasses.asdict(self), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]


@dataclasses.dataclass(frozen=True)
class AugmentConfig:
    """What happens to training clips; validation and test clips stay as they are.

    Attributes:
        kinds: `"remix"` adds a clip's vocals to the accompaniment of another clip
            (Hsieh et al., 2020), `"specaugment"` masks bands and frames (Park et al.,
            2019); remixing comes first.
        remix_share: Share of clips that are remixed, the rest stays as it was.
        remix_gain_db: The vocals' level is changed by a number drawn uniformly from
            plus or minus so many decibels.
        mask_bands: Widest mask over mel bands, in bands.
        mask_frames: Widest mask over frames, in frames.
    """

    kinds: tuple[str, ...] = ()
    remix_share: float = 0.8
    remix_gain_db: float = 6.0
    mask_bands: int = 20
    mask_frames: int = 20

    def __post_init__(self):
        _require(
            set(self.kinds) <= set(AUGMENTATIONS)
            and len(self.kinds) == len(set(self.kinds)),
            f"augment: kinds are of {', '.join(AUGMENTATIONS)}, each at most once. "
            f"Received: {list(self.kinds)}",
        )
        _require(
            0 <= self.remix_share <= 1,
            f"augment: remix_share must be in [0, 1]: {self.remix_share}",
        )
        _require(
            math.isfinite(self.remix_gain_db) and self.remix_gain_db >= 0,
            f"augment: remix_gain_db must be a number >= 0: {self.remix_gain_db}",
        )
        _require(
            min(self.mask_bands, self.mask_frames) >= 1,
            "augment: mask_bands and mask_frames must be >= 1: "
            f"{self.mask_bands}, {self.mask_frames}",
        )


@dataclasses.dataclass(frozen=True)
class SplitConfig:
    """How songs are divided into training, validation and test parts.

    Attributes:
        kind: `"album"` keeps every album in one part; `"song"` splits each artist's
            songs, whatever album they are on.
        file: Optional CSV (`artist, album, song, part`) that fixes the parts.
        validation_share: Share of each artist's albums (songs) for validation, at
            least one. `None` is one album, or a tenth of the songs.
        test_share: The same for test.
        folds: Number of folds of a cross-validation, or 0. Fold k tests on every k-th
            album (song) and validates on those of the next fold.
        fold: Which one, from 1.
    """

    kind: str = "album"
    file: str | None = None
    validation_share: float | None = None
    test_share: float | None = None
    folds: int = 0
    fold: int = 0

    def __post_init__(self):
        _require(
            self.kind in ("album", "song"),
            f"split: kind must be 'album' or 'song'. Received: kind={self.kind!r}",
        )
        shares = [self.validation_share or 0.0, self.test_share or 0.0]
        _require(
            min(shares) >= 0 and sum(shares) < 1,
            "split: the shares of validation and test must be >= 0 and leave something "
            f"to train on. Received: {shares}",
        )
        _require(
            self.folds == self.fold == 0 or (self.folds >= 3 and self.fold >= 1),
            "split: at least 3 folds, for training, validation and test, and the fold "
            f"counts from 1. Received: fold {self.fold} of {self.folds}",
        )
        _require(
            self.fold <= self.folds,
            f"split: there is no fold {self.fold} of {self.folds}",
        )
        ways = [self.file is not None, any(shares), self.folds > 0]
        _require(
            sum(ways) <= 1,
            "split: a file, shares and folds exclude each other. "
            f"Received: {dataclasses.asdict(self)}",
        )


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """The network; the defaults are the published CRNN_FGNL.

    Attributes:
        name: `"crnn"`, `"crnnm"` (which also takes the melody) or `"crnn_fgnl"`.
        filters: Channels of the four convolution blocks.
        reduction: Divides the last block's channels to give the attention's C'.
        gru_units: Width of both recurrent layers, the size of the embedding.
        normalize: Softmax axis of the non-local maps, `"keys"` or `"queries"`.
        block_dropout: Dropout rate after every convolution block.
        head_dropout: Dropout rate before the classifier (main branch).
    """

    name: str = "crnn_fgnl"
    filters: tuple[int, ...] = (64, 128, 128, 128)
    reduction: int = 32
    gru_units: int = 32
    normalize: str = "keys"
    block_dropout: float = 0.1
    head_dropout: float = 0.3

    def __post_init__(self):
        _require(
            self.name in registry.NETWORKS,
            f"model: name must be one of {', '.join(registry.NETWORKS)}. "
            f"Received: {self.name!r}",
        )
        _require(
            len(self.filters) == 4 and min(self.filters) > 0,
            f"model: filters must be four positive ints. Received: {self.filters}",
        )
        _require(
            self.normalize in ("keys", "queries"),
            f"model: normalize must be 'keys' or 'queries': {self.normalize!r}",
        )
        for field in ("block_dropout", "head_dropout"):
            rate = getattr(self, field)
            _require(0 <= rate < 1, f"model: {field} must be in [0, 1): {rate}")


@dataclasses.dataclass(frozen=True)
class LossWeights:
    """Weights of the six terms of the LCA loss (`DESIGN.md` section 5).

    Attributes:
        main: Cross-entropy of the main branch.
        effect: Cross-entropy of the effect, main minus counterfactual.
        cf: Cross-entropy of the counterfactual branch.
        ent_cf: Entropy of the counterfactual branch (maximised).
        att: Mean L1 distance between the two attentions (maximised).
        ent_main: Entropy of the main branch (maximised).
    """

    main: float = 1.0
    effect: float = 1.0
    cf: float = 0.6
    ent_cf: float = 0.5
    att: float = 0.5
    ent_main: float = 0.05

    def __post_init__(self):
        for name, value in dataclasses.asdict(self).items():
            _require(
                math.isfinite(value) and value >= 0,
                f"loss: {name} must be a finite number >= 0. Received: {value}",
            )


# Published for the same method on a frozen encoder (GTZAN); see DESIGN section 5
# for what they do to the probabilities.
LOSS_WEIGHTS = {
    "default": LossWeights(),
    "genremert": LossWeights(
        main=0.7, effect=1.0, cf=0.6, ent_cf=2.0, att=2.0, ent_main=1.5
    ),
}


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """Optimisation.

    Attributes:
        method: `"none"` trains the main branch alone, `"cal"` draws the
            counterfactual attention at random, `"lca"` learns it.
        epochs: Passes over the training clips, warm-up included.
        warmup_epochs: First epochs, in which only the main cross-entropy acts.
        batch_size: Clips a step.
        learning_rate: Of Adam, constant.
        clip_seconds: 3, 5 or 10.
        clip_overlap: Share of a training clip that the next one has too, below 1.
        class_weights: `"balanced"` weighs each artist's training clips by the inverse
            of their number, `"none"` all clips alike.
        cf_dropout: Dropout rate before the classifier, counterfactual branch.
        effect: Form of the effect term, of main and counterfactual branch: difference
            of probabilities (`"probability"`, published), difference of logits
            (`"logit"`) or product of experts (`"product"`); see
            `lca_keras.models.losses`.
        detach_counterfactual: Keep the counterfactual's predictions from training
            anything but its own attention.
        continue_from: Folder of an exported version, whose network the training begins
            with: its artists keep what the classifier has learned of them.
        embedding_loss: What shapes the embedding beside the classifier, in training
            only: supervised contrastive (`"supcon"`), additive angular margin
            (`"aam"`), or nothing; see `lca_keras.models.losses`.
        embedding_weight: Weight of that term. It acts in the warm-up too.
        objective: Validation score that decides the best epoch, weighted F1 over
            clips (`"frame_f1"`) or over songs (`"song_f1"`).
        precision: `"auto"`, `"float32"` or `"mixed_bfloat16"`.
        seed: Seed of the split, the initial weights, shuffling and dropout.
        deterministic: Ask TensorFlow for bit-identical repeats (slower).
    """

    method: str = "lca"
    epochs: int = 800
    warmup_epochs: int = 20
    batch_size: int = 16
    learning_rate: float = 1e-4
    clip_seconds: int = 5
    clip_overlap: float = 0.0
    class_weights: str = "none"
    cf_dropout: float = 0.6
    effect: str = "probability"
    detach_counterfactual: bool = False
    continue_from: str | None = None
    embedding_loss: str = "none"
    embedding_weight: float = 1.0
    objective: str = "frame_f1"
    precision: str = "auto"
    seed: int = 0
    deterministic: bool = False

    def __post_init__(self):
        _require(
            self.method in METHODS,
            f"train: method must be one of {', '.join(METHODS)}. "
            f"Received: {self.method!r}",
        )
        _require(self.epochs >= 1, f"train: epochs must be >= 1: {self.epochs}")
        _require(
            self.warmup_epochs >= 0,
            f"train: warmup_epochs must be >= 0: {self.warmup_epochs}",
        )
        _require(self.batch_size >= 1, f"train: batch_size: {self.batch_size}")
        _require(
            0 < self.learning_rate < 1,
            f"train: learning_rate must be in (0, 1): {self.learning_rate}",
        )
        _require(
            self.clip_seconds in CLIP_SECONDS,
            f"train: clip_seconds must be one of {list(CLIP_SECONDS)}. "
            f"Received: {self.clip_seconds}",
        )
        _require(
            0 <= self.clip_overlap <= 0.95,
            f"train: clip_overlap must be in [0, 0.95]: {self.clip_overlap}",
        )
        _require(
            self.class_weights in CLASS_WEIGHTS,
            f"train: class_weights must be one of {', '.join(CLASS_WEIGHTS)}. "
            f"Received: {self.class_weights!r}",
        )
        _require(0 <= self.cf_dropout < 1, f"train: cf_dropout: {self.cf_dropout}")
        _require(
            self.effect in EFFECTS,
            f"train: effect must be one of {', '.join(EFFECTS)}. "
            f"Received: {self.effect!r}",
        )
        _require(
            self.embedding_loss in EMBEDDING_LOSSES,
            f"train: embedding_loss must be one of {', '.join(EMBEDDING_LOSSES)}. "
            f"Received: {self.embedding_loss!r}",
        )
        _require(
            math.isfinite(self.embedding_weight) and self.embedding_weight > 0,
            f"train: embedding_weight must be > 0: {self.embedding_weight}",
        )
        _require(
            self.precision in ("auto", "float32", "mixed_bfloat16"),
            "train: precision must be auto, float32 or mixed_bfloat16. "
            f"Received: {self.precision!r}",
        )
        _require(0 <= self.seed < 2**31, f"train: seed must be >= 0: {self.seed}")
        _require(
            self.objective in OBJECTIVES,
            f"train: objective must be one of {', '.join(OBJECTIVES)}. "
            f"Received: {self.objective!r}",
        )


@dataclasses.dataclass(frozen=True)
class OpenSetConfig:
    """When a song is by nobody of the singers, and how well that is known.

    Attributes:
        false_alarm: Share of songs by known singers that the threshold rejects, fitted
            on validation songs.
        left_out: Share of the artists that a side training leaves out, to measure what
            the threshold makes of strangers; 0 for none. It takes a quarter of the
            epochs, but two after the warm-up at least.
    """

    false_alarm: float = 0.05
    left_out: float = 0.2

    def __post_init__(self):
        _require(
            0 < self.false_alarm < 0.5,
            f"open_set: false_alarm must be in (0, 0.5): {self.false_alarm}",
        )
        _require(
            0 <= self.left_out <= 0.5,
            f"open_set: left_out must be in [0, 0.5]: {self.left_out}",
        )


@dataclasses.dataclass(frozen=True)
class Config:
    """Everything that decides the result of a run, apart from the audio."""

    features: FeatureConfig = FeatureConfig()
    split: SplitConfig = SplitConfig()
    model: ModelConfig = ModelConfig()
    loss: LossWeights = LossWeights()
    train: TrainConfig = TrainConfig()
    augment: AugmentConfig = AugmentConfig()
    open_set: OpenSetConfig = OpenSetConfig()

    def __post_init__(self):
        _require(
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
                _require(
                    widest < size,
                    f"augment: {name} must be below {size}, a whole clip: {widest}",
                )
        _require(
            self.network.attention or self.train.method == "none",
            f"The {self.model.name!r} model has no attention to train against a "
            "counterfactual: use --method none with it, or --model crnn_fgnl.",
        )
        there = {stream.name for stream in front_end.streams}
        lacking = [name for name in self.streams if name not in there]
        _require(
            not lacking,
            f"The {self.model.name!r} model takes {', '.join(lacking)} beside what the "
            "features have: choose --melody pyin or crepe."
            if lacking == ["melody"]
            else f"The {self.model.name!r} model takes {', '.join(self.streams)}, and "
            f"the front end {self.features.front_end!r} gives "
            f"{', '.join(sorted(there))}.",
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
        of = registry.load("lca_keras.features.front_end:front_end_of")
        return of(self.features)

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
        """Returns a copy with fields of sections replaced.

        Args:
            **sections: For each section name, a dict of new field values. Values
                that are `None` are left as they are.
        """
        changes = {
            name: dataclasses.replace(
                getattr(self, name), **{k: v for k, v in new.items() if v is not None}
            )
            for name, new in sections.items()
        }
        return dataclasses.replace(self, **changes)

    def to_dict(self):
        """Returns plain dicts, lists and scalars, with the version."""
        sections = json.loads(json.dumps(dataclasses.asdict(self)))
        return {"version": CONFIG_VERSION, **sections}

    @classmethod
    def from_dict(cls, raw):
        """Builds a `Config` from `to_dict`'s form.

        Missing fields are those of the preset that an entry `preset` names, or the
        defaults, the paper's.

        Raises:
            ConfigError: Unknown or ill-typed fields, or another version.
        """
        _require(isinstance(raw, dict), "a config must be a mapping of sections")
        raw = dict(raw)
        version = raw.pop("version", None)
        if version == 1:  # Features had no `level`; they were as loud as their files.
            raw["features"] = {"level": "none", **(raw.get("features") or {})}
        _require(
            version in (1, CONFIG_VERSION),
            f"config version {version!r} is not {CONFIG_VERSION}, the version that "
            "this release reads. Write the fields you need into a new file "
            f"that begins with 'version: {CONFIG_VERSION}'.",
        )
        preset = raw.pop("preset", None)
        sections = {field.name: field.type for field in dataclasses.fields(cls)}
        unknown, known = sorted(set(raw) - set(sections)), ", ".join(sections)
        _require(
            not unknown,
            f"unknown sections {unknown}; known: version, preset, {known}, and for "
            "pipelines.run also pipeline",
        )
        if preset is not None:
            for name, values in get_preset(str(preset)).to_dict().items():
                own = raw.get(name, {})
                if name in sections and isinstance(own, dict):
                    raw[name] = {**values, **own}
        return cls(**{name: section(name, sections[name], raw[name]) for name in raw})

    def save(self, path):
        """Writes YAML that `load` and `--config` read back."""
        text = yaml.safe_dump(self.to_dict(), sort_keys=False)
        pathlib.Path(path).write_text(text, encoding="utf-8")

    @classmethod
    def load(cls, path):
        """Reads a YAML file.

        Raises:
            ConfigError: The file is missing, not YAML, or not a valid config.
        """
        with content(path) as raw:
            return cls.from_dict(raw)


@contextlib.contextmanager
def content(path):
    """Gives the sections of a YAML file, a dict; names the file in what goes wrong.

    Raises:
        ConfigError: The file is missing or not YAML, or sections were not valid.
    """
    try:
        raw = yaml.safe_load(pathlib.Path(path).read_text(encoding="utf-8"))
        _require(isinstance(raw, dict), "a config must be a mapping of sections")
        yield raw
    except OSError as error:
        raise ConfigError(f"cannot read config {path}: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"config {path} is not YAML: {error}") from error
    except ConfigError as error:
        raise ConfigError(f"config {path}: {error}") from error


def section(name, section_type, raw):
    """Builds one section, a dataclass, checking names and types of its fields.

    Raises:
        ConfigError: Unknown or ill-typed fields.
    """
    _require(isinstance(raw, dict), f"{name}: expected a mapping, received {raw!r}")
    types = {field.name: field.type for field in dataclasses.fields(section_type)}
    unknown = sorted(set(raw) - set(types))
    _require(not unknown, f"{name}: unknown fields {unknown}; known: {list(types)}")
    needed = [
        field.name
        for field in dataclasses.fields(section_type)
        if field.default is field.default_factory is dataclasses.MISSING
    ]
    missing = sorted(set(needed) - set(raw))
    _require(not missing, f"{name}: {', '.join(missing)} is needed")
    return section_type(
        **{key: _typed(f"{name}.{key}", types[key], raw[key]) for key in raw}
    )


def _typed(where, expected, value):
    """Returns `value` as the annotated type, or raises naming the field."""
    if typing.get_origin(expected) is tuple:
        kind = typing.get_args(expected)[0]
        _require(
            isinstance(value, list | tuple) and all(type(v) is kind for v in value),
            f"{where}: expected a list of {kind.__name__}s, received {value!r}",
        )
        return tuple(value)
    if type(value) is int and float in (expected, *typing.get_args(expected)):
        value = float(value)
    # To Python a bool is an int.
    fits = isinstance(value, expected) and isinstance(value, bool) <= (expected is bool)
    _require(
        fits,
        f"{where}: expected {getattr(expected, '__name__', expected)}, "
        f"received {value!r}",
    )
    return value


_PRESETS = {
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
PRESETS = tuple(_PRESETS)


def get_preset(name):
    """Returns the preset of a name in `PRESETS`."""
    _require(name in _PRESETS, f"unknown preset {name!r}; known: {list(PRESETS)}")
    return _PRESETS[name]
