"""Evaluation of a trained run: frame- and song-level scores, tables, pictures.

`python -m lca_keras.evaluate --run RUN` evaluates the run's model again, on its own
data or on `--data PATH`.
"""

import argparse
import dataclasses
import sys

import numpy as np

from lca_keras import console, files, metrics, plots


@dataclasses.dataclass(frozen=True)
class ClipPredictions:
    """What a model says of the clips of some songs.

    Attributes:
        labels: Int array `(clips,)`, true artists.
        logits: Float array `(clips, classes)`, main branch.
        cf_logits: The same of the counterfactual branch, or `None`.
        attention_distance: Mean |A - A~|, or `None`.
        songs: Dict from song key to the indices of its clips, in time order.
    """

    labels: np.ndarray
    logits: np.ndarray
    cf_logits: np.ndarray | None
    attention_distance: float | None
    songs: dict[str, np.ndarray]


def predict_clips(model, source, batch_size=32):
    """Runs an `LCAModel` over all clips of a source.

    Args:
        model: `lca_keras.models.LCAModel`.
        source: `lca_keras.data.pipeline.ClipSource`.
        batch_size: Int; results do not depend on it.

    Returns:
        `ClipPredictions`.
    """
    clips = source.ordered(batch_size)
    outputs = model.predict(clips.map(lambda inputs, label, key: inputs), verbose=0)
    rows = clips.map(lambda inputs, label, key: (label, key)).unbatch()
    labels, keys = zip(*rows.as_numpy_iterator(), strict=True)
    songs = {}
    for index, key in enumerate(keys):
        songs.setdefault(key.decode(), []).append(index)
    distance = None
    if "cf_attention" in outputs:
        distance = float(
            np.mean(np.abs(outputs["attention"] - outputs["cf_attention"]))
        )
    return ClipPredictions(
        labels=np.array(labels),
        logits=outputs["logits"],
        cf_logits=outputs.get("cf_logits"),
        attention_distance=distance,
        songs={key: np.array(indices) for key, indices in songs.items()},
    )


def score(predictions, logits, temperature):
    """Frame- and song-level scores of one branch.

    Args:
        predictions: `ClipPredictions`, for labels and songs.
        logits: Float array `(clips, classes)` of the branch.
        temperature: Float, softmax temperature.

    Returns:
        Dict with `frame` and `song`, each a dict of floats.
    """
    probabilities = metrics.softmax(logits, temperature)
    classes = logits.shape[1]
    labels = predictions.labels
    song_labels, votes, song_probabilities = song_decisions(predictions, probabilities)
    result = {
        "frame": metrics.identification_scores(
            labels, probabilities.argmax(axis=1), classes
        ),
        "song": metrics.identification_scores(song_labels, votes, classes),
    }
    for level, truth, values in (
        ("frame", labels, probabilities),
        ("song", song_labels, song_probabilities),
    ):
        for k in (3, 5):
            if k < classes:
                result[level][f"top{k}_accuracy"] = metrics.top_k_accuracy(
                    truth, values, k
                )
        result[level]["count"] = len(truth)
    return result


def song_decisions(predictions, probabilities):
    """Votes and mean probabilities of every song.

    Args:
        predictions: `ClipPredictions`.
        probabilities: Float array `(clips, classes)`.

    Returns:
        Tuple `(labels, votes, mean probabilities)` of arrays, a row for each song in
        the order of `predictions.songs`.
    """
    groups = list(predictions.songs.values())
    labels = np.array([predictions.labels[group[0]] for group in groups])
    votes = np.array([metrics.vote(probabilities[group]) for group in groups])
    means = np.stack([probabilities[group].mean(axis=0) for group in groups])
    return labels, votes, means


