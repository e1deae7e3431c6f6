import types

import numpy as np

from tuning import report, space


def test_what_has_no_order_is_drawn_and_ranked():
    """A form of the effect that decides the score, beside a weight that does not."""
    rng = np.random.default_rng(0)
    rows = []
    for index in range(24):
        form = ("logit", "probability", "product")[index % 3]
        score = {"logit": 0.2, "probability": 0.5, "product": 0.9}[form]
        seeds = [{"frame_f1": score}]
        detach = ("true", "false")[index % 2]
        values = {"effect_form": form, "detach_counterfactual": detach}
        values["att"] = float(rng.uniform(0.1, 1))
        rows.append(types.SimpleNamespace(values=values, score=score, seeds=seeds))
    names = report.searched(rows)
    assert set(names) == {"effect_form", "detach_counterfactual", "att"}
    ranked, explained = report.importance(rows, names)
    assert next(iter(ranked)) == "effect_form"
    assert explained > 0.9
    shuffled = rng.permutation([row.score for row in rows])
    for row, score in zip(rows, shuffled, strict=True):
        row.score = score
    assert report.importance(rows, names)[1] < 0
    places, shown = report.numbers(rows, "effect_form")
    assert shown == ["logit", "probability", "product"]
    assert places[:3].tolist() == [0, 1, 2]
    scales = {name: {"scale": space.LINEAR} for name in names}
    drawn = report.scatter_figure(rows, names, scales, "frame_f1")
    axes = next(a for a in drawn.axes if a.get_xlabel() == "effect_form")
    assert [tick.get_text() for tick in axes.get_xticklabels()] == shown
    labels = report.parallel_figure(rows, names, scales, "frame_f1").axes[0]
    ticks = [tick.get_text() for tick in labels.get_xticklabels()]
    assert "effect_form\nlogit to product" in ticks
    assert "detach_counterfactual\nfalse to true" in ticks
