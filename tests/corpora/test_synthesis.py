import csv

import librosa
import numpy as np
import pytest
import soundfile

from lca_keras.base import files
from lca_keras.base.errors import UserError
from lca_keras.corpora import synthesis
from lca_keras.corpora.synthesis import SynthesisConfig
from lca_keras.synthesis import main
from tests.conftest import TINY


def test_same_seed_same_sound_and_other_seed_other_sound():
    first, second = (synthesis.synthesize(TINY, 1, 0, 1) for _ in range(2))
    np.testing.assert_array_equal(first.mixture, second.mixture)
    other = synthesis.synthesize(SynthesisConfig(**{**vars(TINY), "seed": 2}), 1, 0, 1)
    assert not np.array_equal(first.mixture, other.mixture)


def test_pyin_finds_the_pitch_that_was_sung():
    corpus = SynthesisConfig(seconds=8.0)
    errors = []
    for artist in range(3):
        song = synthesis.synthesize(corpus, artist, 0, 0)
        found, voiced, _ = librosa.pyin(
            song.vocals, fmin=60, fmax=900, sr=16000, hop_length=512
        )
        sung = song.pitch[::512][: len(found)]
        both = voiced[: len(sung)] & (sung > 0)
        assert both.mean() > 0.4
        cents = 1200 * np.log2(found[: len(sung)][both] / sung[both])
        errors.append(np.median(np.abs(cents)))
    # Half a semitone: pyin averages over glides and vibrato.
    assert np.median(errors) < 50


def test_voice_level_is_what_was_asked_for():
    corpus = SynthesisConfig(seconds=6.0, voice_db=9.0)
    song = synthesis.synthesize(corpus, 0, 0, 0)
    ratio = np.sqrt(np.mean(song.vocals**2) / np.mean(song.accompaniment**2))
    # Production (equaliser, reverberation) acts a little differently on each.
    assert 20 * np.log10(ratio) == pytest.approx(9.0, abs=3.0)
    assert np.abs(song.mixture).max() <= 1.0


def test_songs_differ_and_singers_stay():
    voices = [TINY.singer(artist) for artist in (0, 0, 1)]
    assert voices[0] == voices[1] != voices[2]
    songs = [synthesis.synthesize(TINY, 0, 0, song).mixture for song in (0, 1)]
    assert not np.array_equal(*songs)


def test_confounding_ties_bands_to_artists_except_in_the_last_two_albums():
    corpus = SynthesisConfig(artists=10, albums=7, songs=10, confounding=0.8)
    own = np.array(
        [
            [
                [corpus.style_of(artist, album, song) == artist for song in range(10)]
                for album in range(7)
            ]
            for artist in range(10)
        ]
    )
    # 0.8 by confounding and a tenth of the rest by chance; 500 and 200 songs.
    assert own[:, :5].mean() == pytest.approx(0.82, abs=0.06)
    assert own[:, 5:].mean() == pytest.approx(0.1, abs=0.07)


def test_files_manifest_split_and_stems(tiny_corpus):
    with open(tiny_corpus / "manifest.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 18
    for row in rows:
        mixture, rate = soundfile.read(tiny_corpus / row["path"])
        vocals, _ = soundfile.read(tiny_corpus / row["vocals_path"])
        assert rate == 16000
        assert mixture.shape == vocals.shape == (7 * 16000,)
    with open(tiny_corpus / "split.csv", encoding="utf-8", newline="") as file:
        parts = {(r["artist"], r["album"]): r["part"] for r in csv.DictReader(file)}
    for artist in {row["artist"] for row in rows}:
        assert parts[artist, "Album 01"] == "train"
        last = {parts[artist, "Album 02"], parts[artist, "Album 03"]}
        assert last == {"validation", "test"}


def test_an_interrupted_corpus_continues(tmp_path):
    corpus = SynthesisConfig(artists=2, albums=3, songs=1, seconds=4.0)
    synthesis.write_corpus(corpus, tmp_path / "c", jobs=1)
    songs = sorted((tmp_path / "c").glob("*/*/*.flac"))
    contents = [song.read_bytes() for song in songs]
    kept = songs[0].stat().st_mtime_ns
    songs[1].unlink()
    synthesis.write_corpus(corpus, tmp_path / "c", jobs=1)
    assert [song.read_bytes() for song in songs] == contents
    assert songs[0].stat().st_mtime_ns == kept


def test_never_writes_into_other_folders(tmp_path, capsys):
    (tmp_path / "letters").mkdir()
    (tmp_path / "letters" / "dear.txt").write_text("keep me")
    assert main([str(tmp_path / "letters")]) == 1
    said = capsys.readouterr().err
    assert "not empty" in said
    assert "--debug" not in said
    small = ["--artists", "2", "--albums", "3", "--songs", "1", "--seconds", "4"]
    assert main([str(tmp_path / "c"), *small]) == 0
    assert main([str(tmp_path / "c"), *small, "--seed", "5"]) == 1
    said = capsys.readouterr().err
    assert "other settings" in said
    assert "--debug" not in said
    assert main([str(tmp_path / "d"), *small, "--artists", "1"]) == 1
    said = capsys.readouterr().err
    assert said == "error: corpus.artists: expected int, at least 2, received 1\n"


@pytest.mark.parametrize(
    "bad",
    [
        {"artists": 1},
        {"albums": 2},
        {"songs": 0},
        {"seconds": 1},
        {"confounding": 1.5},
    ],
)
def test_rejects_impossible_corpora(bad):
    (value,) = bad.values()
    with pytest.raises(UserError, match=f"expected .* at least .* received {value}"):
        SynthesisConfig(**bad)


def test_test_bands_change_the_held_out_albums_alone():
    settings = {"artists": 5, "albums": 4, "songs": 6, "confounding": 0.5}
    corpora = {
        bands: synthesis.SynthesisConfig(**settings, test_bands=bands)
        for bands in synthesis.TEST_BANDS
    }
    played = {
        bands: np.array(
            [
                [[corpus.style_of(a, b, s) for s in range(6)] for b in range(4)]
                for a in range(5)
            ]
        )
        for bands, corpus in corpora.items()
    }
    own = np.arange(5)[:, None, None]
    assert (played["own"][:, 2:] == own).all()
    assert not (played["other"][:, 2:] == own).any()
    assert len(np.unique(played["other"][:, 2:])) == 5
    for bands in ("own", "other"):
        np.testing.assert_array_equal(played[bands][:, :2], played["any"][:, :2])
    with pytest.raises(UserError, match="test_bands: expected one of any, own, other"):
        synthesis.SynthesisConfig(test_bands="none")


def test_one_part_alone_can_be_written(tmp_path):
    corpus = synthesis.SynthesisConfig(
        artists=2, albums=3, songs=1, seconds=4, test_bands="other"
    )
    rows = synthesis.write_corpus(corpus, tmp_path / "c", parts=("test",))
    assert [row["artist"] for row in rows] == ["Ada Quill", "Björn Talvik"]
    assert rows[0]["accompaniment_artist"] == "Björn Talvik"
    split = files.read_csv(tmp_path / "c" / "split.csv")
    assert [row["part"] for row in split] == ["test", "test"]
    assert [row["album"] for row in split] == [row["album"] for row in rows]
