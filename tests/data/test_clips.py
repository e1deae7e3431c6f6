import collections
import dataclasses
import shutil

import numpy as np
import pytest
import tensorflow as tf

from lca_keras.base import files
from lca_keras.base.errors import UserError
from lca_keras.base.sections import FeatureConfig
from lca_keras.data import catalogue, update
from lca_keras.data.clips import ClipSource, cut_clips
from lca_keras.data.examples import parse_example
from lca_keras.data.extraction import Extractor
from lca_keras.data.update import WritableStore
from lca_keras.features.front_end import Stream, front_end_of


@pytest.fixture(scope="module")
def feature_store(tiny_corpus, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(update, "SONGS_PER_SHARD", 5)
        result = WritableStore(tmp_path_factory.mktemp("features") / "store")
        result.update(catalogue.load(tiny_corpus))
    return result


@pytest.fixture(scope="module")
def source(feature_store):
    keys = sorted(feature_store.records)[:11]
    return ClipSource(feature_store, {k: i % 3 for i, k in enumerate(keys)}, 94)


def read(serialized):
    """A stored song's key and its spectrogram, `(128, frames, 1)`."""
    config = FeatureConfig()
    example = parse_example(serialized, front_end_of(config).streams)
    return example["key"].numpy().decode(), example["mel_spectrogram"].numpy()


def clips_of(batches):
    """Each clip's bytes with its label."""
    return [
        (clip.tobytes(), int(label))
        for mel, labels in batches
        for clip, label in zip(np.array(mel), np.array(labels), strict=True)
    ]


def test_every_full_clip_comes_once_an_epoch(source, feature_store):
    expected = []
    for path in feature_store.shard_paths():
        for serialized in tf.data.TFRecordDataset(path):
            key, mel = read(serialized)
            if key in source.labels:
                for start in range(0, mel.shape[1] - 93, 94):
                    clip = mel[:, start : start + 94].astype("float32")
                    expected.append((clip.tobytes(), source.labels[key]))
    assert len(expected) == source.num_clips == 22
    seen = clips_of(source.training(4, seed=0, first_epoch=0, epochs=1))
    assert collections.Counter(seen) == collections.Counter(expected)
    ordered = clips_of(source.ordered(4))
    assert collections.Counter(ordered) == collections.Counter(expected)


@pytest.mark.parametrize("hop", [47, 31, 200])
def test_overlapping_clips(source, feature_store, hop):
    overlapping = dataclasses.replace(source, hop_frames=hop)
    expected = []
    for path in feature_store.shard_paths():
        for serialized in tf.data.TFRecordDataset(path):
            key, mel = read(serialized)
            if key in source.labels:
                for start in range(0, mel.shape[1] - 93, hop):
                    clip = mel[:, start : start + 94].astype("float32")
                    expected.append((clip.tobytes(), source.labels[key]))
    assert len(expected) == overlapping.num_clips
    seen = clips_of(overlapping.training(4, seed=0, first_epoch=0, epochs=1))
    assert collections.Counter(seen) == collections.Counter(expected)
    labels = [label for _, label in clips_of(overlapping.ordered(4))]
    np.testing.assert_array_equal(labels, overlapping.clip_labels)


def test_an_index_of_other_shards_is_an_error(feature_store, tmp_path):
    """Songs must not be learned under each other's names."""
    copy = shutil.copytree(feature_store.folder, tmp_path / "store")
    index = files.read_json(copy / "index.json")
    shard = next(iter(index["shards"].values()))
    shard["records"] = dict(reversed(shard["records"].items()))
    files.write_json(copy / "index.json", index)
    labels = dict.fromkeys(feature_store.records, 0)
    source = ClipSource(WritableStore(copy), labels, 94)
    with pytest.raises(tf.errors.InvalidArgumentError, match="not that of these"):
        list(source.ordered(4))


def test_epochs_differ_and_resuming_repeats_them(source):
    def epochs(first, last):
        return clips_of(source.training(4, seed=3, first_epoch=first, epochs=last))

    all_three = epochs(0, 3)
    assert all_three == epochs(0, 3)
    assert all_three[44:] == epochs(2, 3)
    assert all_three[:22] != all_three[22:44]
    assert clips_of(source.training(4, 4, 0, 1)) != all_three[:22]
    tf.random.set_seed(5)  # The program's own seed, which others set.
    assert all_three == epochs(0, 3)


def test_no_tuner_that_sleeps_on_when_its_iterator_is_taken_down(source):
    """TensorFlow's loses a wake-up on a busy processor: seconds an epoch."""
    for clips in (source.training(4, 0, 0, 1), source.ordered(4)):
        derived = clips.map(lambda *parts: parts[0])  # As evaluation does.
        assert derived.options().autotune.enabled is False


def test_shapes_and_steps(source):
    batches = list(source.training(5, seed=0, first_epoch=0, epochs=1))
    assert len(batches) == source.steps(5) == 5
    assert batches[0][0].shape == (5, 128, 94, 1)
    for clips in (source.training(5, 0, 0, 1), source.ordered(5)):
        assert clips.element_spec[0].shape == (None, 128, 94, 1)
    assert batches[0][0].dtype == tf.float32
    assert batches[-1][1].shape == (2,)


def test_order_tells_each_clips_song_label_and_place(source, feature_store):
    clips = clips_of(source.ordered(4))
    stored = {}
    for path in feature_store.shard_paths():
        for serialized in tf.data.TFRecordDataset(path):
            key, mel = read(serialized)
            stored[key] = mel
    assert sorted(source.order) == sorted(source.labels)
    for key, indices in source.clips_by_song.items():
        for number, index in enumerate(indices):
            clip = stored[key][:, 94 * number : 94 * number + 94].astype("float32")
            assert clips[index] == (clip.tobytes(), source.labels[key])
    assert [label for _, label in clips] == source.clip_labels.tolist()
    mel, stream = np.arange(2 * 10).reshape(2, 10), Stream("mel", (2, None))
    found = cut_clips(mel, stream, tf.constant([0, 4, 5]), 4)
    np.testing.assert_array_equal(found, [mel[:, :4], mel[:, 4:8], mel[:, 5:9]])


@pytest.mark.slow
def test_clips_carry_the_melody(tiny_corpus, tmp_path):
    config = FeatureConfig(melody="pyin")
    songs = catalogue.load(tiny_corpus)[:3]
    melodic = WritableStore(tmp_path / "store", config)
    melodic.update(songs)
    source = ClipSource(
        melodic,
        {s.key: i for i, s in enumerate(songs)},
        94,
        ("mel_spectrogram", "melody"),
    )
    extracted = {i: Extractor(config).extract(s) for i, s in enumerate(songs)}
    seen = 0
    for inputs, labels in source.training(4, seed=0, first_epoch=0, epochs=1):
        assert set(inputs) == {"mel_spectrogram", "melody"}
        arrays = map(np.array, (*inputs.values(), labels))
        for mel, melody, label in zip(*arrays, strict=True):
            features = extracted[int(label)]
            whole = features.arrays["mel_spectrogram"]
            starts = [s for s in (0, 94) if (whole[:, s : s + 94] == mel).all()]
            assert len(starts) == 1  # And the melody of the same moment:
            moment = features.arrays["melody"][:, starts[0] : starts[0] + 94]
            np.testing.assert_array_equal(melody, moment)
            seen += 1
    assert seen == source.num_clips == 6


def test_stems_come_in_the_order_of_the_clips(tiny_corpus, feature_store, tmp_path):
    config = FeatureConfig(source="stems", separator="umxl")
    store = WritableStore(tmp_path / "stems", config)
    songs = catalogue.load(tiny_corpus / "manifest.csv")[:4]
    store.update(songs)
    clips = ClipSource(store, {song.key: 0 for song in songs}, 94)
    batches = list(clips.ordered_stems(3))
    stems = {
        name: np.concatenate([batch[name] for batch in batches])
        for name in ("vocals", "accompaniment")
    }
    mel = np.concatenate([mel for mel, _ in clips.ordered(3)])
    assert stems["vocals"].shape == mel.shape
    # Added, their powers give what is heard: 20 log10 of it, as published.
    power = sum(10.0 ** (levels.astype("float64") / 10) for levels in stems.values())
    loud = mel > mel.max() - 60
    difference = (20 * np.log10(power) - mel)[loud]
    assert abs(np.median(difference)) < 0.3
    assert np.quantile(np.abs(difference), 0.8) < 6
    plain = ClipSource(feature_store, dict.fromkeys(feature_store.records, 0), 94)
    with pytest.raises(UserError, match="has no stems, and they are asked for"):
        plain.ordered_stems(3)
