"""The sections of a configuration: fields with their limits, choices and help."""

import dataclasses
import hashlib
import json

from lca_keras.base import registry
from lca_keras.base.fields import Section, field, require

CLIP_SECONDS = (3, 5, 10)  # Those of the papers.
METHODS = ("none", "cal", "lca")
OBJECTIVES = ("frame_f1", "song_f1")
# How a training is spread over devices or processes.
STRATEGIES = ("mirrored", "multiworker")
EFFECTS = ("probability", "logit", "product")
EMBEDDING_LOSSES = ("none", "supcon", "aam")
AUGMENTATIONS = ("remix", "specaugment")


@dataclasses.dataclass(frozen=True)
class FeatureConfig(Section, name="features"):
    """What is heard of sound; the defaults are those of the published SID code."""

    front_end: str = field(
        "mel", "from samples to what is heard", choices=registry.FRONT_ENDS
    )
    # Sizes and frequencies are those of the front end `mel`.
    sample_rate: int = field(16000, "samples per second after resampling, Hz", least=1)
    n_fft: int = field(2048, "STFT window and FFT length, in samples", least=1)
    hop_length: int = field(512, "samples from one frame to the next", least=1)
    mel_bins: int = field(128, "number of Slaney-normalised mel bands", least=1)
    fmin: float = field(0.0, "lower edge of the first band, in Hz", least=0)
    fmax: float = field(8000.0, "upper edge of the last band, in Hz")
    decibel: str = field(
        "amplitude",
        "amplitude: the published chain, 20 log10 of the power spectrogram; power: the "
        "usual 10 log10",
        choices=("amplitude", "power"),
    )
    top_db: float = field(80.0, "dynamic range below a song's maximum, dB", above=0)
    level: str = field(
        "song",
        "song: all songs are brought to one level, and lose a constant offset; none: "
        "as loud as their files, as published",
        choices=("song", "none"),
    )
    source: str = field(
        "mixture",
        "what is heard: the whole mixture, or the vocals alone; stems hears the "
        "mixture and keeps vocals and accompaniment, for remixing and voice reports",
        choices=("mixture", "vocals", "stems"),
    )
    # `local-` and a hash for a folder, from `lca_keras.audio.separation.separator_id`.
    separator: str = field("", "umxl, umxhq or local-HASH; empty for source mixture")
    melody: str = field(
        "none",
        "tracker of the melody; it follows the vocals where these are there",
        choices=("none", "pyin", "crepe"),
    )

    def __post_init__(self):
        super().__post_init__()
        require(
            self.fmin < self.fmax <= self.sample_rate / 2,
            "features: need 0 <= fmin < fmax <= sample_rate / 2. Received: "
            f"fmin={self.fmin}, fmax={self.fmax}, sample_rate={self.sample_rate}",
        )
        require(
            bool(self.separator) == (self.source != "mixture"),
            "features: a separator goes with source 'vocals' or 'stems', and only "
            "with these. "
            f"Received: source={self.source!r}, separator={self.separator!r}",
        )

    @property
    def digest(self):
        """Short hash that names a feature configuration in stores and exports."""
        text = json.dumps(dataclasses.asdict(self), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]


@dataclasses.dataclass(frozen=True)
class AugmentConfig(Section, name="augment"):
    """What happens to training clips; validation and test clips stay as they are."""

    # Hsieh et al., 2020; Park et al., 2019. Remixing comes first.
    kinds: tuple[str, ...] = field(
        (),
        "of training clips: remix (voices over other bands; needs --source stems), "
        "specaugment (masks), both, or none",
        option="augment",
        choices=AUGMENTATIONS,
        distinct=True,
    )
    remix_share: float = field(0.8, "of clips that are remixed", least=0, most=1)
    remix_gain_db: float = field(
        6.0, "the voice's level changes by up to so much, either way", least=0
    )
    mask_bands: int = field(20, "widest mask over mel bands, in bands", least=1)
    mask_frames: int = field(20, "widest mask over frames, in frames", least=1)


@dataclasses.dataclass(frozen=True)
class SplitConfig(Section, name="split"):
    """How songs are divided into training, validation and test parts.

    Fold k of a cross-validation tests on every k-th album (song) of an artist, and
    validates on those of the next fold.
    """

    kind: str = field(
        "album",
        "what is held out: whole albums, or each artist's songs on any album",
        option="split",
        choices=("album", "song"),
    )
    file: str | None = field(
        None, "CSV that fixes the parts: artist, album, song, part", option="split-file"
    )
    validation_share: float | None = field(
        None,
        "of each artist's albums (songs), at least one; without, one album, or a "
        "tenth of the songs",
        least=0,
    )
    test_share: float | None = field(None, "the same for test", least=0)
    folds: int = field(0, "folds of a cross-validation, or 0", least=0)
    fold: int = field(0, "which one, from 1", least=0)

    def __post_init__(self):
        super().__post_init__()
        shares = [self.validation_share or 0.0, self.test_share or 0.0]
        require(
            sum(shares) < 1,
            "split: the shares of validation and test must leave something to train "
            f"on. Received: {shares}",
        )
        require(
            self.folds == self.fold == 0 or (self.folds >= 3 and self.fold >= 1),
            "split: at least 3 folds, for training, validation and test, and the fold "
            f"counts from 1. Received: fold {self.fold} of {self.folds}",
        )
        require(
            self.fold <= self.folds,
            f"split: there is no fold {self.fold} of {self.folds}",
        )
        ways = [self.file is not None, any(shares), self.folds > 0]
        require(
            sum(ways) <= 1,
            "split: a file, shares and folds exclude each other. "
            f"Received: {dataclasses.asdict(self)}",
        )


