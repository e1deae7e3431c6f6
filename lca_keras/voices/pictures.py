"""The picture of timelines."""

import pathlib

import numpy as np

from lca_keras.drawing import plots
from lca_keras.voices.gallery import NO_VOICE, UNKNOWN


def timelines(found):
    """Draws timelines, a bar for each song's segments.

    Args:
        found: Dict from song to its list of `lca_keras.voices.timeline.Segment`.

    Returns:
        `matplotlib.figure.Figure`.
    """
    labels = {segment.label for segments in found.values() for segment in segments}
    last = [name for name in (UNKNOWN, NO_VOICE) if name in labels]
    labels = [*sorted(labels.difference(last)), *last]
    figure = plots.new_figure(10, len(found) * (0.9 + 0.25 * len(labels)))
    with plots.style():
        rows = np.atleast_1d(figure.subplots(len(found), 1))
        for axes, (song, segments) in zip(rows, found.items(), strict=True):
            for each in segments:
                gray = each.label in last
                axes.barh(
                    labels.index(each.label),
                    each.end - each.start,
                    left=each.start,
                    height=0.8,
                    color="0.7" if gray else "#2166ac",
                    alpha=1.0 if gray else 0.3 + 0.7 * min(1.0, each.confidence),
                )
            axes.set_yticks(range(len(labels)), labels)
            axes.set_ylim(len(labels) - 0.5, -0.5)
            axes.set_xlim(0, segments[-1].end)
            axes.set_xlabel("seconds")
            axes.set_title(pathlib.Path(song).name)
    return figure
