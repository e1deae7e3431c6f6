"""Nobody of these, no voice, somebody new: what is decided beside the vote.

A network names one of its singers for anything. What it makes of a clip on the way, the
voiceprint, tells more: songs of a singer have similar ones. A `Gallery` keeps a mean
voiceprint of each singer, and the similarity below which a song is by nobody of these.
Singers can be added to it without training.
"""

import base64
import dataclasses

import numpy as np

from lca_keras.base import metrics
from lca_keras.base.errors import UserError
from lca_keras.voices.detector import VOICED, VoiceDetector

# What a song's status says beside why it cannot be judged.
OK = "ok"
UNKNOWN = "unknown"
NO_VOICE = "no voice"
# Length of a vector that has no direction.
TINY = np.float32(1e-12)
# Directions in which voiceprints are compared, if they have so many.
_COMPONENTS = 96


@dataclasses.dataclass(frozen=True)
class Gallery:
    """The singers of a model by their voiceprints; arrays are float32."""

    center: np.ndarray  # `(size,)`, the mean voiceprint of all training clips.
    # `(size, directions)`: to where a singer's songs differ alike in all directions.
    projection: np.ndarray
    # `(singers, directions)` of unit length, of the singers' mean voiceprints: the
    # network's artists in class order, then those enrolled.
    means: np.ndarray
    scale: float  # What similarities are multiplied with to be logits.
    # Similarity of a song's mean voiceprint to that of its nearest singer below which
    # it is by nobody of these.
    threshold: float
    clip_threshold: float  # The same of a single clip, for timelines,
    clip_width: float  # and the standard deviation of that similarity.
    false_alarm: float  # Share of known singers' songs that is to be rejected.
    enrolled: tuple[str, ...] = ()
    detector: VoiceDetector | None = None  # Without, every clip has a voice.

    @property
    def known(self):
        """Number of singers that the network was trained on."""
        return len(self.means) - len(self.enrolled)

    def directions(self, voiceprints):
        """Unit vectors from the center, projected; of the center itself, zero."""
        moved = (np.asarray(voiceprints, "float32") - self.center) @ self.projection
        length = np.linalg.norm(moved, axis=-1, keepdims=True)
        return moved / np.maximum(length, TINY)

    def similarities(self, voiceprints):
        """Cosines to each singer, `(…, singers)`, of voiceprints `(…, size)`."""
        return self.directions(voiceprints) @ self.means.T

    def probabilities(self, probabilities, voiceprints):
        """Those of all singers `(clips, singers)`, from the network's `(clips, known)`.

        Of those enrolled, the softmax of their similarities among all singers'; the
        network's own share the rest as the network says.
        """
        if not self.enrolled:
            return probabilities
        shares = metrics.softmax(self.scale * self.similarities(voiceprints))
        new = shares[:, self.known :].astype("float32")
        rest = 1 - new.sum(axis=1, keepdims=True)
        return np.concatenate([rest * probabilities, new], axis=1)

    def judge(self, probabilities, voiceprints, voice):
        """The `Verdict` on a song.

        Clips without voice have no say. The song's voiceprint is the mean of the
        others'. If its nearest singer is too far, the song is by nobody of these. It is
        by somebody enrolled if that one's mean probability is the highest; else the
        clips vote among the network's own.

        Args:
            probabilities: Array `(clips, known)`, the network's.
            voiceprints: Array `(clips, size)`.
            voice: Array `(clips,)`, probabilities of singing.
        """
        voiced = np.asarray(voice) >= VOICED
        clips = self.probabilities(probabilities, voiceprints)
        if not voiced.any():
            means = np.zeros(len(self.means), "float32")
            return Verdict(NO_VOICE, None, None, 0.0, means, clips, voiced)
        near = self.similarities(voiceprints[voiced].mean(axis=0))
        nearest = int(near.argmax())
        status = OK if near[nearest] >= self.threshold else UNKNOWN
        means = clips[voiced].mean(axis=0)
        singer = int(means.argmax())
        if singer < self.known:
            singer = metrics.vote(np.asarray(probabilities)[voiced])
        return Verdict(
            status, singer, nearest, float(near[nearest]), means, clips, voiced
        )

    def with_singer(self, name, voiceprints):
        """The gallery with somebody more, by each song's mean voiceprint."""
        direction = self.directions(np.mean(voiceprints, axis=0))
        return dataclasses.replace(
            self,
            means=np.concatenate([self.means, direction[None]]),
            enrolled=(*self.enrolled, name),
        )

    def without_singer(self, name):
        """The gallery without somebody who is enrolled."""
        place = self.known + self.enrolled.index(name)
        return dataclasses.replace(
            self,
            means=np.delete(self.means, place, axis=0),
            enrolled=tuple(other for other in self.enrolled if other != name),
        )

    def to_dict(self):
        """Plain values for JSON, which `from_dict` reads back to the bit."""
        raw = dataclasses.asdict(self)
        for name in ("center", "projection", "means"):
            raw[name] = _encoded(raw[name])
        raw["enrolled"] = list(self.enrolled)
        if self.detector is not None:
            raw["detector"]["weights"] = _encoded(self.detector.weights)
        return raw

    @classmethod
    def from_dict(cls, raw):
        """Reads what `to_dict` has written; anything else is a `ValueError`."""
        try:
            raw = dict(raw)
            for name in ("center", "projection", "means"):
                raw[name] = _decoded(raw[name])
            raw["enrolled"] = tuple(raw["enrolled"])
            if raw["detector"] is not None:
                detector = dict(raw["detector"])
                detector["weights"] = _decoded(detector["weights"])
                raw["detector"] = VoiceDetector(**detector)
            return cls(**raw)
        except (TypeError, KeyError) as error:
            raise ValueError(f"its gallery cannot be read: {error!r}") from error


