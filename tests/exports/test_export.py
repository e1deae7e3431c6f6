import dataclasses
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import textwrap

import numpy as np
import pytest
import soundfile
import tensorflow as tf

from lca_keras.audio.decode import Sound
from lca_keras.base import files
from lca_keras.base.config import get_preset
from lca_keras.base.errors import UserError
from lca_keras.base.metrics import vote
from lca_keras.base.sections import FeatureConfig
from lca_keras.data import catalogue
from lca_keras.data.examples import to_example
from lca_keras.data.extraction import Extractor
from lca_keras.data.store import Record
from lca_keras.exports import integrity, savedmodel, tflite, versions
from lca_keras.exports.export import export_model
from lca_keras.exports.signatures import ServedNetwork
from lca_keras.exports.versions import METADATA, find_version
from lca_keras.features import silence
from lca_keras.features.melody import contour, melody_bands
from lca_keras.features.spectrogram import mel_spectrogram
from lca_keras.inference.identification import Identifier
from lca_keras.models import CRNNM
from tests.exports.material import ARTISTS, clips_of, song
from tests.models.test_networks import randomize

ROOT = pathlib.Path(__file__).parents[2]


def test_waveform_equals_the_network_on_librosa_features(network, loaded):
    samples = song()
    outputs = loaded.signatures["serving_default"](waveform=samples[None])
    expected = network.predict(clips_of(samples), verbose=0)
    assert outputs["frame_probabilities"].shape == (1, 4, 4)
    np.testing.assert_allclose(outputs["frame_probabilities"][0], expected, atol=1e-4)
    np.testing.assert_allclose(
        outputs["probabilities"][0], expected.mean(axis=0), atol=1e-4
    )
    singer = outputs["singer"][0].numpy().decode()
    assert singer == ARTISTS[vote(expected)]


def test_mel_of_a_clip_equals_the_network(network, loaded):
    clips = clips_of(song())
    outputs = loaded.signatures["mel"](mel_spectrogram=clips)
    expected = network.predict(clips, verbose=0)
    np.testing.assert_allclose(outputs["probabilities"], expected, atol=1e-5)


def test_mel_equals_waveform(loaded):
    samples = song()
    mel = mel_spectrogram(samples, FeatureConfig())[None, ..., None]
    by_mel = loaded.signatures["mel"](mel_spectrogram=mel)
    by_waveform = loaded.signatures["serving_default"](waveform=samples[None])
    for name in ("probabilities", "frame_probabilities"):
        np.testing.assert_allclose(by_mel[name], by_waveform[name], atol=1e-4)


def test_results_do_not_depend_on_batch_mates(loaded):
    songs = [song(seed=0), 0.01 * song(seed=1), song(seed=2)]
    serve = loaded.signatures["serving_default"]
    together = serve(waveform=np.stack(songs))
    for index, samples in enumerate(songs):
        alone = serve(waveform=samples[None])
        for name in ("probabilities", "frame_probabilities"):
            np.testing.assert_allclose(together[name][index], alone[name][0], atol=1e-5)
        assert together["singer"][index] == alone["singer"][0]


def test_silence_has_no_vote(loaded):
    samples = song(10.0)[: 94 * 512 * 3]
    serve, embed = loaded.signatures["serving_default"], loaded.signatures["embed"]
    expected = serve(waveform=samples[None])
    front, behind = np.zeros(94 * 512 * 2), np.zeros(16000 * 40)
    padded = np.concatenate([front, samples, behind]).astype("float32")[None]
    served = serve(waveform=padded)
    rows = served["frame_probabilities"][0].numpy()
    # Those of the sound come first, wherever it is.
    assert np.flatnonzero(rows.any(axis=1)).tolist() == [0, 1, 2]
    np.testing.assert_allclose(rows[:3], expected["frame_probabilities"][0], atol=0.02)
    np.testing.assert_allclose(
        served["probabilities"][0], rows[:3].mean(axis=0), atol=1e-6
    )
    assert served["singer"][0] == expected["singer"][0]
    embedded = embed(waveform=padded)
    rows = embedded["frame_embeddings"][0].numpy()
    assert np.flatnonzero(rows.any(axis=1)).tolist() == [0, 1, 2]
    np.testing.assert_allclose(
        embedded["embedding"][0], rows[:3].mean(axis=0), atol=1e-6
    )


