import types

import pytest

from lca_keras.base.errors import UserError
from lca_keras.models import distribution
from lca_keras.terminal import screen
from lca_keras.terminal.progress import EpochProgress


def test_the_epochs_bar_says_what_takes_long():
    bar = EpochProgress(epochs=3, steps=2, warmup_epochs=0)
    bar.set_model(types.SimpleNamespace(method="none"))
    seen = []

    def note():
        seen.append(bar.bar.tasks[0].description)

    with bar:
        for epoch in range(2):
            bar.on_epoch_begin(epoch)
            note()
            for batch in range(2):
                bar.on_train_batch_end(batch)
                note()
            bar.on_epoch_end(epoch, {"loss": 1.0})
    left = " (about 0 min left)"
    assert seen == [
        "epoch 1/3: compiling the network",
        "epoch 1/3",
        "epoch 1/3: validating",
        f"epoch 2/3{left}",
        f"epoch 2/3{left}",
        f"epoch 2/3{left}: validating",
    ]


def test_nobody_waits_for_a_first_process_that_is_gone(tmp_path, monkeypatch):
    said = iter([False] * 4 + [True] + [False] * 5)
    monkeypatch.setattr(distribution, "reaches_first", lambda: next(said))
    monkeypatch.setattr(screen.time, "sleep", lambda seconds: None)
    with pytest.raises(UserError, match="is gone and has not begun .*: see what it"):
        screen.wait_for_first(tmp_path)
    assert list(said) == []
    (tmp_path / "split.csv").touch()
    screen.wait_for_first(tmp_path)
