import contextlib
import errno
import os
import pathlib
import signal
import struct
import subprocess
import sys
import time

import librosa
import numpy as np
import pytest
import soundfile

from lca_keras.audio import decode as decoding
from lca_keras.audio.decode import AccessError, AudioError, Sound, decode, read_blocks
from tests.audio.encoders import FORMATS, encode
from tests.audio.signals import music

RATE = 44100
OURS = ["wav", "flac", "ogg", "mp3", "aiff"]


def write(path, kind, seconds=6.0):
    """Writes some music; returns it as mono at the file's rate."""
    samples = music(RATE, seconds=seconds, channels=2)
    if kind in FORMATS:
        encode(path, samples, RATE, kind)
    else:
        soundfile.write(path, samples, RATE)
    return samples.mean(axis=1)


# === All that is there ===


@pytest.mark.parametrize("suffix", OURS)
def test_equals_librosa(suffix, tmp_path):
    path = tmp_path / f"song.{suffix}"
    write(path, suffix)
    expected, _ = librosa.load(path, sr=16000)
    sound = decode(path)
    np.testing.assert_allclose(sound.samples, expected, atol=2e-6)
    assert (sound.size, sound.seconds) == (len(expected), len(expected) / 16000)
    assert sound.notes == []


@pytest.mark.parametrize("kind", FORMATS)
def test_other_formats(kind, tmp_path):
    path = tmp_path / f"song.{kind}"
    written = write(path, kind)
    sound = decode(path, RATE)
    assert abs(sound.size - written.size) <= 0.05 * RATE
    assert sound.notes == []
    if FORMATS[kind][0] in ("alac", "wavpack", "tta"):
        same = written[: sound.size]  # FFmpeg cuts a caf's last packet.
        np.testing.assert_allclose(sound.samples, same, atol=1e-4)
        return
    # Codecs that lose something are shifted by two frames at most, and keep most of it.
    shifted = np.fft.irfft(
        np.fft.rfft(sound.samples, 2**19) * np.conj(np.fft.rfft(written, 2**19))
    )
    assert np.roll(shifted, 3000)[:6000].max() > 0.95 * np.vdot(written, written)


def test_eight_channels_at_192_khz(tmp_path):
    path = tmp_path / "song.wav"
    soundfile.write(path, music(192000, seconds=2, channels=8), 192000)
    expected, _ = librosa.load(path, sr=16000)
    np.testing.assert_allclose(decode(path).samples, expected, atol=1e-6)


@pytest.mark.parametrize("name", ["file:x.wav", "concat:a|b.wav", "日本 'x\" .wav"])
def test_names_are_names(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write(name, "wav", 1)
    assert decode(name).seconds == 1.0
    os.rename(os.fsencode(name), b"\xff.wav")
    assert decode(os.fsdecode(b"\xff.wav")).seconds == 1.0


@pytest.mark.parametrize("kind", ["ogg", "mp3", "flac", "headless.mp3", "aac", "au"])
def test_files_that_were_joined(kind, tmp_path):
    path = tmp_path / f"song.{kind}"
    write(path, kind)
    path.write_bytes(path.read_bytes() * 2)
    sound = decode(path)
    assert sound.seconds == pytest.approx(12, abs=0.15)  # An MP3's padding is sound.
    if kind in ("ogg", "flac", "au"):
        assert "announces 6.00 s, 12" in sound.notes[0]


@pytest.mark.parametrize("kind", ["wav", "aiff", "m4a", "tta", "caf", "w64"])
def test_files_that_cannot_be_joined(kind, tmp_path):
    path = tmp_path / f"song.{kind}"
    write(path, kind)
    size = path.stat().st_size
    path.write_bytes(path.read_bytes() * 2)
    sound = decode(path)
    assert sound.seconds == pytest.approx(6, abs=0.05)
    (note,) = sound.notes
    assert f"ends after {sound.seconds:.2f} s" in note
    bytes_left = int(note.split(" bytes that")[0].split()[-1])
    assert size <= bytes_left <= size + 1000  # An index at its end is no sound either.


def test_joined_files_of_other_rates_and_channels(tmp_path):
    first, second = tmp_path / "a.ogg", tmp_path / "b.ogg"
    soundfile.write(first, music(44100, seconds=3, channels=2), 44100)
    soundfile.write(second, music(22050, seconds=3), 22050)
    path = tmp_path / "song.ogg"
    path.write_bytes(first.read_bytes() + second.read_bytes())
    sound = decode(path)  # That much of it FFmpeg can do.
    expected, _ = librosa.load(first, sr=16000)
    np.testing.assert_allclose(sound.samples, expected, atol=1e-4)
    bytes_left = int(sound.notes[-1].split(" bytes that")[0].split()[-1])
    assert bytes_left >= second.stat().st_size


def with_bytes(path, offset, data):
    """Overwrites bytes of a file."""
    content = bytearray(path.read_bytes())
    content[offset : offset + len(data)] = data
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("kind", "offset", "data"),
    [
        ("wav", 4, b"\xff\xff\xff\xff"),
        ("wav", 40, b"\xff\xff\xff\xff"),
        ("wav", 40, b"\0\0\0\0"),
        ("flac", 21, b"\xf0\0\0\0\0"),
    ],
)
def test_written_to_a_pipe(kind, offset, data, tmp_path):
    """Whoever writes to a pipe cannot go back and fill in the length."""
    path = tmp_path / f"song.{kind}"
    write(path, kind)
    expected = decode(path).samples
    with_bytes(path, offset, data)
    sound = decode(path)
    np.testing.assert_array_equal(sound.samples, expected)
    assert sound.notes == []


