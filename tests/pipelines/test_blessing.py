"""Scores by TFMA against scikit-learn, and thresholds: what blocks a candidate."""

import re

import numpy as np
import pytest

from lca_keras.base import files
from lca_keras.base.errors import UserError
from pipelines import blessing
from pipelines.settings import Settings, Threshold

NAMES = ("Ada Quill", "Björn Talvik", "Chiara d'Onda", "李")


def decisions(right, model="candidate", level="song", names=NAMES, each=20, **more):
    """Rows of songs of some artists, of which shares `right` are named rightly."""
    rows = []
    for number, (name, share) in enumerate(zip(names, right, strict=True)):
        for song in range(each):
            other = names[(number + 1) % len(names)]
            said = name if song < round(share * each) else other
            rows.append(
                {
                    "model": model,
                    "level": level,
                    "artist": name,
                    "album": f"{name} / {song % 2}",
                    "clip_seconds": "3.01",
                    "origin": "songs",
                    "heard": "mixture",
                    "song": f"{name} / {song % 2} / {song}",
                    "singer": name,
                    "said": said,
                    **more,
                }
            )
    return rows


def both(right, model="candidate", **kwargs):
    """The same decisions at both levels."""
    return [
        row
        for level in ("song", "frame")
        for row in decisions(right, model, level, **kwargs)
    ]


def scores_of(rows):
    """What `analyse` returns, from scikit-learn."""
    from sklearn.metrics import accuracy_score, f1_score

    found = {}
    for model, level in {(row["model"], row["level"]) for row in rows}:
        of = [row for row in rows if (row["model"], row["level"]) == (model, level)]
        heard = of[0]["heard"]
        whole = [row for row in of if row["heard"] == heard]
        groups = {("", ""): whole}
        for name in ("artist", "album", "clip_seconds", "origin"):
            for row in whole:
                groups.setdefault((name, row[name]), []).append(row)
        for row in of:
            groups.setdefault(("heard", row["heard"]), []).append(row)
        for key, few in groups.items():
            truth, said = ([row[c] for row in few] for c in ("singer", "said"))
            values = {"count": len(few), "accuracy": accuracy_score(truth, said)}
            if key == ("", ""):
                values["f1"] = f1_score(truth, said, average="weighted")
                values["f1_macro"] = f1_score(truth, said, average="macro")
            found[(model, level, *key)] = values
    return found


@pytest.mark.slow
def test_scores_are_those_of_scikit_learn(tmp_path):
    random = np.random.default_rng(0)
    rows = both([0.9, 0.5, 1.0, 0.0]) + both([0.7, 0.7, 0.7, 0.7], "baseline")
    rows += decisions([0.2] * 4, heard="vocals")
    for row in rows[:40]:  # Unequal numbers, names that only one side has, nobody.
        row["said"] = str(random.choice([*NAMES, "A stranger", ""]))
    rows = rows[5:]
    found = blessing.analyse(rows, tmp_path)
    expected = scores_of(rows)
    assert found.keys() == expected.keys()
    for key, values in expected.items():
        assert found[key] == pytest.approx(values, abs=1e-6), key
    assert (tmp_path / "candidate_song" / "eval_config.json").exists()


def test_a_better_model_passes_and_a_worse_one_does_not():
    pushed = both([0.8, 0.8, 0.8, 0.8], "baseline")
    for right, broken in (
        ([0.85, 0.8, 0.8, 0.8], []),
        # As good on the whole, but worse by 0.3 on one artist.
        (
            [0.5, 0.9, 0.9, 0.9],
            ["frame_accuracy by artist, change at least -0.25"],
        ),
        # Shuffled labels.
        (
            [0.25, 0.25, 0.25, 0.25],
            [
                "song_f1, at least 0.3",
                "song_f1, change at least -0.02",
                "frame_accuracy by artist, change at least -0.25",
            ],
        ),
        # Never the first artist.
        (
            [0.0, 0.9, 0.9, 0.9],
            [
                "song_f1, change at least -0.02",
                "frame_accuracy by artist, at least 0.1",
                "frame_accuracy by artist, change at least -0.25",
            ],
        ),
    ):
        judged = blessing.judge(
            Settings().thresholds, scores_of(both(right) + pushed), 0.1, True
        )
        assert [each.threshold for each in judged if not each.passed] == broken


def test_a_judgement_names_the_value_and_the_slice():
    rows = both([0.5, 0.9, 0.9, 0.9]) + both([0.8] * 4, "baseline")
    judged = blessing.judge(Settings().thresholds, scores_of(rows), 0.7, True)
    said = {each.threshold: (each.passed, each.describe()) for each in judged}
    worst = said["frame_accuracy by artist, at least 0.1"]
    assert worst == (True, "0.500 (Ada Quill)")
    change = said["frame_accuracy by artist, change at least -0.25"]
    assert change == (False, "-0.300 (Ada Quill)")
    assert said["band_share, at most 0.5"] == (False, "0.700")


def test_what_cannot_be_compared_is_said():
    scores = scores_of(both([0.9] * 4))
    why = "these songs have no stems"
    judged = blessing.judge(Settings().thresholds, scores, why, False)
    said = {each.threshold: (each.passed, each.describe()) for each in judged}
    change = said["song_f1, change at least -0.02"]
    assert change == (True, "nothing pushed to compare with")
    assert said["band_share, at most 0.5"] == (True, f"not judged: {why}")


def test_a_slice_that_does_not_exist_is_named():
    scores = scores_of(both([0.9] * 4))
    threshold = Threshold("song_accuracy", "artist", "Nobody", at_least=0.1)
    message = (
        "threshold 'song_accuracy of artist Nobody, at least 0.1': no such slice; the "
        "test songs have Ada Quill, Björn Talvik, Chiara d'Onda, 李"
    )
    with pytest.raises(UserError, match=re.escape(message)):
        blessing.judge([threshold], scores, 0.1, False)


def test_an_artist_that_was_known_must_not_be_forgotten(tmp_path):
    for name, artists in (("new", NAMES[1:]), ("old", NAMES)):
        (tmp_path / name).mkdir()
        files.write_json(tmp_path / name / "lca_keras.json", {"artists": artists})
    judged = blessing.judge_artists(tmp_path / "new", tmp_path / "old", ())
    assert (judged.passed, judged.describe()) == (False, "1.000 (Ada Quill)")
    assert blessing.judge_artists(tmp_path / "new", tmp_path / "old", NAMES[:1]).passed
    assert blessing.judge_artists(tmp_path / "old", tmp_path / "new", ()).passed


def test_songs_come_from_the_folder_above_their_artists():
    assert blessing.origin("/music/artist20/Ada/Album/Song.mp3") == "artist20"
    assert blessing.origin("a.mp3") == ""


def test_the_table_puts_the_baseline_beside_the_candidate():
    rows = both([0.9] * 4) + both([0.5] * 4, "baseline")
    columns, table = blessing.table(scores_of(rows))
    assert columns[3:5] == ["count, candidate", "count, baseline"]
    first = dict(zip(columns, table[0], strict=True))
    assert (first["level"], first["slice"], first["value"]) == ("song", "all", "")
    assert first["accuracy, candidate"] == "0.900"
    assert first["accuracy, baseline"] == "0.500"


def test_a_version_whose_run_is_gone_may_know_any_song(tmp_path):
    from pipelines import stages

    files.write_json(tmp_path / "lca_keras.json", {"run": str(tmp_path / "gone")})
    assert stages._known_to(None, tmp_path, None, ["a"]) is None
