"""From a song's files to its features: the unit of work of every extraction."""

import dataclasses
import functools
import hashlib
import os
import pathlib

import numpy as np

from lca_keras import files
from lca_keras.audio import separation
from lca_keras.audio.decode import AudioError, decode
from lca_keras.audio.features import mel_spectrogram
from lca_keras.audio.melody import melody_bands
from lca_keras.errors import UserError


@dataclasses.dataclass(frozen=True)
class SongFeatures:
    """What extraction yields for a song.

    Attributes:
        mel: Float16 array `(mel_bins, frames)`, decibels.
        melody: Int16 array `(frames,)`, the mel band of the melody's pitch and -1
            where nothing is sung, or `None`.
        duration: Seconds.
        content_hash: Hash of the song's decoded samples, the same for copies of a
            file, whatever is separated from it.
    """

    mel: np.ndarray
    melody: np.ndarray | None
    duration: float
    content_hash: str


class Extractor:
    """Computes the features that a configuration asks for.

    It holds names only until the first song, so it travels to other processes.

    Args:
        config: `lca_keras.config.FeatureConfig`.
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
            from lca_keras.audio.melody import require_crepe

            require_crepe()
        if self.config.source == "vocals" and any(not s.vocals_path for s in songs):
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
                found = separation.separator_id(source)
                if found != wanted:
                    raise UserError(
                        f"--separator {source} is {found}; these features need {wanted}"
                    )
            self._separator = separation.Separator(source, self._threads)
        return self._separator

    def kept_vocals(self, song):
        """Where a song's separated vocals are kept, or `None`."""
        if self._keep_vocals is None or song.vocals_path is not None:
            return None
        names = (song.artist, song.album, song.song)
        *folders, name = [_file_name(name) for name in names]
        if (*folders, name) != names:
            name += f" {song.key[:6]}"  # Two songs must not become one file.
        return self._keep_vocals.joinpath(*folders, f"{name}.flac")

    def waveform(self, path, vocals_path=None, keep=None):
        """Decodes what is to be heard of a song: the mixture, or its vocals.

        Args:
            path: Audio file of the song.
            vocals_path: Optional file of its voice; without one it is separated.
            keep: Optional path to write separated vocals to.

        Returns:
            Tuple of two float32 arrays `(samples,)` of equal length, at
            `config.sample_rate`: the song, and what is to be heard of it.

        Raises:
            AudioError: The files hold no usable audio.
        """
        rate = self.config.sample_rate
        mixture = decode(path, rate)
        if self.config.source == "mixture":
            return mixture, mixture
        if vocals_path is None:
            separator = self._load_separator()
            vocals = separator.separate(path, rate, keep)
        else:
            try:
                vocals = decode(vocals_path, rate)
            except AudioError as error:
                raise type(error)(f"vocals {vocals_path}: {error}") from error
            # Otherwise the vocals are of another recording, or cut elsewhere.
            if abs(vocals.size - mixture.size) > self.config.hop_length:
                raise AudioError(
                    f"its vocals {vocals_path} last {vocals.size / rate:.2f} s, the "
                    f"song {mixture.size / rate:.2f} s"
                )
        vocals = vocals[: mixture.size]
        return mixture, np.pad(vocals, (0, mixture.size - vocals.size))

    def melody(self, samples):
        """Melody of what `waveform` gave, or `None` where none is asked for."""
        if self.config.melody == "none":
            return None
        return melody_bands(samples, self.config, self._threads)

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
            mixture, samples = self.waveform(song.path, song.vocals_path)
        else:
            keep.parent.mkdir(parents=True, exist_ok=True)
            with files.atomic_path(keep) as temporary:
                mixture, samples = self.waveform(song.path, keep=temporary)
        # Two processes whose matrix products take two threads each are slower than one.
        with _thread_pools().limit(limits=self._threads):
            mel = mel_spectrogram(samples, self.config)
            melody = self.melody(samples)
        return SongFeatures(
            # Float16 is the store's contract: half the disk, and decibels keep 0.03 dB.
            mel.astype("float16"),
            melody,
            mixture.size / self.config.sample_rate,
            hashlib.sha256(mixture.tobytes()).hexdigest()[:32],
        )


@functools.lru_cache(maxsize=1)
def _thread_pools():
    """Control over the threads of NumPy's linear algebra."""
    import threadpoolctl

    return threadpoolctl.ThreadpoolController()


def file_state(song):
    """What tells whether a song's files have changed: sizes and modification times.

    Args:
        song: `lca_keras.data.catalogue.Song`.

    Returns:
        Tuple of ints, zeros for a file that cannot be looked at.
    """
    result = []
    for path in filter(None, (song.path, song.vocals_path)):
        try:
            status = os.stat(path)
            result += [status.st_size, status.st_mtime_ns]
        except OSError:
            result += [0, 0]
    return tuple(result)


def _file_name(name):
    """A name as one component of a path."""
    name = name.replace("/", "_").replace("\0", "_")
    return "_" + name[1:] if name.startswith(".") else name
