"""Evaluation of a model: decisions for clips and songs, scores, tables, pictures."""

import dataclasses
import functools

import numpy as np

from lca_keras.base import files, metrics
from lca_keras.drawing import plots
from lca_keras.models import distribution


@dataclasses.dataclass(frozen=True)
class ClipPredictions:
    """What a model says of the clips of some songs; dicts are from song keys.

    `outputs` are those of `LCAModel`: `"logits"` `(clips, classes)` and `"embedding"`
    and, with a counterfactual, `"cf_logits"`, `"attention"` and `"cf_attention"`.
    """

    labels: np.ndarray  # `(clips,)`, true artists.
    songs: dict[str, np.ndarray]  # Indices of a song's clips, in time order.
    starts: dict[str, np.ndarray]  # Seconds at which these begin in the song.
    outputs: dict[str, np.ndarray]

    @property
    def attention_distance(self):
        """Mean |A - A~|, or `None`."""
        if "cf_attention" not in self.outputs:
            return None
        distance = self.outputs["attention"] - self.outputs["cf_attention"]
        return float(np.mean(np.abs(distance)))

    def decide(self, branch="logits", temperature=1.0):
        """Returns the `Decisions` of a branch, `"logits"` or `"cf_logits"`."""
        return Decisions(self, metrics.softmax(self.outputs[branch], temperature))


@dataclasses.dataclass(frozen=True)
class Decisions:
    """What follows for clips and songs from one branch's probabilities."""

    predictions: ClipPredictions
    probabilities: np.ndarray  # `(clips, classes)`

    @functools.cached_property
    def _songs(self):
        """List of arrays, the probabilities of each song's clips."""
        return [self.probabilities[g] for g in self.predictions.songs.values()]

    @functools.cached_property
    def song_labels(self):
        """Int array `(songs,)`, true artists, in the order of `predictions.songs`."""
        songs = self.predictions.songs.values()
        return self.predictions.labels[[group[0] for group in songs]]

    @functools.cached_property
    def winners(self):
        """Int array `(clips,)`, the most probable artist of each clip."""
        return self.probabilities.argmax(axis=1)

    @functools.cached_property
    def votes(self):
        """Int array `(songs,)`, decisions by majority."""
        return np.array([metrics.vote(song) for song in self._songs])

    @functools.cached_property
    def published_votes(self):
        """The papers' decisions: only clips above 0.5 vote, all if there are none."""
        return np.array([metrics.vote(song, above=0.5) for song in self._songs])

    @functools.cached_property
    def means(self):
        """Float array `(songs, classes)`, mean probabilities."""
        return np.stack([song.mean(axis=0) for song in self._songs])

    @functools.cached_property
    def scores(self):
        """Dict with `frame` and `song`, each a dict of scores."""
        from sklearn.metrics import top_k_accuracy_score

        classes = self.probabilities.shape[1]
        levels = {
            "frame": (self.predictions.labels, self.winners, self.probabilities),
            "song": (self.song_labels, self.votes, self.means),
        }
        result = {}
        for level, (truth, decided, values) in levels.items():
            scores = metrics.identification_scores(truth, decided, classes)
            for k in (3, 5):
                if k < classes:
                    names = range(classes)
                    top = top_k_accuracy_score(truth, values, k=k, labels=names)
                    scores[f"top{k}_accuracy"] = float(top)
            result[level] = {**scores, "count": len(truth)}
        return result


class Predictor:
    """Runs models over all clips of a `ClipSource`; made once for many epochs."""

    def __init__(self, source):
        self._labels = source.clip_labels
        self._songs = source.clips_by_song
        self._starts = {key: source.clip_times(key) for key in self._songs}
        self._clips = source.ordered(32).map(lambda clips, label: clips)

    def __call__(self, model):
        """Returns the `ClipPredictions` of an `lca_keras.models.LCAModel`."""
        outputs = distribution.predict(model, self._clips)
        return ClipPredictions(self._labels, self._songs, self._starts, outputs)


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """A calibrated model on one part of a corpus.

    `scores` has `frame`, `song`, calibration errors before and after the temperature
    and, with a counterfactual, `cf_frame`, `cf_song` and `attention_distance`.
    """

    main: Decisions
    scores: dict


