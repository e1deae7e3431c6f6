"""The section `pipeline` of a configuration: read, and refused by name."""

import re

import pytest

from lca_keras.base.errors import UserError
from pipelines import settings
from pipelines.settings import Settings, Threshold


def read(tmp_path, text):
    path = tmp_path / "c.yaml"
    path.write_text(text, encoding="utf-8")
    return settings.load(path)


def test_a_section_takes_the_place_of_defaults(tmp_path):
    config, found = read(
        tmp_path,
        """
version: 2
train: {clip_seconds: 3}
pipeline:
  trials: 4
  keep: 3
  schema: {least_songs: 1, accepted: [imbalance, narrow band]}
  infra: {memory_mb: 1000}
  thresholds:
    - {metric: song_accuracy, at_least: 1}
    - {metric: frame_accuracy, slice: artist, value: Björn, change_at_least: -0.5}
""",
    )
    assert config.train.clip_seconds == 3
    assert (found.trials, found.keep, found.canary) == (4, 3, False)
    assert found.schema.accepted == ("imbalance", "narrow band")
    assert found.infra.memory_mb == 1000.0
    assert found.infra.tolerance == Settings().infra.tolerance
    assert found.thresholds == (
        Threshold("song_accuracy", at_least=1.0),
        Threshold("frame_accuracy", "artist", "Björn", change_at_least=-0.5),
    )
    assert [each.describe() for each in found.thresholds] == [
        "song_accuracy, at least 1",
        "frame_accuracy of artist Björn, change at least -0.5",
    ]
    assert read(tmp_path, "version: 2")[1] == Settings()


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ("{keeps: 3}", "pipeline: unknown fields ['keeps']"),
        ("{schema: {least_songs: many}}", "pipeline.schema.least_songs: expected int"),
        ("{thresholds: song_f1}", "pipeline.thresholds: expected a list"),
        (
            "{thresholds: [{metric: f1, at_least: 1}]}",
            "pipeline.thresholds[0].metric: expected one of song_f1, song_f1_macro,",
        ),
        (
            "{thresholds: [{metric: song_accuracy, slice: year, at_least: 1}]}",
            "pipeline.thresholds[0].slice: expected one of artist, album,",
        ),
        (
            "{thresholds: [{metric: song_f1, slice: artist, at_least: 1}]}",
            "song_f1 is of all songs: of the songs of a slice,",
        ),
        ("{thresholds: [{metric: song_f1}]}", "give one of at_least, at_most"),
        (
            "{thresholds: [{metric: song_f1, at_least: 1, at_most: 1}]}",
            "give one of at_least, at_most",
        ),
        (
            "{thresholds: [{metric: band_share, change_at_least: 0}]}",
            "band_share has no change: give at_most",
        ),
        (
            "{thresholds: [{metric: song_f1, at_least: 30}]}",
            "at_least: expected finite float, at least 0 and at most 1, or null, r",
        ),
        (
            "{thresholds: [{metric: song_f1, change_at_least: -1.5}]}",
            "expected finite float, at least -1 and at most 1, or null, received -1.5",
        ),
        ("{thresholds: [{at_least: 1}]}", "pipeline.thresholds[0]: metric is needed"),
    ],
)
def test_what_cannot_be_is_named(tmp_path, section, message):
    with pytest.raises(UserError, match=re.escape(message)) as error:
        read(tmp_path, f"version: 2\npipeline: {section}")
    assert str(error.value).startswith(f"config {tmp_path}/c.yaml: ")
