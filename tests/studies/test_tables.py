import numpy as np
import pytest
from sklearn.metrics import f1_score

from lca_keras.base import files
from lca_keras.base.config import get_preset
from lca_keras.base.errors import UserError
from lca_keras.studies import laboratory, results, scores
from lca_keras.studies.laboratory import Trained, configure
from lca_keras.studies.results import Column, Picture, Result, Table
from lca_keras.studies.subjects import papers
from tests.studies.test_statistics import CLASSES, decisions

DEMO = get_preset("demo")


def trained(folder, seed, skill=1.5):
    """A `Trained` with stored predictions about songs, and these."""
    found = decisions(seed, skill=skill)
    predictions = found.predictions
    predictions.outputs["cf_logits"] = predictions.outputs["logits"][:, ::-1]
    folder.mkdir()
    laboratory.save_predictions(folder / "predictions_test.npz", predictions)
    artists = [f"artist {number}" for number in range(CLASSES)]
    return Trained(folder, DEMO, artists, {"parameters": 1234}), found


# === Rows ===


def test_variants_are_what_their_words_say():
    config = configure("remix+lca+logit+detach+no-att+one-step", stems(DEMO))
    assert config.train.method == "lca"
    assert config.train.effect == "logit"
    assert config.train.detach_counterfactual
    assert config.train.warmup_epochs == 0
    assert config.loss.att == 0
    assert config.loss.effect == 1
    assert config.augment.kinds == ("remix",)
    assert configure("crnn", DEMO).model.name == "crnn"
    assert configure("none", DEMO).train.method == "none"
    melodic = configure("crnnm+vocals", DEMO)
    assert melodic.features.melody == "pyin"
    assert melodic.features.source == "vocals"
    for word in ("lcaa", "no-", "no-nothing", ""):
        with pytest.raises(UserError, match="is no part of a variant"):
            configure(word, DEMO)


def stems(config):
    return config.replace(features={"source": "stems", "separator": "umxl"})


def test_table_1_adds_the_terms_one_by_one():
    headings, rows = papers.rows_of("table1", (3,))
    assert [row.labels[0] for row in rows] == ["CRNN_FGNL", "with CAL"] + [
        "with LCA"
    ] * 5
    acting = []
    for row in rows:
        config = configure(row.variant, DEMO)
        weights = vars(config.loss)
        marked = [mark == "×" for mark in row.labels[1:]]
        if config.train.method == "lca":
            assert marked == [weight > 0 for weight in weights.values()]
        acting.append(sum(marked))
    assert acting == [1, 2, 2, 3, 4, 5, 6]
    assert len(headings) == len(rows[0].labels)


def test_other_tables_have_the_papers_rows():
    _, rows = papers.rows_of("table2", (5,))
    steps = [configure(row.variant, DEMO).train.warmup_epochs for row in rows]
    assert steps == [6, 0, 6]
    _, rows = papers.rows_of("table3", (3, 5, 10), vocals=True)
    assert len(rows) == 4 * 3 * 2
    for row in rows:
        audio, clip, model = row.labels
        config = configure(row.variant, DEMO)
        assert config.features.source == {"original": "mixture"}.get(audio, "vocals")
        assert f"{row.seconds} s" == clip
        baseline = rows[row.against]
        assert baseline.labels == (audio, clip, "CRNN_FGNL")
        assert model.lower().startswith(config.model.name.split("_")[0])
    assert len(papers.rows_of("table3", (3,), vocals=False)[1]) == 4
    headings, rows = papers.rows_of("table4", (3, 10))
    assert [row.labels for row in rows] == [
        ("3 s", "main"),
        ("3 s", "counterfactual"),
        ("10 s", "main"),
        ("10 s", "counterfactual"),
    ]
    assert [row.against for row in rows] == [0, 0, 2, 2]
    assert len(headings) == 2


def test_trainings_are_those_of_all_rows_and_seeds_once():
    _, rows = papers.rows_of("table4", (3, 5))
    wanted = papers.trainings(rows, DEMO, [0, 7])
    assert list(wanted) == [("lca", 3, 0), ("lca", 5, 0), ("lca", 3, 7), ("lca", 5, 7)]
    assert wanted["lca", 5, 7].train.seed == 7
    assert wanted["lca", 5, 7].train.clip_seconds == 5


# === Scores ===


def test_scores_are_scikit_learns_of_the_stored_predictions(tmp_path):
    made = [trained(tmp_path / f"run {seed}", seed) for seed in range(3)]
    found = scores.scores([run for run, _ in made])
    for place, (_, original) in enumerate(made):
        truth = original.song_labels
        expected = {
            "clips": (original.predictions.labels, original.winners),
            "songs": (truth, original.votes),
            "songs, published vote": (truth, original.published_votes),
        }
        for level, pair in expected.items():
            f1 = f1_score(*pair, average="weighted", zero_division=0)
            assert found[level].values[place] == pytest.approx(f1)
    assert found["songs"].mean == pytest.approx(np.mean(found["songs"].values))
    assert found["songs"].best == max(found["songs"].values)
    counterfactual = scores.scores([run for run, _ in made], "cf_logits")
    reversed_ = made[0][1].predictions.decide("cf_logits")
    f1 = f1_score(reversed_.predictions.labels, reversed_.winners, average="weighted")
    assert counterfactual["clips"].values[0] == pytest.approx(f1)


