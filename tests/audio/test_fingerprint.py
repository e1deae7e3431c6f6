import numpy as np
import pytest
import soundfile
import soxr

from lca_keras.audio.decode import decode
from lca_keras.audio.fingerprint import (
    MIN_SIMILARITY,
    SAMPLE_RATE,
    find_same,
    fingerprint,
)
from lca_keras.corpora import synthesis

CORPUS = synthesis.SynthesisConfig(artists=3, albums=3, songs=2, seconds=8.0, seed=5)


@pytest.fixture(scope="module")
def songs():
    """Eighteen songs, as files would hold them."""
    keys = [(a, b, s) for a in range(3) for b in range(3) for s in range(2)]
    return [synthesis.synthesize(CORPUS, *key).mixture for key in keys]


def landmarks(samples):
    return fingerprint(soxr.resample(samples, 16000, SAMPLE_RATE))


def as_mp3(samples, path):
    """At 44.1 kHz and 64 kb/s or less."""
    samples = soxr.resample(samples, 16000, 44100)
    with soundfile.SoundFile(
        path,
        "w",
        44100,
        1,
        format="MP3",
        bitrate_mode="CONSTANT",
        compression_level=0.9,
    ) as file:
        file.write(samples)
    assert path.stat().st_size * 8 / (len(samples) / 44100) < 64_000
    return decode(path, 16000).samples


def test_different_songs_are_told_apart(songs):
    assert find_same([landmarks(song) for song in songs]) == []


@pytest.mark.parametrize("change", ["mp3", "softer", "later", "cut", "all"])
def test_the_same_recording_is_found(songs, tmp_path, change):
    original = songs[7]
    changed = original
    if change in ("later", "all"):
        changed = np.concatenate([np.zeros(320, "float32"), changed])  # 20 ms
    if change == "cut":
        changed = changed[int(1.237 * 16000) :]
    if change in ("softer", "all"):
        changed = changed * 10 ** (-3 / 20)
    if change in ("mp3", "all"):
        changed = as_mp3(changed, tmp_path / "a.mp3")
    prints = [landmarks(song) for song in [*songs, changed]]
    ((first, second, similarity),) = find_same(prints)
    assert (first, second) == (7, 18)
    assert 2 * MIN_SIMILARITY < similarity <= 1


def test_thinning_keeps_the_same_landmarks_everywhere(songs):
    samples = soxr.resample(songs[0], 16000, SAMPLE_RATE)
    hashes, _ = fingerprint(samples)
    thin, _ = fingerprint(samples, keep_every=4)
    assert set(thin) < set(hashes)
    assert 0.15 < len(thin) / len(hashes) < 0.35
    copies = [fingerprint(samples, 4), fingerprint(0.5 * samples, 4)]
    assert [pair[:2] for pair in find_same(copies)] == [(0, 1)]


def test_nothing_to_compare():
    assert find_same([]) == []
    silence = fingerprint(np.zeros(8000, "float32"))
    assert find_same([silence, silence]) == []


def test_a_duplicate_is_found_among_very_many(songs):
    """Chance must not hide it: hashes of hundreds of other songs lie in between."""
    rng = np.random.default_rng(0)
    pool = np.concatenate([landmarks(song)[0] for song in songs])
    others = [
        (
            # One landmark in ten by chance the same as one of our songs.
            np.where(
                rng.random(400) < 0.1,
                rng.choice(pool, 400),
                rng.integers(0, 2**37, 400, dtype="uint64"),
            ),
            rng.integers(0, 2000, 400).astype("int32"),
        )
        for _ in range(400)
    ]
    one = landmarks(songs[0])
    (pair,) = find_same([one, *others, one])
    assert pair[:2] == (0, 401)


def test_long_recordings_pass_in_pieces(songs, monkeypatch):
    from lca_keras.audio import fingerprint as module

    whole = landmarks(songs[0])
    monkeypatch.setattr(module, "_FRAMES_AT_ONCE", 300)
    pieces = landmarks(songs[0])
    shared = len(np.intersect1d(whole[0], pieces[0])) / len(np.unique(whole[0]))
    assert shared > 0.8
