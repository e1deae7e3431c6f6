"""The picture of votes."""

import pathlib

import numpy as np

from lca_keras.drawing import plots


def votes(results):
    """A figure of clips' votes over time, of a dict from file to `Identification`."""
    artists = sorted(next(iter(results.values())).probabilities)
    place = {None: None} | {name: number for number, name in enumerate(artists)}
    figure = plots.new_figure(10, len(results) * (1.2 + 0.22 * len(artists)))
    with plots.style():
        rows = np.atleast_1d(figure.subplots(len(results), 1))
        for axes, (path, result) in zip(rows, results.items(), strict=True):
            plots.draw_vote(
                figure,
                axes,
                [clip["start"] for clip in result.clips],
                result.clip_seconds,
                artists,
                [[clip["probabilities"][n] for n in artists] for clip in result.clips],
                [place[clip["singer"]] for clip in result.clips],
            )
            axes.set_xlabel("seconds")
            axes.set_title(f"{pathlib.Path(path).name}: {result.headline}")
    return figure