def test_a_table_has_leads_over_the_baseline_and_published_values(tmp_path):
    names = {"none": 1.0, "lca": 2.5}
    runs = {
        (name, 5, seed): trained(tmp_path / f"{name} {seed}", seed, skill)[0]
        for name, skill in names.items()
        for seed in (0, 1)
    }
    rows = [papers.Row((name,), name, 5) for name in names]
    rows.append(papers.Row(("other branch",), "lca", 5, branch="cf_logits"))
    table = papers.build("table2", ["training"], rows, runs, [0, 1], published=True)
    assert [len(row) for row in table.rows] == [len(table.columns)] * 3
    plain, lca, other = table.records
    assert "songs_minus_baseline_mean" not in plain
    gain = lca["songs_mean"] - plain["songs_mean"]
    assert lca["songs_minus_baseline_mean"] == pytest.approx(gain, abs=2e-6)
    assert lca["songs_minus_baseline_low"] > 0
    assert table.rows[1][-1] == "0.56 / 0.78"
    assert plain["published_songs"] == 0.73
    assert table.rows[2][-1] == ""  # Published is the main branch.
    assert other["songs_mean"] < plain["songs_mean"]
    assert "2 seeds (0, 1)" in table.note


def test_damaged_predictions_are_named(tmp_path):
    run, _ = trained(tmp_path / "run", 0)
    path = run.folder / "predictions_test.npz"
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(UserError, match=r"npz: cannot be read.*delete .*run"):
        _ = run.predictions


def test_columns_give_the_rows_for_people_and_the_records_for_programs():
    columns = [
        Column("value", "value", read="{:g}".format),
        Column("", "hidden"),
        Column("a / b", "a", "b"),
    ]
    rows = [
        {"value": 0.5, "hidden": "x", "a": scores.Plain([0.25]), "b": 3},
        {"value": 1.0, "b": 4, "no column": 5},
    ]
    table = Table.of("t", "Title", columns, rows, "note")
    assert table.columns == ["value", "a / b"]
    assert table.rows == [["0.5", "0.250 / 3"], ["1", "4"]]
    first, second = table.records
    assert list(first) == [
        *("value", "hidden", "a_mean", "a_t_half_width", "a_by_seed", "b")
    ]
    assert first["a_mean"] == 0.25
    assert first["a_t_half_width"] is None
    assert second == {"value": 1.0, "b": 4}


# === Files ===


def result(**settings):
    table = Table(
        "table9",
        "100 % of A_B",
        ["name", "a|b"],
        [["Björn & Co", "1 ± 0.5"], ["x_y", "−3"]],
        [{"name": "Björn & Co", "value": 1.0}, {"name": "x_y", "other": None}],
        "note",
    )
    return Result(
        name="table9",
        title="Nine",
        command="python -m x",
        settings={"seeds": [0, 1], "data": "here", **settings},
        tables=[table],
        pictures=[Picture("a.png", "A picture", "a.csv")],
        notes=["one", "two"],
        runs=["cells/x"],
        environment={"commit": None},
    )


def test_results_are_written_and_read_back(tmp_path):
    result().write(tmp_path)
    assert Result.load(tmp_path / "table9.json") == result()
    rows = files.read_csv(tmp_path / "table9.csv")
    assert [dict(row) for row in rows] == [
        {"name": "Björn & Co", "value": "1.0", "other": ""},
        {"name": "x_y", "value": "", "other": ""},
    ]
    markdown = (tmp_path / "table9.md").read_text()
    assert r"| name | a\|b |" in markdown
    assert "![A picture](a.png)" in markdown
    latex = (tmp_path / "table9.tex").read_text()
    assert r"Björn \& Co & 1 $\pm$ 0.5 \\" in latex
    assert r"x\_y & $-$3 \\" in latex
    assert r"100 \% of A\_B" in latex


def test_a_folder_keeps_to_its_settings_but_may_grow(tmp_path):
    results.check_settings(tmp_path, "table9", {"seeds": [5]})  # Nothing there yet.
    result().write(tmp_path)
    results.check_settings(tmp_path, "table9", {"seeds": [0, 1], "data": "here"})
    results.check_settings(tmp_path, "table9", {"seeds": [0, 1, 2], "data": "here"})
    with pytest.raises(UserError, match=r"seeds: \[0, 1\], not \[0\]"):
        results.check_settings(tmp_path, "table9", {"seeds": [0], "data": "here"})
    with pytest.raises(UserError, match=r"data: here, not there.*another --out"):
        results.check_settings(tmp_path, "table9", {"seeds": [0, 1], "data": "there"})
    (tmp_path / "table9.json").write_text("{}")
    with pytest.raises(UserError, match="not an experiment's result"):
        results.check_settings(tmp_path, "table9", {})
