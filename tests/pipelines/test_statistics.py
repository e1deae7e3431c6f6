"""Statistics of stores: against NumPy, and what a schema and drift must find."""

import dataclasses
import types

import numpy as np
import pytest

from lca_keras.base.sections import FeatureConfig
from lca_keras.data import catalogue
from lca_keras.data.update import WritableStore
from pipelines import statistics
from pipelines.statistics import Schema, Statistics, check, drift


def of_songs(count=20, artists=5, seed=0, **changes):
    """`Statistics` of songs without anything wrong."""
    random = np.random.default_rng(seed)
    songs = [
        {
            "artist": f"Artist {number % artists}",
            "album": "A",
            "song": f"S {number}",
            "content_hash": f"{seed}-{number}",
            "seconds": 200.0 + number,
            "sound_seconds": 190.0,
            "range_db": 50.0,
            "bandwidth_hz": 7500.0,
            **changes,
        }
        for number in range(count)
    ]
    return Statistics(songs, -20.0 + random.normal(0, 1, (count, 128)))


def kinds(anomalies):
    return [each.kind for each in anomalies]


def changed(given, where, **changes):
    """The same with other values in songs for whose number a function is true."""
    songs = [
        {**song, **changes} if where(number) else song
        for number, song in enumerate(given.songs)
    ]
    return dataclasses.replace(given, songs=songs)


def test_statistics_are_those_of_numpy(tiny_corpus, tmp_path):
    songs = catalogue.load(tiny_corpus)[:3]
    store = WritableStore(tmp_path / "store", FeatureConfig())
    store.update(songs)
    corpus = types.SimpleNamespace(store=store, songs=songs)
    found = statistics.compute(corpus)
    for song, row, spectrum in zip(
        sorted(songs), found.songs, found.spectra, strict=True
    ):
        record = store.records[song.key]
        mel = store.read(song.key).arrays["mel_spectrogram"]
        kept = mel[..., 0].astype("float32")
        np.testing.assert_allclose(spectrum, kept.mean(axis=1), rtol=1e-5)
        assert (row["artist"], row["song"]) == (song.artist, song.song)
        assert row["content_hash"] == record.content_hash
        assert row["seconds"] == pytest.approx(7.0, abs=0.01)
        low, high = np.percentile(kept, (5, 95))
        assert row["range_db"] == pytest.approx(high - low, abs=0.01)
    found.save(tmp_path)
    again = Statistics.load(tmp_path)
    assert again.songs == found.songs
    np.testing.assert_allclose(again.spectra, found.spectra, rtol=1e-6)


def test_bandwidth_is_the_highest_frequency_with_sound(tmp_path):
    """A sweep up to 3 kHz, read by librosa's filters."""
    import librosa
    import scipy.signal
    import soundfile

    times = np.arange(16000 * 8) / 16000
    sweep = scipy.signal.chirp(times, 100, 8, 3000)
    path = tmp_path / "songs" / "A" / "B" / "c.wav"
    path.parent.mkdir(parents=True)
    soundfile.write(path, 0.5 * sweep, 16000)
    songs = catalogue.load(tmp_path / "songs")
    store = WritableStore(tmp_path / "store", FeatureConfig())
    store.update(songs)
    ((song),) = statistics.compute(
        types.SimpleNamespace(store=store, songs=songs)
    ).songs
    edges = librosa.mel_frequencies(130, fmin=0, fmax=8000)
    width = (
        edges[np.searchsorted(edges, 3000) + 1] - edges[np.searchsorted(edges, 3000)]
    )
    assert abs(song["bandwidth_hz"] - 3000) < 3 * width


def test_a_good_store_has_no_anomalies():
    good = of_songs()
    assert check(good, {}, Schema()) == []
    assert drift(good, good, Schema()) == []
    assert drift(of_songs(count=22), good, Schema()) == []  # Two songs more.


@pytest.mark.parametrize(
    ("given", "unusable", "kind"),
    [
        (of_songs(artists=1), 0, "few artists"),
        (of_songs(count=6, artists=5), 0, "few songs"),
        (of_songs(), 6, "unusable songs"),
        (of_songs(range_db=2.0), 0, "no dynamics"),
        (of_songs(bandwidth_hz=1900.0), 0, "narrow band"),
    ],
)
def test_what_a_schema_finds(given, unusable, kind):
    left_out = {f"{number}.mp3": "no audio" for number in range(unusable)}
    assert kinds(check(given, left_out, Schema())) == [kind]


def test_a_few_odd_songs_are_allowed():
    odd = changed(of_songs(), lambda number: number == 0, range_db=1.0)
    assert check(odd, {}, Schema()) == []
    more = changed(of_songs(), lambda number: number < 2, range_db=1.0)
    assert kinds(check(more, {}, Schema())) == ["no dynamics"]


def test_swapped_artists_are_found_by_what_was_recorded():
    good = of_songs()
    other = {"Artist 0": "Artist 1", "Artist 1": "Artist 0"}
    songs = [{**s, "artist": other.get(s["artist"], s["artist"])} for s in good.songs]
    [found] = drift(dataclasses.replace(good, songs=songs), good, Schema())
    assert found.kind == "swapped artists"
    assert "8 recordings are of another artist than before" in found.message
    assert "Artist 1 / A / S 0: it was Artist 0 / A / S 0" in found.message


def test_half_of_the_artists_missing():
    good = of_songs(artists=4)
    few = [song for song in good.songs if song["artist"] in ("Artist 0", "Artist 1")]
    [found] = drift(Statistics(few, good.spectra), good, Schema())
    assert found.kind == "missing artists"
    assert "2 of 4 are gone: Artist 2, Artist 3" in found.message


def test_another_sample_rate_than_before():
    good = of_songs()
    songs = [{**song, "seconds": song["seconds"] * 2.76} for song in good.songs]
    found = drift(dataclasses.replace(good, songs=songs), good, Schema())
    assert kinds(found) == ["changed lengths"]
    narrow = changed(good, lambda number: True, bandwidth_hz=3900.0)
    assert kinds(drift(narrow, good, Schema())) == ["narrowed band"]
    louder = dataclasses.replace(good, spectra=good.spectra + 4.0)
    assert kinds(drift(louder, good, Schema())) == ["drift"]
