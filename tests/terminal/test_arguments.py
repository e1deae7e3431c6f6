"""Options that come from the fields of a configuration."""

import argparse

import pytest

from lca_keras import fit
from lca_keras.base.config import Config, get_preset
from lca_keras.base.errors import UserError
from lca_keras.terminal import arguments

# Words of the command line, the field that they reach, and its value.
REACHED = {
    "train.method": ("--method cal", "cal"),
    "train.effect": ("--effect logit", "logit"),
    "train.detach_counterfactual": ("--detach-counterfactual", True),
    "train.embedding_loss": ("--embedding-loss aam", "aam"),
    "train.embedding_weight": ("--embedding-loss aam --embedding-weight 2", 2.0),
    "train.clip_seconds": ("--clip-seconds 10", 10),
    "train.clip_overlap": ("--clip-overlap 0.5", 0.5),
    "train.class_weights": ("--class-weights balanced", "balanced"),
    "train.epochs": ("--epochs 7", 7),
    "train.warmup_epochs": ("--warmup-epochs 0", 0),
    "train.batch_size": ("--batch-size 4", 4),
    "train.learning_rate": ("--learning-rate 0.01", 0.01),
    "train.objective": ("--objective song_f1", "song_f1"),
    "train.seed": ("--seed 21", 21),
    "train.precision": ("--precision float32", "float32"),
    "train.deterministic": ("--deterministic", True),
    "model.name": ("--model crnn", "crnn"),
    "augment.kinds": ("--source stems --augment remix specaugment", None),
    "augment.remix_share": ("--source stems --augment remix --remix-share 1", 1.0),
    "augment.remix_gain_db": ("--source stems --augment remix --remix-gain-db 0", 0.0),
    "gallery.left_out": ("--left-out 0", 0.0),
    "gallery.false_alarm": ("--false-alarm 0.1", 0.1),
    "features.source": ("--source vocals", "vocals"),
    "features.level": ("--level none", "none"),
    "features.melody": ("--melody pyin", "pyin"),
    "split.kind": ("--split song", "song"),
    "split.file": ("--split-file s.csv", "s.csv"),
    "split.validation_share": ("--validation-share 0.2", 0.2),
    "split.test_share": ("--test-share 0.3", 0.3),
}


def value(config, name):
    section, field = name.split(".")
    return getattr(getattr(config, section), field)


@pytest.mark.parametrize("name", REACHED)
def test_an_option_of_fit_reaches_its_field(name):
    words, expected = REACHED[name]
    args = fit.parse_args(["--data", "x", *words.split()])
    found = value(fit.config_from(args)[0], name)
    if name == "augment.kinds":
        expected = ("remix", "specaugment")
    assert (found, type(found)) == (expected, type(expected))
    assert found != value(Config(), name)


def test_every_field_that_fit_offers_is_tried():
    offered = {*fit._TRAINING, *fit._STRANGERS, *arguments.FEATURES}
    assert offered <= set(REACHED)


def test_what_is_not_given_stays(tmp_path):
    get_preset("demo").replace(split={"kind": "song"}).save(tmp_path / "c.yaml")
    args = fit.parse_args(["--data", "x", "--config", str(tmp_path / "c.yaml")])
    assert fit.config_from(args)[0] == Config.load(tmp_path / "c.yaml")


def test_help_says_choices_and_defaults(capsys):
    with pytest.raises(SystemExit):
        fit.parse_args(["--help"])
    told = " ".join(capsys.readouterr().out.split())
    for part in (
        "--clip-seconds {3,5,10} length of a clip, in seconds (default: 5; demo: 3)",
        "--epochs N passes over the clips, warm-up included (default: 800; demo: 20)",
        "(default: none; voice: remix)",
        "--clip-overlap X share of a training clip that the next has too (default: 0)",
    ):
        assert part in told


def test_none_excludes_others():
    words = ["--data", "x", "--augment", "none", "specaugment"]
    with pytest.raises(UserError, match="--augment none excludes specaugment"):
        fit.config_from(fit.parse_args(words))
    voice = fit.parse_args(["--data", "x", "--preset", "voice", "--augment", "none"])
    assert fit.config_from(voice)[0].augment.kinds == ()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--top 0", "--top must be at least 1, not 0"),
        ("--wait 0", "--wait must be above 0, not 0.0"),
        ("--wait nan", "--wait must be above 0, not nan"),
        ("--out a.jpg", "--out a.jpg: the name has to end in .png"),
        ("--out nowhere/a.png", "--out nowhere/a.png: no such folder"),
    ],
)
def test_values_that_cannot_be_are_said_in_a_line(words, message, capsys):
    parser = argparse.ArgumentParser()
    parser.add_argument("--debug", action="store_true")
    parser.add_argument("--top", **arguments.WHOLE)
    parser.add_argument("--wait", type=float, action=arguments.Limited, above=0)
    parser.add_argument("--out", action=arguments.Output, ending=".png")
    done = []
    assert arguments.command(parser.parse_args, done.append, words.split()) == 1
    assert capsys.readouterr().err == f"error: {message}\n"
    assert not done
    assert arguments.command(parser.parse_args, done.append, ["--top", "2"]) == 0
    assert done[0].top == 2