def evaluate(model, source):
    """Evaluates a calibrated `LCAModel` on a `ClipSource`; returns `Evaluation`."""
    predictions = Predictor(source)(model)
    main = predictions.decide(temperature=model.temperature)
    scores = dict(main.scores)
    for name, decisions in (("before", predictions.decide()), ("after", main)):
        scores[f"calibration_error_{name}"] = metrics.expected_calibration_error(
            predictions.labels, decisions.probabilities
        )
    if "cf_logits" in predictions.outputs:
        for level, values in predictions.decide("cf_logits").scores.items():
            scores[f"cf_{level}"] = values
        scores["attention_distance"] = predictions.attention_distance
    return Evaluation(main, scores)


def write_part(folder, part, evaluation, artists, records):
    """Writes predictions, per-artist table and confusion matrix of a part.

    `predictions_PART_frame.csv` and `..._song.csv`, `artists_PART.txt` and
    `confusion_PART.png`; `records` are those of the feature store.
    """
    from sklearn.metrics import classification_report

    decisions, frame_rows, song_rows = evaluation.main, [], []
    labels, votes = decisions.song_labels, decisions.votes
    for row, (key, group) in enumerate(decisions.predictions.songs.items()):
        record, vote = records[key], votes[row]
        names = [record.artist, record.album, record.song]
        starts = decisions.predictions.starts[key]
        for clip, (start, index) in enumerate(zip(starts, group, strict=True)):
            best = decisions.winners[index]
            probability = f"{decisions.probabilities[index, best]:.6f}"
            said = [artists[best], probability, record.path]
            frame_rows.append([*names, clip, f"{start:.3f}", *said])
        said = [artists[vote], f"{decisions.means[row, vote]:.6f}"]
        song_rows.append([*names, *said, int(vote == labels[row]), record.path])
    song, said = ["artist", "album", "song"], ["predicted", "probability"]
    for level, columns, rows in (
        ("frame", [*song, "clip", "start", *said, "path"], frame_rows),
        ("song", [*song, *said, "correct", "path"], song_rows),
    ):
        path = folder / f"predictions_{part}_{level}.csv"
        files.write_csv(path, columns, sorted(rows, key=lambda row: row[:3]))
    # Precision, recall, F1 of each artist who sings a song or is taken for its singer.
    present = np.union1d(labels, votes)
    named = {"labels": present, "target_names": [artists[index] for index in present]}
    table = classification_report(labels, votes, **named, zero_division=0)
    with files.atomic_path(folder / f"artists_{part}.txt") as temporary:
        temporary.write_text(table, encoding="utf-8")
    figure = confusion_figure(labels, votes, artists, f"{part}, songs")
    plots.save_figure(figure, folder / f"confusion_{part}.png")


def confusion_figure(labels, votes, artists, title):
    """Confusion matrix of songs, by the class indices of singers and decisions."""
    from sklearn.metrics import confusion_matrix

    matrix = confusion_matrix(labels, votes, labels=np.arange(len(artists)))
    side = 3.0 + 0.32 * len(artists)
    with plots.style():
        figure = plots.new_figure(side, side)
        axes = figure.subplots()
        axes.imshow(matrix, cmap="Blues")
        for row, column in np.argwhere(matrix):
            count = matrix[row, column]
            color = "white" if count > matrix.max() / 2 else "black"
            axes.text(column, row, count, ha="center", va="center", c=color)
        ticks = range(len(artists))
        axes.set_xticks(ticks, artists, rotation=60, ha="right")
        axes.set_yticks(ticks, artists)
        axes.set_xlabel("identified as")
        axes.set_ylabel("singer")
        axes.set_title(title)
    return figure
