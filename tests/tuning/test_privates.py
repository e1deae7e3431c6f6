"""KerasTuner's private parts: which we use, where, and what is said without them."""

import ast
import pathlib

import keras_tuner as kt
import pytest

from lca_keras.base.errors import UserError
from tuning import oracle, privates, space

USED = [(kind, name) for kind, names in privates.PRIVATE.items() for name in names]
ORACLES = {
    "bayesian": kt.oracles.BayesianOptimizationOracle,
    "grid": kt.oracles.GridSearchOracle,
    "hyperband": kt.oracles.HyperbandOracle,
    "random": kt.oracles.RandomSearchOracle,
}


def private_names():
    """All private names of KerasTuner's oracles."""
    parameters = space.hyperparameters(space.load_space())
    made = [
        kind(oracle.OBJECTIVE, hyperparameters=parameters) for kind in ORACLES.values()
    ]
    names = {name for each in made for name in dir(each)}
    return {n for n in names if n.startswith("_") and not n.startswith("__")}


def make(algorithm):
    return oracle.make_oracle(algorithm, space.load_space(), None, 9, seed=0)


@pytest.mark.parametrize(("kind", "name"), USED)
def test_keras_tuner_has_what_is_used(kind, name):
    parameters = space.hyperparameters(space.load_space())
    made = ORACLES["bayesian"](oracle.OBJECTIVE, hyperparameters=parameters)
    assert isinstance(made, kind)
    assert hasattr(made, name), f"KerasTuner {kt.__version__} has no {name} any more"


def test_it_is_used_in_one_place():
    """No module of the search but one reaches for a private name, and it lists all."""
    theirs = private_names()
    for path in pathlib.Path(oracle.__file__).parent.glob("*.py"):
        tree = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        named = {
            getattr(node, "attr", None) or getattr(node, "name", None) for node in tree
        }
        declared = {name for _, name in USED} if path.stem == "privates" else set()
        assert named & theirs == declared, path


@pytest.mark.parametrize(("kind", "name"), USED)
def test_what_is_gone_is_named(kind, name, monkeypatch):
    if hasattr(kind, name):
        monkeypatch.delattr(kind, name)
    else:  # Its constructor makes it.
        begin = kind.__init__

        def without(self, *args, **kwargs):
            begin(self, *args, **kwargs)
            delattr(self, name)

        monkeypatch.setattr(kind, "__init__", without)
    gone = rf"KerasTuner {kt.__version__} has no {kind.__name__}\.{name} any more"
    with pytest.raises(UserError, match=rf"{gone}.*pip install 'keras-tuner=="):
        make("bayesian")


@pytest.mark.parametrize("algorithm", space.ALGORITHMS)
def test_the_known_version_is_complete(algorithm):
    assert make(algorithm).verbose == 0
