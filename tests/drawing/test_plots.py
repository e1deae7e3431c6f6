import warnings

import numpy as np
import pytest

from lca_keras.drawing import plots
from lca_keras.evaluation import scoring
from lca_keras.inference import identification, pictures

NAMES = [
    "Joey Bada$$",
    "$\\frac$",
    "Ke$ha ^_^",
    "春野",
    "\N{HEBREW LETTER ALEF}'\"<&>",
    "\\",
]


def result_for(name):
    probabilities = {other: float(other == name) for other in NAMES}
    clips = [{"start": 0, "singer": name, "probabilities": probabilities}] * 3
    votes = {other: 3 * (other == name) for other in NAMES}
    told = probabilities, votes, 3, clips, []
    return identification.Identification("ok", name, name, 0.9, *told)


@pytest.mark.parametrize("name", NAMES)
def test_names_are_no_mathematics(name, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        votes = pictures.votes({f"{name}.wav": result_for(name)})
        plots.save_figure(votes, tmp_path / "x.png")
        everyone = np.arange(len(NAMES))
        drawn = scoring.confusion_figure(everyone, everyone, NAMES, name)
        plots.save_figure(drawn, tmp_path / "y.png")
    assert (tmp_path / "x.png").stat().st_size > 5000
    texts = {text.get_text() for text in drawn.axes[0].get_xticklabels()}
    assert set(NAMES) <= texts
