"""TFLite files of a run: converted, measured on validation songs, and described."""

import functools
import itertools
import os
import pathlib
import platform
import timeit

import numpy as np

from lca_keras.audio.decode import AudioError
from lca_keras.base import files
from lca_keras.base.errors import UserError
from lca_keras.data import corpus
from lca_keras.data.extraction import Extractor
from lca_keras.drawing import markdown
from lca_keras.evaluation import scoring
from lca_keras.exports import tflite, tflite_file
from lca_keras.features import silence
from lca_keras.features.front_end import network_input

CARD = "card.md"
# Training clips that tell how large values become.
_CALIBRATION_CLIPS = 200
_TIMED_CALLS = 30
_THREADS = (1, 2)
# Of the table for people: how a column shows a file's row.
_COLUMNS = {
    "file": "{file}",
    "kB": "{kilobytes}",
    "ms": "{times}",
    "F1 clips": "{clip_f1:.3f}",
    "F1 songs": "{song_f1:.3f}",
    "same clips": "{same_clips:.1%}",
    "same songs": "{same_songs:.1%}",
    "largest difference of a probability": "{largest_difference:.1e}",
}


def convert(job, forms, folder, observer):
    """Writes TFLite files of a finished `Run` and their card; returns rows of the card.

    Of each of `forms`, some of `lca_keras.exports.tflite_file.FORMS`, the model of a
    clip's spectrogram, and where it can be that of a clip's waveform. If one cannot be
    made, an error says so once the others are there.
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
    with observer.working("Scoring validation clips"):
        predictions = scoring.Predictor(sources["validation"])(model)
        keras_model = predictions.decide(temperature=model.temperature)
        clips = _clips(sources["validation"])
        calibration = list(_clips(sources["train"], _CALIBRATION_CLIPS).values())
    rows = [_row("SavedModel", keras_model, keras_model, None)]
    rows[0]["milliseconds"] = {"all": _milliseconds(_saved_model(network, clips))}
    waves, failed, waveforms = None, {}, tflite.hears_waveforms(config)
    for form, waveform in itertools.product(forms, (False, True)):
        if waveform and (form == "int8" or not waveforms):
            continue
        name = f"model-{form}{'-waveform' if waveform else ''}.tflite"
        with observer.working(f"Converting {name}"):
            material = network, config, form, waveform
            told = {"calibration": calibration, "detector": detector}
            try:
                content = tflite.convert_apart(*material, **told)
            except UserError as error:
                failed[name] = str(error)
                continue
            about = _about(job, network, artists, form, waveform, gallery)
            content = tflite_file.packed(content, artists, about)
            with files.atomic_path(folder / name) as temporary:
                temporary.write_bytes(content)
        with observer.working(f"Measuring {name}"):
            if waveform and waves is None:
                waves = _waveforms(job, songs, sources["validation"])
            heard = {"waveform": waves} if waveform else clips
            rows.append(_measured(name, content, keras_model, heard))
    files.write_json(folder / "card.json", rows)
    card = _card(job.folder.name, rows, waveforms)
    (folder / CARD).write_text(card, encoding="utf-8")
    if failed:
        reasons = "".join(f"\n  {name}: {why}" for name, why in failed.items())
        raise UserError(f"not all files could be made; see {folder / CARD}{reasons}")
    return rows


def _clips(source, most=None):
    """Dict from input to the clips of a source, float32; at most so many, drawn."""
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
    front_end = source.front_end
    extractor = Extractor(job.config.served_features, job.source.separator)
    length = front_end.clip_samples(job.config.clip_frames)
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
    config, front_end = job.config, job.config.front_end
    shapes = config.clip_shapes
    units = dict.fromkeys(shapes, "one-hot over the bands")
    units[config.streams[0]] = front_end.unit
    if waveform:
        shapes = {"waveform": (front_end.clip_samples(config.clip_frames),)}
        units = {"waveform": "samples, mono, full scale is 1"}
    outputs = {
        "probabilities": {"shape": [1, len(artists)], "labels": tflite_file.LABELS},
        "embedding": {"shape": [1, network.embedding_size]},
        "voiceprint": {"shape": [1, network.voiceprint_size]},
    }
    if gallery and gallery.detector is not None:
        outputs["voice"] = {"shape": [1, 1]}
    return {
        "name": job.folder.name,
        "artists": artists,
        "format": form,
        "inputs": {
            name: {"shape": [1, *shape], "unit": units[name]}
            for name, shape in shapes.items()
        },
        "outputs": outputs,
        # In eight bits voiceprints are too coarse to be compared.
        "gallery": None if gallery is None or form == "int8" else gallery.to_dict(),
        "normalisation": "inside: each band by its mean and deviation in training",
        "sample_rate": front_end.sample_rate,
        "clip_frames": config.clip_frames,
        "clip_seconds": config.clip_frames / front_end.frame_rate,
        "temperature": network.temperature,
        "config": config.to_dict(),
    }


def _saved_model(network, clips):
    """A call as a server makes it: a graph, one clip."""
    import tensorflow as tf

    graph = tf.function(functools.partial(network, training=False))
    clip = {name: tf.constant(value[:1]) for name, value in clips.items()}
    batch = network_input(tuple(clip), clip)
    return lambda: graph(batch)


def _milliseconds(call):
    """Median time of a call, after three that warm up."""
    times = timeit.repeat(call, number=1, repeat=_TIMED_CALLS + 3)
    return 1000 * float(np.median(times[3:]))


def _measured(name, content, expected, heard):
    runner = tflite_file.runner(content, _THREADS[-1])
    rows = []
    for number in range(len(expected.probabilities)):
        clip = {key: value[number : number + 1] for key, value in heard.items()}
        rows.append(runner(**clip)["probabilities"][0].copy())
    found = scoring.Decisions(expected.predictions, np.stack(rows))
    row = _row(name, found, expected, len(content))
    clip, times = {key: value[:1] for key, value in heard.items()}, {}
    for threads in _THREADS:
        call = functools.partial(tflite_file.runner(content, threads), **clip)
        times[str(threads)] = _milliseconds(call)
    return {**row, "milliseconds": times}


def _row(name, found, expected, size):
    differences = np.abs(found.probabilities - expected.probabilities)
    return {
        "file": name,
        "bytes": size,
        "clip_f1": found.scores["frame"]["f1"],
        "song_f1": found.scores["song"]["f1"],
        "same_clips": float((found.winners == expected.winners).mean()),
        "same_songs": float((found.votes == expected.votes).mean()),
        "largest_difference": float(differences.max()),
        "clips": len(found.winners),
        "songs": len(found.votes),
    }


def _card(name, rows, waveforms):
    first, cells = rows[0], []
    for row in rows:
        kilobytes = "" if row["bytes"] is None else f"{row['bytes'] / 1000:.0f}"
        times = ", ".join(f"{each:.1f}" for each in row["milliseconds"].values())
        more = {"kilobytes": kilobytes, "times": times}
        cells.append([how.format(**row, **more) for how in _COLUMNS.values()])
    lines = [
        f"# {name}: TFLite files",
        "",
        f"Measured on {first['clips']} validation clips of {first['songs']} songs, "
        "beside the Keras model; milliseconds are the median of a call with one clip, "
        f"by {' and '.join(map(str, _THREADS))} threads of LiteRT"
        f" (the SavedModel takes what there is), on a machine of {os.cpu_count()} "
        f"cores ({platform.machine()}).",
        "",
        markdown.table(list(_COLUMNS), cells),
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