# === What is not there ===


@pytest.mark.parametrize(
    "kind",
    ["wav", "flac", "mp3", "aiff", "mka", "tta", "wma", "au", "w64", "rf64"],
)
def test_half_of_a_file(kind, tmp_path):
    path = tmp_path / f"song.{kind}"
    write(path, kind)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    sound = decode(path)
    assert 2 < sound.seconds < 3.5
    (note,) = sound.notes
    assert "announces 6.0" in note
    assert f"{sound.seconds:.2f} s are there: cut off or damaged" in note


def test_half_of_a_caf_without_compression(tmp_path):
    path = tmp_path / "song.caf"
    soundfile.write(path, music(22050, seconds=6), 22050, format="CAF")
    assert decode(path).notes == []
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert "announces 6.00 s, 2.9" in decode(path).notes[0]


def test_half_of_an_ogg_says_so(tmp_path):
    path = tmp_path / "song.ogg"
    write(path, "ogg")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert "without an end: cut off" in decode(path).notes[0]
    # The last page is the one that says so, and not all of it is there.
    write(path, "ogg")
    path.write_bytes(path.read_bytes()[:-100])
    assert "without an end: cut off" in decode(path).notes[0]


def test_half_of_an_m4a_is_refused(tmp_path):
    path = tmp_path / "song.m4a"
    write(path, "m4a")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(AudioError, match="cut off: it begins like m4a"):
        decode(path)


@pytest.mark.parametrize("kind", ["flac", "mp3", "ogg"])
def test_a_hole(kind, tmp_path):
    path = tmp_path / f"song.{kind}"
    write(path, kind)
    middle = path.stat().st_size // 2
    with_bytes(path, middle, np.random.default_rng(0).bytes(12000))
    sound = decode(path)
    assert 3 < sound.seconds < 5.95
    assert any("announces 6.00 s" in note for note in sound.notes)


def test_header_of_a_shorter_file(tmp_path):
    path = tmp_path / "song.wav"
    write(path, "wav")
    with_bytes(path, 40, struct.pack("<I", 2 * 4 * RATE))
    sound = decode(path)
    assert sound.seconds == 2.0
    assert f"ends after 2.00 s, and {4 * 4 * RATE} bytes" in sound.notes[0]


def test_tags_are_no_sound(tmp_path):
    path = tmp_path / "song.wav"
    write(path, "wav")
    tag = b"id3 " + struct.pack("<I", 100_000) + bytes(100_000)
    path.write_bytes(path.read_bytes() + tag)
    assert decode(path).notes == []
    mp3 = tmp_path / "song.mp3"
    write(mp3, "mp3")
    picture = b"ID3\4\0\0" + bytes([0, 6, 26, 0]) + bytes(101_632)
    mp3.write_bytes(picture + mp3.read_bytes() + b"TAG" + bytes(125))
    sound = decode(mp3)
    assert (round(sound.seconds, 2), sound.notes) == (6, [])


