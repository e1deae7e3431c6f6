"""From a song's files to its features: the unit of work of every extraction."""

import contextlib
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
from lca_keras.features import silence
from lca_keras.features.front_end import STEMS, front_end_of

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
        arrays: Dict from each stream of the front end, and from `"vocals"` and
            `"accompaniment"` for stems, to what is stored of it: frames of the song's
            sound, without its silence.
        duration: Seconds of the song.
        content_hash: Hash of the song's decoded samples, the same for copies of a
            file, whatever is separated from it.
        notes: Sentences about sound that may be missing.
        passages: What `lca_keras.features.silence.passages` gives, seconds.
    """

    arrays: dict[str, np.ndarray]
    duration: float
    content_hash: str
    notes: tuple[str, ...] = ()
    passages: tuple[float, ...] = ()


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
        """What the front end makes of a song's `sounds`, without silence.

        Returns:
            Dict of arrays as `lca_keras.features.front_end.FrontEnd.frames` gives it,
            and the passages that they are of, seconds.
        """
        heard = self.heard(sounds)
        passages = silence.passages(heard, self.front_end.range_db)
        stems = {n: silence.Passages(sounds[n], passages) for n in STEMS if n in sounds}
        sound = silence.Passages(heard, passages)
        with _threads(self._threads):
            return self.front_end.frames(sound, stems, self._threads), passages

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
        found, passages = self.frames(sounds)
        arrays = {
            name: array.astype(self.front_end.stream(name).dtype)
            for name, array in found.items()
        }
        mixture, digest = sounds["mixture"], hashlib.sha256()
        for samples in mixture:
            digest.update(samples.tobytes())
        return SongFeatures(
            arrays,
            mixture.seconds,
            digest.hexdigest()[:32],
            tuple(mixture.notes),
            passages,
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


def _threads(count):
    """A context in which NumPy's linear algebra takes so many threads.

    Two processes whose matrix products take two threads each are slower than one.
    """
    return contextlib.nullcontext() if count is None else _pools().limit(limits=count)


@functools.lru_cache(maxsize=1)
def _pools():
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
