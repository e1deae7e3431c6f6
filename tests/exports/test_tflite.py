"""TFLite files: what they compute, what is packed into them, what is refused."""

import dataclasses
import json
import os
import subprocess
import sys
import zipfile

import numpy as np
import pytest

from lca_keras.base import registry
from lca_keras.base.config import get_preset
from lca_keras.base.errors import UserError
from lca_keras.base.sections import FeatureConfig
from lca_keras.exports import tflite, tflite_file
from lca_keras.features.spectrogram import mel_spectrogram
from tests.exports.material import clips_of, song
from tests.planted import Energies, EnergyNet

# Of clips of three seconds.
CONFIG = get_preset("demo")


def answers(content, **inputs):
    runner = tflite_file.runner(content, 2)
    count = len(next(iter(inputs.values())))
    rows = [
        runner(**{k: v[i : i + 1].astype("float32") for k, v in inputs.items()})
        for i in range(count)
    ]
    return np.concatenate([row["probabilities"] for row in rows])


def operators(content):
    from ai_edge_litert.interpreter import Interpreter

    found = Interpreter(model_content=content)._get_ops_details()
    return {each["op_name"] for each in found}


def test_a_waveform_goes_in_and_comes_out_as_by_numpy(network):
    """The front end is inside, of TFLite's own operators."""
    content = tflite.convert(network, CONFIG, waveform=True)
    assert not {name for name in operators(content) if name.startswith("Flex")}
    length = 93 * 512
    songs = [song(6.0, seed) * gain for seed, gain in ((0, 1), (1, 0.01), (2, 3))]
    waveform = np.stack([samples[5000 : 5000 + length] for samples in songs]) + 0.05
    mel = np.stack([mel_spectrogram(clip, FeatureConfig()) for clip in waveform])
    expected = network.predict(mel[..., None], verbose=0)
    np.testing.assert_allclose(answers(content, waveform=waveform), expected, atol=1e-4)
    assert np.isfinite(answers(content, waveform=np.zeros((1, length)))).all()


class Twice(Energies):
    """Two streams, both computed in a graph."""

    streams = (*Energies.streams, dataclasses.replace(Energies.streams[0], name="2"))

    def layer(self):
        energies = super().layer()

        def both(waveform, lengths):
            found = energies(waveform, lengths)["energies"]
            return {"energies": found, "2": 2 * found}

        return both


class TwiceNet(EnergyNet):
    def encode(self, inputs, training=None):
        return super().encode(inputs["energies"] * inputs["2"])


def test_waveforms_go_through_a_front_end_of_somebody_else(tiny_config, monkeypatch):
    """Of several streams, by a layer that asks how long songs are."""
    streams = tuple(stream.name for stream in Twice.streams)
    own = registry.Network(TwiceNet.of_config, False, streams, 8)
    monkeypatch.setitem(registry.FRONT_ENDS, "twice", Twice)
    monkeypatch.setitem(registry.NETWORKS, "twice_net", own)
    config = tiny_config.replace(
        features={"front_end": "twice"},
        model={"name": "twice_net"},
        train={"method": "none"},
    )
    network = TwiceNet(4, (60, 4))
    content = tflite.convert(network, config, waveform=True)
    waveform = song(3.0)[None, : 60 * 400]
    energies = Twice(None).frames(waveform[0])["energies"][None]
    expected = network.predict({"energies": energies, "2": 2 * energies}, verbose=0)
    np.testing.assert_allclose(answers(content, waveform=waveform), expected, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("form", "most"), [("float16", 5e-3), ("int8-dynamic", 5e-2), ("int8", None)]
)
def test_smaller_ones_say_nearly_the_same(network, form, most):
    """Of int8, how far they are off depends on the weights, and these are random.

    Its answers go with the network's by more than 0.95; calibrated on other levels, by
    less than 0.9 (four draws of weights each).
    """
    clips = clips_of(song(30.0))
    content = tflite.convert_apart(network, CONFIG, form, False, calibration=[clips])
    assert not {name for name in operators(content) if name.startswith("Flex")}
    found = answers(content, mel_spectrogram=clips)
    expected = network.predict(clips, verbose=0)
    assert np.abs(found - expected).max() > 0
    if most is None:
        logs = [np.log(each + 1e-3).ravel() for each in (found, expected)]
        assert np.corrcoef(logs)[0, 1] > 0.95
    else:
        assert np.abs(found - expected).max() < most


def test_a_conversion_that_brings_its_process_down_is_named(network, monkeypatch):
    monkeypatch.setattr(tflite, "_convert_file", die)
    with pytest.raises(UserError, match=r"conversion to int8 has failed \(SIGSEGV\)"):
        tflite.convert_apart(network, CONFIG, "int8", False, calibration=[])


def die(*args):
    os.kill(os.getpid(), 11)


def test_what_takes_no_waveform(network):
    with pytest.raises(ValueError, match="int8 model needs what the front end makes"):
        tflite.convert(network, CONFIG, "int8", waveform=True)


def test_labels_and_metadata_are_in_the_file(exported):
    path = exported / "model.tflite"
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        labels = archive.read("labels.txt").decode()
        about = json.loads(archive.read("lca_keras.json"))
    assert labels == (exported / "labels.txt").read_text(encoding="utf-8")
    assert about == tflite_file.about(path)
    assert about["artists"] == labels.splitlines()
    assert tflite_file.packed(b"x", ["a"], {}) == tflite_file.packed(b"x", ["a"], {})


@pytest.mark.slow
def test_predict_where_nothing_but_its_runtime_is_installed(exported, tmp_path):
    """In an environment of its own; needs the package registry."""
    import soundfile

    from lca_keras.inference.identification import Identifier

    root = os.path.dirname(os.path.dirname(os.path.dirname(__file__)))
    place = tmp_path / "light"
    uv = [sys.executable, "-m", "uv"]
    subprocess.run([*uv, "venv", "-q", "--python", sys.executable, place], check=True)
    python = place / "bin" / "python"
    install = [*uv, "pip", "install", "-q", "--python", python, f"{root}[runtime]"]
    subprocess.run(install, check=True)
    listed = subprocess.run(
        [*uv, "pip", "list", "-q", "--python", python, "--format", "json"],
        check=True,
        capture_output=True,
    )
    names = {each["name"] for each in json.loads(listed.stdout)}
    assert not names & {"tensorflow", "keras", "librosa", "scikit-learn", "torch"}
    soundfile.write(tmp_path / "a b.mp3", song(20.0), 16000)
    done = subprocess.run(
        [python, "-m", "lca_keras.predict", "--model", exported, "--json", "a b.mp3"],
        check=True,
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert done.stderr == ""
    [said] = json.loads(done.stdout)
    expected = Identifier(exported, runtime="tensorflow").identify(tmp_path / "a b.mp3")
    assert said["singer"] == expected.singer
    assert said["votes"] == expected.votes
    assert said["probabilities"] == pytest.approx(expected.probabilities, abs=1e-4)
