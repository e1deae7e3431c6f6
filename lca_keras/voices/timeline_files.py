"""Timelines, dicts from song to its list of `Segment`, in files."""

import dataclasses
import pathlib

import numpy as np

from lca_keras.base import files
from lca_keras.drawing import plots
from lca_keras.voices.gallery import NO_VOICE, UNKNOWN
from lca_keras.voices.timeline import Segment

ENDINGS = (".json", ".csv", ".txt", ".png")


def write(timelines, path):
    """Writes timelines: JSON, CSV, labels for Audacity (.txt) or a picture (.png).

    The ending of `path`, a `pathlib.Path`, says what; labels are of one song.
    """
    ending = path.suffix.lower()
    if ending == ".json":
        files.write_json(path, to_json(timelines))
    elif ending == ".csv":
        columns = ["song", *(field.name for field in dataclasses.fields(Segment))]
        rows = [
            {"song": song, **dataclasses.asdict(segment)}
            for song, segments in timelines.items()
            for segment in segments
        ]
        files.write_csv(path, columns, rows)
    elif ending == ".txt":
        [segments] = timelines.values()
        lines = [f"{s.start:.6f}\t{s.end:.6f}\t{s.label}\n" for s in segments]
        with files.atomic_path(path) as temporary:
            temporary.write_text("".join(lines), encoding="utf-8")
    else:
        plots.save_figure(_figure(timelines), path)


def to_json(timelines):
    """Timelines in plain values for JSON."""
    return [
        {"song": song, "segments": [dataclasses.asdict(each) for each in segments]}
        for song, segments in timelines.items()
    ]


def _figure(timelines):
    """A Matplotlib figure with a bar for each segment."""
    labels = {segment.label for each in timelines.values() for segment in each}
    last = [name for name in (UNKNOWN, NO_VOICE) if name in labels]
    labels = [*sorted(labels.difference(last)), *last]
    figure = plots.new_figure(10, len(timelines) * (0.9 + 0.25 * len(labels)))
    with plots.style():
        rows = np.atleast_1d(figure.subplots(len(timelines), 1))
        for axes, (song, segments) in zip(rows, timelines.items(), strict=True):
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
