import dataclasses
import errno
import pathlib

import numpy as np
import pytest

from lca_keras.base import registry
from lca_keras.base.config import PRESETS, Config, get_preset
from lca_keras.base.fields import ConfigError
from lca_keras.base.sections import LOSS_WEIGHTS, FeatureConfig
from lca_keras.features.spectrogram import mel_spectrogram


@pytest.mark.parametrize("name", PRESETS)
def test_presets_round_trip(name, tmp_path):
    config = get_preset(name)
    config.save(tmp_path / "config.yaml")
    assert Config.load(tmp_path / "config.yaml") == config


def test_a_file_is_whole_or_stays_as_it_was(tmp_path, monkeypatch):
    path = tmp_path / "config.yaml"
    get_preset("demo").save(path)

    def half(self, text, encoding):
        self.write_bytes(text.encode(encoding)[:40])
        raise OSError(errno.ENOSPC, "no space left")

    monkeypatch.setattr(pathlib.Path, "write_text", half)
    with pytest.raises(OSError, match="no space left"):
        get_preset("paper").save(path)
    assert Config.load(path) == get_preset("demo")
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_may_begin_with_a_preset(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text("version: 2\npreset: demo\ntrain: {epochs: 3}\n")
    demo = get_preset("demo")
    assert demo.train.epochs != 3
    assert Config.load(path) == demo.replace(train={"epochs": 3})
    for text, message in (
        ("preset: x", "unknown preset 'x'; known: "),
        ("preset: [demo]", "unknown preset .*; known: "),
        ("presets: demo", r"unknown sections \['presets'\]; known: version, preset, "),
        ("preset: demo\ntrain: 3", "train: expected a mapping, received 3"),
    ):
        path.write_text(f"version: 2\n{text}\n")
        with pytest.raises(ConfigError, match=message):
            Config.load(path)


def test_paper_preset_is_the_published_training():
    train = get_preset("paper").train
    assert (train.learning_rate, train.batch_size) == (1e-4, 16)
    assert (train.epochs, train.warmup_epochs) == (800, 20)
    assert get_preset("paper").clip_frames == 157


@pytest.mark.parametrize(
    ("seconds", "features", "frames"),
    [
        (3, {}, 94),
        (5, {}, 157),
        (10, {}, 313),
        (3, {"hop_length": 256}, 188),
        (3, {"sample_rate": 22050}, 130),
    ],
)
def test_frames_of_a_clip_are_those_of_its_seconds(seconds, features, frames):
    config = Config().replace(features=features, train={"clip_seconds": seconds})
    assert config.clip_frames == frames
    mel = mel_spectrogram(
        np.ones(seconds * config.features.sample_rate), config.features
    )
    assert mel.shape[1] == frames


def test_named_weights_are_the_published_ones():
    assert dataclasses.astuple(LOSS_WEIGHTS["genremert"]) == (
        0.7,
        1.0,
        0.6,
        2.0,
        2.0,
        1.5,
    )


def test_what_a_trained_model_is_given():
    voice = get_preset("voice")
    assert voice.served_features == get_preset("paper").features
    melody = voice.replace(features={"melody": "pyin"})
    assert melody.served_features == FeatureConfig()
    both = melody.replace(model={"name": "crnnm"}, train={"method": "none"})
    assert both.served_features == both.features
    vocals = {"source": "vocals", "separator": "umxl"}
    alone = Config(features=FeatureConfig(**vocals))
    assert alone.served_features == alone.features


def test_int_is_taken_for_float_and_missing_fields_are_defaults():
    config = Config.from_dict({"version": 2, "loss": {"main": 2}})
    assert config.loss.main == 2.0
    assert config.train == Config().train


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (
            {"version": 2, "features": {"level": "loud"}},
            "level: expected one of song",
        ),
        ({"version": 99}, "version 99 is not 2"),
        ({"version": 1}, "version 1 is not 2"),
        ({}, "version None is not 2"),
        ({"version": 2, "trian": {}}, r"unknown sections \['trian'\]"),
        ({"version": 2, "train": {"epoch": 3}}, r"unknown fields \['epoch'\]"),
        ({"version": 2, "train": {"epochs": "3"}}, "train.epochs: expected int"),
        ({"version": 2, "train": {"epochs": True}}, "train.epochs: expected int"),
        (
            {"version": 2, "train": {"epochs": 0}},
            "int, at least 1, received 0",
        ),
        (
            {"version": 2, "train": {"clip_seconds": 4}},
            "expected one of 3, 5, 10",
        ),
        ({"version": 2, "train": {"deterministic": 1}}, "expected bool"),
        (
            {"version": 2, "model": {"filters": [64, 128]}},
            "of 4 ints, each at least 1",
        ),
        ({"version": 2, "model": {"filters": 64}}, "expected a list of 4 ints"),
        ({"version": 2, "model": {"name": "crnn"}}, "--method none"),
        (
            {"version": 2, "model": {"name": "crnnm"}, "train": {"method": "none"}},
            "--melody pyin or crepe",
        ),
        ({"version": 2, "features": {"source": "vocals"}}, "a separator goes with"),
        ({"version": 2, "features": {"separator": "umxl"}}, "a separator goes with"),
        ({"version": 2, "features": {"melody": "praat"}}, "none, pyin, crepe"),
        ({"version": 2, "loss": {"cf": -1}}, "cf: expected finite float, at least 0"),
        (
            {"version": 2, "loss": {"cf": float("nan")}},
            "cf: expected finite float",
        ),
        ({"version": 2, "features": {"fmax": 9000}}, "fmax=9000"),
        ({"version": 2, "split": {"file": 3}}, "split.file: expected"),
        ({"version": 2, "train": {"objective": "f2"}}, "frame_f1, song_f1"),
        ({"version": 2, "features": {"hop_length": 8000}}, "a clip of 5 s has 11 f"),
        ({"version": 2, "train": {"effect": "odds"}}, "probability, logit, product"),
        (
            {"version": 2, "augment": {"kinds": ["mix"]}},
            "of remix, specaugment, none",
        ),
        ({"version": 2, "augment": {"kinds": ["remix"]}}, "use --source stems"),
        ({"version": 2, "augment": {"kinds": "remix"}}, "expected a list of strs"),
        (
            {"version": 2, "augment": {"remix_share": 1.1}},
            "at most 1, received 1.1",
        ),
        (
            {"version": 2, "augment": {"remix_gain_db": -1}},
            "at least 0, received -1",
        ),
        (
            {"version": 2, "augment": {"mask_bands": 0}},
            "at least 1, received 0",
        ),
        (
            {"version": 2, "augment": {"kinds": ["specaugment"], "mask_frames": 157}},
            "mask_frames must be below 157, a whole clip: 157",
        ),
    ],
)
def test_names_what_is_wrong(raw, message):
    with pytest.raises(ConfigError, match=message):
        Config.from_dict(raw)


