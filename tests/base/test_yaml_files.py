"""What stands twice in a YAML file is an error in every reader."""

import re

import pytest

from lca_keras.base import files
from lca_keras.base.config import Config
from lca_keras.base.errors import UserError
from lca_keras.base.fields import ConfigError
from pipelines import settings
from tuning.space import load_space

CONFIG = "version: 2\ntrain:\n  epochs: 3\n  seed: 1\n"


@pytest.mark.parametrize(
    ("read", "text", "message"),
    [
        (Config.load, CONFIG + "train: {}\n", "config {}, line 5: 'train' stands tw"),
        (
            Config.load,
            CONFIG + "  epochs: 4\n",
            "config {}, line 5: 'epochs' stands twice, in line 3 too",
        ),
        (
            settings.load,
            CONFIG + "pipeline: {}\npipeline: {}\n",
            "config {}, line 6: 'pipeline' stands twice, in line 5 too",
        ),
        (
            settings.load,
            "version: 2\npipeline:\n  schema:\n    doctor: true\n    doctor: false\n",
            "config {}, line 5: 'doctor' stands twice, in line 4 too",
        ),
        (
            load_space,
            "main: 1\natt: 1\nmain: 2\n",
            "space {}, line 3: 'main' stands twice, in line 1 too",
        ),
        (
            load_space,
            "main: {low: 1, low: 2, high: 3}\n",
            "space {}, line 1: 'low' stands twice, in line 1 too",
        ),
    ],
)
def test_nothing_stands_twice(read, text, message, tmp_path):
    path = tmp_path / "a.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match=re.escape(message.format(path))):
        read(path)


def test_what_is_no_mapping_or_no_yaml_is_named(tmp_path):
    path = tmp_path / "a.yaml"
    for text, message in (
        ("[1, 2]", "config .*a.yaml: expected names with values, received"),
        ("{a: [}", "config .*a.yaml is not YAML"),
        ("", "config .*a.yaml: expected names with values, received None"),
        ("{a: 1, [b]: 2}", "config .*a.yaml is not YAML"),
    ):
        path.write_text(text)
        with (
            pytest.raises(ConfigError, match=message),
            files.yaml_content(path, "config", ConfigError),
        ):
            pass


def test_keys_that_are_merged_may_be_given_again(tmp_path):
    path = tmp_path / "a.yaml"
    path.write_text("a: &one {x: 1, y: 2}\nb: {<<: *one, x: 3}\nc: {x: 4}\n")
    with files.yaml_content(path, "config", ConfigError) as raw:
        assert raw == {"a": {"x": 1, "y": 2}, "b": {"x": 3, "y": 2}, "c": {"x": 4}}
