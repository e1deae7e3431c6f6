"""A front end and networks of somebody else go the whole way."""

import json

import numpy as np
import pytest
import soundfile
import tensorflow as tf

from lca_keras import evaluate, explain, fit, predict
from lca_keras.audio.decode import decode
from lca_keras.base import files, registry
from lca_keras.base.config import Config
from lca_keras.base.errors import UserError
from lca_keras.data.extraction import Extractor
from lca_keras.exports.savedmodel import read_network
from lca_keras.features.front_end import front_end_of
from tests.planted import Energies, EnergyNet, ForeignCNN


@pytest.fixture
def place(tmp_path, monkeypatch):
    """An empty folder to work in, where front end and networks are registered."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(registry.FRONT_ENDS, "energies", Energies)
    own = registry.Network(EnergyNet.of_config, False, ("energies",), 8)
    monkeypatch.setitem(registry.NETWORKS, "energy_net", own)
    foreign = registry.Network(ForeignCNN.of_config, True)
    monkeypatch.setitem(registry.NETWORKS, "foreign_cnn", foreign)
    yield tmp_path
    front_end_of.cache_clear()


def trained(config, data, name):
    config.save("config.yaml")
    options = ["--data", str(data), "--config", "config.yaml", "--name", name]
    assert fit.main([*options, "--debug"]) == 0
    return f"saved_models/{name}"


def by_all_runtimes(model, song, capsys):
    """What `predict` says of a song by each runtime."""
    said = []
    for runtime in ("litert", "tensorflow"):
        capsys.readouterr()
        options = ["--model", model, "--runtime", runtime, "--json", str(song)]
        assert predict.main(options) == 0
        said += json.loads(capsys.readouterr().out)
    one, other = said
    assert (one["status"], one["singer"]) == (other["status"], other["singer"])
    assert one["probabilities"] == pytest.approx(other["probabilities"], abs=1e-4)
    return one


def test_a_planted_front_end(place, tiny_corpus, tiny_config, capsys):
    config = tiny_config.replace(
        features={"front_end": "energies"},
        model={"name": "energy_net"},
        train={"method": "none"},
    )
    model = trained(config, tiny_corpus, "energies")
    told = files.read_json("runs/energies/metrics.json")
    assert told["test"]["song"]["count"] == 6
    assert evaluate.main(["--run", "runs/energies"]) == 0
    # Clips by hand: of three seconds of 20 frames, cut from the sound.
    song = tiny_corpus / "Ada Quill" / "Album 01" / "Song 01.flac"
    sound = decode(song, 8000)
    arrays, _ = Extractor(config.features).frames({"mixture": sound})
    energies = arrays["energies"]
    assert config.clip_shapes == {"energies": (60, 4)}
    count = len(energies) // 60
    clips = energies[: 60 * count].reshape(count, 60, 4)
    network = read_network(place / model / "1")
    expected = network.predict(clips, verbose=0)
    # From its export, with its own rate.
    served = tf.saved_model.load(f"{model}/1").signatures
    assert set(served) == {
        *("serving_default", "songs", "embed", "audio_bytes", "frames", "clips"),
        *("examples", "labels", "about"),
    }
    answer = served["clips"](energies=tf.constant(clips))
    np.testing.assert_allclose(answer["probabilities"], expected, atol=1e-5)
    answer = served["serving_default"](waveform=tf.constant(sound.samples[None]))
    np.testing.assert_allclose(answer["frame_probabilities"][0], expected, atol=1e-4)
    said = by_all_runtimes(model, song, capsys)
    assert [round(clip["start"], 2) for clip in said["clips"]] == [0.0, 3.0][:count]
    # Politely refused where an axis of frequency or powers are needed.
    assert explain.main(["--model", model, str(song), "--out", "why.png"]) == 1
    assert "needs a front end with an axis of frequency" in capsys.readouterr().err
    with pytest.raises(UserError, match="adds powers of voices and bands"):
        config.replace(features={"source": "stems", "separator": "umxl"})
    with pytest.raises(UserError, match="axis of frequency"):
        config.replace(augment={"kinds": ("specaugment",)})
    with pytest.raises(UserError, match="takes mel_spectrogram, and the front end"):
        config.replace(model={"name": "crnn"})


@pytest.mark.slow
def test_a_foreign_network(place, tiny_corpus, tiny_config, capsys):
    """With stems and a counterfactual: report, gallery, export, runtimes, maps."""
    config = tiny_config.replace(
        features={"source": "stems", "separator": "umxl"},
        augment={"kinds": ("remix",)},
        model={"name": "foreign_cnn"},
        train={"method": "lca"},
    )
    model = trained(config, tiny_corpus / "manifest.csv", "foreign")
    told = files.read_json("runs/foreign/metrics.json")
    assert set(told["voice_report"]["shares"]) == {"voice", "band", "neither"}
    assert told["gallery"]["detector"]["heard"].startswith("bands")
    assert (place / model / "1" / "lca_keras.json").exists()
    song = tiny_corpus / "Ada Quill" / "Album 01" / "Song 01.flac"
    by_all_runtimes(model, song, capsys)
    for what in ("runs/foreign", model):
        out = f"{what.split('/')[0]}.png"
        assert explain.main(["--model", what, str(song), "--out", out]) == 0
        assert (place / out).stat().st_size > 10_000
    assert explain.main(
        ["--model", model, str(song), "--out", "x.png", "--layer", "fgnl"]
    )
    assert "has no layer 'fgnl'; it has squeezed" in capsys.readouterr().err
    assert Config.load("runs/foreign/config.yaml") == config


def test_frames_and_graph_are_the_same(place):
    rng = np.random.default_rng(0)
    samples = rng.normal(0, 0.1, (2, 8000 * 3 + 77)).astype("float32")
    front_end = Energies(None)
    lengths = np.array([samples.shape[1], 9000], "int32")
    graph = front_end.layer()(tf.constant(samples), tf.constant(lengths))["energies"]
    for row, size, found in zip(samples, lengths, graph.numpy(), strict=True):
        expected = front_end.frames(row[:size])["energies"]
        np.testing.assert_allclose(found[: len(expected)], expected, rtol=1e-4)
        assert not found[len(expected) :].any()
    starts = [0.5, 1.25]
    clips = front_end.clips(samples[0], starts, 20)["energies"]
    for start, clip in zip(starts, clips, strict=True):
        first = int(start * 8000)
        alone = front_end.frames(samples[0, first : first + 8000])["energies"]
        np.testing.assert_allclose(clip, alone, rtol=1e-6)


def test_what_a_served_network_lacks_is_named(place, tiny_config):
    from lca_keras.models.factory import build_network

    class Half(ForeignCNN):
        map_layers = property()

    registry.NETWORKS["foreign_cnn"] = registry.Network(Half.of_config, True)
    config = tiny_config.replace(model={"name": "foreign_cnn"})
    with pytest.raises(UserError, match="'foreign_cnn' lacks map_layers; see"):
        build_network(config, 3)


def test_song_files_of_any_rate_are_heard_at_the_front_ends(place, tmp_path):
    rng = np.random.default_rng(0)
    soundfile.write(tmp_path / "a.wav", rng.normal(0, 0.1, 44100 * 4), 44100)
    features = (
        Config()
        .replace(
            features={"front_end": "energies"},
            model={"name": "energy_net"},
            train={"method": "none"},
        )
        .features
    )
    extractor = Extractor(features)
    assert decode(tmp_path / "a.wav", extractor.front_end.sample_rate).size == 32000
