"""TFLite files of a run: converted, measured on validation songs, and described."""

import functools
import os
import pathlib
import platform
import time

import numpy as np

from lca_keras.base import files
from lca_keras.base.errors import UserError
from lca_keras.data import corpus
from lca_keras.drawing import markdown
from lca_keras.evaluation import scoring
from lca_keras.exports import tflite, tflite_file
from lca_keras.features import silence
from lca_keras.features.front_end import network_input

CARD, TABLE = "card.md", "card.json"
# Training clips that tell how large values become.
_CALIBRATION_CLIPS = 200
_TIMED_CALLS = 30
_THREADS = (1, 2)
_COLUMNS = [
    "file",
    "kB",
    "ms",
    "F1 clips",
    "F1 songs",
    "same clips",
    "same songs",
    "largest difference of a probability",
]


def convert(job, forms, folder, working):
    """Writes a run's TFLite files and their card.

    Of each form the model of a clip's spectrogram, and where it can be that of a clip's
    waveform.

    Args:
        job: `lca_keras.workflow.run.Run`, finished.
        forms: Some of `lca_keras.exports.tflite_file.FORMS`.
        folder: Where to.
        working: Context manager that tells what is going on.

    Returns:
        List of dicts, a row of the card for each file.

    Raises:
        UserError: The run is not finished, its songs are gone, or a conversion failed.
    """
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    model, artists = job.load_model()
    network, gallery = model.main_branch(), job.gallery
    detector = None if gallery is None else gallery.detector
    config = job.config.replace(augment={"kinds": ()})
    songs = corpus.prepare(job.source, config)
    division = corpus.divide(config, songs, job.folder)
    parts = ("train", "validation")
    sources = corpus.clip_sources(songs, division.part_of, artists, config, parts)
    with working("Scoring validation clips"):
        keras_model = _decided(model, sources["validation"])
        clips = _clips(sources["validation"])
        calibration = list(_clips(sources["train"], _CALIBRATION_CLIPS).values())
    serve = functools.partial(network, training=False)
    rows = [_row("SavedModel", keras_model, keras_model, None)]
    rows[0]["milliseconds"] = {"all": _milliseconds(_saved_model(serve, clips))}
    waves, failed, waveforms = None, {}, tflite.hears_waveforms(config)
    for form in forms:
        for waveform in (False, True):
            if waveform and (form == "int8" or not waveforms):
                continue
            name = f"model-{form}{'-waveform' if waveform else ''}.tflite"
            with working(f"Converting {name}"):
                try:
                    content = tflite.convert_apart(
                        *(network, config, form, waveform),
                        calibration=calibration,
                        detector=detector,
                    )
                except UserError as error:  # The others are made all the same.
                    failed[name] = str(error)
                    continue
                about = _about(job, network, artists, form, waveform, gallery)
                content = tflite_file.packed(content, artists, about)
                with files.atomic_path(folder / name) as temporary:
                    temporary.write_bytes(content)
            with working(f"Measuring {name}"):
                if waveform and waves is None:
                    waves = _waveforms(job, songs, sources["validation"])
                heard = {"waveform": waves} if waveform else clips
                rows.append(_measured(name, content, keras_model, heard))
    files.write_json(folder / TABLE, rows)
    card = _card(job.folder.name, rows, waveforms)
    (folder / CARD).write_text(card, encoding="utf-8")
    if failed:
        reasons = "".join(f"\n  {name}: {why}" for name, why in failed.items())
        raise UserError(f"not all files could be made; see {folder / CARD}{reasons}")
    return rows


def _decided(model, source):
    predictions = scoring.Predictor(source)(model)
    return predictions.decide(temperature=model.temperature)


def _clips(source, most=None):
    """Dict from input to the clips of a source, float32, some of them if so asked."""
    arrays = {name: [] for name in source.streams}
    for batch, _ in source.ordered(64):
        if not isinstance(batch, dict):
            batch = {source.streams[0]: batch}
        for name, value in batch.items():
            arrays[name].append(np.array(value, "float32"))
    found = {name: np.concatenate(value) for name, value in arrays.items()}
    count = len(source.clip_labels)
    if most is None or count <= most:
        return found
    chosen = np.random.default_rng(0).choice(count, most, replace=False)
    return {name: value[chosen] for name, value in found.items()}


def _waveforms(job, songs, source):
    """Samples of the validation clips, `(clips, samples)`, cut where those are."""
    from lca_keras.audio.decode import AudioError
    from lca_keras.data.extraction import Extractor

    front_end, clip = source.front_end, job.config.clip_frames
    extractor = Extractor(job.config.served_features, job.source.separator)
    length = front_end.clip_samples(clip)
    by_key = {song.key: song for song in songs.songs}
    rows = np.zeros((len(source.clip_labels), length), "float32")
    for key, indices in source.clips_by_song.items():
        song = by_key[key]
        try:
            heard = extractor.heard(extractor.sounds(song))
        except AudioError as error:
            raise UserError(
                f"{song.path}: {error}. The waveforms of validation songs are needed "
                "to measure models that take them"
            ) from error
        samples = silence.Passages(heard, songs.store.records[key].passages).samples
        starts = np.round(source.clip_starts(key) * front_end.sample_rate).astype(int)
        for index, begin in zip(indices, starts, strict=True):
            piece = samples[begin : begin + length]
            rows[index, : piece.size] = piece
    return rows