def judge_closed_set(answers, gallery=None):
    """The `Verdict` on a song that one of the singers sings for certain.

    Every clip counts as one with voice. `answers` is a dict of arrays, `probabilities`
    `(clips, known)` and, with a gallery, `voiceprint` `(clips, size)`.
    """
    clips = answers["probabilities"]
    voiced = np.ones(len(clips), bool)
    if gallery is None:
        means, singer = clips.mean(axis=0), metrics.vote(clips)
        return Verdict(OK, singer, None, 0.0, means, clips, voiced)
    certain = dataclasses.replace(gallery, threshold=-1.0)
    return certain.judge(clips, answers["voiceprint"], voiced)


def gallery_of(identifier):
    """The gallery of an `Identifier`; a `UserError` if it has none."""
    if identifier.gallery is None:
        raise UserError(
            "this model has no voiceprints: `fit` could not set up a gallery, and said "
            "why. Train it again, with more songs"
        )
    return identifier.gallery


@dataclasses.dataclass(frozen=True)
class Verdict:
    """What is decided about a song; singers are indices, `None` without voice."""

    status: str  # `OK`, `UNKNOWN` or `NO_VOICE`.
    singer: int | None  # Whoever it would be, of a song that is unknown.
    nearest: int | None  # Whose voiceprint is the most similar,
    score: float  # and how much.
    probabilities: np.ndarray  # `(singers,)`, means over the clips with voice.
    clips: np.ndarray  # `(clips, singers)`, probabilities.
    voiced: np.ndarray  # Bool `(clips,)`.


# === Fitted ===


