"""The one training loop."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from lca_keras import corpus, training


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
