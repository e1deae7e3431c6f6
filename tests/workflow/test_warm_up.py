"""Which trainings share their warm-up; that it equals their own is `tests/tuning`'s."""

import types

import pytest

from lca_keras.base.config import get_preset
from lca_keras.base.sections import LOSS_WEIGHTS
from lca_keras.workflow import training, warm_up


def songs(**hashes):
    """What is asked of a `ClipSource`: one class, and the songs' hashes."""
    records = {k: types.SimpleNamespace(content_hash=v) for k, v in hashes.items()}
    store = types.SimpleNamespace(records=records)
    return types.SimpleNamespace(store=store, labels=dict.fromkeys(hashes, 0))


@pytest.fixture
def trained(monkeypatch):
    """Folders and epochs of the warm-ups that are trained, without training."""
    found = []

    def train(config, sources, num_classes, folder, callbacks, build):
        found.append((folder.parent.name, folder.name, config.train.epochs))

    monkeypatch.setattr(training, "train", train)
    return found


def test_those_that_begin_alike_share_it(trained, tmp_path):
    config = get_preset("demo").replace(train={"epochs": 9, "warmup_epochs": 2})
    sources = {"train": songs(a="1", b="2"), "validation": songs(c="3")}

    def begin(config, sources=sources):
        before = len(trained)
        warm_up.begin(config, sources, 1, tmp_path / "here", tmp_path / "shared")
        return trained[before:]

    ((first, _, _),) = begin(config)
    for change in (
        {"loss": vars(LOSS_WEIGHTS["genremert"])},
        {"train": {"effect": "product", "detach_counterfactual": True}},
        {"train": {"epochs": 5, "cf_dropout": 0.1}},
        {"split": {"file": "elsewhere.csv"}},
    ):
        assert begin(config.replace(**change)) == [(first, "0002", 2)]
    longer = config.replace(train={"warmup_epochs": 4})
    assert begin(longer) == [(first, "0004", 4)]  # Beside the shorter one.
    for change in ({"seed": 1}, {"learning_rate": 0.5}, {"batch_size": 3}):
        ((other, _, _),) = begin(config.replace(train=change))
        assert other != first
    ((other, _, _),) = begin(config, {**sources, "train": songs(a="1", b="9")})
    assert other != first
    for change in ({"method": "none"}, {"warmup_epochs": 0}, {"warmup_epochs": 9}):
        assert begin(config.replace(train=change)) == []
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "state.json").write_text("{}")
    assert begin(config) == []  # It has begun.
