import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from lca_keras.base.errors import UserError
from lca_keras.base.sections import AugmentConfig, FeatureConfig
from lca_keras.corpora import synthesis
from lca_keras.data import augment, catalogue
from lca_keras.data.clips import ClipSource
from lca_keras.data.update import WritableStore
from lca_keras.features import spectrogram
from lca_keras.features.front_end import front_end_of

STEMS = FeatureConfig(source="stems", separator="umxl")
CLIP = 94
ALWAYS = AugmentConfig(kinds=("remix",), remix_share=1.0, remix_gain_db=0.0)


def _power(levels):
    return 10.0 ** (np.asarray(levels, "float64") / 10)


@pytest.fixture(scope="module")
def songs(tiny_corpus):
    return catalogue.load(tiny_corpus / "manifest.csv")


@pytest.fixture(scope="module")
def store(songs, tmp_path_factory):
    store = WritableStore(tmp_path_factory.mktemp("stems") / "store", STEMS)
    store.update(songs)
    return store


@pytest.fixture(scope="module")
def source(songs, store):
    # Not all songs: the others must never be heard.
    artists = sorted({song.artist for song in songs})
    kept = [song for song in songs if song.album != "Album 03"]
    labels = {song.key: artists.index(song.artist) for song in kept}
    return ClipSource(store, labels, CLIP)


def _stored(songs, store):
    """Every clip of every song: dict from song to its columns."""
    from lca_keras.data.extraction import Extractor

    extractor = Extractor(STEMS)
    return {song.key: extractor.extract(song).arrays for song in songs}


def test_powers_add_up_like_waveforms():
    # docs/voice.md: over voiced frames the median is 0.03 dB, the 95th percentile 1.7
    # dB, in decibels that count double.
    corpus, config = synthesis.SynthesisConfig(seed=3), FeatureConfig()
    errors = []
    for artist in range(8):
        song = synthesis.synthesize(corpus, artist, 1, 0)
        other = synthesis.synthesize(corpus, (artist + 3) % 8, 2, 1)
        vocals, band = [
            spectrogram.stem_power(
                spectrogram.stem_levels(spectrogram.mel_power(part, config))
            )
            for part in (song.vocals, other.accompaniment)
        ]
        for gain_db in (-6, 0, 6):
            added = spectrogram.to_decibels(
                vocals * 10 ** (gain_db / 10) + band, config
            )
            sound = song.vocals * 10 ** (gain_db / 20) + other.accompaniment
            exact = spectrogram.mel_spectrogram(sound, config)
            at = np.minimum(np.arange(exact.shape[1]) * 512, song.pitch.size - 1)
            errors.append(np.abs(added - exact)[:, song.pitch[at] > 0].ravel())
    errors = np.concatenate(errors)
    assert np.median(errors) < 0.1
    assert np.percentile(errors, 95) < 2.0


def test_remix_is_the_sum_of_powers():
    rng = np.random.default_rng(0)
    shape = (5, 8, 6, 1)
    vocals, band = rng.uniform(-40, 30, (2, *shape)).astype("float32")
    front_end = front_end_of(dataclasses.replace(FeatureConfig(), mel_bins=8))
    heard = np.full(shape, 7.0, "float32")
    clips = {
        "vocals": vocals,
        "vocals_peak": np.float32([30, 31, 50, 30, 30]),
    }
    other = {
        "accompaniment": band,
        "accompaniment_peak": np.float32([30, 30, 30, 45, 30]),
    }
    remixed = augment.remix(heard, clips, other, (3, 4), ALWAYS, front_end).numpy()
    power = _power(vocals) + _power(band)
    peaks = _power(np.maximum(clips["vocals_peak"], other["accompaniment_peak"]))
    loudest = np.maximum(power.max(axis=(1, 2, 3)), peaks)
    expected = np.maximum(
        20 * np.log10(np.maximum(power, 1e-5)),
        20 * np.log10(loudest)[:, None, None, None] - 80,
    )
    np.testing.assert_allclose(remixed, expected, atol=1e-3)
    nothing = dataclasses.replace(ALWAYS, remix_share=0.0)
    kept = augment.remix(heard, clips, other, (3, 4), nothing, front_end)
    np.testing.assert_array_equal(kept, heard)


def test_share_and_gain_are_as_asked_for():
    count = 4000
    front_end = front_end_of(dataclasses.replace(FeatureConfig(), mel_bins=1))
    loud = np.full((count, 1, 1, 1), 40.0, "float32")
    heard = np.zeros((count, 1, 1, 1), "float32")
    clips = {"vocals": loud, "vocals_peak": loud[:, 0, 0, 0]}
    silence = np.full((count, 1, 1, 1), -70.0, "float32")
    other = {"accompaniment": silence, "accompaniment_peak": silence[:, 0, 0, 0]}
    settings = AugmentConfig(kinds=("remix",), remix_share=0.3, remix_gain_db=4.0)
    mel = (
        augment.remix(heard, clips, other, (1, 2), settings, front_end).numpy().ravel()
    )
    changed = mel != 0
    # Three standard deviations of 4,000 draws.
    assert abs(changed.mean() - 0.3) < 3 * np.sqrt(0.21 / count)
    gain = mel[changed] / 2 - 40  # Decibels of power; the features count them double.
    assert np.abs(gain).max() <= 4.0001
    assert gain.min() < -3.9
    assert gain.max() > 3.9
    assert abs(gain.mean()) < 3 * (8 / np.sqrt(12)) / np.sqrt(changed.sum())