# === What is no recording ===


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda path: path.write_bytes(b""), r"empty file \(0 bytes\)"),
        (lambda path: path.write_text("not music " * 500), "no recording in a format"),
        (lambda path: path.write_text("#EXTM3U\nsong.ogg"), "no recording in a format"),
        (lambda path: path.write_text("ffconcat version 1.0\nfile x.wav\n"), "no rec"),
        (lambda path: path.write_bytes(b"MThd" + bytes(99)), "a MIDI file"),
        (lambda path: path.write_bytes(b"OggS" + bytes(99)), "begins like ogg"),
        (lambda path: soundfile.write(path, np.zeros(0), 16000), "no audio"),
        (lambda path: soundfile.write(path, np.zeros(99), 16000), "silent"),
        (
            lambda path: soundfile.write(
                path, np.array([np.nan, 0.1]), 16000, subtype="FLOAT"
            ),
            "NaN",
        ),
        (lambda path: None, "cannot be read: No such file"),
        (lambda path: path.mkdir(), "a folder"),
        (os.mkfifo, "a pipe"),
    ],
)
def test_says_why_a_file_cannot_be_used(make, reason, tmp_path):
    path = tmp_path / "bad.wav"
    make(path)
    with pytest.raises(AudioError, match=reason):
        decode(path)


def test_devices_and_forbidden_files(tmp_path):
    with pytest.raises(AudioError, match="device"):
        decode("/dev/zero")
    with pytest.raises(AccessError, match="null"):
        decode("a\0b.wav")
    if os.getuid():
        path = tmp_path / "song.wav"
        write(path, "wav", 1)
        path.chmod(0)
        with pytest.raises(AccessError, match="cannot be read: Permission denied"):
            decode(path)


@pytest.mark.parametrize(
    ("offset", "data", "reason"),
    [
        (24, struct.pack("<I", 1), "says 1 samples a second"),
        (24, struct.pack("<I", 2**31 - 1), "samples a second|no sound can be found"),
        (22, struct.pack("<H", 65535), "channels|coded in an unknown way"),
    ],
)
def test_headers_that_cannot_be_true(offset, data, reason, tmp_path):
    path = tmp_path / "song.wav"
    write(path, "wav")
    with_bytes(path, offset, data)
    with pytest.raises(AudioError, match=reason):
        decode(path)


@pytest.mark.parametrize("value", [1e20, -3e38, 40.0])
def test_a_spike_is_damage(value, tmp_path):
    samples = music(16000, seconds=3) / 100
    samples[5000] = value
    path = tmp_path / "song.wav"
    soundfile.write(path, samples, 16000, subtype="FLOAT")
    with pytest.raises(AudioError, match="a sample of it is .*full scale is 1"):
        decode(path)


def test_floats_on_the_scale_of_integers(tmp_path):
    samples = music(16000, seconds=3).astype("float32")
    path = tmp_path / "song.wav"
    soundfile.write(path, 32768 * samples, 16000, subtype="FLOAT")
    np.testing.assert_allclose(decode(path).samples / 32768, samples, rtol=1e-6)


def test_channels_that_cancel_out(tmp_path):
    left = music(16000, seconds=3)
    path = tmp_path / "song.wav"
    for other in (-left, -0.9 * left):
        soundfile.write(path, np.stack([left, other], axis=1), 16000)
        sound = decode(path)
        np.testing.assert_allclose(sound.samples, left, atol=1e-4)
        assert "channels cancel out" in sound.notes[0]
    soundfile.write(path, np.stack([left, 0 * left], axis=1), 16000)
    sound = decode(path)
    np.testing.assert_allclose(sound.samples, left / 2, atol=1e-4)
    assert sound.notes == []


# === Long ones ===


def test_long_recordings_wait_in_a_file(monkeypatch):
    monkeypatch.setattr(decoding, "_SAMPLES_IN_MEMORY", 1000)
    monkeypatch.setattr(decoding, "_SAMPLES_AT_ONCE", 1000)
    rng = np.random.default_rng(0)
    samples = rng.standard_normal(5300).astype("float32")
    sound = Sound(16000)
    for piece in np.split(samples, [300, 900, 1001, 4000]):
        sound.append(piece)
        np.testing.assert_array_equal(sound.samples, samples[: sound.size])
    assert [len(piece) for piece in sound] == [1000] * 5 + [300]
    np.testing.assert_array_equal(np.concatenate([*sound]), samples)


def test_no_room_for_a_long_recording(monkeypatch):
    class Full:
        closed = True

        def seek(self, *place):
            pass

        def close(self):
            pass

        def write(self, data):
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(decoding, "_SAMPLES_IN_MEMORY", 1000)
    monkeypatch.setattr(decoding.tempfile, "TemporaryFile", lambda **_: Full())
    with pytest.raises(OSError, match="No space left") as caught:
        Sound(16000).append(np.zeros(2000, "float32"))
    assert caught.value.filename == decoding.tempfile.gettempdir()


