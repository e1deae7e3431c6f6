"""The pipeline under TFX itself, in its own environment: `make test-slow` makes it."""

import json
import os
import pathlib
import subprocess

import numpy as np
import pytest
import tensorflow as tf

from lca_keras.base import files
from lca_keras.base.errors import UserError
from lca_keras.data import corpus
from lca_keras.data.examples import read_example
from lca_keras.exports import integrity, savedmodel, versions
from pipelines.tfx_examples import read_splits, write_splits

ROOT = pathlib.Path(__file__).parents[2]
PYTHON = ROOT / ".venv-tfx" / "bin" / "python"
TFX = ROOT / ".venv-tfx/lib/python3.10/site-packages/tfx"

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def place(tmp_path_factory, tiny_corpus, tiny_config):
    """A folder with records, and a configuration that learns them by heart."""
    folder = tmp_path_factory.mktemp("tfx")
    config = tiny_config.replace(
        train={
            "epochs": 30,
            "warmup_epochs": 29,
            "batch_size": 4,
            "learning_rate": 5e-3,
        },
        model={"block_dropout": 0.0, "head_dropout": 0.0},
    )
    source = corpus.DataSource(data=str(tiny_corpus), features=str(folder / "features"))
    songs = corpus.prepare(source, config)
    counts = write_splits(
        songs.store.folder, tiny_corpus / "split.csv", folder / "splits"
    )
    assert counts == {"train": 6, "eval": 6, "test": 6}
    # What it knows by heart it is asked, so that better and worse are no chance.
    known = (folder / "splits/train/songs.tfrecord").read_bytes()
    (folder / "splits/test/songs.tfrecord").write_bytes(known)
    config.save(folder / "good.yaml")
    config.replace(train={"learning_rate": 1e-9, "seed": 3}).save(folder / "worse.yaml")
    return folder


def run(place, config, trials=0):
    """Runs the pipeline, with so many trials of its Tuner."""
    thresholds = json.dumps([0.5, -0.02, 0.0, -0.5])
    command = [PYTHON, "-m", "pipelines.tfx_pipeline", "--examples", "splits"]
    command += ["--config", config, "--name", "t", "--root", "root"]
    command += ["--serving", "models", "--thresholds", thresholds]
    command += ["--trials", str(trials)]
    done = subprocess.run(
        command,
        cwd=place,
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.mark.skipif(not TFX.exists(), reason="no environment with TFX: make test-slow")
def test_blessed_then_cached_then_not_blessed(place):
    run(place, "good.yaml", trials=1)
    [first] = versions.versions(place / "models")
    pushed = place / "models" / str(first)
    assert integrity.check(pushed)
    # It was trained with what Tuner had found.
    [found] = place.glob("root/Tuner/best_hyperparameters/*/*")
    values = json.loads(found.read_text())["values"]
    loss = files.read_json(pushed / "lca_keras.json")["config"]["loss"]
    assert loss["main"] == values["main"]
    assert loss["cf"] == pytest.approx(values["main"] * values["cf_ratio"])
    # Its answers are those of its weights here, with another TensorFlow and Keras.
    network = savedmodel.read_network(pushed)
    answer = tf.saved_model.load(str(pushed)).signatures["examples"]
    records = tf.data.TFRecordDataset(str(place / "splits/test/songs.tfrecord"))
    for record in records:
        read = read_example(record.numpy())
        mel = read["arrays"]["mel_spectrogram"].astype("float32")
        clips = np.stack([mel[:, 94 * n : 94 * n + 94] for n in range(2)])
        expected = network.predict(clips, verbose=0).mean(axis=0)
        found = answer(tf.constant([record.numpy()]))
        np.testing.assert_allclose(found["probabilities"][0], expected, atol=1e-5)
        singer = found["singer"][0].numpy().decode()
        names = (pushed / "labels.txt").read_text(encoding="utf-8").splitlines()
        decision = found["decision"][0].numpy()
        assert decision.tolist() == [float(name == singer) for name in names]

    def made(component, output):
        return len(list((place / "root" / component / output).iterdir()))

    # The baseline is now the model itself, so it is judged anew; the rest was cached.
    run(place, "good.yaml", trials=1)
    assert made("StatisticsGen", "statistics") == made("Trainer", "model") == 1
    known = versions.versions(place / "models")

    run(place, "worse.yaml")
    assert made("StatisticsGen", "statistics") == 1
    assert made("Trainer", "model") == 2
    blessings = place / "root" / "Evaluator" / "blessing"
    newest = max(blessings.iterdir(), key=lambda path: int(path.name))
    assert [path.name for path in newest.iterdir()] == ["NOT_BLESSED"]
    assert versions.versions(place / "models") == known


def test_a_song_in_two_splits_is_named(place, tiny_config):
    patterns = {"train": [str(place / "splits/train/*")]}
    patterns["eval"] = [str(place / "splits/test/*")]
    with pytest.raises(UserError, match=r"Album \d+ / .* is in two splits, train and"):
        read_splits(patterns, tiny_config.features, place / "twice")


def test_records_become_the_store_that_they_were(place, tiny_config):
    """But for where stems lie, which records don't say."""
    from lca_keras.data.store import FeatureStore

    [folder] = (place / "features").iterdir()
    store = FeatureStore.open(folder)
    patterns = {"train": [str(place / "splits/train/*")]}
    songs, part_of = read_splits(patterns, tiny_config.features, place / "again")
    assert set(part_of.values()) == {"train"}
    assert len(songs.songs) == 6
    for song in songs.songs:
        record, was = songs.store.records[song.key], store.records[song.key]
        for name in ("artist", "album", "song", "frames", "content_hash", "passages"):
            assert getattr(record, name) == getattr(was, name)
        assert record.duration == pytest.approx(was.duration, rel=1e-6)
        mel = songs.store.read(song.key).arrays["mel_spectrogram"]
        np.testing.assert_array_equal(
            mel, store.read(song.key).arrays["mel_spectrogram"]
        )
