import io
import types

import pytest
import rich.progress

from lca_keras.base import console
from lca_keras.models.callbacks import EpochProgress


@pytest.mark.parametrize(
    "error",
    [KeyboardInterrupt(), RuntimeError("while tracing: KeyboardInterrupt: <EMPTY>")],
)
def test_ctrl_c_says_how_to_go_on(error, capsys):
    def job():
        with console.resumable(["python", "-m", "x", "--name", "it's mine"]):
            raise error

    assert console.guard(job) == 130
    said = capsys.readouterr().err.strip()
    assert said == """Interrupted. Continue with: python -m x --name 'it'"'"'s mine'"""


def test_other_errors_pass():
    def job():
        with console.resumable(["x"]):
            raise RuntimeError("out of paper")

    with pytest.raises(RuntimeError, match="out of paper"):
        console.guard(job)


def test_what_was_done_before_has_no_say_in_the_time_left(monkeypatch):
    bars = []

    class Spied(rich.progress.Progress):
        """Takes a second for each song."""

        def __init__(self, *columns, **settings):
            self.seconds = 0
            super().__init__(*columns, **settings, get_time=lambda: self.seconds)
            bars.append(self)

    monkeypatch.setattr(rich.progress, "Progress", Spied)
    with console.progress("Features", io.StringIO()) as show:
        (bar,) = bars
        for done in range(900, 1000):
            show(done, 1000)
            if done > 901:
                assert bar.tasks[0].time_remaining == 1000 - done
            bar.seconds += 1


def test_working_says_so_without_a_terminal(capsys):
    with console.working("Evaluating"):
        assert capsys.readouterr().err == "Evaluating ...\n"
    assert capsys.readouterr() == ("", "")


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
