"""From a song's files to its features, for a store, or for a network that hears it."""

import contextlib
import dataclasses
import hashlib
import os
import pathlib
import re

import numpy as np

from lca_keras.audio import separation
from lca_keras.audio.decode import SILENCE_PEAK, AudioError, Sound, decode
from lca_keras.base import files
from lca_keras.base.errors import UserError
from lca_keras.features import silence
from lca_keras.features.front_end import STEMS, FrontEnd, front_end_of

STATE_SIZE = 4
# Seconds of silence that are told; songs fade in and out.
_WORTH_A_WORD = 3.0
# Level of a stem within a song whose other stem is what it leaves: at 0.8, what is left
# of the first in the other is 14 dB softer than it was.
_LEAST_LEVEL = 0.8
# Mastering changes levels and sums of stems: within 10 dB, and by 6 dB below the song.
_LEAST_MASTERED = 0.3
_MOST_REST = 0.25


@dataclasses.dataclass(frozen=True)
class SongFeatures:
    """What extraction yields for a song.

    `arrays` are what is stored of each stream of the front end, and of `"vocals"` and
    `"accompaniment"` for stems: frames of the song's sound, without its silence.
    """

    arrays: dict[str, np.ndarray]
    duration: float  # Seconds of the song.
    # Of the decoded samples: the same for copies, whatever is separated from them.
    content_hash: str
    notes: tuple[str, ...] = ()  # Sentences about sound that may be missing.
    passages: tuple[float, ...] = ()  # See `lca_keras.features.silence.passages`.