def test_a_source_remixes_its_own_clips_only(songs, store, source):
    arrays = _stored(songs, store)
    clips = {}
    for song in songs:
        mine = arrays[song.key]
        for number in range(mine["mel_spectrogram"].shape[1] // CLIP):
            cut = slice(number * CLIP, (number + 1) * CLIP)
            stems = (mine[name] for name in ("vocals", "accompaniment"))
            power = [_power(stem[:, cut, 0]) for stem in stems]
            clips[song.key, number] = power
    ours = {name: power for name, power in clips.items() if name[0] in source.labels}
    batches = source.training(4, 7, 0, 1, ALWAYS)
    seen, partners = [], set()
    for mel, labels in batches:
        for clip, label in zip(mel.numpy()[..., 0], labels.numpy(), strict=True):
            top = clip.max()
            found = [
                (voice, band)
                for voice, (vocals, _) in ours.items()
                for band, (_, rest) in clips.items()
                if np.abs(
                    np.maximum(clip, top - 40)
                    - np.maximum(
                        20 * np.log10(np.maximum(vocals + rest, 1e-5)), top - 40
                    )
                ).max()
                < 0.01
            ]
            assert len(found) == 1
            voice, band = found[0]
            assert source.labels[voice[0]] == label
            assert band in ours
            seen.append(voice)
            partners.add(band)
    # An epoch has each voice once and each accompaniment once.
    assert sorted(seen) == sorted(ours)
    assert partners == set(ours)


@pytest.mark.parametrize(
    "kinds", [("remix",), ("specaugment",), ("remix", "specaugment")]
)
def test_an_epoch_depends_on_its_number_alone(source, kinds):
    settings = AugmentConfig(kinds=kinds, remix_share=0.5)

    def batches(*epochs):
        return [
            tf.concat([mel for mel, _ in source.training(4, 1, *pair, settings)], 0)
            for pair in epochs
        ]

    both, second, first = batches((0, 2), (1, 2), (0, 1))
    np.testing.assert_array_equal(both, tf.concat([first, second], 0))
    assert not np.array_equal(first, second)


def test_masks(source):
    settings = AugmentConfig(kinds=("specaugment",), mask_bands=10, mask_frames=5)
    plain = tf.concat([mel for mel, _ in source.training(4, 1, 0, 30)], 0)
    masked = tf.concat([mel for mel, _ in source.training(4, 1, 0, 30, settings)], 0)
    plain, masked = plain.numpy()[..., 0], masked.numpy()[..., 0]
    assert len(plain) > 500
    changed = plain != masked
    widths = [], []
    for clip, after, where in zip(plain, masked, changed, strict=True):
        rows, columns = where.all(axis=1), where.all(axis=0)
        # A range of bands and a range of frames, whole, and nothing else.
        np.testing.assert_array_equal(where, rows[:, None] | columns[None, :])
        for width, line in zip(widths, (rows, columns), strict=True):
            places = np.flatnonzero(line)
            width.append(len(places))
            assert len(places) < 2 or places[-1] - places[0] + 1 == len(places)
        np.testing.assert_allclose(after[where], clip.mean(), rtol=1e-5)
    assert set(widths[0]) == set(range(11))
    assert set(widths[1]) == set(range(6))


def test_the_melody_stays_with_the_voice(songs, tmp_path):
    config = dataclasses.replace(STEMS, melody="pyin")
    few = songs[::5]
    store = WritableStore(tmp_path / "store", config)
    store.update(few)
    labels = {song.key: index for index, song in enumerate(few)}
    source = ClipSource(store, labels, CLIP, ("mel_spectrogram", "melody"))
    plain = {}
    for inputs, label in source.ordered(1):
        plain.setdefault(int(label[0]), []).append(inputs["melody"].numpy()[0])
    for inputs, label in source.training(1, 3, 0, 2, ALWAYS):
        melody = inputs["melody"].numpy()[0]
        assert any(np.array_equal(melody, m) for m in plain[int(label[0])])


def test_needs_stems(songs, tmp_path):
    store = WritableStore(tmp_path / "store", FeatureConfig())
    store.update(songs[:2])
    source = ClipSource(store, {songs[0].key: 0}, CLIP)
    with pytest.raises(UserError, match="no stems.*--source stems"):
        source.training(4, 0, 0, 1, ALWAYS)
