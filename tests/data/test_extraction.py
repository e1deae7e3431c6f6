import dataclasses
import pickle

import librosa
import numpy as np
import pytest
import soundfile

from lca_keras.audio import separation
from lca_keras.audio.decode import AudioError
from lca_keras.base.errors import UserError
from lca_keras.base.sections import FeatureConfig
from lca_keras.data import catalogue
from lca_keras.data.catalogue import Song
from lca_keras.data.extraction import STATE_SIZE, Extractor, file_state
from lca_keras.features.melody import contour, melody_bands
from lca_keras.features.spectrogram import mel_spectrogram

VOCALS = FeatureConfig(source="vocals", separator="umxl")
STEMS = FeatureConfig(source="stems", separator="umxl")


@pytest.fixture(scope="module")
def song(tiny_corpus):
    return catalogue.load(tiny_corpus / "manifest.csv")[0]


def without_stems(song):
    return dataclasses.replace(song, vocals_path=None, accompaniment_path=None)


class Halves:
    """In the place of a separator: half of the song, a little longer."""

    def separate(self, path, sample_rate, keep=None):
        samples, rate = soundfile.read(path, dtype="float32")
        assert rate == sample_rate
        if keep is not None:
            soundfile.write(keep, samples / 2, rate)
        return np.append(samples / 2, [0, 0]).astype("float32")


@pytest.fixture
def halves(monkeypatch):
    """Separators that need no network."""
    monkeypatch.setattr(separation, "Separator", lambda source, threads: Halves())


def test_vocals_of_the_manifest_are_used_and_aligned(song):
    config = dataclasses.replace(VOCALS, melody="pyin")
    features = Extractor(config).extract(song)
    vocals = sound_of(song.vocals_path, features.passages)
    np.testing.assert_allclose(
        features.arrays["mel_spectrogram"][..., 0],
        mel_spectrogram(vocals, config),
        atol=0.04,
    )
    melody = contour(melody_bands(vocals, config), 128)
    np.testing.assert_array_equal(features.arrays["melody"][..., 0], melody)
    mixture = Extractor(FeatureConfig(melody="pyin")).extract(song)
    for each in (mixture, features):
        assert each.arrays["melody"].shape == each.arrays["mel_spectrogram"].shape
    heard = sound_of(song.path, mixture.passages)
    np.testing.assert_allclose(
        mixture.arrays["mel_spectrogram"][..., 0],
        mel_spectrogram(heard, config),
        atol=0.04,
    )
    # Of the song, not of what is taken from it: copies are found either way.
    assert mixture.content_hash == features.content_hash


def test_without_vocals_they_are_separated(song, halves):
    extractor = Extractor(VOCALS)
    alone = without_stems(song)
    sounds = {n: s.samples for n, s in extractor.sounds(alone).items()}
    np.testing.assert_array_equal(sounds["vocals"], sounds["mixture"] / 2)
    assert set(sounds) == {"mixture", "vocals"}
    # What is left of the mixture is the accompaniment.
    stems = {n: s.samples for n, s in Extractor(STEMS).sounds(alone).items()}
    assert list(stems) == ["mixture", "vocals", "accompaniment"]
    np.testing.assert_array_equal(stems["accompaniment"], sounds["mixture"] / 2)


def sound_of(path, passages):
    """Samples of a file in some passages."""
    samples, rate = soundfile.read(path, dtype="float32")
    bounds = np.round(np.reshape(passages, (-1, 2)) * rate).astype(int)
    return np.concatenate([samples[first:end] for first, end in bounds])


def mel_of(path, passages):
    """Mel power of a file by librosa, and the factor that brings it to one level."""
    samples = sound_of(path, passages)
    spectrum = librosa.stft(samples - samples.mean(), n_fft=2048, hop_length=512)
    spectrum[:2] = 0
    power = librosa.feature.melspectrogram(S=np.abs(spectrum) ** 2, sr=16000)
    frames = power.sum(axis=0)
    return power, 500 / frames[frames >= 1e-4 * frames.max()].mean()


