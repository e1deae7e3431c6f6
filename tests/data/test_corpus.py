import shutil

import numpy as np
import pytest
import soundfile

from lca_keras.base.config import Config
from lca_keras.base.errors import UserError
from lca_keras.data import corpus
from lca_keras.data.corpus import DataSource
from lca_keras.data.extraction import Extractor
from tests.audio.signals import music

CONFIG = Config().replace(train={"clip_seconds": 3})


@pytest.fixture
def songs(tmp_path):
    """A folder of two artists' three albums, and the source that names it."""
    for artist in ("a", "b"):
        for album in "123":
            path = tmp_path / "music" / artist / album / "song.wav"
            path.parent.mkdir(parents=True)
            seed = int(album) + 10 * (artist == "b")
            soundfile.write(path, music(16000, seconds=7, seed=seed), 16000)
    folder = tmp_path / "music"
    return folder, DataSource(data=str(folder), features=str(tmp_path / "features"))


def test_what_is_not_used_is_told(songs):
    folder, source = songs
    quiet = np.zeros(16000 * 7)
    quiet[-16000:] = music(16000, seconds=1)  # After the last full clip.
    soundfile.write(folder / "a/1/late.wav", quiet, 16000)
    soundfile.write(folder / "a/1/short.wav", music(16000, seconds=2.97), 16000)
    (folder / "a/1/text.m4a").write_text("text " * 99)
    (folder / "loose.ogg").write_bytes(b"x")
    whole = (folder / "a/2/song.wav").read_bytes()
    (folder / "a/2/half.wav").write_bytes(whole[: len(whole) * 2 // 3])
    found = corpus.prepare(source, CONFIG)
    reasons = {path.rsplit("/", 1)[1]: why for path, why in found.skipped.items()}
    assert reasons == {
        "late.wav": "too short without its silence: 1.016 s, a clip needs 2.976 s",
        "short.wav": "too short: 2.970 s, a clip needs 2.976 s",
        "text.m4a": "no recording in a format that FFmpeg decodes, or damaged",
        "loose.ogg": "in no folder of an album: artist/album/song is expected",
    }
    (doubt,) = found.doubtful.values()
    assert "announces 7.00 s, 4.67 s are there" in doubt
    audio = [p for p in folder.rglob("*.*") if p.is_file()]
    assert len(found.songs) + len(found.skipped) == len(audio)
    with pytest.raises(UserError, match="--strict: 4 files cannot be used, 1 are doub"):
        corpus.prepare(DataSource(**{**vars(source), "strict": True}), CONFIG)


def test_silence_does_not_train(songs):
    folder, source = songs
    samples = music(16000, seconds=6)
    padded = np.concatenate([np.zeros(16000 * 9), samples, np.zeros(16000 * 30)])
    soundfile.write(folder / "a/1/song.wav", padded, 16000)
    found = corpus.prepare(source, CONFIG)
    division = corpus.divide(CONFIG, found)
    sources = corpus.clip_sources(found, division.part_of, division.artists, CONFIG)
    (song,) = [s for s in found.songs if (s.artist, s.album) == ("a", "1")]
    (clips,) = [c for c in sources.values() if song.key in c.labels]
    starts = clips.clip_times(song.key)
    assert len(starts) == 2
    np.testing.assert_allclose(starts, [9, 12], atol=0.15)
    shapes = [mel.shape for mel, _ in clips.ordered(4)]
    assert sum(shape[0] for shape in shapes) == clips.num_clips
    drawn = [mel.shape[0] for mel, _ in clips.training(4, 0, 0, 1)]
    assert sum(drawn) == clips.num_clips


def test_music_that_moved_leaves_its_features(songs, tmp_path, monkeypatch):
    folder, source = songs
    before = corpus.prepare(source, CONFIG)
    folder.rename(tmp_path / "elsewhere")
    monkeypatch.setattr(Extractor, "extract", None)
    found = corpus.prepare(source, CONFIG)
    assert found.songs == before.songs
    assert "is not there: its features are used as they are" in found.notes[1]
    with pytest.raises(UserError, match="no such folder"):
        corpus.prepare(DataSource(data=str(tmp_path / "nowhere")), CONFIG)


def test_a_run_goes_on_with_its_own_songs(songs, tmp_path):
    folder, source = songs
    found = corpus.prepare(source, CONFIG)
    division = corpus.divide(CONFIG, found)
    corpus.keep_split(tmp_path, found, division)
    shutil.copytree(folder / "a", folder / "c")
    for number, path in enumerate(sorted(folder.glob("c/*/song.wav"))):
        soundfile.write(path, music(16000, seconds=5, seed=100 + number), 16000)
    soundfile.write(folder / "b/1/new.wav", music(16000, seed=50), 16000)
    later = corpus.divide(CONFIG, corpus.prepare(source, CONFIG), tmp_path)
    assert later.part_of == division.part_of
    assert later.artists == ["a", "b"]
    assert later.new == ["b / 1 / new"] + [f"c / {album} / song" for album in "123"]
    # And where songs have gone, the classes stay the same.
    (gone,) = [
        song
        for song in found.songs
        if song.artist == "a" and division.part_of[song.key] == "test"
    ]
    gone.path.unlink()
    later = corpus.divide(CONFIG, corpus.prepare(source, CONFIG), tmp_path)
    assert (later.artists, later.unknown) == (["a", "b"], [gone.label])


def test_places_mean_the_same_from_everywhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    kept = DataSource(data="x", data_root="y", store=None, separator="s").absolute()
    assert kept.data == str(tmp_path / "x")
    assert kept.data_root == str(tmp_path / "y")
    assert kept.features == str(tmp_path / "features")
    assert kept.separator == str(tmp_path / "s")
    assert kept.store is None
    assert kept.absolute() == kept