def test_level_and_offset_are_no_matter(loaded):
    samples = song()
    serve = loaded.signatures["serving_default"]
    expected = serve(waveform=samples[None])
    changed = np.stack([samples / 100, 8 * samples, 0.5 * samples + 0.2])
    served = serve(waveform=changed)
    for row in served["frame_probabilities"]:
        np.testing.assert_allclose(row, expected["frame_probabilities"][0], atol=1e-3)


@pytest.mark.parametrize("wrong", [np.nan, np.inf, 1e30, "silent"])
def test_nobody_sings_what_is_no_sound(loaded, wrong):
    songs = np.stack([song(seed=1), song(seed=2)])
    expected = loaded.signatures["serving_default"](waveform=songs[1:])
    if wrong == "silent":
        songs[0] = 0
    else:
        songs[0, 77777] = wrong
    served = loaded.signatures["serving_default"](waveform=songs)
    assert [name.decode() for name in served["singer"].numpy()] == [
        "",
        expected["singer"][0].numpy().decode(),
    ]
    assert not served["probabilities"][0].numpy().any()
    assert not served["frame_probabilities"][0].numpy().any()
    np.testing.assert_allclose(
        served["probabilities"][1], expected["probabilities"][0], atol=1e-5
    )
    embedded = loaded.signatures["embed"](waveform=songs)
    assert not embedded["embedding"][0].numpy().any()


def test_long_songs_go_through_in_pieces(network, loaded):
    samples = song(seconds=60)  # 19 clips: more than the network takes at once.
    outputs = loaded.signatures["serving_default"](waveform=samples[None])
    expected = network.predict(clips_of(samples), verbose=0)
    assert len(expected) == 19
    np.testing.assert_allclose(outputs["frame_probabilities"][0], expected, atol=1e-4)


def test_embedding(network, loaded):
    samples = song()
    outputs = loaded.signatures["embed"](waveform=samples[None])
    maps = network.encoder.predict(clips_of(samples), verbose=0)["maps"]
    expected = network.embedder.predict(maps, verbose=0)
    np.testing.assert_allclose(outputs["frame_embeddings"][0], expected, atol=1e-4)
    np.testing.assert_allclose(
        outputs["embedding"][0], expected.mean(axis=0), atol=1e-4
    )


def example_of(song, features):
    names = (song.artist, song.album, song.song)
    record = Record(*names, str(song.path), 0, 7.0, "hash", (0, 0))
    return to_example(song.key, record, features.arrays, FeatureConfig())


def test_examples_of_the_feature_store(network, loaded, tiny_corpus):
    songs = catalogue.load(tiny_corpus)[:3]
    config = FeatureConfig()
    extracted = [Extractor(config).extract(s) for s in songs]
    # Different lengths in one batch.
    longer = extracted[1].arrays
    longer["mel_spectrogram"] = longer["mel_spectrogram"][:, :100]
    examples = [example_of(s, e) for s, e in zip(songs, extracted, strict=True)]
    outputs = loaded.signatures["examples"](examples=tf.constant(examples))
    for row, features in enumerate(extracted):
        mel = features.arrays["mel_spectrogram"].astype("float32")
        count = mel.shape[1] // 94
        clips = np.stack([mel[:, 94 * i : 94 * i + 94] for i in range(count)])
        expected = network.predict(clips, verbose=0)
        np.testing.assert_allclose(
            outputs["probabilities"][row], expected.mean(axis=0), atol=1e-4
        )
        assert outputs["singer"][row].numpy().decode() == ARTISTS[vote(expected)]
        decision = np.arange(4) == vote(expected)
        np.testing.assert_array_equal(outputs["decision"][row], decision)


def test_labels_are_one_hot_in_the_models_classes(loaded):
    def record(artist):
        value = tf.train.BytesList(value=[artist.encode()])
        feature = {"artist": tf.train.Feature(bytes_list=value)}
        example = tf.train.Example(features=tf.train.Features(feature=feature))
        return example.SerializeToString()

    records = [record(name) for name in (ARTISTS[2], "a stranger", ARTISTS[0])]
    label = loaded.signatures["labels"](examples=tf.constant(records))["label"]
    expected = [[0, 0, 1, 0], [0, 0, 0, 0], [1, 0, 0, 0]]
    np.testing.assert_array_equal(label, expected)


