"""From a song's files to its features: the unit of work of every extraction."""

import dataclasses
import functools
import hashlib
import os
import pathlib

import numpy as np

from lca_keras.audio import separation
from lca_keras.audio.decode import SILENCE_PEAK, AudioError, Sound, decode
from lca_keras.base import files
from lca_keras.base.errors import UserError
from lca_keras.features.melody import melody_bands
from lca_keras.features.spectrogram import (
    level_gain,
    mel_power,
    silent_passages,
    sounding_frames,
    stem_levels,
    to_decibels,
)

STEMS = ("vocals", "accompaniment")
STATE_SIZE = 4

# Level of a stem within a song whose other stem is what it leaves: at 0.8, what is left
# of the first in the other is 14 dB softer than it was.
_LEAST_LEVEL = 0.8
# Mastering changes levels and sums of stems: within 10 dB, and by 6 dB below the song.
_LEAST_MASTERED = 0.3
_MOST_REST = 0.25


@dataclasses.dataclass(frozen=True)
class SongFeatures:
    """What extraction yields for a song.

    Attributes:
        arrays: Dict with `"mel"`, float16 `(mel_bins, frames)`, decibels of what is
            heard; with `"melody"`, if it is asked for, int16 `(frames,)`, the mel band
            of the melody's pitch and -1 where nothing is sung; and with `"vocals"` and
            `"accompaniment"` for stems, float16 `(mel_bins, frames)` as
            `lca_keras.features.spectrogram.stem_levels` gives them.
        duration: Seconds.
        content_hash: Hash of the song's decoded samples, the same for copies of a
            file, whatever is separated from it.
        notes: Sentences about sound that may be missing.
        silence: What `lca_keras.features.spectrogram.silent_passages` gives.
    """

    arrays: dict[str, np.ndarray]
    duration: float
    content_hash: str
    notes: tuple[str, ...] = ()
    silence: tuple[int, ...] = ()


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
        self._separator_folder = separator
        self._keep_vocals = keep_vocals and pathlib.Path(keep_vocals)
        self._threads = threads
        self._separator = None

    def check(self, songs):
        """Raises what is known to fail before any song is decoded.

        Args:
            songs: Iterable of `lca_keras.data.catalogue.Song`.

        Raises:
            UserError: A separator that is needed is missing or another one, or a
                tracker is not installed.
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
            wanted = self.config.separator
            source = wanted
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
        names = (song.artist, song.album, song.song)
        *folders, name = [_file_name(name) for name in names]
        if (*folders, name) != names:
            name += f" {song.key[:6]}"  # Two songs must not become one file.
        return self._keep_vocals.joinpath(*folders, f"{name}.flac")

    def file_digests(self, song):
        """Hashes of the files that a song's features are made of.

        Args:
            song: `lca_keras.data.catalogue.Song`.

        Returns:
            Tuple of three strings, of song, vocals and accompaniment; empty ones for
            what nothing hangs on. An empty tuple if a file cannot be read.
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

        Args:
            song: `lca_keras.data.catalogue.Song`; what it has no file of is made.
            keep: Optional path to write separated vocals to.

        Returns:
            Dict with `"mixture"`; with `"vocals"` unless the source is the mixture; and
            with `"accompaniment"` for stems: `lca_keras.audio.decode.Sound`s of equal
            length, at `config.sample_rate`. The mixture's notes are those of all files.

        Raises:
            AudioError: The files hold no usable audio, or do not belong together.
        """
        source, rate = self.config.source, self.config.sample_rate
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
        rate = self.config.sample_rate
        try:
            stem = decode(path, rate)
        except AudioError as error:
            raise type(error)(f"{name} {path}: {error}") from error
        notes += [f"its {name} {path}: {note}" for note in stem.notes]
        samples = stem.samples
        # Otherwise it is of another recording, or cut elsewhere.
        if abs(samples.size - mixture.size) > self.config.hop_length:
            raise AudioError(
                f"its {name} {path} last {samples.size / rate:.2f} s, the song "
                f"{mixture.size / rate:.2f} s"
            )
        samples = samples[: mixture.size]
        return np.pad(samples, (0, mixture.size - samples.size))

    def heard(self, sounds):
        """What the network hears of a song's `sounds`."""
        return sounds["vocals" if self.config.source == "vocals" else "mixture"]

    def melody(self, sounds):
        """Melody of a song's `sounds`, or `None` where none is asked for."""
        if self.config.melody == "none":
            return None
        sung = sounds.get("vocals", sounds["mixture"])
        return melody_bands(sung.samples, self.config, self._threads)

    def extract(self, song):
        """Computes the features of a song.

        Args:
            song: `lca_keras.data.catalogue.Song`.

        Returns:
            `SongFeatures`.

        Raises:
            AudioError: The song's files hold no usable audio.
            OSError: The vocals cannot be written.
        """
        keep = self.kept_vocals(song)
        if keep is None or self.config.source == "mixture":
            sounds = self.sounds(song)
        else:
            keep.parent.mkdir(parents=True, exist_ok=True)
            with files.atomic_path(keep) as temporary:
                sounds = self.sounds(song, temporary)
        # Two processes whose matrix products take two threads each are slower than one.
        with _thread_pools().limit(limits=self._threads):
            power = mel_power(self.heard(sounds), self.config)
            mel = to_decibels(power, self.config)
            # Float16 is the store's contract: half the disk, and decibels keep 0.03 dB.
            arrays = {"mel": mel.astype("float16")}
            melody = self.melody(sounds)
            if melody is not None:
                arrays["melody"] = melody
            if self.config.source == "stems":
                gain = level_gain(power, self.config)
                for name in STEMS:
                    stem = mel_power(sounds[name], self.config)
                    arrays[name] = stem_levels(gain * stem)
        mixture, digest = sounds["mixture"], hashlib.sha256()
        for samples in mixture:
            digest.update(samples.tobytes())
        return SongFeatures(
            arrays,
            mixture.seconds,
            digest.hexdigest()[:32],
            tuple(mixture.notes),
            silent_passages(sounding_frames(arrays["mel"], self.config)),
        )


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


@functools.lru_cache(maxsize=1)
def _thread_pools():
    """Control over the threads of NumPy's linear algebra."""
    import threadpoolctl

    return threadpoolctl.ThreadpoolController()


def has_stem(song):
    """Whether a `Song` has a file of its vocals or its accompaniment.

    Then nothing has to be separated: what the one leaves of the song is the other.
    """
    return bool(song.vocals_path or song.accompaniment_path)


def file_state(song):
    """What tells at a glance whether a song's files may have changed.

    Size, times of modification and of change, and the file's number: another file
    under the same name has another number, however equal the rest.

    Args:
        song: `lca_keras.data.catalogue.Song`.

    Returns:
        Tuple of ints, `STATE_SIZE` for each file, the size first; zeros for a file that
        cannot be looked at.
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


def _file_name(name):
    """A name as one component of a path."""
    name = name.replace("/", "_").replace("\0", "_")
    return "_" + name[1:] if name.startswith(".") else name
