"""Exports with a gallery: the graph decides as Python does, and singers come and go."""

import os
import pathlib
import re
import shutil

import numpy as np
import pytest
import soundfile
import tensorflow as tf

from lca_keras import enroll
from lca_keras.base import files
from lca_keras.exports import integrity, labels, tflite_file
from lca_keras.inference.identification import Identifier
from lca_keras.voices.gallery import NO_VOICE, OK, UNKNOWN
from tests.exports.material import ARTISTS, clips_of, song, voiceprints_of


@pytest.fixture(scope="module")
def model(exported_with_gallery, tmp_path_factory):
    """A model whose versions this module may write: its folder."""
    folder = tmp_path_factory.mktemp("models") / "open"
    shutil.copytree(exported_with_gallery, folder / "1")
    return folder


def strange_song(seed=0, seconds=7.0):
    """Nothing that any of the artists sings: slow sweeps."""
    rng = np.random.default_rng(seed)
    times = np.arange(int(16000 * seconds)) / 16000
    sound = sum(
        np.sin(2 * np.pi * rng.uniform(3000, 7000) * times + 40 * np.sin(times * k))
        for k in range(1, 4)
    )
    return (0.1 * sound).astype("float32")


def hiss(seed=0, seconds=7.0):
    rng = np.random.default_rng(seed)
    return rng.normal(0, 0.1, int(16000 * seconds)).astype("float32")


def heard():
    """Songs by artists, by strangers, without voice, and half of each."""
    songs = [song(7.0, 10 * n + 1) for n in range(4)]
    songs += [strange_song(n) for n in range(3)]
    songs += [hiss(1), np.concatenate([hiss(2, 3.0), song(4.0, 12)])]
    return np.stack(songs)


def expected_of(network, gallery, samples):
    """The verdict by NumPy features, the network's layers and the gallery."""
    clips = clips_of(samples)
    prints = voiceprints_of(network, clips)
    probabilities = network.predict(clips, verbose=0)
    return gallery.judge(probabilities, prints, gallery.detector(prints))


def test_signatures_decide_as_python_does(network, gallery, exported_with_gallery):
    loaded = tf.saved_model.load(str(exported_with_gallery))
    songs = heard()
    found = {
        k: v.numpy()
        for k, v in loaded.signatures["serving_default"](tf.constant(songs)).items()
    }
    statuses, voices = set(), set()
    for row, samples in enumerate(songs):
        verdict = expected_of(network, gallery, samples)
        statuses.add(verdict.status)
        assert found["status"][row].decode() == verdict.status
        named = ARTISTS[verdict.singer] if verdict.status == OK else ""
        assert found["singer"][row].decode() == named
        nearest = "" if verdict.nearest is None else ARTISTS[verdict.nearest]
        assert found["nearest"][row].decode() == nearest
        assert found["score"][row] == pytest.approx(verdict.score, abs=1e-4)
        np.testing.assert_allclose(
            found["probabilities"][row], verdict.probabilities, atol=1e-4
        )
        voice = gallery.detector(voiceprints_of(network, clips_of(samples)))
        np.testing.assert_allclose(found["frame_voice"][row], voice, atol=1e-4)
        voices.add(tuple(verdict.voiced.tolist()))
    assert statuses == {OK, UNKNOWN, NO_VOICE}
    assert (False, True) in voices