class Extractor:
    """Computes the features that a configuration asks for.

    It holds names only until the first song, so it travels to other processes.

    Args:
        config: `lca_keras.base.config.FeatureConfig`.
        separator: Optional folder of the separator whose hash `config.separator`
            gives; the pretrained ones need none.
        keep_vocals: Optional folder to write the separated vocals to, as
            `artist/album/song.flac`.
        threads: Optional int, threads of a song's computation. Its last bits may
            depend on them, so whatever is stored is computed with one.
    """

    def __init__(self, config, separator=None, keep_vocals=None, threads=1):
        self.config = config
        self.front_end = front_end_of(config)
        self._separator_folder = separator
        self._keep_vocals = keep_vocals and pathlib.Path(keep_vocals)
        self._threads = threads
        self._separator = None

    def check(self, songs):
        """Raises a `UserError` that is known before any of these songs is decoded.

        A separator that is needed is missing or another one, or there is no tracker.
        """
        if self.config.melody == "crepe":
            from lca_keras.features.melody import require_crepe

            require_crepe()
        if self.config.source != "mixture" and any(not has_stem(s) for s in songs):
            self._load_separator()

    def __getstate__(self):
        # A network is loaded anew where it is needed rather than sent there.
        return {**self.__dict__, "_separator": None}

    def _load_separator(self):
        if self._separator is None:
            source = wanted = self.config.separator
            if wanted not in separation.PRETRAINED:
                source = self._separator_folder
                if source is None:
                    raise UserError(
                        f"these features were made with the separator {wanted}: say "
                        "where its folder is with --separator FOLDER"
                    )
                separation.check_same(source, wanted)
            self._separator = separation.Separator(source, self._threads)
        return self._separator

    def kept_vocals(self, song):
        """Where a song's separated vocals are kept, or `None`."""
        if self._keep_vocals is None or has_stem(song):
            return None
        names = [re.sub("^[.]|[/\0]", "_", name) for name in song.names]
        if (*names,) != song.names:
            names[-1] += f" {song.key[:6]}"  # Two songs must not become one file.
        return self._keep_vocals.joinpath(*names[:-1], f"{names[-1]}.flac")

    def file_digests(self, song):
        """Hashes of the files that a song's features are made of.

        Those of song, vocals and accompaniment; empty strings for what nothing hangs
        on. An empty tuple if a file cannot be read.
        """
        vocals, accompaniment = song.vocals_path, song.accompaniment_path
        if self.config.source == "mixture":
            vocals = accompaniment = None
        elif self.config.source == "vocals" and vocals:
            accompaniment = None
        try:
            return tuple(
                (path and files.sha256(path)) or ""
                for path in (song.path, vocals, accompaniment)
            )
        except OSError:
            return ()

    def sounds(self, song, keep=None):
        """Decodes a song, and its stems where they are asked for.

        Stems that it has no file of are made; `keep` is a path for separated vocals.

        Returns:
            Dict with `"mixture"`; with `"vocals"` unless the source is the mixture; and
            with `"accompaniment"` for stems: `lca_keras.audio.decode.Sound`s of equal
            length, at the front end's rate. The mixture's notes are those of all files.

        Raises:
            AudioError: The files hold no usable audio, or do not belong together.
        """
        source, rate = self.config.source, self.front_end.sample_rate
        sound = decode(song.path, rate)
        if source == "mixture":
            return {"mixture": sound}
        # Whoever takes a song apart holds all of it.
        mixture = sound.samples
        sounds = {"mixture": mixture}
        files = {"vocals": song.vocals_path, "accompaniment": song.accompaniment_path}
        if source == "vocals" and song.vocals_path:
            del files["accompaniment"]  # Nothing hangs on it; so in `file_digests`.
        given = {
            name: self._stem(name, path, mixture, sound.notes)
            for name, path in files.items()
            if path
        }
        if not given:
            vocals = self._load_separator().separate(song.path, rate, keep)
            vocals = vocals[: mixture.size]
            sounds["vocals"] = np.pad(vocals, (0, mixture.size - vocals.size))
        elif len(given) == 2:
            _check_sum(mixture, given, files)
            _check_levels(mixture, given, files, _LEAST_MASTERED)
        elif source == "stems" or "accompaniment" in given:
            _check_levels(mixture, given, files, _LEAST_LEVEL)
        sounds |= given
        if "vocals" not in sounds:
            sounds["vocals"] = mixture - sounds["accompaniment"]
            if np.abs(sounds["vocals"]).max() < SILENCE_PEAK:
                raise AudioError("no voice in it: its accompaniment is the song")
        if source == "vocals":
            return {"mixture": sound, "vocals": Sound.of(sounds["vocals"], rate)}
        if "accompaniment" not in sounds:
            sounds["accompaniment"] = mixture - sounds["vocals"]
        stems = {name: Sound.of(sounds[name], rate) for name in STEMS}
        return {"mixture": sound, **stems}

    def _stem(self, name, path, mixture, notes):
        """Decodes a stem that is to fit the samples of its mixture."""
        rate = self.front_end.sample_rate
        try:
            stem = decode(path, rate)
        except AudioError as error:
            raise type(error)(f"{name} {path}: {error}") from error
        notes += [f"its {name} {path}: {note}" for note in stem.notes]
        samples = stem.samples
        # Otherwise it is of another recording, or cut elsewhere.
        if abs(samples.size - mixture.size) > self.front_end.main.hop:
            raise AudioError(
                f"its {name} {path} last {samples.size / rate:.2f} s, the song "
                f"{mixture.size / rate:.2f} s"
            )
        samples = samples[: mixture.size]
        return np.pad(samples, (0, mixture.size - samples.size))

    def heard(self, sounds):
        """What the network hears of a song's `sounds`."""
        return sounds["vocals" if self.config.source == "vocals" else "mixture"]

    def frames(self, sounds):
        """What `FrontEnd.frames` makes of a song's `sounds` without silence.

        And the passages that it is of, seconds.
        """
        heard = self.heard(sounds)
        passages = silence.passages(heard, self.front_end.range_db)
        stems = {n: silence.Passages(sounds[n], passages) for n in STEMS if n in sounds}
        sound = silence.Passages(heard, passages)
        with _threads(self._threads):
            return self.front_end.frames(sound, stems, self._threads), passages

    def extract(self, song):
        """The `SongFeatures` of a song; an `AudioError` if there is no usable audio."""
        keep = self.kept_vocals(song)
        if keep is None or self.config.source == "mixture":
            sounds = self.sounds(song)
        else:
            keep.parent.mkdir(parents=True, exist_ok=True)
            with files.atomic_path(keep) as temporary:
                sounds = self.sounds(song, temporary)
        found, passages = self.frames(sounds)
        arrays = {
            name: array.astype(self.front_end.stream(name).dtype)
            for name, array in found.items()
        }
        mixture, digest = sounds["mixture"], hashlib.sha256()
        for samples in mixture:
            digest.update(samples.tobytes())
        content, notes = digest.hexdigest()[:32], tuple(mixture.notes)
        return SongFeatures(arrays, mixture.seconds, content, notes, passages)


def _check_levels(mixture, stems, files, least):
    """Raises unless each stem is in a mixture, at its own level.

    The levels are those at which the stems, added, come closest to the mixture. What
    is sung and what is played are hardly correlated, so one stem alone gives about its
    level as well; another recording, or the right one shifted in time, gives about
    zero. With both, a stem is found however soft it is beside the other.
    """
    samples = np.stack(list(stems.values()))
    levels = np.linalg.lstsq(samples @ samples.T, samples @ mixture, rcond=None)[0]
    for name, level in zip(stems, levels, strict=True):
        if not least < level < 1 / least:
            raise AudioError(
                f"its {name} {files[name]}: the song holds that at {level:.2f} times "
                "its level (about 0: another recording, or shifted in time), so the "
                "two do not belong together"
            )


