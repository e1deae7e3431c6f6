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


SPEEDS = {"slower": 0.98, "faster": 1.06, "slower mp3": 0.97}


@pytest.mark.parametrize(
    "change", ["mp3", "softer", "later", "cut", "all", "noise", *SPEEDS]
)
def test_the_same_recording_is_found(songs, tmp_path, change):
    original = songs[7]
    changed = original
    if change in ("later", "all"):
        changed = np.concatenate([np.zeros(320, "float32"), changed])  # 20 ms
    if change == "cut":
        changed = changed[int(1.237 * 16000) :]
    if change in ("softer", "all"):
        changed = changed * 10 ** (-3 / 20)
    if change == "noise":  # 20 dB below the song.
        rng = np.random.default_rng(0)
        noise = rng.standard_normal(changed.size).astype("float32")
        changed = changed + 0.1 * changed.std() * noise
    if change in SPEEDS:
        changed = soxr.resample(changed, 16000, 16000 / SPEEDS[change])
    if change in ("mp3", "all", "slower mp3"):
        changed = as_mp3(changed, tmp_path / "a.mp3")
    prints = [landmarks(song) for song in [*songs, changed]]
    (match,) = find_same(prints)
    assert (match.first, match.second) == (7, 18)
    assert 1.2 * MIN_SIMILARITY < match.similarity <= 1
    assert match.share > 0.8
    assert match.speed == pytest.approx(SPEEDS.get(change, 1.0), abs=0.002)


def test_thinning_keeps_the_same_landmarks_everywhere(songs):
    samples = soxr.resample(songs[0], 16000, SAMPLE_RATE)
    hashes, *_ = fingerprint(samples)
    thin, *_ = fingerprint(samples, keep_every=4)
    assert set(thin) < set(hashes)
    assert 0.15 < len(thin) / len(hashes) < 0.35
    copies = [fingerprint(samples, 4), fingerprint(0.5 * samples, 4)]
    assert [(m.first, m.second) for m in find_same(copies)] == [(0, 1)]


def test_a_shared_passage_is_no_copy(songs):
    """Two songs that begin with the same two seconds of another one, and an excerpt."""
    jingle, whole = songs[0][:32000], songs[9]
    begun = [np.concatenate([jingle, song]) for song in songs[1:3]]
    excerpt = whole[32000:96000]
    matches = find_same([landmarks(song) for song in (*begun, *songs[3:12], excerpt)])
    passage, copy = sorted(matches, key=lambda match: match.first)
    assert (passage.first, passage.second) == (0, 1)
    assert passage.seconds == pytest.approx(2, abs=1)
    assert passage.share == pytest.approx(0.2, abs=0.1)
    assert (copy.first, copy.second) == (8, 11)
    assert copy.share > 0.8


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
                rng.integers(0, 2**32, 400, dtype="uint32"),
            ),
            rng.integers(0, 2000, 400).astype("float32"),
            rng.uniform(8, 500, 400).astype("float32"),
        )
        for _ in range(400)
    ]
    one = landmarks(songs[0])
    (match,) = find_same([one, *others, one])
    assert (match.first, match.second) == (0, 401)


def test_long_recordings_pass_in_pieces(songs, monkeypatch):
    from lca_keras.audio import fingerprint as module

    whole = landmarks(songs[0])
    monkeypatch.setattr(module, "_FRAMES_AT_ONCE", 300)
    pieces = landmarks(songs[0])
    shared = len(np.intersect1d(whole[0], pieces[0])) / len(np.unique(whole[0]))
    assert shared > 0.8
