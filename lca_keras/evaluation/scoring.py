"""Evaluation of a model: decisions for clips and songs, scores, tables, pictures."""

import dataclasses
import functools

import numpy as np

from lca_keras.base import files, metrics
from lca_keras.drawing import plots
from lca_keras.models import distribution


@dataclasses.dataclass(frozen=True)
class ClipPredictions:
    """What a model says of the clips of some songs.

    Attributes:
        labels: Int array `(clips,)`, true artists.
        songs: Dict from song key to the indices of its clips, in time order.
        starts: Dict from song key to the seconds at which these begin in the song.
        outputs: Dict of arrays, as `LCAModel` gives them: `"logits"` `(clips, classes)`
            and `"embedding"` and, with a counterfactual, `"cf_logits"`, `"attention"`
            and `"cf_attention"`.
    """

    labels: np.ndarray
    songs: dict[str, np.ndarray]
    starts: dict[str, np.ndarray]
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
        logits = self.outputs[branch]
        return Decisions(self, metrics.softmax(logits, temperature))


@dataclasses.dataclass(frozen=True)
class Decisions:
    """What follows for clips and songs from one branch's probabilities.

    Attributes:
        predictions: `ClipPredictions` that they are of.
        probabilities: Float array `(clips, classes)`.
    """

    predictions: ClipPredictions
    probabilities: np.ndarray

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
        """Int array `(songs,)`, decisions as the papers take them.

        Only clips above 0.5 vote, all if there are none.
        """
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
        names = range(classes)
        levels = {
            "frame": (self.predictions.labels, self.winners, self.probabilities),
            "song": (self.song_labels, self.votes, self.means),
        }
        result = {}
        for level, (truth, decided, values) in levels.items():
            scores = metrics.identification_scores(truth, decided, classes)
            for k in (3, 5):
                if k < classes:
                    top = top_k_accuracy_score(truth, values, k=k, labels=names)
                    scores[f"top{k}_accuracy"] = float(top)
            result[level] = {**scores, "count": len(truth)}
        return result


class Predictor:
    """Runs models over all clips of a `ClipSource`; made once for many epochs.

    Results do not depend on `batch_size`.
    """

    def __init__(self, source, batch_size=32):
        self._labels = source.clip_labels
        self._songs = source.clips_by_song
        self._starts = {key: source.clip_times(key) for key in self._songs}
        self._clips = source.ordered(batch_size).map(lambda clips, label: clips)

    def __call__(self, model):
        """Returns the `ClipPredictions` of an `lca_keras.models.LCAModel`."""
        if distribution.is_spread(model):
            outputs = distribution.predict(model, self._clips)
        else:
            outputs = model.predict(self._clips, verbose=0)
        return ClipPredictions(self._labels, self._songs, self._starts, outputs)


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """A calibrated model on one part of a corpus.

    Attributes:
        main: `Decisions` of the main branch.
        counterfactual: Those of the other one, or `None`.
        scores: Dict: `frame`, `song`, calibration errors before and after the
            temperature and, with a counterfactual, `cf_frame`, `cf_song` and
            `attention_distance`.
    """

    main: Decisions
    counterfactual: Decisions | None
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
    counterfactual = None
    if "cf_logits" in predictions.outputs:
        counterfactual = predictions.decide("cf_logits")
        for level, values in counterfactual.scores.items():
            scores[f"cf_{level}"] = values
        scores["attention_distance"] = predictions.attention_distance
    return Evaluation(main, counterfactual, scores)


def write_part(folder, part, evaluation, artists, records):
    """Writes predictions, per-artist table and confusion matrix of a part.

    `predictions_PART_frame.csv` and `..._song.csv`, `artists_PART.txt` and
    `confusion_PART.png`; `records` are those of the feature store.
    """
    for level, (columns, rows) in _tables(evaluation.main, artists, records).items():
        path = folder / f"predictions_{part}_{level}.csv"
        files.write_csv(path, columns, sorted(rows, key=lambda row: row[:3]))
    table = artist_table(evaluation.main, artists)
    (folder / f"artists_{part}.txt").write_text(table, encoding="utf-8")
    main = evaluation.main
    figure = confusion_figure(main.song_labels, main.votes, artists, f"{part}, songs")
    plots.save_figure(figure, folder / f"confusion_{part}.png")


def _tables(decisions, artists, records):
    """Columns and rows of the predictions' tables, by level."""
    frame_rows, song_rows = [], []
    for row, (key, group) in enumerate(decisions.predictions.songs.items()):
        record = records[key]
        names = [record.artist, record.album, record.song]
        starts = decisions.predictions.starts[key]
        for clip, (start, index) in enumerate(zip(starts, group, strict=True)):
            best = decisions.winners[index]
            probability = f"{decisions.probabilities[index, best]:.6f}"
            said = [artists[best], probability, record.path]
            frame_rows.append([*names, clip, f"{start:.3f}", *said])
        vote = decisions.votes[row]
        correct = int(vote == decisions.song_labels[row])
        probability = f"{decisions.means[row, vote]:.6f}"
        song_rows.append([*names, artists[vote], probability, correct, record.path])
    song, said = ["artist", "album", "song"], ["predicted", "probability"]
    return {
        "frame": ([*song, "clip", "start", *said, "path"], frame_rows),
        "song": ([*song, *said, "correct", "path"], song_rows),
    }


def artist_table(decisions, artists):
    """Per-artist song-level table of `Decisions`, as text.

    Precision, recall and F1 of every artist who sings a song or is taken for its
    singer.
    """
    from sklearn.metrics import classification_report

    labels, votes = decisions.song_labels, decisions.votes
    present = np.union1d(labels, votes)
    return classification_report(
        labels,
        votes,
        labels=present,
        target_names=[artists[index] for index in present],
        zero_division=0,
    )


def confusion_figure(labels, votes, artists, title):
    """Confusion matrix of songs, a Matplotlib figure.

    Args:
        labels: Int array `(songs,)`, true artists.
        votes: Int array `(songs,)`, decisions.
        artists: List of class names.
        title: String.
    """
    from sklearn.metrics import confusion_matrix

    matrix = confusion_matrix(labels, votes, labels=np.arange(len(artists)))
    side = 3.0 + 0.32 * len(artists)
    with plots.style():
        figure = plots.new_figure(side, side)
        axes = figure.subplots()
        axes.imshow(matrix, cmap="Blues")
        for row, column in np.argwhere(matrix):
            dark = matrix[row, column] > matrix.max() / 2
            color = "white" if dark else "black"
            axes.text(
                column, row, matrix[row, column], ha="center", va="center", c=color
            )
        ticks = range(len(artists))
        axes.set_xticks(ticks, artists, rotation=60, ha="right")
        axes.set_yticks(ticks, artists)
        axes.set_xlabel("identified as")
        axes.set_ylabel("singer")
        axes.set_title(title)
    return figure
