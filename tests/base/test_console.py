import io

import pytest
import rich.progress

from lca_keras.base import console


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