def test_tflite_equals_the_network(network, exported):
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_path=str(exported / "model.tflite"))
    operators = {op["op_name"] for op in interpreter._get_ops_details()}
    assert not {name for name in operators if name.startswith("Flex")}
    runner = interpreter.get_signature_runner("serving_default")
    clips = clips_of(song())
    expected = network.predict(clips, verbose=0)
    for clip, row in zip(clips, expected, strict=True):
        outputs = runner(mel_spectrogram=clip[None])
        np.testing.assert_allclose(outputs["probabilities"][0], row, atol=1e-5)
        assert outputs["embedding"].shape == (1, 32)


def test_loads_without_this_package(exported):
    """In a process where importing lca_keras or keras fails."""
    program = """
        import sys
        sys.modules["lca_keras"] = None
        import numpy as np, tensorflow as tf
        model = tf.saved_model.load(sys.argv[1])
        outputs = model.signatures["serving_default"](
            waveform=tf.constant(np.random.randn(2, 80000).astype("float32")))
        assert sorted(model.signatures) == [
            "about", "audio_bytes", "clips", "embed", "examples", "labels", "mel",
            "serving_default", "songs",
        ], model.signatures
        print(outputs["probabilities"].shape)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program), str(exported)],
        capture_output=True,
        text=True,
        check=False,
        cwd=exported,
        env={**os.environ, "PYTHONPATH": ""},
    )
    assert "(2, 4)" in done.stdout, done.stderr


def test_warm_up_requests_can_be_served(exported, loaded):
    from tensorflow_serving.apis import prediction_log_pb2

    path = exported / "assets.extra" / "tf_serving_warmup_requests"
    seen = set()
    for record in tf.data.TFRecordDataset(str(path)):
        log = prediction_log_pb2.PredictionLog.FromString(record.numpy())
        request = log.predict_log.request
        name = request.model_spec.signature_name
        inputs = {k: tf.make_ndarray(v) for k, v in request.inputs.items()}
        loaded.signatures[name](**{k: tf.constant(v) for k, v in inputs.items()})
        seen.add(name)
    signatures = set(loaded.signatures) - {"examples", "labels"}
    assert seen == signatures


def test_labels_card_and_metadata(exported, network):
    labels = (exported / "labels.txt").read_text(encoding="utf-8")
    assert labels.splitlines() == ARTISTS
    metadata = files.read_json(exported / METADATA)
    assert metadata["artists"] == ARTISTS
    assert metadata["parameters"] == network.count_params()
    assert metadata["temperature"] == 0.5
    card = (exported / "model_card.md").read_text(encoding="utf-8")
    assert all(artist in card for artist in ARTISTS)


def test_versions_count_up_and_appear_whole(network, tmp_path, monkeypatch):
    config = get_preset("demo")
    (tmp_path / "m" / "7").mkdir(parents=True)
    monkeypatch.setattr(savedmodel, "write", lambda *args: None)
    monkeypatch.setattr(tflite, "convert", lambda *args, detector: b"x")
    assert export_model(network, ARTISTS, config, tmp_path, "m", {}).name == "8"
    monkeypatch.setattr(tflite, "convert", lambda *args, detector: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        export_model(network, ARTISTS, config, tmp_path, "m", {})
    assert sorted(os.listdir(tmp_path / "m")) == [".lock", "7", "8"]


def test_signatures_are_methods_that_can_be_called_one_by_one(network):
    served = ServedNetwork(network, ARTISTS, get_preset("demo"))
    samples = song(7.0)
    expected = network.predict(clips_of(samples), verbose=0)
    outputs = served.from_waveform(samples[None])
    np.testing.assert_allclose(outputs["frame_probabilities"][0], expected, atol=1e-4)
    mel = mel_spectrogram(samples, FeatureConfig())[None, ..., None]
    outputs = served.from_streams(mel)
    np.testing.assert_allclose(outputs["frame_probabilities"][0], expected, atol=1e-4)
    assert outputs["singer"][0].numpy().decode() == ARTISTS[vote(expected)]
    assert served.embed(samples[None])["embedding"].shape == (1, 32)
    outputs = served.from_clips(clips_of(samples))
    np.testing.assert_allclose(outputs["probabilities"], expected, atol=1e-4)


def test_find_version(tmp_path, exported):
    model = exported.parent
    assert versions.versions(model) == [1]
    assert find_version(model) == find_version(model, 1) == exported
    assert find_version(exported) == exported
    with pytest.raises(UserError, match=r"no version 3; available: \[1\]"):
        find_version(model, 3)
    with pytest.raises(UserError, match="no exported model"):
        find_version(tmp_path / "nothing")


def test_metadata_is_json_for_any_reader(exported):
    text = (exported / METADATA).read_text(encoding="utf-8")
    assert json.loads(text)["config"]["version"] == 2


# === A network that takes the melody too ===


@pytest.fixture(scope="module")
def melodic():
    model = CRNNM(4, 94, filters=(4, 8, 8, 8), temperature=0.5)
    randomize(model, seed=3)
    return model


@pytest.fixture(scope="module")
def melodic_export(melodic, tmp_path_factory):
    config = get_preset("demo").replace(
        features={"melody": "pyin"},
        model={"name": "crnnm"},
        train={"method": "none"},
    )
    root = tmp_path_factory.mktemp("root")
    return export_model(melodic, ARTISTS, config, root, "melodic", {})


def melody_of(samples):
    bands = melody_bands(samples, FeatureConfig(melody="pyin"))
    return contour(bands, 128)[..., None]


def both_clips(samples):
    melody, mel = melody_of(samples), clips_of(samples)
    pieces = [melody[:, 94 * i : 94 * i + 94] for i in range(len(mel))]
    return {"mel_spectrogram": mel, "melody": np.stack(pieces)}


def test_melody_export_takes_both_inputs(melodic, melodic_export, tiny_corpus):
    loaded = tf.saved_model.load(str(melodic_export))
    samples = song(8.0)
    expected = melodic.predict(both_clips(samples), verbose=0)
    melody = melody_of(samples)[None]
    mel = mel_spectrogram(samples, FeatureConfig())[None, ..., None]
    served = loaded.signatures["serving_default"](waveform=samples[None], melody=melody)
    np.testing.assert_allclose(served["frame_probabilities"][0], expected, atol=1e-4)
    served = loaded.signatures["mel"](mel_spectrogram=mel, melody=melody)
    np.testing.assert_allclose(served["frame_probabilities"][0], expected, atol=1e-5)
    # The melody counts.
    served = loaded.signatures["mel"](mel_spectrogram=mel, melody=0 * melody)
    assert np.abs(served["frame_probabilities"][0] - expected).max() > 1e-3
    (record_song,) = catalogue.load(tiny_corpus)[:1]
    features = Extractor(FeatureConfig(melody="pyin")).extract(record_song)
    examples = tf.constant([example_of(record_song, features)])
    served = loaded.signatures["examples"](examples=examples)
    mel, melody = (
        features.arrays[name][None].astype("float32")
        for name in ("mel_spectrogram", "melody")
    )
    expected = loaded.signatures["mel"](mel_spectrogram=mel, melody=melody)
    np.testing.assert_allclose(
        served["probabilities"], expected["probabilities"], atol=1e-5
    )


def test_melody_of_another_length_is_an_error(melodic_export):
    loaded = tf.saved_model.load(str(melodic_export))
    samples = song(8.0)
    with pytest.raises(tf.errors.InvalidArgumentError, match="melody do not match"):
        loaded.signatures["serving_default"](
            waveform=samples[None], melody=melody_of(samples)[None, :, :-5]
        )


def test_melody_tflite_equals_the_network(melodic, melodic_export):
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(melodic_export / "model.tflite"))
    run = interpreter.get_signature_runner("serving_default")
    both = {k: v[:1].astype("float32") for k, v in both_clips(song(8.0)).items()}
    expected = melodic.predict(both, verbose=0)
    np.testing.assert_allclose(run(**both)["probabilities"], expected, atol=1e-5)


def test_identifier_computes_the_melody_itself(melodic, melodic_export, tmp_path):
    samples = song(8.0)
    soundfile.write(tmp_path / "a.wav", samples, 16000, subtype="FLOAT")
    result = Identifier(melodic_export).identify(tmp_path / "a.wav")
    expected = melodic.predict(both_clips(samples), verbose=0).mean(axis=0)
    for artist, probability in zip(ARTISTS, expected, strict=True):
        assert result.probabilities[artist] == pytest.approx(probability, abs=1e-4)


def test_overlap_and_confidence(network, exported, tmp_path):
    samples = song(8.0)
    soundfile.write(tmp_path / "a.wav", samples, 16000, subtype="FLOAT")
    identifier = Identifier(exported)
    mel = mel_spectrogram(samples, FeatureConfig())
    starts = range(0, mel.shape[1] - 93, 24)  # A quarter of 94 frames, rounded.
    clips = np.stack([mel[:, s : s + 94] for s in starts])[..., None]
    expected = network.predict(clips, verbose=0)
    result = identifier.identify(tmp_path / "a.wav", overlap=0.75)
    assert [c["start"] for c in result.clips] == [round(s * 0.032, 3) for s in starts]
    for clip, row in zip(result.clips, expected, strict=True):
        found = [clip["probabilities"][artist] for artist in ARTISTS]
        np.testing.assert_allclose(found, row, atol=1e-4)
    best = result.probabilities[result.singer]
    for confidence, singer in ((best - 0.01, result.singer), (best + 0.01, None)):
        again = identifier.identify(tmp_path / "a.wav", None, 0.75, confidence)
        status = "ok" if singer else "not sure"
        assert again == dataclasses.replace(result, singer=singer, status=status)
    with pytest.raises(ValueError, match=r"overlap.*Received: overlap=1.0"):
        identifier.identify(tmp_path / "a.wav", overlap=1.0)


def test_identifier_of_vocals(network, tmp_path):
    """Given vocals are heard; without them the separator is asked for."""
    config = get_preset("demo").replace(
        features={"source": "vocals", "separator": "local-0123456789ab"}
    )
    exported = export_model(network, ARTISTS, config, tmp_path, "v", {})
    assert "vocals alone" in (exported / "model_card.md").read_text()
    vocals, mixture = song(6.0, seed=1), song(6.0, seed=2)
    for name, samples in (("v.wav", vocals), ("m.wav", mixture)):
        soundfile.write(tmp_path / name, samples, 16000, subtype="FLOAT")
    identifier = Identifier(exported)
    result = identifier.identify(tmp_path / "m.wav", tmp_path / "v.wav")
    expected = network.predict(clips_of(vocals), verbose=0).mean(axis=0)
    for artist, probability in zip(ARTISTS, expected, strict=True):
        assert result.probabilities[artist] == pytest.approx(probability, abs=1e-4)
    with pytest.raises(UserError, match="--separator FOLDER"):
        identifier.check([None])


def kept_clips(samples):
    """Clips of 94 frames of a song's sound, by the package's own rule."""
    sound = Sound.of(samples.astype("float32"), 16000)
    sound = silence.Passages(sound, silence.passages(sound, 40.0))
    return clips_of(sound.samples)[..., 0]


@pytest.mark.parametrize("place", ["before", "behind", "between", "everywhere"])
def test_silence_changes_nothing(exported, tmp_path, place):
    """Neither in the export nor in what `predict` says."""
    samples, silence = song(12.1), np.zeros(16000 * 7 + 900, "float32")
    middle = 6 * 16000 + 512 * 3
    parts = [samples[:middle], samples[middle:]]
    if place in ("before", "everywhere"):
        parts.insert(0, silence)
    if place in ("between", "everywhere"):
        parts.insert(-1, silence)
    if place in ("behind", "everywhere"):
        parts.append(silence)
    identifier = Identifier(exported)
    results, served = [], tf.saved_model.load(str(exported)).signatures
    for name, sound in (("a.wav", samples), ("b.wav", np.concatenate(parts))):
        soundfile.write(tmp_path / name, sound, 16000, subtype="FLOAT")
        results.append(identifier.identify(tmp_path / name))
        graph = served["serving_default"](waveform=tf.constant(sound[None]))
        said = list(map(results[-1].probabilities.get, ARTISTS))
        np.testing.assert_allclose(graph["probabilities"][0], said, atol=1e-4)
    plain, silent = results
    assert len(silent.clips) == len(plain.clips) == 4
    # Windows reach over the edges of silence, so clips may begin two frames off.
    shift = 2 * 512 / 16000
    for clip, other in zip(plain.clips, silent.clips, strict=True):
        gap = 7.056 * (place == "everywhere" or place == "before")
        gap += 7.056 * (place in ("between", "everywhere") and clip["start"] > 6.1)
        if not abs(clip["start"] - middle / 16000) < 3:  # Silence lies in that one.
            assert other["start"] - gap == pytest.approx(clip["start"], abs=shift)
    (note,) = silent.notes
    assert "are silent and left out" in note


def test_the_recipe_for_phones():
    """The code and the test vector in `saved_models/README.md`."""
    readme = (ROOT / "saved_models" / "README.md").read_text(encoding="utf-8")
    recipe, example = re.findall(r"```python\n(.*?)```", readme, re.DOTALL)
    names = {}
    exec(recipe, names)
    exec(example, names)
    for samples in (names["samples"].astype("float32"), song(10.0)):
        clips = names["clips_for_phone"](samples, 94)
        np.testing.assert_allclose(clips[..., 0], kept_clips(samples), atol=5e-3)
    header, _, *rows = re.findall(
        r"^\| (.*) \|$", readme.split("clip_frames` 94")[1], re.M
    )
    cells = [eval(cell) for cell in header.split(" | ")[1:]]
    clips = names["clips_for_phone"](names["samples"], 94)
    for row in rows:
        number, *values = row.split(" | ")
        found = [clips[int(number)][cell][0] for cell in cells]
        np.testing.assert_allclose(found, np.array(values, float), atol=0.006)
    padded = np.concatenate([np.zeros(5000), song(10.0), np.zeros(160000), song(4.0)])
    clips = names["clips_for_phone"](padded, 94)
    expected = kept_clips(padded)
    assert len(clips) == len(expected) == 4
    np.testing.assert_allclose(clips[..., 0], expected, atol=5e-3)


def test_a_models_folder_is_its_newest_version(exported, tmp_path):
    for number in ("1", "2"):
        shutil.copytree(exported, tmp_path / "two" / number)
    labels = tmp_path / "two" / "2" / "lca_keras.json"
    labels.write_text(labels.read_text().replace("Ada", "Eve"))
    with pytest.raises(UserError, match=r"two/2: not as it was .*json was changed"):
        Identifier(tmp_path / "two")
    integrity.write_sums(labels.parent)
    path = tmp_path / "a.wav"
    soundfile.write(path, song(6.0), 16000, subtype="FLOAT")
    assert "Eve" in Identifier(tmp_path / "two").identify(path).votes
    assert "Ada" in Identifier(tmp_path / "two" / "1").identify(path).votes
    with pytest.raises(UserError, match="not a whole export"):
        Identifier(tmp_path / "three")


def test_the_network_of_an_export_can_be_had_again(network, exported, tmp_path):
    again = savedmodel.read_network(exported)
    for kept, weight in zip(network.weights, again.weights, strict=True):
        np.testing.assert_array_equal(np.array(kept), np.array(weight))
    clips = np.random.default_rng(0).normal(-30, 15, (3, 128, 94, 1))
    np.testing.assert_allclose(
        again.predict(clips, verbose=0), network.predict(clips, verbose=0), atol=1e-6
    )
    with pytest.raises(UserError, match="not a whole export"):
        savedmodel.read_network(tmp_path)
    other = tmp_path / "other"
    shutil.copytree(exported, other)
    about = files.read_json(other / METADATA)
    about["config"]["model"]["filters"] = [8, 8, 8, 8]
    files.write_json(other / METADATA, about)
    with pytest.raises(UserError, match=r"block1/conv/kernel: \(3, 3, 1, 4\), exp"):
        savedmodel.read_network(other)
