"""What a model is worth, and what it listens to; tables and pictures of it."""

import dataclasses
import pathlib
import time

from lca_keras.base.errors import UserError
from lca_keras.base.observer import Observer
from lca_keras.data import corpus
from lca_keras.workflow import records


def evaluate(folder, model, sources, artists):
    """Scores, tables and pictures of parts, left in any folder with `metrics.json`.

    Takes a calibrated `LCAModel` and a dict from part to `ClipSource`; returns one from
    part to `lca_keras.evaluation.scoring.Evaluation`.
    """
    import tensorflow as tf

    from lca_keras.evaluation import scoring

    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    found = {}
    for part, source in sources.items():
        start = time.perf_counter()
        found[part] = scoring.evaluate(model, source)
        scoring.write_part(folder, part, found[part], artists, source.store.records)
        picture = (folder / f"confusion_{part}.png").read_bytes()
        with tf.summary.create_file_writer(str(folder / "tensorboard")).as_default():
            image = tf.io.decode_png(picture, channels=3)
            tf.summary.image(f"confusion_{part}", image[None], step=0)
        # Of the last part: the first one traces the graph.
        seconds = (time.perf_counter() - start) / len(source.labels)
    about = {"artists": artists, "seconds_per_song": seconds}
    about |= {part: each.scores for part, each in found.items()}
    records.add_results(folder, about)
    return found


def check_voice_report(config):
    """Raises a `UserError` unless the model of a `Config` can have a voice report."""
    source = config.features.source
    if source == "vocals" or (source != "stems" and len(config.streams) > 1):
        raise UserError(
            "a voice report is for models that hear the mixture; this one hears vocals "
            "alone, or the melody of a mixture. One that `fit --source stems` trains "
            "has a report"
        )


def stems_at_hand(songs):
    """Whether all songs have a stem as a file that is there."""
    stems = [song.vocals_path or song.accompaniment_path for song in songs]
    return all(path and path.exists() for path in stems)


def voice_report(
    folder, model, clips, artists, source, config, songs, observer=None, whole=False
):
    """What a model listens to, a `VoiceReport`: it hears songs in parts and remixed.

    Leaves `voice_report.csv`, a picture and `voice_report` in `metrics.json`.

    Args:
        folder: Folder to write to, of a run or another one.
        model: `lca_keras.models.LCAModel`.
        clips: `lca_keras.data.clips.ClipSource` of the songs.
        source: `lca_keras.data.corpus.DataSource`, which says where a separator is.
        config: `lca_keras.base.config.Config` of the run.
        songs: List of `Song`, of whom those of `clips` count.
        whole: Whether a song without stems is an error.
    """
    from lca_keras.evaluation import voice_report

    observer = observer or Observer()
    check_voice_report(config)
    if config.features.source != "stems":
        songs = [song for song in songs if song.key in clips.labels]
        with observer.progress("Stems") as show:
            store, reasons = corpus.stems_of(source, config, songs, show)
        for path, reason in reasons.items():
            if whole:
                raise UserError(f"{path} has no stems: {reason}")
            observer.note(f"  not in the voice report: {path}: {reason}")
        labels = {k: v for k, v in clips.labels.items() if k in store.records}
        clips = dataclasses.replace(clips, store=store, labels=labels)
    with observer.working("Listening for voices and bands"):
        report = voice_report.report(model, clips, artists)
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    voice_report.write(folder, report, clips.store.records)
    told = report.to_dict()
    records.add_results(folder, {"voice_report": told})
    observer.told("voice_report", told)
    return report
