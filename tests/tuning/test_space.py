import json

import keras_tuner as kt
import numpy as np
import pytest

from lca_keras.base.config import Config, get_preset
from tuning import oracle, space
from tuning.space import SpaceError, load_space


def written(tmp_path, text):
    path = tmp_path / "space.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_names_and_default_values_of_the_space():
    found = space.hyperparameters(load_space())
    kinds = {p.name: (type(p).__name__, p.sampling) for p in found.space}
    assert kinds == {
        "main": ("Float", "log"),
        "cf_ratio": ("Float", "linear"),
        "ent_cf": ("Float", "log"),
        "ent_main_ratio": ("Float", "log"),
        "att": ("Float", "log"),
    }


@pytest.mark.parametrize(
    "algorithm",
    ["random", "grid", "hyperband", pytest.param("bayesian", marks=pytest.mark.slow)],
)
def test_no_trial_breaks_a_principle(algorithm, tmp_path):
    """Fifty proposals, with the widest space that can be written."""
    path = written(
        tmp_path,
        "main: {low: 0.001, high: 100, scale: log}\n"
        "cf_ratio: {low: 0, high: 0.999}\n"
        "ent_cf: {low: 0.0001, high: 100, scale: log}\n"
        "ent_main_ratio: {low: 0, high: 0.999}\n"
        "warmup_epochs: {low: 1, high: 3}\n",
    )
    made = oracle.make_oracle(algorithm, load_space(path), 50, 9, seed=0)
    rng = np.random.default_rng(0)
    seen = 0
    for _ in range(50):
        trial = made.create_trial("t")
        if trial.status == "STOPPED":
            break
        values = trial.hyperparameters.values
        config = space.apply(values, get_preset("demo"))
        weights = config.loss
        assert weights.effect == 1.0
        assert weights.cf < weights.main
        assert weights.ent_main < weights.ent_cf
        assert config.train.warmup_epochs in (1, 2, 3)
        made.update_trial(trial.trial_id, {"score": float(rng.random())})
        trial.status = "COMPLETED"
        made.end_trial(trial)
        seen += 1
    assert seen > 10


def test_values_become_weights():
    values = {"main": 2.0, "cf_ratio": 0.25, "ent_cf": 0.4, "ent_main_ratio": 0.5}
    extra = {"att": 0.3, "learning_rate": 0.002, "cf_dropout": 0.1, "tuner/epochs": 3}
    config = space.apply({**values, **extra}, get_preset("demo"))
    assert vars(config.loss) == {
        "main": 2.0,
        "effect": 1.0,
        "cf": 0.5,
        "ent_cf": 0.4,
        "att": 0.3,
        "ent_main": 0.2,
    }
    assert config.train.learning_rate == 0.002
    assert config.train.cf_dropout == 0.1
    assert config.train.warmup_epochs == get_preset("demo").train.warmup_epochs


def test_a_space_survives_its_way_through_json(tmp_path):
    path = written(
        tmp_path, "att: {values: [0.5, 0.1]}\nwarmup_epochs: {low: 1, high: 3}\n"
    )
    found = load_space(path)
    assert space.from_json(json.loads(json.dumps(space.to_json(found)))) == found


def test_a_file_narrows_widens_and_fixes(tmp_path):
    path = written(
        tmp_path,
        "main: 1\natt: {values: [0.5, 0.1]}\ncf_ratio: {low: 0.5, high: 0.6}\n"
        "learning_rate: {low: 1.0e-4, high: 1.0e-2, scale: log}\n",
    )
    found = load_space(path)
    assert found["main"].fixed
    assert found["att"].values == (0.1, 0.5)
    assert (found["cf_ratio"].low, found["cf_ratio"].high) == (0.5, 0.6)
    assert found["ent_cf"] == space.DEFAULT["ent_cf"]
    assert found["learning_rate"].scale == "log"


