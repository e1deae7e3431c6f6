"""The one training loop."""

import dataclasses

import keras
import numpy as np
import pytest
import tensorflow as tf

from lca_keras.data import corpus
from lca_keras.models.factory import build_training_model
from lca_keras.workflow import training


@pytest.fixture(scope="module")
def sources(tiny_corpus, tiny_config, tmp_path_factory):
    features = str(tmp_path_factory.mktemp("features"))
    source = corpus.DataSource(data=str(tiny_corpus), features=features)
    songs = corpus.prepare(source, tiny_config)
    config = tiny_config.replace(split={"file": str(tiny_corpus / "split.csv")})
    division = corpus.divide(config, songs)
    return corpus.clip_sources(songs, division.part_of, division.artists, config)


@pytest.mark.slow
def test_a_strategy_of_one_device_changes_nothing(sources, tiny_config, tmp_path):
    weights = []
    for strategy in (None, tf.distribute.MirroredStrategy(["CPU:0"])):
        folder = tmp_path / type(strategy).__name__
        state = training.train(tiny_config, sources, 3, folder, strategy=strategy)
        model = keras.saving.load_model(folder / state.last)
        weights.append(model.get_weights())
        assert len(state.history) == tiny_config.train.epochs
    for one, other in zip(*weights, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)


@pytest.mark.slow
def test_trained_longer_equals_trained_long(sources, tiny_config, tmp_path):
    """To the bit, also where it had ended before the warm-up did."""
    config = tiny_config.replace(
        train={"epochs": 4, "warmup_epochs": 3, "deterministic": True}
    )
    training.train(config, sources, 3, tmp_path / "long")
    for epochs in (2, 4):
        some = config.replace(train={"epochs": epochs})
        state = training.train(some, sources, 3, tmp_path / "longer")
    for name in (state.last, state.best):
        models = [
            keras.saving.load_model(tmp_path / folder / name)
            for folder in ("long", "longer")
        ]
        for one, other in zip(*(m.get_weights() for m in models), strict=True):
            np.testing.assert_array_equal(one, other)


@pytest.mark.slow
def test_balanced_class_weights(sources, tiny_config, tmp_path):
    """The loss of the first step is the weighted mean, by NumPy."""
    plain = sources["train"]
    keys = sorted(plain.labels, key=plain.labels.get)
    few = dataclasses.replace(plain, labels={k: plain.labels[k] for k in keys[1:]})
    assert np.bincount(few.clip_labels).tolist() == [2, 4, 4]
    losses = {}
    for kind in ("none", "balanced"):
        config = tiny_config.replace(
            train={"class_weights": kind, "epochs": 1, "batch_size": 64},
            # The output is to be that of the model as it was built.
            model={"block_dropout": 0.0, "head_dropout": 0.0},
        )
        state = training.train(config, {**sources, "train": few}, 3, tmp_path / kind)
        losses[kind] = state.history[0]["loss"]
    # The initial weights are those of the seed.
    keras.utils.set_random_seed(config.train.seed)
    model = build_training_model(config, 3)
    (clips, labels), *_ = few.training(64, config.train.seed, 0, 1)
    logits = model(clips, training=True)["logits"].numpy()
    logs = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    each = -logs[np.arange(10), labels]
    weights = {"none": np.ones(3), "balanced": 10 / (3 * np.array([2, 4, 4]))}
    for kind, of_class in weights.items():
        weight = of_class[labels]
        mean = np.sum(weight * each) / weight.sum()
        penalties = float(sum(model.losses))
        assert losses[kind] == pytest.approx(mean + penalties, abs=1e-4)
    assert losses["none"] != pytest.approx(losses["balanced"], abs=1e-3)


def test_a_training_continues_from_a_network(tiny_config):
    """Artists keep what was learned of them, wherever they are among the others now."""
    known, artists = ["Ada", "Bo", "Di"], ["Bo", "Cy", "Di", "Ed"]
    network = build_training_model(tiny_config, 3).main_branch()
    for weight in network.weights:
        weight.assign(np.random.default_rng(0).normal(0.5, 0.1, weight.shape))
    begin = training.continued(build_training_model, network, known, artists)
    keras.utils.set_random_seed(1)
    model = begin(tiny_config, 4)
    keras.utils.set_random_seed(1)
    fresh = build_training_model(tiny_config, 4).backbone.classifier
    old, new = network.classifier, model.backbone.classifier
    for name in ("kernel", "bias"):
        was, now, drawn = (np.array(getattr(c, name)) for c in (old, new, fresh))
        np.testing.assert_array_equal(now[..., 0], was[..., 1])
        np.testing.assert_array_equal(now[..., 2], was[..., 2])
        np.testing.assert_array_equal(now[..., [1, 3]], drawn[..., [1, 3]])
    of_classes = {weight.path for weight in new.weights}
    for one, other in zip(model.backbone.weights, network.weights, strict=True):
        if one.path not in of_classes:
            np.testing.assert_array_equal(np.array(one), np.array(other))
