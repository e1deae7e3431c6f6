import csv
import dataclasses
import pathlib

import numpy as np
import pytest

from lca_keras.base.config import get_preset
from lca_keras.base.errors import UserError
from lca_keras.base.sections import FeatureConfig
from lca_keras.corpora import synthesis
from lca_keras.data import catalogue
from lca_keras.data.catalogue import Song
from lca_keras.data.clips import ClipSource
from lca_keras.data.extraction import SongFeatures
from lca_keras.data.update import WritableStore
from lca_keras.evaluation import voice_report
from lca_keras.features.front_end import front_end_of

STEMS = FeatureConfig(source="stems", separator="umxl")
ARTISTS = ["Ann", "Bo", "Cy", "Di"]
CLIP = 94


class Planted:
    """In the place of extraction: a band of frequencies for each voice and each band.

    Artist k sings in mel band 10 k, and the band of artist k plays in 64 + 10 k, at 20
    dB over silence.
    """

    config, front_end = STEMS, front_end_of(STEMS)

    def kept_vocals(self, song):
        return None

    def check(self, songs):
        pass

    def file_digests(self, song):
        return ()

    def extract(self, song):
        frames = 210 + 100 * (song.song == "long")
        arrays = {}
        for name, first in (("vocals", 0), ("accompaniment", 64)):
            levels = np.full((128, frames, 1), -70, "float16")
            artist = song.artist
            if name == "accompaniment" and song.accompaniment_artist:
                artist = song.accompaniment_artist
            levels[first + 10 * ARTISTS.index(artist)] = 20
            arrays[name] = levels
        mel = 2 * np.maximum(arrays["vocals"], arrays["accompaniment"])
        arrays["mel_spectrogram"] = np.maximum(mel, -40)
        seconds = (frames - 1) * 0.032
        return SongFeatures(arrays, 7.0, song.key, (), (0.0, seconds))


class Listener:
    """In the place of a model: looks at the bands of frequencies from `first` on."""

    def __init__(self, first):
        self.first = first
        self.clips = 0

    def predict(self, batches, verbose):
        rows = []
        for mel in batches:
            assert mel.shape[1:] == (128, CLIP, 1)
            rows += [
                clip[self.first :: 10][:4].mean(axis=(1, 2)) for clip in mel.numpy()
            ]
        self.clips += len(rows)
        return {"logits": np.array(rows)}


def planted(folder, bands):
    """A `ClipSource` of two songs an artist; `bands` says who plays in the second."""
    store = WritableStore(folder / "store", STEMS)
    path = pathlib.Path("none")
    songs = [Song(artist, "album", "one", path) for artist in ARTISTS]
    songs += [
        Song(artist, "album", "long", path, accompaniment_artist=band)
        for artist, band in zip(ARTISTS, bands, strict=True)
    ]
    store.update(songs, extractor=Planted())
    labels = {song.key: ARTISTS.index(song.artist) for song in songs}
    return ClipSource(store, labels, CLIP)


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return planted(tmp_path_factory.mktemp("planted"), [None] * 4)