def test_what_has_no_order_and_what_is_remixed(tmp_path):
    path = written(
        tmp_path,
        "effect_form: {values: [product, logit]}\n"
        "detach_counterfactual: {values: [true, false]}\n"
        "remix_share: {low: 0.5, high: 1}\n"
        "remix_gain_db: 3\n",
    )
    found = load_space(path)
    assert space.from_json(json.loads(json.dumps(space.to_json(found)))) == found
    made = oracle.make_oracle("random", found, 40, 9, seed=0)
    seen = set()
    voice = get_preset("voice")
    for _ in range(40):
        trial = made.create_trial("t")
        config = space.apply(trial.hyperparameters.values, voice)
        seen.add((config.train.effect, config.train.detach_counterfactual))
        assert 0.5 <= config.augment.remix_share <= 1
        assert config.augment.remix_gain_db == 3
        assert config.augment.kinds == ("remix",)
        made.end_trial(trial)
        # Numbers in the place of true and false would make a file that nobody reads.
        assert type(config.train.detach_counterfactual) is bool
    assert seen == {(e, d) for e in ("product", "logit") for d in (True, False)}
    config.save(tmp_path / "best.yaml")
    assert Config.load(tmp_path / "best.yaml") == config
    grid = {**found, "main": found["main"].grid(2)}
    assert [p.values for p in grid.values()][-4:-2] == [
        ("logit", "product"),
        ("false", "true"),
    ]
    space.check(found, voice)
    with pytest.raises(SpaceError, match="remix_share, remix_gain_db cannot be"):
        space.check(found, get_preset("paper"))


def test_grid_points_are_even_on_their_scale():
    log = space.Parameter("att", 0.01, 1.0, "log").grid(3)
    np.testing.assert_allclose(log.values, [0.01, 0.1, 1.0])
    linear = space.Parameter("cf_ratio", 0.1, 0.9).grid(3)
    np.testing.assert_allclose(linear.values, [0.1, 0.5, 0.9])
    narrow = space.Parameter("main", 1.0, 1.0004).grid(3)
    assert narrow.values == (1.0,)
    whole = space.Parameter("warmup_epochs", 2, 3).grid(3)
    assert whole.values == (2, 3)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("lambda: 1\n", r"unknown name 'lambda'; known: main"),
        ("effect: 2\n", "effect is the yardstick"),
        ("cf: 0.3\n", r"give cf_ratio, its share of main, which is below 1"),
        ("ent_main: 0.3\n", "give ent_main_ratio, its share of ent_cf"),
        ("cf_ratio: 1.2\n", "1.2 is out of bounds.*main must weigh more than cf"),
        ("cf_ratio: {low: 0.5, high: 0.9999999}\n", "main must weigh more than cf"),
        ("ent_main_ratio: 1\n", "ent_cf must weigh more than ent_main"),
        ("main: {low: 2, high: 1}\n", "main: low 2 is not below high 1"),
        ("main: 0\n", "must be above 0"),
        ("ent_cf: 0\n", "must be above 0"),
        ("att: {low: 0, high: 1, scale: log}\n", "a log scale has no 0"),
        ("att: {low: 0, high: 1, scale: cubic}\n", "linear or log, not 'cubic'"),
        ("att: {low: 0}\n", "expected low and high"),
        ("att: {values: []}\n", "values is a list"),
        ("att: many\n", "expected a number, received 'many'"),
        ("att: true\n", "expected a number"),
        ("att: .nan\n", "out of bounds"),
        ("warmup_epochs: 1.5\n", "whole number"),
        ("remix_share: 2\n", "at least 0 and at most 1"),
        ("effect_form: ratio\n", "'ratio' is none of probability, logit, product"),
        ("effect_form: {low: 0, high: 1}\n", "no range: list values, of probability"),
        ("detach_counterfactual: 1\n", "1 is none of false, true"),
        ("- main\n", "expected names with values"),
        ("main: [\n", "is not YAML"),
        (
            "{main: 1, cf_ratio: 0.5, ent_cf: 1, ent_main_ratio: 0.1, att: 1}\n",
            "nothing to search",
        ),
    ],
)
def test_spaces_that_cannot_be(tmp_path, text, message):
    with pytest.raises(SpaceError, match=message):
        load_space(written(tmp_path, text))


def test_objective_of_the_search_is_maximised():
    assert (oracle.OBJECTIVE.name, oracle.OBJECTIVE.direction) == ("score", "max")
    assert isinstance(oracle.OBJECTIVE, kt.Objective)