def test_stems_of_the_manifest(song):
    config = dataclasses.replace(STEMS, melody="pyin")
    features = Extractor(config).extract(song)
    mixture = Extractor(FeatureConfig()).extract(song)
    # What is heard is the mixture, to the bit.
    np.testing.assert_array_equal(
        features.arrays["mel_spectrogram"], mixture.arrays["mel_spectrogram"]
    )
    assert features.content_hash == mixture.content_hash
    # Stems stay at their levels in the song, which is brought to the level of all.
    gain = mel_of(song.path, features.passages)[1]
    for name in ("vocals", "accompaniment"):
        power, _ = mel_of(getattr(song, f"{name}_path"), features.passages)
        expected = 10 * np.log10(np.maximum(gain * power, 1e-7))
        # 0.03 dB for float16, and as much again near the floor for float32.
        np.testing.assert_allclose(features.arrays[name][..., 0], expected, atol=0.06)
    vocals = sound_of(song.vocals_path, features.passages)
    # The melody is the voice's.
    melody = contour(melody_bands(vocals, config), 128)
    np.testing.assert_array_equal(features.arrays["melody"][..., 0], melody)


@pytest.mark.parametrize("missing", ["vocals", "accompaniment"])
def test_one_stem_is_what_the_other_leaves(song, missing):
    one = dataclasses.replace(song, **{f"{missing}_path": None})
    made = Extractor(STEMS).sounds(one)[missing].samples
    given, _ = soundfile.read(getattr(song, f"{missing}_path"), dtype="float32")
    np.testing.assert_allclose(made, given, atol=1e-4)  # 16-bit rounding, three times.


def test_vocals_of_an_instrumental(song):
    instrumental = dataclasses.replace(
        song, vocals_path=None, accompaniment_path=song.path
    )
    for config in (VOCALS, STEMS):
        with pytest.raises(AudioError, match="no voice in it"):
            Extractor(config).sounds(instrumental)