def fit_gallery(train, validation, songs, false_alarm, detector=None):
    """Sets up a gallery from training clips, and what it rejects by validation songs.

    Similarities are cosines once songs of a singer vary alike in all directions: by
    their covariance (Ledoit and Wolf's estimate) within the singers of the validation
    part, whose songs the network was not trained on, in the space of the first
    principal components of training clips. Thresholds are those of songs that were left
    out of the covariance, in five folds.

    Args:
        train: Tuple of voiceprints `(clips, size)` and labels `(clips,)`, each class
            at least once.
        validation: The same of validation clips.
        songs: List of int arrays, each song's validation clips, those with voice.
        false_alarm: Share of songs to be rejected.

    Returns:
        `Gallery`, and the similarities to the nearest singer, of songs and of clips
        that were left out of the covariance: two arrays, `(songs,)` and `(clips,)`.

    References:
        - Hatch et al., 2006 (within-class covariance normalisation)
    """
    from sklearn.decomposition import PCA
    from sklearn.model_selection import KFold

    voiceprints, labels = train
    center = voiceprints.mean(axis=0, dtype="float64").astype("float32")
    spread = voiceprints.std(axis=0, dtype="float64").clip(1e-6)
    # The last one of as many as there are clips is noise.
    components = max(1, min(_COMPONENTS, len(voiceprints) - 1, len(center)))
    pca = PCA(components, random_state=0).fit((voiceprints - center) / spread)
    axes = pca.components_.T / spread[:, None]
    classes = [voiceprints[labels == number] for number in np.unique(labels)]
    means = np.stack([clips.mean(axis=0, dtype="float64") for clips in classes])
    of_songs = np.stack([validation[0][clips].mean(axis=0) for clips in songs])
    truth = np.array([validation[1][clips[0]] for clips in songs])
    deviations = (of_songs - means[truth]) @ axes

    def gallery(chosen):
        projection = (axes @ _whitening(deviations[chosen])).astype("float32")
        empty = np.zeros((0, components), "float32")
        found = Gallery(
            center, projection, empty, 1.0, -1.0, -1.0, 1.0, false_alarm, (), detector
        )
        return dataclasses.replace(found, means=found.directions(means))

    scores, clip_scores = np.zeros(len(songs)), []
    every = np.arange(len(songs))
    folds = [(every, every)]  # Of a single song nothing can be left out.
    if len(songs) > 1:
        folds = KFold(min(5, len(songs)), shuffle=True, random_state=0).split(every)
    for rest, fold in folds:
        without = gallery(rest)
        scores[fold] = without.similarities(of_songs[fold]).max(axis=1)
        clips = np.concatenate([songs[number] for number in fold])
        clip_scores.append(without.similarities(validation[0][clips]).max(axis=1))
    clip_scores = np.concatenate(clip_scores, dtype="float64")
    found = gallery(every)
    similarities = found.similarities(validation[0])
    found = dataclasses.replace(
        found,
        # Sharp enough to be right as often as it says.
        scale=1 / metrics.fit_temperature(similarities, validation[1]),
        threshold=float(np.quantile(scores, false_alarm)),
        clip_threshold=float(np.quantile(clip_scores, false_alarm)),
        clip_width=max(float(clip_scores.std()), 1e-3),
    )
    return found, (scores, clip_scores)


def _whitening(deviations):
    """Matrix after which deviations `(songs, n)` have about unit covariance."""
    from sklearn.covariance import ledoit_wolf

    if len(deviations) == 1:  # Its own estimate, without a word on the screen.
        deviations = np.repeat(deviations, 2, axis=0)
    covariance, _ = ledoit_wolf(deviations, assume_centered=True)
    # Of a single song, or of equal ones.
    least = 1e-6 + 1e-3 * np.trace(covariance) / len(covariance)
    covariance = covariance + least * np.eye(len(covariance))
    return np.linalg.cholesky(np.linalg.inv(covariance))


def song_scores(gallery, voiceprints, songs):
    """Similarity of each song's mean voiceprint to its nearest singer, `(songs,)`."""
    means = np.stack([voiceprints[clips].mean(axis=0) for clips in songs])
    return gallery.similarities(means).max(axis=1)


def _encoded(array):
    """A float32 array for JSON, small and to the bit."""
    array = np.ascontiguousarray(array, "<f4")
    content = base64.b64encode(array.tobytes()).decode("ascii")
    return {"shape": list(array.shape), "float32": content}


def _decoded(raw):
    values = np.frombuffer(base64.b64decode(raw["float32"]), "<f4")
    return values.reshape(raw["shape"]).astype("float32")
