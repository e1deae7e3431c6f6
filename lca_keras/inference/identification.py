"""Names the singer of songs, with an exported model."""

import collections
import dataclasses
import hashlib
import json
import pathlib

import numpy as np

from lca_keras.audio import decode
from lca_keras.audio.decode import AudioError
from lca_keras.base import files
from lca_keras.base.config import Config
from lca_keras.base.errors import UserError
from lca_keras.data.catalogue import Song
from lca_keras.data.extraction import Extractor, hear
from lca_keras.exports import integrity, tflite_file, versions
from lca_keras.exports.versions import METADATA
from lca_keras.inference import runtimes
from lca_keras.voices.detector import VOICED
from lca_keras.voices.gallery import OK, UNKNOWN, Gallery, judge_closed_set

# Clips that are cut out together; bounds memory for long songs.
_CLIPS_AT_ONCE = 256
_UNSURE = "not sure"


@dataclasses.dataclass(frozen=True)
class Identification:
    """Who sings a song.

    Attributes:
        status: `"ok"`; `"unknown"`, by nobody of the singers; `"no voice"`; or
            `"not sure"`, if the mean probability is below the confidence that was
            asked for.
        singer: Artist, by the vote of the clips with voice, or somebody enrolled;
            `None` unless the status is `"ok"`.
        nearest: Who has the most similar voice, of an unknown song too; `None` without
            voice and in a closed set.
        score: Similarity to that one, at most 1; or `None`.
        probabilities: Dict from artist to mean probability over the clips with voice,
            in the order of the votes.
        votes: Dict from artist to number of clips with voice, the most first; equal
            ones by probability.
        clip_seconds: Length of a clip.
        clips: List of dicts with `start` (seconds), `singer` (`None` without voice),
            `probabilities` (artist to float), `voice` (probability of singing; one
            without a gallery) and `score` (similarity of the clip alone, or `None`) of
            every clip. Silence is cut out before clips are cut.
        notes: Sentences about sound that is missing, and silence.
    """

    status: str
    singer: str | None
    nearest: str | None
    score: float | None
    probabilities: dict[str, float]
    votes: dict[str, int]
    clip_seconds: float
    clips: list[dict]
    notes: list[str]

    @property
    def headline(self):
        """Who sings, in a few words."""
        if self.status == UNKNOWN:
            return f"unknown, the nearest voice is {self.nearest}'s ({self.score:.2f})"
        return self.singer or self.status