@dataclasses.dataclass(frozen=True)
class ModelConfig(Section, name="model"):
    """The network; the defaults are the published CRNN_FGNL."""

    name: str = field(
        "crnn_fgnl",
        "crnnm takes the melody too",
        option="model",
        choices=registry.NETWORKS,
    )
    filters: tuple[int, ...] = field(
        (64, 128, 128, 128), "channels of the convolution blocks", count=4, least=1
    )
    reduction: int = field(
        32, "divides the last block's channels to give the attention's C'", least=1
    )
    gru_units: int = field(
        32, "width of both recurrent layers, the size of the embedding", least=1
    )
    normalize: str = field(
        "keys", "softmax axis of the non-local maps", choices=("keys", "queries")
    )
    block_dropout: float = field(
        0.1, "dropout rate after every convolution block", least=0, below=1
    )
    head_dropout: float = field(
        0.3, "dropout rate before the classifier (main branch)", least=0, below=1
    )


@dataclasses.dataclass(frozen=True)
class LossWeights(Section, name="loss"):
    """Weights of the six terms of the LCA loss, `lca_keras.models.losses`."""

    main: float = field(1.0, "cross-entropy of the main branch", least=0)
    effect: float = field(
        1.0, "cross-entropy of the effect, main minus counterfactual", least=0
    )
    cf: float = field(0.6, "cross-entropy of the counterfactual branch", least=0)
    ent_cf: float = field(
        0.5, "entropy of the counterfactual branch (maximised)", least=0
    )
    att: float = field(
        0.5, "mean L1 distance between the two attentions (maximised)", least=0
    )
    ent_main: float = field(0.05, "entropy of the main branch (maximised)", least=0)


# Published for the same method on a frozen encoder (GTZAN). An `ent_main` above `main`
# prefers flat probabilities: classes rank well, and how sure they are means little.
LOSS_WEIGHTS = {
    "default": LossWeights(),
    "genremert": LossWeights(
        main=0.7, effect=1.0, cf=0.6, ent_cf=2.0, att=2.0, ent_main=1.5
    ),
}


@dataclasses.dataclass(frozen=True)
class TrainConfig(Section, name="train"):
    """Optimisation; `lca_keras.models.losses` has the effect and embedding losses."""

    method: str = field(
        "lca",
        "none: the main branch alone; cal: the counterfactual attention is drawn at "
        "random; lca: it is learned",
        choices=METHODS,
    )
    epochs: int = field(800, "passes over the clips, warm-up included", least=1)
    warmup_epochs: int = field(
        20, "first epochs, in which only the main cross-entropy acts", least=0
    )
    batch_size: int = field(16, "clips a step", least=1)
    learning_rate: float = field(1e-4, "of Adam, constant", above=0, below=1)
    clip_seconds: int = field(5, "length of a clip, in seconds", choices=CLIP_SECONDS)
    clip_overlap: float = field(
        0.0, "share of a training clip that the next has too", least=0, most=0.95
    )
    class_weights: str = field(
        "none",
        "balanced: training clips weigh by the inverse of their artist's number of "
        "them; none: all alike",
        choices=("none", "balanced"),
    )
    cf_dropout: float = field(
        0.6, "dropout rate before the counterfactual's classifier", least=0, below=1
    )
    effect: str = field(
        "probability",
        "effect of main over counterfactual branch: difference of probabilities (as "
        "published) or of logits, or product of experts",
        choices=EFFECTS,
    )
    detach_counterfactual: bool = field(
        False, "the counterfactual trains its own attention only"
    )
    # Its artists keep what the classifier has learned of them.
    continue_from: str | None = field(
        None, "folder of an exported version, whose network the training begins with"
    )
    embedding_loss: str = field(
        "none",
        "what shapes the embedding in training beside the classifier: supervised "
        "contrastive, additive angular margin",
        choices=EMBEDDING_LOSSES,
    )
    embedding_weight: float = field(1.0, "of that, in the warm-up too", above=0)
    objective: str = field(
        "frame_f1",
        "validation score that decides the best epoch: weighted F1 over clips or songs",
        choices=OBJECTIVES,
    )
    precision: str = field(
        "auto",
        "auto: bfloat16 where the processor multiplies it",
        choices=("auto", "float32", "mixed_bfloat16"),
    )
    seed: int = field(
        0, "of split, initial weights, shuffling and dropout", least=0, below=2**31
    )
    deterministic: bool = field(False, "bit-identical repeats (slower)")


@dataclasses.dataclass(frozen=True)
class GalleryConfig(Section, name="gallery"):
    """When a song is by nobody of the singers, and how well that is known."""

    # Fitted on validation songs.
    false_alarm: float = field(
        0.05,
        "share of the singers' songs that may be called unknown",
        above=0,
        below=0.5,
    )
    left_out: float = field(
        0.2,
        "share of the artists, whom a side training leaves out, to measure what the "
        "threshold makes of strangers; 0: none",
        least=0,
        most=0.5,
    )
