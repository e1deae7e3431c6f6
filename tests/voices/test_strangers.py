"""Galleries of trained networks, and what strangers are to them."""

import dataclasses
import json
import shutil

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from lca_keras import evaluate, fit, predict
from lca_keras.base.config import Config
from lca_keras.base.errors import UserError
from lca_keras.corpora import synthesis
from lca_keras.data import corpus
from lca_keras.models import LCAModel
from lca_keras.models.factory import build_training_model
from lca_keras.voices import strangers
from lca_keras.voices.gallery import UNKNOWN
from lca_keras.workflow import records, training
from lca_keras.workflow.course import Course
from lca_keras.workflow.run import Run

CAST = synthesis.SynthesisConfig(artists=5, albums=3, songs=1, seconds=7.0, seed=4)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a corpus of five artists, `songs`, with stems."""
    folder = tmp_path_factory.mktemp("place")
    synthesis.write_corpus(CAST, folder / "songs", stems=True)
    return folder


@pytest.fixture(scope="module")
def config(tiny_config, place):
    features = {"source": "stems", "separator": "umxl"}
    return tiny_config.replace(
        features=features, split={"file": str(place / "songs" / "split.csv")}
    )


@pytest.fixture(scope="module")
def sources(place, config):
    source = corpus.DataSource(
        data=str(place / "songs" / "manifest.csv"), features=str(place / "features")
    )
    songs = corpus.prepare(source, config)
    division = corpus.divide(config, songs)
    artists = division.artists
    return corpus.clip_sources(songs, division.part_of, artists, config), artists


@pytest.fixture(scope="module")
def network(config):
    from tests.models.test_networks import randomize

    network = build_training_model(config, 5).backbone
    randomize(network, seed=3)
    return network


def test_the_gallery_of_a_network(sources, network):
    gallery, (songs, _), detector = strangers.fit(network, sources[0], 0.1)
    train = strangers.describe_clips(network, sources[0]["train"])
    labels = train.predictions.labels
    center = train.voiceprints.mean(axis=0)
    np.testing.assert_allclose(gallery.center, center, rtol=1e-4, atol=1e-4)
    # Class means, projected, are the singers' directions, in class order.
    for label in range(5):
        mean = train.voiceprints[labels == label].astype("float64").mean(axis=0)
        moved = (mean - gallery.center) @ gallery.projection
        moved /= np.linalg.norm(moved)
        np.testing.assert_allclose(gallery.means[label], moved, atol=1e-3)
    voiced = strangers.describe_clips(
        network, sources[0]["validation"], gallery.detector
    )
    assert len(songs) == len(voiced.songs) >= 2
    assert gallery.threshold == np.quantile(songs, 0.1)
    assert detector["heard"] == "bands without a voice, and noise"
    # Even random maps tell noise and bands alone from most songs.
    assert detector["voice"] + detector["no_voice"] > 1.2


def test_a_detector_without_stems_knows_noise(sources, network, place):
    plain = {
        part: dataclasses.replace(source, store=_as_mixture(source.store))
        for part, source in sources[0].items()
    }
    detector, told = strangers.fit_detector(network, plain)
    assert told["heard"] == "noise"
    assert told["voice"] > 0.7
    assert told["no_voice"] > 0.9
    noise = strangers._noises(plain["train"], np.random.default_rng(9))
    maps = network.encode(noise[:20])["maps"]
    assert (detector(network.describe(maps)["voiceprint"]) < 0.5).mean() > 0.9


def _as_mixture(store):
    """The same store, said to be of mixtures: what is heard is."""
    import copy

    other = copy.copy(store)
    other.config = dataclasses.replace(store.config, source="mixture", separator="")
    return other


def test_measured_by_scikit_learn(sources, network):
    gallery, known, _ = strangers.fit(network, sources[0], 0.2)
    heard = strangers.describe_clips(network, sources[0]["test"], gallery.detector)
    told = strangers.measure(gallery, known, heard, 1.0)
    scores = []
    for clips in heard.songs:
        mean = heard.voiceprints[clips].mean(axis=0)
        scores.append(gallery.similarities(mean).max())
    truth = [1] * len(known[0]) + [0] * len(scores)
    expected = roc_auc_score(truth, [*known[0], *scores])
    assert told["auroc_songs"] == pytest.approx(expected)
    verdicts = strangers.verdicts(gallery, heard, 1.0)
    assert list(verdicts) == list(heard.predictions.songs)
    unknown = [v.status == UNKNOWN for v in verdicts.values()]
    assert told["unknown"] == np.mean(unknown)
    for row in told["trade_off"]:
        limit = np.quantile(known[0], row["known"])
        assert row["strange"] == np.mean(np.array(scores) < limit)


def test_whom_a_side_training_leaves_out():
    names = [f"{n:02d}" for n in range(20)]

    def left_out(names, share, seed):
        config = Config().replace(gallery={"left_out": share}, train={"seed": seed})
        return training.left_out(names, config)

    assert len(left_out(names, 0.2, 0)) == 4
    assert left_out(names, 0.2, 0) == left_out(names, 0.2, 0)
    assert left_out(names, 0.2, 0) != left_out(names, 0.2, 1)
    assert left_out(names, 0.0, 0) == []
    assert len(left_out(names[:4], 0.2, 0)) == 1
    assert left_out(names[:3], 0.5, 0) == []


def test_a_side_training_never_hears_whom_it_leaves_out(
    sources, config, tmp_path, monkeypatch
):
    heard, train = [], training.train

    def watched(config, few, classes, folder, callbacks):
        heard.append((few, classes, config.train.epochs))
        return train(config, few, classes, folder, callbacks)

    monkeypatch.setattr(training, "train", watched)
    side = config.replace(gallery={"left_out": 0.4}, train={"epochs": 9})
    told = training.side_training(side, *sources, tmp_path)
    ((few, classes, epochs),) = heard
    artists = sources[1]
    assert len(told["artists"]) == 2
    assert (classes, epochs) == (3, side.side_epochs) == (3, 3)
    assert told["songs"] == 2 * 2  # Of training and validation; none of test.
    for part, source in few.items():
        assert sorted(set(source.labels.values())) == [0, 1, 2]
        for key in source.labels:
            artist = artists[sources[0][part].labels[key]]
            assert artist not in told["artists"]
    assert 0 <= told["auroc_songs"] <= 1
    clips = sources[0]
    lacking = {k: n for k, n in clips["validation"].labels.items()}
    lacking = {k: n for k, n in lacking.items() if artists[n] in told["artists"]}
    alone = dataclasses.replace(clips["validation"], labels=lacking)
    with pytest.raises(UserError, match="of those alone who are left out"):
        training.side_training(side, {**clips, "validation": alone}, artists, tmp_path)


@pytest.mark.slow
def test_songs_of_strangers_are_given(place, config, sources, monkeypatch, capsys):
    """The whole job with `--unknown`, and what the export makes of a stranger."""
    monkeypatch.chdir(place)
    other = dataclasses.replace(CAST, artists=6, seed=8)
    synthesis.write_corpus(other, place / "все", stems=False)
    strange = place / "strange"
    strange.mkdir()
    (place / "все" / other.artist_name(5)).rename(strange / other.artist_name(5))
    config.save("config.yaml")
    command = ["--data", "songs/manifest.csv", "--config", "config.yaml"]
    command += ["--name", "given", "--unknown", "все"]
    assert fit.main(command) == 1
    assert "are to be by strangers, and Ada Quill" in capsys.readouterr().err
    command[-1] = "strange"
    assert fit.main(command) == 0
    said = capsys.readouterr().out
    assert "3 songs of 1 strangers" in said
    told = json.loads((place / "runs/given/metrics.json").read_text())["gallery"]
    assert told["strangers"]["given"]
    assert told["strangers"]["songs"] == 3
    assert told["test"]["songs"] == 5
    job = Run.load(place / "runs" / "given")
    assert job.source.unknown == str(strange)
    card = next(place.glob("saved_models/given/1/model_card.md")).read_text()
    assert "Of 3 songs by strangers" in card
    assert f"less similar to every singer's than {told['threshold']:.3f}" in card
    song = str(next(strange.glob("*/*/*.flac")))
    assert predict.main(["--model", "saved_models/given", song, "--json"]) == 0
    (answer,) = json.loads(capsys.readouterr().out)
    assert answer["status"] in ("ok", "unknown", "no voice")
    # On another corpus strangers are told beside the others' scores.
    mixed = place / "mixed"
    shutil.copytree(strange, mixed)
    shutil.copytree(place / "songs" / "Ada Quill", mixed / "Ada Quill")
    assert evaluate.main(["--run", "runs/given", "--data", "mixed"]) == 0
    said = capsys.readouterr().out
    name = other.artist_name(5)
    assert f"3 songs by {name}, whom the model does not know: " in said
    assert evaluate.main(["--run", "runs/given", "--data", "strange"]) == 0
    assert "3 songs by" in capsys.readouterr().out
    # What was learned is gone on from, with one artist less.
    rows = (place / "songs" / "manifest.csv").read_text(encoding="utf-8").splitlines()
    few = [row for row in rows if not row.lstrip('"').startswith("Chiara")]
    (place / "songs" / "few.csv").write_text("\n".join(few), encoding="utf-8")
    more = ["--data", "songs/few.csv", "--continue-from", "given", "--name", "more"]
    assert fit.main([*more, "--epochs", "1", "--augment", "none"]) == 0, (
        capsys.readouterr().err
    )
    again = Run.load(place / "runs" / "more")
    assert again.config.model == config.model
    assert again.config.train.continue_from == str(place / "saved_models/given/1")
    assert fit.main([*more, "--preset", "demo"]) == 1
    assert "--continue-from brings its own" in capsys.readouterr().err


def test_a_corpus_of_strangers_without_songs(place, config, tmp_path):
    source = corpus.DataSource(
        data="x", features=str(place / "features"), unknown=str(tmp_path)
    )
    with pytest.raises(UserError):
        corpus.strangers(source, config, ["Ada"])


def test_a_run_measures_strangers_once_and_never_keeps_another_gallery(
    place, config, sources, network, tmp_path, monkeypatch
):
    clips, artists = sources
    settings = config.replace(gallery={"left_out": 0.4})
    job = Run(
        folder=tmp_path / "r", config=settings, source=corpus.DataSource(data="x")
    )
    job.folder.mkdir()
    records.add_results(job.folder, {"artists": artists})
    division = corpus.Division({}, artists, None, [], [])
    way = Course(job, None, division, clips)
    way.model = LCAModel(network)
    way.set_up_gallery()
    np.testing.assert_array_equal(job.gallery.means, way.gallery[0].means)
    calls, side = [], training.side_training

    def counted(*arguments):
        calls.append(arguments)
        return side(*arguments)

    monkeypatch.setattr(training, "side_training", counted)
    for _ in range(2):
        way.measure_strangers()
    assert len(calls) == 1
    assert not (job.folder / "side-training").exists()
    told = json.loads((job.folder / "metrics.json").read_text())["gallery"]
    assert len(told["strangers"]["artists"]) == 2
    assert told["test"]["songs"] == 5
    # An artist whose songs are gone has no voiceprint: that is said, and no other's
    # is taken for it.
    few = {key: n for key, n in clips["train"].labels.items() if n != 1}
    gone = {**clips, "train": dataclasses.replace(clips["train"], labels=few)}
    lines, way = [], Course(job, None, division, gone)
    way.observer.note = lines.append
    way.set_up_gallery()
    assert way.gallery is None
    (line,) = lines
    assert line.endswith(f": no training songs of {artists[1]} are there")