def test_stems_that_do_not_fit_are_refused(song, tmp_path):
    vocals, rate = soundfile.read(song.vocals_path)
    path = tmp_path / "v.wav"
    alone = dataclasses.replace(song, vocals_path=path, accompaniment_path=None)
    both = dataclasses.replace(song, vocals_path=path)
    for name, wrong in {
        "late": np.roll(vocals, rate // 4),
        "soft": vocals / 2,
        "other": np.random.default_rng(0).standard_normal(vocals.size) / 20,
    }.items():
        soundfile.write(path, wrong, rate)
        with pytest.raises(AudioError, match=r"v.wav: the song holds that at -?\d"):
            Extractor(STEMS).extract(alone)
        if name != "soft":  # Half of a voice is not too much to lose in mastering.
            with pytest.raises(AudioError, match=r"do not add up to it: .* has \d+%"):
                Extractor(STEMS).extract(both)
    # A voice so soft that it hardly counts in the sum.
    mixture, _ = soundfile.read(song.path)
    soundfile.write(tmp_path / "s.wav", mixture - 0.9 * vocals, rate)
    soundfile.write(path, 0.1 * np.roll(vocals, rate // 4), rate)
    soft = dataclasses.replace(
        both, path=tmp_path / "s.wav", accompaniment_path=song.accompaniment_path
    )
    with pytest.raises(AudioError, match=r"v.wav: the song holds that at"):
        Extractor(STEMS).extract(soft)
    # One that is softer still, beside a band that happens to have a little against it.
    accompaniment, _ = soundfile.read(song.accompaniment_path)
    band = accompaniment - 0.1 * vocals
    for name, sound in {
        "v": 0.05 * vocals,
        "b": band,
        "s": band + 0.05 * vocals,
    }.items():
        soundfile.write(tmp_path / f"{name}.wav", sound, rate, subtype="FLOAT")
    Extractor(STEMS).extract(
        dataclasses.replace(soft, accompaniment_path=tmp_path / "b.wav")
    )
    soundfile.write(path, vocals * 0.95, rate)
    Extractor(STEMS).extract(alone)
    soundfile.write(path, vocals * 0, rate)
    with pytest.raises(AudioError, match=r"vocals .*v.wav: silent"):
        Extractor(STEMS).extract(alone)


def test_vocals_of_another_length_are_refused(song, tmp_path):
    vocals, rate = soundfile.read(song.vocals_path)
    soundfile.write(tmp_path / "v.wav", vocals[: 3 * rate], rate)
    cut = dataclasses.replace(song, vocals_path=tmp_path / "v.wav")
    with pytest.raises(AudioError, match=r"v.wav last 3.00 s, the song 7.00 s"):
        Extractor(VOCALS).extract(cut)
    (tmp_path / "v.wav").write_bytes(b"")
    with pytest.raises(AudioError, match=r"vocals .*v.wav: empty file"):
        Extractor(VOCALS).extract(cut)


def test_vocals_are_kept_whatever_the_names(song, tmp_path, halves):
    extractor = Extractor(VOCALS, keep_vocals=tmp_path / "kept")
    rude = Song("AC/DC", "..", ".hidden", song.path)
    extractor.extract(rude)
    kept = [p for p in (tmp_path / "kept").rglob("*") if p.is_file()]
    assert kept == [extractor.kept_vocals(rude)]
    assert kept[0].resolve().is_relative_to(tmp_path / "kept")
    assert len(kept[0].relative_to(tmp_path / "kept").parts) == 3
    # Two names that look the same as files are two files.
    twin = dataclasses.replace(rude, artist="AC_DC")
    assert extractor.kept_vocals(twin) != kept[0]
    assert extractor.kept_vocals(song) is None  # Has its own vocals.


def test_only_names_travel_to_other_processes(song, halves, monkeypatch):
    """The separator of one process is not sent to the next one."""
    monkeypatch.setattr(Halves, "__getstate__", lambda self: 1 / 0, raising=False)
    alone = without_stems(song)
    extractor = Extractor(VOCALS)
    features = extractor.extract(alone)
    copy = pickle.loads(pickle.dumps(extractor))
    assert copy.config == VOCALS
    np.testing.assert_array_equal(
        copy.extract(alone).arrays["mel_spectrogram"],
        features.arrays["mel_spectrogram"],
    )


def test_separators_are_checked_before_the_first_song(song, monkeypatch, tmp_path):
    local = dataclasses.replace(VOCALS, separator="local-0123456789ab")
    alone = without_stems(song)
    Extractor(local).check([song])  # Nothing to separate.
    with pytest.raises(UserError, match=r"local-0123456789ab.*--separator FOLDER"):
        Extractor(local).check([song, alone])
    monkeypatch.setattr(separation, "separator_id", lambda folder: "local-ffff")
    with pytest.raises(UserError, match=r"is local-ffff; these features need local-01"):
        Extractor(local, tmp_path).check([alone])
    real = separation.importlib.util.find_spec
    monkeypatch.setattr(
        separation.importlib.util,
        "find_spec",
        lambda name: None if name in ("openunmix", "torchcrepe") else real(name),
    )
    with pytest.raises(UserError, match=r"pip install 'lca-keras\[vocals\]'"):
        Extractor(VOCALS).check([alone])
    with pytest.raises(UserError, match=r"pip install 'lca-keras\[crepe\]'"):
        Extractor(FeatureConfig(melody="crepe")).check([song])


def test_a_changed_vocals_file_changes_the_state(song, tmp_path):
    soundfile.write(tmp_path / "v.wav", np.zeros(9), 16000)
    first = dataclasses.replace(song, vocals_path=tmp_path / "v.wav")
    before = file_state(first)
    soundfile.write(tmp_path / "v.wav", np.zeros(99), 16000)
    assert file_state(first) != before
    assert len(file_state(without_stems(song))) == STATE_SIZE
