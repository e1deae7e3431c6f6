"""The page of an evaluation: its verdict, scores by slice, the confusion matrix."""

import pathlib

import numpy as np

from lca_keras.drawing import pages, plots
from lca_keras.evaluation.scoring import confusion_figure
from pipelines import blessing

PAGE = "results.html"


def write(folder, name, judged, scores, rows, share, baseline, known=0):
    """Writes `results.html`, a page without anything to load, and `confusion.png`.

    Args:
        folder: Folder of the artefact.
        name: Name of the model.
        judged: List of `pipelines.blessing.Judgement`.
        scores: What `pipelines.blessing.analyse` returned.
        rows: What `pipelines.blessing.decide` returned.
        share: Share of decisions that follow the band, or why it is not known.
        baseline: Folder of the pushed version, or `None`.
        known: Int, test songs that the pushed version was trained on or chosen by.
    """
    folder = pathlib.Path(folder)
    blessed = all(each.passed for each in judged)
    reached = [
        "" if each.value is None else "yes" if each.passed else "no" for each in judged
    ]
    judgements = [
        [each.threshold, each.describe(), said]
        for each, said in zip(judged, reached, strict=True)
    ]
    own = [r for r in rows if (r["model"], r["level"]) == (blessing.CANDIDATE, "song")]
    whole = [row for row in own if row["heard"] == own[0]["heard"]]
    plots.save_figure(_confusion(whole), folder / "confusion.png")
    picture = pages.data_uri((folder / "confusion.png").read_bytes(), "image/png")
    decisions = (folder / "decisions.csv").read_bytes()
    link = pages.link(decisions, "text/csv", "decisions.csv", "every decision as CSV")
    wrong = [
        [row["song"], row["heard"], row["said"] or "nobody"]
        for row in own
        if row["said"] != row["singer"]
    ]
    if not isinstance(share, str):
        share = f"{share:.0%} of songs put together from one's voice and another's band"
    note = ""
    if known:
        note = (
            f"<p><strong>{known} of these test songs the pushed version knows from its "
            "own training: beside it the candidate looks worse than it is.</strong></p>"
        )
    body = [
        f"<p>{'Blessed' if blessed else 'Not blessed'}; compared with "
        f"{pages.escape(baseline or 'nothing: nothing else is pushed')}.</p>",
        note,
        "<h2>Thresholds</h2>",
        pages.table(["threshold", "value", "reached"], judgements),
        f"<p>Named after the band: {pages.escape(share)}.</p>",
        "<h2>Scores on the test songs</h2>",
        "<p>“frame” are clips, “heard” is what of a song was played to the model: the "
        "mixture, or the voice alone where it is at hand.</p>",
        pages.table(*blessing.table(scores)),
        f"<p>{link}</p>",
        "<h2>Confusion of songs</h2>",
        f'<img alt="confusion matrix" src="{picture}">',
        "<h2>Songs that are named wrongly</h2>",
        pages.table(["song", "heard", "taken for"], wrong) if wrong else "<p>None.</p>",
    ]
    return pages.write(folder / PAGE, f"{name}: evaluation", "\n".join(body))


def _confusion(rows):
    """Song-level confusion matrix of decisions, a Matplotlib figure."""
    named = [[row["singer"], row["said"]] for row in rows]
    names, codes = np.unique(named, return_inverse=True)
    truth, said = codes.reshape(-1, 2).T
    shown = [name or "nobody" for name in names]
    return confusion_figure(truth, said, shown, "test songs")