def _about(job, network, artists, form, waveform, gallery):
    """What a file tells about itself."""
    config, detector = job.config, gallery and gallery.detector
    front_end = config.front_end
    inputs = {
        name: {"shape": [1, *shape], "unit": front_end.unit}
        for name, shape in config.clip_shapes.items()
    }
    for name in config.streams[1:]:
        inputs[name]["unit"] = "one-hot over the bands"
    if waveform:
        shape = [1, front_end.clip_samples(config.clip_frames)]
        unit = "samples, mono, full scale is 1"
        inputs = {"waveform": {"shape": shape, "unit": unit}}
    return {
        "name": job.folder.name,
        "artists": artists,
        "format": form,
        "inputs": inputs,
        "outputs": {
            "probabilities": {"shape": [1, len(artists)], "labels": tflite_file.LABELS},
            "embedding": {"shape": [1, network.embedding_size]},
            "voiceprint": {"shape": [1, network.voiceprint_size]},
            **({} if detector is None else {"voice": {"shape": [1, 1]}}),
        },
        # In eight bits voiceprints are too coarse to be compared.
        "gallery": None if gallery is None or form == "int8" else gallery.to_dict(),
        "normalisation": "inside: each band by its mean and deviation in training",
        "sample_rate": front_end.sample_rate,
        "clip_frames": config.clip_frames,
        "clip_seconds": config.clip_frames / front_end.frame_rate,
        "temperature": network.temperature,
        "config": config.to_dict(),
    }


# === Measured ===


def _saved_model(serve, clips):
    """A call as a server makes it: a graph, one clip."""
    import tensorflow as tf

    graph = tf.function(serve)
    clip = {name: tf.constant(value[:1]) for name, value in clips.items()}
    batch = network_input(tuple(clip), clip)
    return lambda: graph(batch)


def _milliseconds(call):
    """Median time of a call."""
    times = []
    for _ in range(_TIMED_CALLS + 3):
        start = time.perf_counter()
        call()
        times.append(1000 * (time.perf_counter() - start))
    return float(np.median(times[3:]))


def _measured(name, content, expected, heard):
    runner = tflite_file.runner(content, _THREADS[-1])
    rows = []
    for number in range(len(expected.probabilities)):
        clip = {key: value[number : number + 1] for key, value in heard.items()}
        rows.append(runner(**clip)["probabilities"][0].copy())
    found = scoring.Decisions(expected.predictions, np.stack(rows))
    row = _row(name, found, expected, len(content))
    clip = {key: value[:1] for key, value in heard.items()}
    row["milliseconds"] = {}
    for threads in _THREADS:
        call = functools.partial(tflite_file.runner(content, threads), **clip)
        row["milliseconds"][str(threads)] = _milliseconds(call)
    return row


def _row(name, found, expected, size):
    difference = np.abs(found.probabilities - expected.probabilities).max()
    return {
        "file": name,
        "bytes": size,
        "clip_f1": found.scores["frame"]["f1"],
        "song_f1": found.scores["song"]["f1"],
        "same_clips": float((found.winners == expected.winners).mean()),
        "same_songs": float((found.votes == expected.votes).mean()),
        "largest_difference": float(difference),
        "clips": len(found.winners),
        "songs": len(found.votes),
    }


def _cells(row):
    """What the table for people says of a file."""
    return [
        row["file"],
        "" if row["bytes"] is None else f"{row['bytes'] / 1000:.0f}",
        ", ".join(f"{value:.1f}" for value in row["milliseconds"].values()),
        f"{row['clip_f1']:.3f}",
        f"{row['song_f1']:.3f}",
        f"{row['same_clips']:.1%}",
        f"{row['same_songs']:.1%}",
        f"{row['largest_difference']:.1e}",
    ]


def _card(name, rows, waveforms):
    """The table for people."""
    first, *others = rows
    lines = [
        f"# {name}: TFLite files",
        "",
        f"Measured on {first['clips']} validation clips of {first['songs']} songs, "
        "beside the Keras model; milliseconds are the median of a call with one clip, "
        f"by {' and '.join(map(str, _THREADS))} threads of LiteRT"
        f" (the SavedModel takes what there is), on a machine of {os.cpu_count()} "
        f"cores ({platform.machine()}).",
        "",
        markdown.table(_COLUMNS, map(_cells, [first, *others])),
        "",
        "A model of waveforms hears a clip alone: its level and its loudest cell are "
        "not those of the song, and silence is not cut out before. Labels and metadata "
        f"are in each file, as ZIP behind the network (`unzip`): {tflite_file.LABELS}, "
        f"{tflite_file.ABOUT}. Files of int8 know no `unknown`: in eight "
        "bits voiceprints are too coarse to be compared.",
    ]
    if waveforms:
        lines.append(
            "There is no int8 model of waveforms: a spectrum's range does not fit in "
            "eight bits."
        )
    return "\n".join([*lines, ""])