def evaluate_part(model, source):
    """Scores of a part of the corpus, and the clip predictions behind them.

    Args:
        model: `LCAModel`, calibrated.
        source: `ClipSource` of the part.

    Returns:
        Tuple of a dict (`frame`, `song`, calibration errors and, with a
        counterfactual, `cf_frame`, `cf_song` and `attention_distance`) and the
        `ClipPredictions`.
    """
    predictions = predict_clips(model, source)
    scores = score(predictions, predictions.logits, model.temperature)
    for name, temperature in (("before", 1.0), ("after", model.temperature)):
        scores[f"calibration_error_{name}"] = metrics.expected_calibration_error(
            predictions.labels, metrics.softmax(predictions.logits, temperature)
        )
    if predictions.cf_logits is not None:
        counterfactual = score(predictions, predictions.cf_logits, 1.0)
        scores["cf_frame"] = counterfactual["frame"]
        scores["cf_song"] = counterfactual["song"]
        scores["attention_distance"] = predictions.attention_distance
    return scores, predictions


def write_predictions(folder, part, predictions, temperature, artists, records):
    """Writes `predictions_PART_frame.csv` and `..._song.csv`.

    Args:
        folder: Folder to write to.
        part: Name of the part.
        predictions: `ClipPredictions`.
        temperature: Float, softmax temperature.
        artists: List of class names.
        records: Dict from song key to `lca_keras.data.store.Record`.
    """
    probabilities = metrics.softmax(predictions.logits, temperature)
    labels, votes, means = song_decisions(predictions, probabilities)
    frame_rows, song_rows = [], []
    for row, (key, group) in enumerate(predictions.songs.items()):
        record = records[key]
        names = [record.artist, record.album, record.song]
        for clip, index in enumerate(group):
            best = int(probabilities[index].argmax())
            frame_rows.append(
                [*names, clip, artists[best], f"{probabilities[index, best]:.6f}"]
            )
        song_rows.append([*names, artists[votes[row]], f"{means[row, votes[row]]:.6f}"])
        song_rows[-1].append(int(votes[row] == labels[row]))
    header = ["artist", "album", "song"]
    tables = {
        "frame": ([*header, "clip", "predicted", "probability"], frame_rows),
        "song": ([*header, "predicted", "probability", "correct"], song_rows),
    }
    for level, (columns, rows) in tables.items():
        path = folder / f"predictions_{part}_{level}.csv"
        files.write_csv(path, columns, sorted(rows, key=lambda row: row[:3]))


def artist_table(predictions, temperature, artists):
    """Per-artist song-level table, as text.

    Args:
        predictions: `ClipPredictions`.
        temperature: Float, softmax temperature.
        artists: List of class names.

    Returns:
        String with precision, recall and F1 of every artist who sings a song or is
        taken for its singer.
    """
    from sklearn.metrics import classification_report

    probabilities = metrics.softmax(predictions.logits, temperature)
    labels, votes, _ = song_decisions(predictions, probabilities)
    present = np.union1d(labels, votes)
    return classification_report(
        labels,
        votes,
        labels=present,
        target_names=[artists[index] for index in present],
        zero_division=0,
    )


def confusion_figure(predictions, temperature, artists, title):
    """Song-level confusion matrix.

    Args:
        predictions: `ClipPredictions`.
        temperature: Float, softmax temperature.
        artists: List of class names.
        title: String.

    Returns:
        `matplotlib.figure.Figure`.
    """
    from sklearn.metrics import confusion_matrix

    probabilities = metrics.softmax(predictions.logits, temperature)
    labels, votes, _ = song_decisions(predictions, probabilities)
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


def main(argv=None):
    """Command line of evaluation."""
    parser = argparse.ArgumentParser(
        prog="python -m lca_keras.evaluate", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--run", required=True, help="run folder, such as runs/demo")
    parser.add_argument(
        "--data", help="corpus to evaluate on; default: the run's validation and test"
    )
    parser.add_argument("--out", help="folder for the results; default: the run's own")
    parser.add_argument(
        "--separator", metavar="FOLDER", help="where the run's separator is now"
    )
    console.add_debug_flag(parser)
    args = parser.parse_args(argv)

    def run():
        console.quiet_tensorflow()
        from lca_keras import training

        training.evaluate_run(args.run, args.data, args.out, args.separator)

    return console.guard(run, args.debug)


if __name__ == "__main__":
    sys.exit(main())
