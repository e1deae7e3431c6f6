"""Audio files of any format, rate and channel count to mono samples."""

import contextlib
import os
import sys
import threading

import numpy as np

# Frames read at a time: eight channels at 192 kHz stay within a few MiB.
_BLOCK_FRAMES = 1 << 18
# 16-bit rounding noise is about 1e-5; a recording whose peak stays below is silent.
SILENCE_PEAK = 2e-5

EXTENSIONS = (".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aif", ".aiff")


class AudioError(Exception):
    """A file that cannot be used; the message is the reason, without the path."""


class AccessError(AudioError):
    """A file that cannot be read at the moment: missing, forbidden, not mounted."""


def decode(path, sample_rate=16000):
    """Decodes a file to mono at a given rate.

    Channels are averaged, then resampled with soxr's high quality filter: the same
    samples as `librosa.load(path, sr=sample_rate)`.

    Args:
        path: Path of a wav, flac, ogg, opus, mp3 or aiff file.
        sample_rate: Int, samples per second to return.

    Returns:
        Float32 array `(samples,)`; full scale is 1.

    Raises:
        AudioError: The file cannot be read or decoded, or holds no sound.
    """
    import soxr

    # The mean of librosa.to_mono, in the same precision.
    blocks = [(rate, np.mean(block.T, axis=0)) for rate, block in read_blocks(path)]
    if not blocks:
        raise AudioError("no audio in the file")
    rate = blocks[0][0]
    samples = np.concatenate([block for _, block in blocks])
    check_sound(samples)
    if rate != sample_rate:
        length = int(np.ceil(samples.size * sample_rate / rate))
        samples = soxr.resample(samples, rate, sample_rate, quality="HQ")[:length]
        samples = np.pad(samples, (0, length - samples.size))
    return samples


def read_blocks(path):
    """Decodes a file piece by piece.

    Args:
        path: Path of an audio file.

    Yields:
        Tuples of the file's sample rate and a float32 array `(samples, channels)`.

    Raises:
        AudioError: The file cannot be read or decoded.
    """
    import soundfile

    try:
        with _silent_decoders():
            # As the system has it: a name need not be UTF-8.
            file = soundfile.SoundFile(os.fsencode(path))
        with file:
            while True:
                with _silent_decoders():
                    block = file.read(_BLOCK_FRAMES, dtype="float32", always_2d=True)
                if not len(block):
                    return
                yield file.samplerate, block
    except (soundfile.SoundFileError, RuntimeError, OSError) as error:
        raise _reason(path) from error


def check_sound(samples):
    """Raises an `AudioError` for samples that are not finite or silent."""
    if not np.isfinite(samples).all():
        raise AudioError("samples are NaN or infinite")
    if np.abs(samples).max() < SILENCE_PEAK:
        raise AudioError("silent from beginning to end")


def _reason(path):
    """The error to raise; the decoders' own words mislead more than they help."""
    try:
        with open(path, "rb") as file:
            if not file.read(1):
                return AudioError("empty file (0 bytes)")
    except OSError as cause:
        return AccessError(f"cannot be read: {cause.strerror}")
    return AudioError(
        "not decodable as wav, flac, ogg, opus, mp3 or aiff: damaged or another format"
    )


_silence = threading.Lock()


@contextlib.contextmanager
def _silent_decoders():
    """Hides what C libraries write to standard error about damaged files."""
    # File descriptors belong to the process: two threads must not swap them at once.
    with _silence:
        sys.stderr.flush()
        visible, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 2)
        try:
            yield
        finally:
            os.dup2(visible, 2)
            os.close(visible)
            os.close(nowhere)