def test_load_names_the_file(tmp_path):
    path = tmp_path / "my config.yaml"
    with pytest.raises(ConfigError, match=r"my config.yaml: No such file"):
        Config.load(path)
    path.write_text("version: [1")
    with pytest.raises(ConfigError, match=r"my config.yaml is not YAML"):
        Config.load(path)
    path.write_text("version: 7\n")
    with pytest.raises(ConfigError, match=r"my config.yaml: config version 7"):
        Config.load(path)


def test_digest_changes_with_every_field(monkeypatch):
    monkeypatch.setitem(registry.FRONT_ENDS, "another", "somewhere:made")
    changes = {
        "front_end": "another",
        "sample_rate": 22050,
        "n_fft": 1024,
        "hop_length": 256,
        "mel_bins": 64,
        "fmin": 20.0,
        "fmax": 7000.0,
        "decibel": "power",
        "top_db": 60.0,
        "level": "none",
    }
    changed = [FeatureConfig(**{name: value}) for name, value in changes.items()]
    vocals = {"source": "vocals", "separator": "umxl"}
    changed += [
        FeatureConfig(melody="pyin"),
        FeatureConfig(melody="crepe"),
        FeatureConfig(**vocals),
        FeatureConfig(**{**vocals, "separator": "umxhq"}),
        FeatureConfig(**{**vocals, "source": "stems"}),
    ]
    assert len({c.digest for c in [FeatureConfig(), *changed]}) == 1 + len(changed)
    varied = {*changes, "source", "separator", "melody"}
    assert varied == {field.name for field in dataclasses.fields(FeatureConfig)}
