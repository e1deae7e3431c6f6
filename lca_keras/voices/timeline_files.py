"""Timelines in files: JSON, CSV, labels for Audacity, a picture."""

import dataclasses

from lca_keras.base import files
from lca_keras.drawing import plots
from lca_keras.voices import pictures
from lca_keras.voices.timeline import Segment

ENDINGS = (".json", ".csv", ".txt", ".png")


def write(timelines, path):
    """Writes timelines: JSON, CSV, labels for Audacity (.txt) or a picture (.png).

    Args:
        timelines: Dict from song to its list of `Segment`; for labels, of one song.
        path: `pathlib.Path` with one of `ENDINGS`, which says what.
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
        plots.save_figure(pictures.timelines(timelines), path)


def to_json(timelines):
    """Timelines, a dict as for `write`, in plain values for JSON."""
    return [
        {"song": song, "segments": [dataclasses.asdict(each) for each in segments]}
        for song, segments in timelines.items()
    ]