def _check_sum(mixture, stems, files):
    """Raises unless vocals and accompaniment add up to the mixture, near enough."""
    rest = mixture - sum(stems.values())
    share = float(np.vdot(rest, rest) / np.vdot(mixture, mixture))
    if share > _MOST_REST:
        raise AudioError(
            f"its vocals {files['vocals']} and its accompaniment "
            f"{files['accompaniment']} do not add up to it: what is left over has "
            f"{share:.0%} of the song's energy"
        )


def _threads(count):
    """A context in which NumPy's linear algebra takes so many threads.

    Two processes whose matrix products take two threads each are slower than one.
    """
    if count is None:
        return contextlib.nullcontext()
    import threadpoolctl

    return threadpoolctl.threadpool_limits(count)


def has_stem(song):
    """Whether a `Song` has a file of its vocals or its accompaniment.

    Then nothing has to be separated: what the one leaves of the song is the other.
    """
    return bool(song.vocals_path or song.accompaniment_path)


def file_state(song):
    """What tells at a glance whether a song's files may have changed.

    Size, times of modification and of change, and the file's number: another file
    under the same name has another number, however equal the rest. A tuple of ints,
    `STATE_SIZE` for each file; zeros for one that cannot be looked at.
    """
    result = []
    paths = (song.path, song.vocals_path, song.accompaniment_path)
    for path in filter(None, paths):
        try:
            status = os.stat(path)
            times = [status.st_mtime_ns, status.st_ctime_ns]
            result += [status.st_size, *times, status.st_ino]
        except OSError:
            result += [0] * STATE_SIZE
    return tuple(result)


# === As a network hears it ===


@dataclasses.dataclass(frozen=True)
class HeardSong:
    """A song as a network hears it, without its silence."""

    front_end: FrontEnd
    arrays: dict[str, np.ndarray]  # By stream, what the front end makes of its sound.
    passages: tuple[float, ...]  # See `lca_keras.features.silence.passages`.
    starts: np.ndarray  # Seconds of sound at which clips begin.
    clip_frames: int
    seconds: float  # Of the whole song.
    notes: list[str]  # Sentences about sound that is missing, and silence.

    @property
    def times(self):
        """Float array, seconds of the song at which clips begin."""
        return silence.song_seconds(self.passages, self.starts)

    def clips(self, chosen=slice(None)):
        """Dict from stream to float32 `(clips, …)`, of all clips or some."""
        return self.front_end.cut(self.arrays, self.starts[chosen], self.clip_frames)

    def in_song(self, array):
        """The first stream's frames at their places in the song, NaN in silence."""
        stream, rate = self.front_end.main, self.front_end.frame_rate
        frames = np.arange(array.shape[stream.axis])
        places = silence.song_seconds(self.passages, frames / rate)
        places = np.round(places * rate).astype(int)
        whole = max(1 + round(self.seconds * rate), places[-1] + 1)
        placed = np.full(stream.sized(whole), np.nan, "float32")
        np.moveaxis(placed, stream.axis, 0)[places] = np.moveaxis(array, stream.axis, 0)
        return placed


def hear(extractor, config, song, overlap=0.0):
    """Decodes a song and cuts it into clips, as a network takes them; a `HeardSong`.

    The `Extractor` is of what the network is served, the `Config` that of its training.
    The song's names are not read. `overlap` is the share of a clip that the next one
    has too, below 1.

    Raises:
        AudioError: It cannot be decoded, is silent or too short.
    """
    front_end, clip_frames = extractor.front_end, config.clip_frames
    sounds = extractor.sounds(song)
    whole = extractor.heard(sounds).seconds
    if whole < config.least_seconds:  # Then nothing need be computed.
        raise AudioError(too_short(whole, whole, config.least_seconds))
    arrays, passages = extractor.frames(sounds)
    left, frames = silence.seconds(passages), front_end.frames_of(arrays)
    hop = max(1, round(clip_frames * (1 - overlap)))
    starts = front_end.starts(frames, clip_frames, hop)
    if not starts.size:
        raise AudioError(too_short(whole, left, config.least_seconds))
    notes = list(sounds["mixture"].notes)
    if whole - left >= _WORTH_A_WORD:
        notes.append(f"{whole - left:.1f} s of it are silent and left out")
    return HeardSong(front_end, arrays, passages, starts, clip_frames, whole, notes)


def too_short(whole, left, least):
    """Why a song has no clip: its seconds, those without silence, those of a clip."""
    said = f"{whole:.3f} s" if whole < least else f"{left:.3f} s"
    without = "" if whole < least else " without its silence"
    return f"too short{without}: {said}, a clip needs {least:.3f} s"
