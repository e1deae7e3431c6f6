"""The search under TFX, as KerasTuner runs it, without TFX."""

import keras_tuner
import pytest

from lca_keras.data import corpus
from lca_keras.workflow import training
from pipelines.tfx_module import LossWeightSearch
from tuning import space as spaces

pytestmark = pytest.mark.slow


def test_a_trial_has_the_score_of_a_training(tiny_corpus, tiny_config, tmp_path):
    source = corpus.DataSource(data=str(tiny_corpus), features=str(tmp_path / "f"))
    songs = corpus.prepare(source, tiny_config)
    division = corpus.divide(tiny_config, songs)
    artists, parts = division.artists, ("train", "validation")
    sources = corpus.clip_sources(songs, division.part_of, artists, tiny_config, parts)
    tuner = keras_tuner.BayesianOptimization(
        LossWeightSearch(tiny_config, sources, len(artists)),
        objective=keras_tuner.Objective("val_f1", "max"),
        max_trials=1,
        seed=0,
        hyperparameters=spaces.hyperparameters(spaces.load_space(None)),
        tune_new_entries=False,
        directory=str(tmp_path),
        project_name="search",
    )
    tuner.search()
    [trial] = tuner.oracle.trials.values()
    config = spaces.apply(trial.hyperparameters.values, tiny_config)
    state = training.train(config, sources, len(artists), tmp_path / "again")
    expected = max(logs["val_f1"] for logs in state.history)
    assert trial.score == pytest.approx(expected, abs=1e-6)