def test_the_same_spectrograms_give_the_same_to_1e_5(
    network, gallery, exported_with_gallery
):
    """Without the features' rounding: clips, and songs of them."""
    loaded = tf.saved_model.load(str(exported_with_gallery))
    compared = 0
    for samples in heard():
        clips = clips_of(samples)
        told = loaded.signatures["clips"](tf.constant(clips))
        prints = voiceprints_of(network, clips)
        # Some are above 30.
        np.testing.assert_allclose(told["voiceprint"], prints, rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(told["voice"], gallery.detector(prints), atol=1e-5)
        mel = np.concatenate(list(clips[..., 0]), axis=1)[None, ..., None]
        answer = loaded.signatures["mel"](tf.constant(mel))
        if answer["status"].numpy()[0].decode() in (OK, UNKNOWN):
            kept = len(answer["frame_voice"][0])
            if kept == len(clips):
                verdict = expected_of(network, gallery, samples)
                score = float(answer["score"][0])
                assert score == pytest.approx(verdict.score, abs=1e-5)
                compared += 1
    assert compared >= 4


def test_every_signature_says_the_same(exported_with_gallery):
    loaded = tf.saved_model.load(str(exported_with_gallery))
    songs = heard()
    whole = loaded.signatures["serving_default"](tf.constant(songs))
    lengths = tf.fill([len(songs)], songs.shape[1])
    padded = np.pad(songs, [(0, 0), (0, 16000 * 4)], constant_values=0.3)
    again = loaded.signatures["songs"](waveform=tf.constant(padded), lengths=lengths)
    wavs = [tf.audio.encode_wav(s[:, None] / 2, 16000).numpy() for s in songs]
    encoded = loaded.signatures["audio_bytes"](tf.constant(wavs))
    for row in range(len(songs)):
        alone = loaded.signatures["serving_default"](tf.constant(songs[row : row + 1]))
        for other, place in ((alone, 0), (again, row), (encoded, row)):
            for name in ("status", "singer", "nearest"):
                assert other[name][place] == whole[name][row]
            # Sixteen bits round.
            allowed = 1e-2 if other is encoded else 1e-5
            for name in ("score", "probabilities"):
                np.testing.assert_allclose(
                    other[name][place], whole[name][row], atol=allowed
                )


def test_litert_and_tensorflow_agree(exported_with_gallery, tmp_path):
    runtimes = [
        Identifier(exported_with_gallery, runtime=r) for r in ("litert", "tensorflow")
    ]
    for number, samples in enumerate(heard()):
        path = tmp_path / f"{number}.wav"
        soundfile.write(path, samples, 16000, subtype="FLOAT")
        light, heavy = (identifier.identify(path) for identifier in runtimes)
        assert (light.status, light.singer) == (heavy.status, heavy.singer)
        assert light.nearest == heavy.nearest
        assert light.score == pytest.approx(heavy.score, abs=1e-4)
        closed = runtimes[0].identify(path, closed_set=True)
        assert closed.status == "ok"
        assert closed.singer in ARTISTS


# === Somebody new ===


@pytest.fixture
def material(tmp_path, monkeypatch):
    """Four songs of somebody new in a folder, and one more."""
    monkeypatch.chdir(tmp_path)
    folder = pathlib.Path("новая 'певица'")
    folder.mkdir()
    for number in range(4):
        samples = song(7.0, 500 + number)
        soundfile.write(folder / f"{number}.wav", samples, 16000, subtype="FLOAT")
    soundfile.write("other.wav", song(7.0, 505), 16000, subtype="FLOAT")
    soundfile.write("noise.wav", hiss(9), 16000, subtype="FLOAT")
    return folder


def answers_of(version, songs):
    loaded = tf.saved_model.load(str(version)).signatures["serving_default"]
    return {name: value.numpy() for name, value in loaded(tf.constant(songs)).items()}


@pytest.mark.slow
def test_somebody_comes_and_goes(model, gallery, material, network, capsys):
    name = "Лена 'O'Hara' 🎶"
    command = ["--model", str(model), "--artist", name, str(material)]
    assert enroll.main(command) == 0
    said = capsys.readouterr().out
    assert f"{name} is known to {model / '2'}, by 4 songs" in said
    version = model / "2"
    assert integrity.check(version)
    songs = np.concatenate([heard(), song(7.0, 506)[None]])
    before, after = answers_of(model / "1", songs), answers_of(version, songs)
    assert after["probabilities"].shape == (len(songs), 5)
    # By hand: the mean over songs of the means over clips with voice.
    means = []
    for number in range(4):
        prints = voiceprints_of(network, clips_of(song(7.0, 500 + number)))
        means.append(prints[gallery.detector(prints) >= 0.5].mean(axis=0))
    extended = gallery.with_singer(name, means)
    for row, samples in enumerate(songs):
        verdict = expected_of(network, extended, samples)
        assert after["status"][row].decode() == verdict.status
        assert after["score"][row] == pytest.approx(verdict.score, abs=1e-3)
        won = verdict.singer == 4 or verdict.nearest == 4
        if not won:
            assert after["singer"][row] == before["singer"][row]
    identifier = Identifier(version)
    assert identifier.artists == [*ARTISTS, name]
    singers = (version / "labels.txt").read_text(encoding="utf-8").splitlines()
    assert singers == [*ARTISTS, name]
    card = (version / "model_card.md").read_text(encoding="utf-8")
    assert f"- {name}" in card
    # Through the TFLite file as well.
    light = Identifier(version / tflite_file.DEFAULT).identify("other.wav")
    heavy = Identifier(version, runtime="tensorflow").identify("other.wav")
    assert light.probabilities == pytest.approx(heavy.probabilities, abs=1e-4)
    labels.assign(model, "stable", 1)
    assert enroll.main(["--model", str(model), "--list"]) == 0
    assert f"{name} (enrolled)" in capsys.readouterr().out
    assert enroll.main(["--model", str(model), "--remove", name]) == 0
    assert "note: stable is 1 in models.config" in capsys.readouterr().out
    removed = answers_of(model / "3", songs)
    for key, value in before.items():
        np.testing.assert_array_equal(removed[key], value)
    same = (model / "1" / tflite_file.DEFAULT).read_bytes()
    assert (model / "3" / tflite_file.DEFAULT).read_bytes() == same


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--artist", "X", "other.wav"], "3 songs that can be used.*there are 1"),
        (["--artist", "X", "other.wav", "noise.wav"], "noise.wav: no voice is heard"),
        (["--artist", ARTISTS[1], "SONGS"], f"{ARTISTS[1]} is known to"),
        (["--artist", " ", "SONGS"], "not a name"),
        (["--artist", "A\x00B", "SONGS"], "not a name"),
        (["--artist", "Bjo\u0308rn", "SONGS"], f"{ARTISTS[1]} is known to"),
        (["--artist", "X", "nowhere"], "there are 0"),
        (["--artist", "X"], "--artist NAME goes with songs"),
        (["--list", "other.wav"], "--artist NAME goes with songs"),
        (["--remove", "X"], '"X" is not enrolled in .*; nobody is'),
        (["--remove", ARTISTS[0]], "was trained, not enrolled"),
    ],
)
def test_what_cannot_be_enrolled_changes_nothing(
    exported_with_gallery, tmp_path, material, arguments, message, capsys
):
    folder = tmp_path / "saved" / "m"
    shutil.copytree(exported_with_gallery, folder / "1")
    arguments = [str(material) if a == "SONGS" else a for a in arguments]
    assert enroll.main(["--model", str(folder), *arguments]) == 1
    error = capsys.readouterr().err
    assert re.search(message, error, re.DOTALL), error
    assert [p for p in os.listdir(folder) if not p.startswith(".")] == ["1"]


def test_a_model_without_voiceprints_says_so(exported, material, capsys):
    command = ["--model", str(exported), "--artist", "X", str(material)]
    assert enroll.main(command) == 1
    assert "has no voiceprints" in capsys.readouterr().err
    assert files.read_json(exported / "lca_keras.json")["gallery"] is None
    assert Identifier(exported).identify("other.wav").status == "ok"
