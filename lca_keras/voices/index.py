"""The voices of many songs, to find those that are like another one's."""

import dataclasses
import hashlib
import os
import zipfile

import numpy as np

from lca_keras.base import files
from lca_keras.base.errors import UserError
from lca_keras.voices.gallery import gallery_of

_PASSAGES = 3  # Of two songs that are shown as the most alike.


@dataclasses.dataclass(frozen=True)
class SongVoice:
    """The voice of a song, by its clips with voice."""

    direction: np.ndarray  # `(directions,)`, of unit length, of their mean voiceprint.
    clips: np.ndarray  # `(clips, directions)`, the same of each clip.
    starts: np.ndarray  # `(clips,)`, seconds at which these begin.


@dataclasses.dataclass(frozen=True)
class Likeness:
    """How like another song's voice a song's is."""

    song: str  # Path.
    similarity: float  # At most 1.
    passages: list[dict]  # See `alike`.


def song_voice(identifier, path, vocals_path=None):
    """The `SongVoice` of an audio file, and optionally one of its voice alone.

    `identifier` is an `lca_keras.inference.identification.Identifier` with a gallery.

    Raises:
        AudioError: It cannot be decoded, is silent, too short, or has no voice.
    """
    heard = identifier.hear(path, vocals_path)
    prints, voiced = identifier.voiceprints(heard)
    directions = identifier.gallery.directions
    starts = heard.times[voiced]
    return SongVoice(directions(prints.mean(axis=0)), directions(prints), starts)


class VoiceIndex:
    """Voices of songs that a model has heard, kept in a file.

    `model` is what `model_of` gives, `path` optional, and need not exist yet. What is
    there and no index, or one of another model, is a `UserError`. `voices` is a dict
    from song, its absolute path, to `SongVoice`.
    """

    def __init__(self, model, path=None):
        self.model, self.path = model, path
        self.voices, self._stamps = {}, {}
        if path is not None and path.exists():
            self._read()

    def has(self, song):
        """Whether a song is in it, and its file has not changed since."""
        return song in self.voices and self._stamps[song] == files.stamp(song)

    def add(self, song, voice):
        """Takes a song in, or takes its new voice."""
        self.voices[song], self._stamps[song] = voice, files.stamp(song)

    def drop(self, song):
        """Leaves a song out whose file can no longer be heard, if it is there."""
        self.voices.pop(song, None)
        self._stamps.pop(song, None)

    def like(self, voice, top, other_than=()):
        """The `top` songs with the voices most like one, a list of `Likeness`.

        `other_than` are songs that are left out, the one asked about say.
        """
        left_out = {os.path.realpath(song) for song in other_than}
        songs = [s for s in self.voices if os.path.realpath(s) not in left_out]
        if not songs:
            return []
        directions = np.stack([self.voices[song].direction for song in songs])
        similarities = directions @ voice.direction
        found = []
        for place in np.argsort(-similarities, kind="stable")[:top]:
            passages = alike(voice, self.voices[songs[place]])
            found.append(Likeness(songs[place], float(similarities[place]), passages))
        return found

    def save(self):
        """Writes the file, in one step."""
        songs, voices = list(self.voices), list(self.voices.values())
        with files.atomic_path(self.path) as temporary, open(temporary, "wb") as file:
            np.savez(
                file,
                model=np.array(self.model),
                songs=np.array([os.fsencode(song) for song in songs], "S"),
                stamps=np.array([self._stamps[song] for song in songs], "U"),
                directions=np.stack([voice.direction for voice in voices]),
                counts=np.array([len(voice.starts) for voice in voices]),
                clips=np.concatenate([voice.clips for voice in voices]),
                starts=np.concatenate([voice.starts for voice in voices]),
            )

    def _read(self):
        try:
            with np.load(self.path, allow_pickle=False) as arrays:
                found = {name: arrays[name] for name in arrays.files}
            model = str(found["model"])
            ends = np.cumsum(found["counts"])[:-1]
            clips, starts = (np.split(found[n], ends) for n in ("clips", "starts"))
            songs = [os.fsdecode(song) for song in found["songs"].tolist()]
            rows = zip(songs, found["directions"], clips, starts, strict=True)
            self.voices = {song: SongVoice(*values) for song, *values in rows}
            self._stamps = dict(zip(songs, found["stamps"].tolist(), strict=True))
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            raise UserError(f"{self.path} is no index of voices ({error})") from error
        if model != self.model:
            raise UserError(
                f"{self.path} is an index of {model}, not of {self.model}: voiceprints "
                "of two models cannot be compared. Take another file"
            )


def model_of(identifier):
    """Tells apart models whose voiceprints differ; to enroll somebody changes none."""
    gallery = gallery_of(identifier)
    content = gallery.center.tobytes() + gallery.projection.tobytes()
    return f"{identifier.metadata['name']} {hashlib.sha256(content).hexdigest()[:8]}"


def alike(voice, other):
    """The most similar passages of two `SongVoice`s, each clip at most once.

    A list of dicts: `start` in the one and `other_start` in the other, seconds, and
    `similarity`.
    """
    similarities = voice.clips @ other.clips.T
    found = []
    for _ in range(min(_PASSAGES, *similarities.shape)):
        row, column = np.unravel_index(similarities.argmax(), similarities.shape)
        found.append(
            {
                "start": round(float(voice.starts[row]), 3),
                "other_start": round(float(other.starts[column]), 3),
                "similarity": round(float(similarities[row, column]), 4),
            }
        )
        similarities[row], similarities[:, column] = -2.0, -2.0
    return found
