"""Audio files of any format, rate and channel count to mono samples.

FFmpeg decodes, in processes of their own (`lca_keras.audio.decoder`), so a file that
brings a decoder down is one file less and nothing else.
"""

import functools
import io
import itertools
import json
import operator
import os
import signal
import stat
import subprocess
import sys
import tempfile

import numpy as np

from lca_keras.audio import decoder

# 16-bit rounding noise is about 1e-5; a recording whose peak stays below is silent.
SILENCE_PEAK = 2e-5
# A file that goes beyond full scale by so much has another scale, such as that of
# integers; or it is damaged, if its loudest sample is 40 dB above the mean power.
LOUDEST, LARGEST, SPIKE = 10.0, 1e10, 1e-4
# Channels that cancel out: their mean is so much softer than they are, as a power.
CANCELLED = 1e-2
# Samples that are kept in memory; longer recordings are kept in a temporary file.
_SAMPLES_IN_MEMORY = 10 * 60 * 16000
# Those that are looked at together: more take memory, and are no faster.
_SAMPLES_AT_ONCE = 1 << 18
_MOST_HOURS = 12

# What looks like audio; some of it only to be refused by name.
EXTENSIONS = (
    *(".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aif", ".aiff", ".aifc"),
    *(".m4a", ".m4b", ".mp4", ".m4v", ".mov", ".aac", ".wma", ".mka", ".webm", ".mkv"),
    *(".wv", ".ape", ".tta", ".tak", ".mpc", ".caf", ".au", ".snd", ".w64", ".rf64"),
    *(".mp2", ".mpga", ".ac3", ".eac3", ".dts", ".amr", ".dsf", ".3gp", ".ra", ".bwf"),
    *(".spx", ".m4p", ".aax", ".dff", ".mid", ".midi", ".kar"),
)


class AudioError(Exception):
    """A file that cannot be used; the message is the reason, without the path."""


class AccessError(AudioError):
    """A file that cannot be read at the moment: missing, forbidden, not mounted."""


class Sound:
    """Mono samples of a recording, in memory or, if they are many, in a file."""

    def __init__(self, sample_rate):
        self.sample_rate = sample_rate
        self.size = 0
        self.notes = []  # Of sound that is announced and not there, and the like.
        self._file = tempfile.SpooledTemporaryFile(  # noqa: SIM115
            4 * _SAMPLES_IN_MEMORY, prefix="lca_keras-"
        )

    def __del__(self):
        self._file.close()

    @property
    def seconds(self):
        """Length."""
        return self.size / self.sample_rate

    @classmethod
    def of(cls, samples, sample_rate):
        """The sound of a float32 array `(samples,)`."""
        sound = cls(sample_rate)
        sound.append(samples)
        return sound

    def append(self, block):
        """Adds a float32 array `(samples,)` at the end."""
        try:
            self._file.seek(4 * self.size)
            self._file.write(block.tobytes())
        except OSError as error:
            raise OSError(error.errno, error.strerror, tempfile.gettempdir()) from error
        self.size += block.size

    def __iter__(self):
        """Yields the samples as float32 arrays `(samples,)`, in order."""
        for start in range(0, 4 * self.size, 4 * _SAMPLES_AT_ONCE):
            self._file.seek(start)
            yield np.frombuffer(self._file.read(4 * _SAMPLES_AT_ONCE), "float32")

    @property
    def samples(self):
        """All samples, a float32 array `(samples,)`."""
        return np.concatenate([*self, np.zeros(0, "float32")])


def decode(path, sample_rate=16000, watch=None):
    """Decodes a file of any format that FFmpeg knows to a mono `Sound`, full scale 1.

    Channels are averaged, then resampled with soxr's high quality filter: the same
    samples as `librosa.load(path, sr=sample_rate)` where that reads the format. Of
    channels that cancel out only the first is taken, and said so. `watch` is called
    with each rate and block of `read_blocks`. Raises an `AudioError`: the file cannot
    be read or decoded, or holds no sound.
    """
    # The mean of librosa.to_mono, in the same precision.
    mean = functools.partial(np.mean, axis=1)
    sound, energies = _to_mono(path, sample_rate, mean, watch)
    if energies[0] < CANCELLED * energies[1]:
        sound, _ = _to_mono(path, sample_rate, lambda block: block[:, 0].copy())
        sound.notes.append("its channels cancel out: only the first of them is used")
    return sound


def _to_mono(path, sample_rate, mix, watch=None):
    """A file's `Sound` by a `mix` of its channels; the energies of mix and channels."""
    sound, check = Sound(sample_rate), SoundCheck()
    energies = np.zeros(2)

    def mixed():
        nonlocal energies
        for rate, block in read_blocks(path, sound.notes):
            mono = mix(block)
            check.add(block)
            if watch is not None:
                watch(rate, block)
            flat = block.ravel("K")
            energies += np.vdot(mono, mono), np.vdot(flat, flat) / block.shape[1]
            yield rate, mono

    for samples in resampled(mixed(), sample_rate):
        sound.append(samples)
        if sound.seconds > 3600 * _MOST_HOURS:
            raise AudioError(f"lasts more than {_MOST_HOURS} hours: cut it into parts")
    check.finish()
    return sound, energies