@pytest.mark.parametrize(("first", "followed"), [(0, "voice"), (64, "band")])
def test_what_is_followed_is_found(source, first, followed):
    listener = Listener(first)
    report = voice_report.report(listener, source, ARTISTS)
    assert report.shares == {**dict.fromkeys(voice_report.FOLLOWED, 0), followed: 1}
    assert voice_report.followed(report.shares) == followed
    assert report.by_artist == dict.fromkeys(ARTISTS, report.shares)
    right = {"mixture", "vocals", "other_accompaniment"}
    if followed == "band":
        right = {"mixture", "accompaniment", "other_voice"}
    for hearing, scores in report.scores.items():
        for level in ("frame", "song"):
            if hearing in right:
                assert scores[level] == 1
            elif "other" in hearing:
                assert scores[level] < 0.3
            else:  # It hears nothing at all, and says the same of all songs.
                assert scores[level] == pytest.approx(0.25 * 0.4)
    # Whole songs of three clips and two; together they are no longer than the shorter.
    both = sum(
        min(source.store.records[k].frames // CLIP for k in (s.voice, s.accompaniment))
        for s in report.swaps
    )
    assert listener.clips == 3 * source.num_clips + both


def test_bands_that_are_not_the_artists_own(tmp_path):
    """A cover band is followed by its own name, not by that of who sings to it."""
    source = planted(tmp_path, ["Bo", "Cy", "Di", "Ann"])
    report = voice_report.report(Listener(64), source, ARTISTS)
    assert report.shares == {"voice": 0, "band": 1, "neither": 0}
    assert report.scores["accompaniment"]["song"] == 1
    assert report.scores["mixture"]["song"] == pytest.approx(0.5)
    voice = voice_report.report(Listener(0), source, ARTISTS)
    assert voice.shares == {"voice": 1, "band": 0, "neither": 0}
    # And an index is brought up to date without computing anything again.
    record = next(iter(source.store.records.values()))
    renamed = dataclasses.replace(record.as_song, accompaniment_artist="Stranger")
    source.store.update([renamed], extractor=Planted())
    again = WritableStore(source.store.folder, STEMS).records[renamed.key]
    assert again.accompaniment_artist == "Stranger"
    assert voice_report._band(again, 3, ARTISTS) == -1


def test_every_song_is_heard_with_another_band_and_another_voice(source):
    swaps = voice_report.report(Listener(0), source, ARTISTS).swaps
    keys = sorted(source.labels)
    assert sorted(swap.voice for swap in swaps[:8]) == keys
    assert sorted(swap.accompaniment for swap in swaps[8:]) == keys
    for swap in swaps:
        assert swap.singer == source.labels[swap.voice]
        assert swap.band == source.labels[swap.accompaniment]
        assert swap.singer != swap.band


@pytest.mark.parametrize("count", [2, 5, 8])
def test_partners_are_of_others_and_take_turns(count):
    labels = [artist for artist in range(count) for _ in range(6)]
    partners = voice_report._partners(labels, labels)
    assert all(labels[p] != own for own, p in zip(labels, partners, strict=True))
    assert np.bincount(partners, minlength=len(labels)).max() <= 2
    if count > 2:  # Not the same neighbour for all songs of an artist.
        assert len({labels[p] for p in partners[:6]}) > 1
    with pytest.raises(UserError, match="voices and bands of other artists"):
        voice_report._partners([0, 0, 1], [0, 0, 0])


def test_what_is_written(source, tmp_path):
    report = voice_report.report(Listener(64), source, ARTISTS)
    voice_report.write(tmp_path, report, source.store.records)
    with open(tmp_path / "voice_report.csv", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 16
    assert all(row["predicted"] == row["band_artist"] for row in rows)
    assert all(row["voice_artist"] != row["band_artist"] for row in rows)
    assert {row["follows"] for row in rows} == {"band"}
    assert (tmp_path / "voice_report.png").stat().st_size > 10_000


def test_needs_stems_and_two_artists(source, tmp_path):
    one = {key: label for key, label in source.labels.items() if label == 0}
    with pytest.raises(UserError, match="at least two artists"):
        voice_report.report(
            Listener(0), dataclasses.replace(source, labels=one), ARTISTS
        )
    plain = dataclasses.replace(source, store=WritableStore(tmp_path / "s"))
    with pytest.raises(UserError, match="has no stems"):
        voice_report.report(Listener(0), plain, ARTISTS)


def test_equal_shares_are_neither():
    shares = {"voice": 0.4, "band": 0.4, "neither": 0.2}
    assert voice_report.followed(shares) == "neither"
    assert "40% are named after the voice" in voice_report.verdict(shares)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("planted", "voice_db"), [("voice", 40.0), ("band", -40.0), ("neither", 0.0)]
)
def test_trained_models_are_found_out(planted, voice_db, tmp_path):
    """Networks that were trained on one stem, or on random names.

    They hear songs that they know, with the stem that they were trained on far in
    front: what is to be found out is what they listen to, not how well they cope with
    sound that was not there in training.
    """
    from lca_keras.workflow import training

    settings = synthesis.SynthesisConfig(
        artists=6, albums=5, songs=3, seconds=10.0, confounding=1.0, voice_db=voice_db
    )
    folder = tmp_path / "corpus"
    synthesis.write_corpus(settings, folder, stems=True)
    # The last two albums are not played by the artists' own bands.
    songs = [s for s in catalogue.load(folder / "manifest.csv") if s.album < "Album 04"]
    artists = sorted({song.artist for song in songs})
    heard = songs
    if planted != "neither":
        stem = {"voice": "vocals_path", "band": "accompaniment_path"}[planted]
        heard = [dataclasses.replace(s, path=getattr(s, stem)) for s in songs]
    plain = WritableStore(tmp_path / "heard", FeatureConfig())
    plain.update(heard)
    stems = WritableStore(tmp_path / "stems", STEMS)
    stems.update(songs)
    parts = {"train": {}, "validation": {}}
    for song in songs:
        part = "validation" if song.album == "Album 03" else "train"
        parts[part][song.key] = artists.index(song.artist)
    taught = dict(parts)
    if planted == "neither":
        names = np.random.default_rng(0).permutation(list(parts["train"].values()))
        taught["train"] = dict(zip(parts["train"], map(int, names), strict=True))
    sources = {part: ClipSource(plain, own, CLIP) for part, own in taught.items()}
    config = get_preset("demo").replace(
        model={"name": "crnn", "filters": (16, 32, 32, 32)},
        # Small batches: the running statistics of batch normalisation take steps.
        train={"method": "none", "epochs": 25, "learning_rate": 2e-3, "batch_size": 4},
    )
    checkpoints = tmp_path / "checkpoints"
    state = training.train(config, sources, len(artists), checkpoints)
    # Not of the best epoch: the one that knows its songs best.
    model = training.build_training_model(config, len(artists))
    model.load_weights(checkpoints / state.last)
    source = ClipSource(stems, parts["train"], CLIP)
    report = voice_report.report(model, source, artists)
    assert voice_report.followed(report.shares) == planted
    if planted != "neither":
        assert report.shares[planted] >= 0.9