def test_endless_recordings(tmp_path, monkeypatch):
    monkeypatch.setattr(decoding, "_MOST_HOURS", 0.001)
    path = tmp_path / "song.flac"
    write(path, "flac")
    with pytest.raises(AudioError, match=r"more than 0.001 hours: cut it"):
        decode(path)


# === Processes ===


def test_a_decoder_that_dies(tmp_path, monkeypatch):
    path = tmp_path / "song.wav"
    write(path, "wav")
    decode(path)
    idle = decoding._idle[-1]
    idle._process.kill()
    idle._process.wait()
    assert decode(path).seconds == 6  # One that died while it waited is no matter.
    killer = tmp_path / "killer.py"
    killer.write_text("import os; input(); os.kill(os.getpid(), 9)")
    monkeypatch.setattr(decoding, "_idle", [])
    monkeypatch.setattr(decoding.decoder, "__file__", str(killer))
    with pytest.raises(AudioError, match=r"brings its decoder down \(exit code -9\)"):
        decode(path)
    killer.write_text("import signal, time; input(); signal.alarm(1); time.sleep(9)")
    with pytest.raises(AudioError, match="its disk hangs"):
        decode(path)


def test_reading_may_be_given_up(tmp_path):
    path = tmp_path / "song.wav"
    write(path, "wav")
    before = len(decoding._idle)
    blocks = read_blocks(path)
    other = read_blocks(path)
    first = next(blocks)[1]
    np.testing.assert_array_equal(first, next(other)[1])  # Two files at once.
    blocks.close()
    rest = [block for _, block in other]
    assert len(first) + sum(map(len, rest)) == 6 * RATE
    assert len(decoding._idle) <= before + 1


def test_forked_processes_have_decoders_of_their_own(tmp_path):
    path = tmp_path / "song.wav"
    write(path, "wav")
    decode(path)
    script = """
import multiprocessing, sys
from lca_keras.audio.decode import decode
decode(sys.argv[1])
context = multiprocessing.get_context("fork")
with context.Pool(3) as pool:
    sizes = pool.map(decode, [sys.argv[1]] * 12)
assert {sound.size for sound in sizes} == {96000}
"""
    subprocess.run([sys.executable, "-c", script, path], check=True, timeout=60)


def test_decoders_end_with_their_program(tmp_path):
    path = tmp_path / "song.wav"
    write(path, "wav")
    script = """
import os, sys
from lca_keras.audio import decode
decode.decode(sys.argv[1])
print(decode._idle[0]._process.pid, flush=True)
os.kill(os.getpid(), 9)
"""
    result = subprocess.run(
        [sys.executable, "-c", script, path], capture_output=True, timeout=60
    )
    assert result.returncode == -signal.SIGKILL
    for _ in range(100):
        try:
            os.kill(int(result.stdout), 0)
        except ProcessLookupError:
            return
        # Dead, and waiting for a parent that may never look: `Z`.
        state = pathlib.Path("/proc", result.stdout.decode().strip(), "stat")
        with contextlib.suppress(OSError):
            if state.read_text().rpartition(")")[2].split()[0] == "Z":
                return
        time.sleep(0.05)
    pytest.fail("the decoder outlives its program")


@pytest.mark.slow
@pytest.mark.parametrize("kind", [*OURS, *FORMATS])
def test_damaged_files_hurt_nobody(kind, tmp_path):
    """Whatever happens to bytes: a sound, or why not; and the next file is whole."""
    whole, path = tmp_path / f"whole.{kind}", tmp_path / f"song.{kind}"
    write(whole, kind, 2.0)
    expected, content = decode(whole).samples, whole.read_bytes()
    rng = np.random.default_rng(0)
    for number in range(60):
        damaged = bytearray(content)
        place = rng.integers(len(content))
        if number % 4 == 0:  # The header.
            for offset in rng.integers(0, min(300, len(content)), 6):
                damaged[offset] = rng.integers(256)
        elif number % 4 == 1:
            for offset in rng.integers(0, len(content), 100):
                damaged[offset] = rng.integers(256)
        elif number % 4 == 2:
            del damaged[place : place + rng.integers(1, 5000)]
        else:
            damaged[place:place] = rng.bytes(rng.integers(1, 5000))
        path.write_bytes(damaged)
        with contextlib.suppress(AudioError):
            assert np.isfinite(decode(path).samples).all()
    np.testing.assert_array_equal(decode(whole).samples, expected)