def resampled(blocks, sample_rate):
    """Resamples a stream with soxr's high quality filter, as `librosa.load` does.

    `blocks` are tuples of a rate and a float32 array `(samples,)` or `(samples,
    channels)`; files that were joined may have several rates. Yields arrays like these,
    together exactly as long as librosa's result.
    """
    import soxr

    for rate, group in itertools.groupby(blocks, key=operator.itemgetter(0)):
        stream, taken, given = None, 0, 0
        for _, samples in group:
            if rate == sample_rate:
                yield samples
                continue
            shape = (-1, *samples.shape[1:])
            if stream is None:
                form = (*samples.shape[1:], 1)[0], "float32", "HQ"
                stream = soxr.ResampleStream(rate, sample_rate, *form)
            taken += len(samples)
            samples = stream.resample_chunk(samples).reshape(shape)
            given += len(samples)
            yield samples
        if stream is not None:
            rest = stream.resample_chunk(samples[:0], last=True).reshape(shape)
            length = -(-taken * sample_rate // rate) - given
            lacking = np.zeros((max(0, length - len(rest)), *shape[1:]), "float32")
            yield np.concatenate([rest[:length], lacking])


class SoundCheck:
    """Tells whether samples, which come in pieces, are a recording."""

    def __init__(self):
        self._size, self._peak, self._energy = 0, 0.0, 0.0
        self._finite, self._sounding = True, False

    def add(self, samples):
        """Takes some more float32 samples, of any shape."""
        if not samples.size:
            return
        self._size += samples.size
        # Of what is not a number, neither is a number.
        high, low = samples.max(axis=0), samples.min(axis=0)
        self._finite &= bool(np.isfinite(high).all() and np.isfinite(low).all())
        self._peak = max(self._peak, float(high.max()), -float(low.min()))
        flat = samples.ravel("K")
        self._energy += float(np.vdot(flat, flat))
        # An offset is no sound.
        self._sounding |= not np.max(high - low) / 2 < SILENCE_PEAK

    def finish(self):
        """Raises an `AudioError`: there was nothing to be heard, or it is damaged."""
        if not self._size:
            raise AudioError("no audio in the file")
        if not self._finite:
            raise AudioError("samples are NaN or infinite")
        if not self._sounding:
            raise AudioError("silent from beginning to end")
        # One sample of 1e20, say: all the rest would be silence beside it.
        spike = self._energy < SPIKE * self._size * self._peak**2
        if self._peak > LARGEST or (self._peak > LOUDEST and spike):
            raise AudioError(
                f"a sample of it is {self._peak:.3g}, full scale is 1: damaged"
            )


def check_sound(samples):
    """Raises an `AudioError` for samples that are no recording; see `SoundCheck`."""
    check = SoundCheck()
    check.add(samples)
    check.finish()


# === Decoding processes ===


def read_blocks(path, notes=None):
    """Decodes a file piece by piece.

    Yields tuples of a sample rate and a float32 array `(samples, channels)`; both may
    change in a file of several that were joined. The list `notes` takes sentences about
    sound that may be missing. Raises an `AudioError`: it cannot be read or decoded.
    """
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError) as error:  # Or a zero byte in its name.
        reason = getattr(error, "strerror", error)
        raise AccessError(f"cannot be read: {reason}") from error
    if stat.S_ISDIR(mode):
        raise AudioError("a folder, not a file")
    if not stat.S_ISREG(mode):
        raise AudioError("no file but a pipe, a socket or a device")
    process = _ask(path)
    try:
        kind, rate, channels, data = process.receive()
        while kind == decoder.BLOCK:
            yield rate, data.view("float32").reshape(channels, -1).T
            kind, rate, channels, data = process.receive()
    except BaseException:  # There is more to come, or it is dead.
        process.end()
        raise
    _idle.append(process)
    if kind == decoder.END:
        if notes is not None:
            notes += json.loads(data.tobytes())
        return
    error = {decoder.UNUSABLE: AudioError, decoder.NO_ACCESS: AccessError}[kind]
    raise error(data.tobytes().decode("utf-8", "replace"))


# Processes that wait for a file.
_idle = []
# Another process must not read the answers to this one's questions.
os.register_at_fork(after_in_child=_idle.clear)


def prepare():
    """Starts a process that waits for a file, while the caller does other things."""
    if not _idle:
        _idle.append(_Process())


def _ask(path):
    """A decoding process that has been asked for a file."""
    path = os.path.abspath(os.fsencode(path))
    process = _idle.pop() if _idle else _Process()
    try:
        process.ask(path)
    except BrokenPipeError:  # It has died while it waited.
        process = _Process()
        process.ask(path)
    return process


class _Process:
    """`lca_keras.audio.decoder`, run."""

    def __init__(self):
        self._process = subprocess.Popen(
            [sys.executable, decoder.__file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            # Without this folder's modules on its path; Python 3.10 has no -P.
            env=os.environ | {"OPENBLAS_NUM_THREADS": "1", "PYTHONSAFEPATH": "1"},
            bufsize=0,
            start_new_session=True,  # Ctrl-C is for us.
            # With few bytes, the two wait for each other at every turn.
            pipesize=1 << 20,
        )
        self._answers = io.BufferedReader(self._process.stdout)

    def ask(self, path):
        """Asks for a file, bytes."""
        self._process.stdin.write(path.hex().encode() + b"\n")

    def receive(self):
        """Kind, rate, channels and bytes of the next message."""
        header = self._read(decoder.HEADER.size)
        kind, rate, channels, size = decoder.HEADER.unpack(header)
        return kind, rate, channels, self._read(size)

    def _read(self, size):
        data = np.empty(size, "uint8")
        if self._answers.readinto(data) == size:
            return data
        code = self._process.wait()
        if code == -signal.SIGALRM:
            raise AudioError(
                f"damaged, or its disk hangs: nothing came of it within "
                f"{decoder.PATIENCE_SECONDS} s"
            )
        raise AudioError(f"damaged: it brings its decoder down (exit code {code})")

    def end(self):
        """Kills the process."""
        self._process.kill()
        self._process.communicate()
