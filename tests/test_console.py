import pytest

from lca_keras import console


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
