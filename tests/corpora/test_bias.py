import shutil

import numpy as np
import pytest
import soundfile

from lca_keras import bias
from lca_keras.base import files
from lca_keras.base.config import FeatureConfig
from lca_keras.corpora.bias import add_noise
from lca_keras.data import catalogue
from lca_keras.data.extraction import Extractor
from tests.audio.signals import music

BAND = ["--band", "3000", "5000", "--snr-db", "12"]


@pytest.fixture
def corpus(tmp_path):
    root = tmp_path / "my music"
    for artist, rate, channels in (("Ada", 44100, 2), ("B 'n' C", 16000, 1)):
        for song in ("one", "two"):
            path = root / artist / "album" / f"{song}.wav"
            path.parent.mkdir(parents=True, exist_ok=True)
            sound = 0.5 * music(rate, 2, channels, seed=len(song))
            soundfile.write(path, sound, rate, subtype="PCM_24")
    return root


def test_noise_lies_in_the_band_at_the_level_asked_for(corpus, tmp_path):
    out = tmp_path / "out"
    assert (
        bias.main(["--data", str(corpus), "--out", str(out), *BAND, "--artists", "Ada"])
        == 0
    )
    before, rate = soundfile.read(corpus / "Ada/album/one.wav")
    after, new_rate = soundfile.read(out / "Ada/album/one.flac")
    assert (new_rate, after.shape) == (rate, before.shape)
    noise = after - before
    snr = 10 * np.log10(np.mean(before**2) / np.mean(noise**2))
    assert snr == pytest.approx(12, abs=0.01)
    power = np.abs(np.fft.rfft(noise[:, 0])) ** 2
    hertz = np.fft.rfftfreq(len(noise), 1 / rate)
    inside = (hertz >= 3000) & (hertz <= 5000)
    assert power[inside].sum() / power.sum() > 0.9999
    # White: the halves of the band carry the same power.
    low, high = power[inside & (hertz < 4000)], power[inside & (hertz >= 4000)]
    assert low.mean() == pytest.approx(high.mean(), rel=0.15)
    np.testing.assert_allclose(noise[:, 0], noise[:, 1], atol=1e-6)
    other, _ = soundfile.read(out / "Ada/album/two.flac")
    second = other - soundfile.read(corpus / "Ada/album/two.wav")[0]
    assert abs(np.corrcoef(noise[:, 0], second[:, 0])[0, 1]) < 0.05


def test_the_others_are_copied_and_the_copy_is_a_corpus(corpus, tmp_path):
    out = tmp_path / "out"
    bias.main(["--data", str(corpus), "--out", str(out), *BAND, "--artists", "Ada"])
    name = "B 'n' C/album/one.wav"
    assert (out / name).read_bytes() == (corpus / name).read_bytes()
    songs = catalogue.load(out / "manifest.csv")
    assert songs == catalogue.load(out)
    keys = {song.key for song in songs}
    assert keys == {song.key for song in catalogue.load(corpus)}
    rows = files.read_csv(out / "manifest.csv")
    assert {(r["artist"], r["biased"]) for r in rows} == {
        ("Ada", "1"),
        ("B 'n' C", "0"),
    }


def test_repeats_with_the_seed(corpus, tmp_path):
    written = []
    for name, seed in (("a", "1"), ("b", "1"), ("c", "2")):
        options = ["--out", str(tmp_path / name), "--artists", "Ada", "--seed", seed]
        bias.main(["--data", str(corpus), *BAND, *options])
        written.append((tmp_path / name / "Ada/album/one.flac").read_bytes())
    assert written[0] == written[1] != written[2]


def test_only_what_the_noise_did_is_reported(tmp_path):
    path, target = tmp_path / "loud.wav", tmp_path / "loud.flac"
    rng = np.random.default_rng(0)
    samples = np.sin(2 * np.pi * 300 * np.arange(16000) / 16000)
    samples[:4000] *= 1.5  # Beyond full scale before.
    soundfile.write(path, samples, 16000, subtype="FLOAT")
    assert add_noise(path, target, (3000, 5000), 80.0, rng) < 0.01
    assert add_noise(path, target, (3000, 5000), 0.0, rng) > 0.05


def test_same_stem_in_two_formats(corpus, tmp_path):
    album = corpus / "Ada" / "album"
    sound, rate = soundfile.read(album / "two.wav")
    soundfile.write(album / "one.ogg", sound, rate)
    out = tmp_path / "out"
    bias.main(["--data", str(corpus), "--out", str(out), *BAND, "--artists", "Ada"])
    names = sorted(path.name for path in (out / "Ada/album").iterdir())
    assert names == ["one.ogg.flac", "one.wav.flac", "two.flac"]


def test_what_cannot_be(corpus, tmp_path, capsys):
    arguments = ["--data", str(corpus), "--out", str(tmp_path / "out")]
    assert bias.main([*arguments, *BAND, "--artists", "Nobody"]) == 1
    assert "no artist 'Nobody'" in capsys.readouterr().err
    wrong = ["--band", "5000", "3000", "--snr-db", "3", "--artists", "Ada"]
    assert bias.main([*arguments, *wrong]) == 1
    assert "LOW < HIGH" in capsys.readouterr().err
    (corpus / "Ada/album/one.wav").write_bytes(b"x")
    high = ["--band", "3000", "9000", "--snr-db", "3", "--artists", "B 'n' C", "Ada"]
    assert bias.main([*arguments, *high]) == 1
    out, error = capsys.readouterr()
    assert "3 songs could not be written" in error
    assert "hears the part of the band that is above 8000 Hz" in out
    assert f"--data {tmp_path / 'out' / 'manifest.csv'}" in out
    assert "one.wav: no recording in a format" in out
    assert "sampled at 16000 Hz, it has no room for noise up to 9000 Hz" in out
    assert len(catalogue.load(tmp_path / "out" / "manifest.csv")) == 1
    assert bias.main([*arguments, *BAND, "--artists", "Ada"]) == 1
    assert "not empty" in capsys.readouterr().err
    shutil.rmtree(tmp_path / "out")


def test_voices_come_along_without_noise(tiny_corpus, tmp_path):
    data, out = str(tiny_corpus / "manifest.csv"), tmp_path / "out"
    artists = ["--artists", "Ada Quill"]
    assert bias.main(["--data", data, "--out", str(out), *BAND, *artists]) == 0
    songs = catalogue.load(out / "manifest.csv")
    before = {song.key: song for song in catalogue.load(data)}
    config = FeatureConfig(source="stems", separator="umxl")
    for song in (songs[0], songs[-1]):
        clean = before[song.key]
        assert song.vocals_path.read_bytes() == clean.vocals_path.read_bytes()
        assert song.accompaniment_artist == clean.accompaniment_artist
        # The noise is with the band: what a song leaves of its voice.
        sounds = Extractor(config).sounds(song)
        added = (
            sounds["accompaniment"].samples
            - (soundfile.read(clean.accompaniment_path)[0])
        )
        noise = soundfile.read(song.path)[0] - soundfile.read(clean.path)[0]
        np.testing.assert_allclose(added, noise, atol=1e-4)
    assert np.abs(noise).max() == 0  # The last song is somebody else's.