class Identifier:
    """An exported model, ready to identify singers.

    Args:
        model: Folder of a model, whose newest version is taken, or of a version; or a
            TFLite file of one.
        separator: Optional folder of the separator that the model was trained with.
        runtime: Optional, one of `lca_keras.inference.runtimes.RUNTIMES`; default is
            LiteRT where it is installed.
        threads: Optional int, threads of LiteRT and of what computes features.
        precision: One of `lca_keras.inference.runtimes.PRECISIONS`.

    Attributes:
        artists: List of singers, the network's own and then those enrolled.
        gallery: `lca_keras.voices.gallery.Gallery`; `None` where none could be set
            up: then any song has a singer.
        config: `lca_keras.base.config.Config` of its training.
        metadata: Dict; what `lca_keras.json` beside the model says, or the server.
        runtime: What computes: see `lca_keras.inference.runtimes`.
        digest: String that tells models apart: its name, of what it is told, and a
            precision other than float32.

    Raises:
        UserError: It is no export, not a whole one, or one that was changed; or the
            runtime is not installed.
    """

    def __init__(
        self, model, separator=None, runtime=None, threads=None, precision="float32"
    ):
        path = pathlib.Path(model)
        try:
            if path.is_file():
                metadata = tflite_file.about(path)
                computes = runtimes.open_file(path, runtime, threads, precision)
            else:
                if versions.versions(path):
                    path = versions.find_version(path)
                integrity.check(path)
                metadata = files.read_json(path / METADATA)
                computes = runtimes.open_runtime(path, runtime, threads, precision)
            self._start(computes, metadata, separator, threads)
            if precision != "float32":
                self.digest += f" in {precision}"
        except (OSError, ValueError) as error:
            raise UserError(f"{path}: not a whole export ({error})") from error

    @classmethod
    def of_server(cls, server, separator=None):
        """The same for a server of `lca_keras.inference.servers`."""
        self = cls.__new__(cls)
        self._start(server, server.metadata, separator, None)
        return self

    def _start(self, runtime, metadata, separator, threads):
        # Loaded now, not with the first song, and while its decoder starts and works.
        decode.prepare()
        import soxr  # noqa: F401

        config = Config.from_dict(metadata["config"])
        self.runtime, self.metadata = runtime, metadata
        self.artists, self.gallery = list(metadata["artists"]), None
        if metadata.get("gallery"):
            self.gallery = Gallery.from_dict(metadata["gallery"])
            self.artists += self.gallery.enrolled
        told = json.dumps(metadata, sort_keys=True).encode()
        sum_of = hashlib.sha256(told).hexdigest()[:8]
        self.digest = f"{metadata['name']} {sum_of}"
        self.config = config
        served = config.served_features
        self._extractor = Extractor(served, separator, threads=threads)
        self._extractor.front_end.prepare()
        shapes = config.clip_shapes.items()
        runtime.warm_up({n: np.zeros((1, *shape), "float32") for n, shape in shapes})

    def answers(self, song):
        """What the network tells of the clips of a `HeardSong`.

        Returns:
            Dict of float32 arrays, as
            `lca_keras.inference.runtimes.SavedModelRuntime.answers` gives them; `voice`
            is one where the model does not tell it.
        """
        found, count = [], len(song.starts)
        for few in np.array_split(np.arange(count), -(-count // _CLIPS_AT_ONCE)):
            clips = song.clips(few)
            heard = {name: clips[name] for name in self.config.streams}
            found.append(self.runtime.answers(heard))
        told = runtimes.joined(found)
        told.setdefault("voice", np.ones(count, "float32"))
        return told

    def voiceprints(self, song):
        """Voiceprints of the clips of a `HeardSong` that have a voice.

        Returns:
            Float32 array `(clips with voice, size)`, and a bool array `(clips,)` that
            says which these are.

        Raises:
            AudioError: None has.
        """
        told = self.answers(song)
        voiced = told["voice"] >= VOICED
        if not voiced.any():
            raise AudioError("no voice is heard in it")
        return told["voiceprint"][voiced], voiced

    def hear(self, path, vocals_path=None, overlap=0.0):
        """The `HeardSong` of an audio file; see `identify`."""
        if not 0 <= overlap < 1:
            raise ValueError(
                f"`overlap` must be in [0, 1). Received: overlap={overlap}"
            )
        song = Song("", "", "", path, vocals_path)
        return hear(self._extractor, self.config, song, overlap)

    def check(self, vocals):
        """Raises early if vocals have to be separated and cannot be.

        Args:
            vocals: Iterable with the vocals' path of every song, or `None`.

        Raises:
            UserError: The separator is missing, or not the model's own.
        """
        self._extractor.check([Song("", "", "", "", path) for path in vocals])

    def identify(
        self, path, vocals_path=None, overlap=0.0, min_confidence=0.0, closed_set=False
    ):
        """Identifies the singer of an audio file.

        Args:
            path: Audio file of any format, rate and channel count.
            vocals_path: Optional file of the voice alone, for a model that was trained
                on vocals; without one the vocals are separated.
            overlap: Share of a clip that the next one has too, below 1. Without, clips
                are those of the exported model.
            min_confidence: Mean probability below which no singer is named.
            closed_set: Whether it is certain that one of the singers sings: then nobody
                is unknown, and every clip votes.

        Returns:
            `Identification`.

        Raises:
            AudioError: The file cannot be decoded, is silent or too short.
            UserError: The vocals have to be separated and cannot be.
        """
        heard = self.hear(path, vocals_path, overlap)
        told = self.answers(heard)
        voice, gallery = told["voice"], self.gallery
        if gallery is None or closed_set:
            verdict = judge_closed_set(told, gallery)
            near, status = None, OK
        else:
            verdict = gallery.judge(told["probabilities"], told["voiceprint"], voice)
            near = gallery.similarities(told["voiceprint"]).max(axis=1).tolist()
            status = verdict.status
        best = np.where(verdict.voiced, verdict.clips.argmax(axis=1), -1)
        winners = [None if index < 0 else self.artists[index] for index in best]
        counts = collections.Counter(winners)
        # Of the network's own, the first is that of the vote,
        # `lca_keras.base.metrics.vote`.
        ranked = sorted(
            zip(self.artists, verdict.probabilities.tolist(), strict=True),
            key=lambda pair: (-counts[pair[0]], -pair[1]),
        )
        singer = nearest = None
        if status == OK:
            singer = self.artists[verdict.singer]
            if float(verdict.probabilities[verdict.singer]) < min_confidence:
                status, singer = _UNSURE, None
        if near is not None and verdict.nearest is not None:
            nearest = self.artists[verdict.nearest]
        return Identification(
            status=status,
            singer=singer,
            nearest=nearest,
            score=None if nearest is None else verdict.score,
            probabilities=dict(ranked),
            votes={name: counts[name] for name, _ in ranked},
            clip_seconds=self.metadata["clip_seconds"],
            clips=[
                {
                    "start": round(start, 3),
                    "singer": winner,
                    "probabilities": dict(zip(self.artists, row, strict=True)),
                    "voice": sung,
                    "score": score,
                }
                for start, winner, row, sung, score in zip(
                    heard.times.tolist(),
                    winners,
                    verdict.clips.tolist(),
                    voice.tolist(),
                    near or [None] * len(winners),
                    strict=True,
                )
            ],
            notes=heard.notes,
        )
