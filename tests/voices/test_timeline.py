"""Who sings when: smoothing, the error rate, and timelines of files."""

import itertools
import json
import pathlib

import librosa
import numpy as np
import pytest
import soundfile

from lca_keras import predict
from lca_keras.base.errors import UserError
from lca_keras.inference.identification import Identifier
from lca_keras.voices import timeline
from lca_keras.voices.timeline import Segment
from tests.exports.material import ARTISTS, song


def test_smoothing_is_viterbi():
    """By librosa, for a uniform start."""
    rng = np.random.default_rng(0)
    for states in (2, 3, 7):
        evidence = rng.dirichlet(np.full(states, 0.3), 60)
        stay = np.exp(-0.6 / 4.0)
        moves = np.full((states, states), (1 - stay) / (states - 1))
        np.fill_diagonal(moves, stay)
        expected = librosa.sequence.viterbi(evidence.T + 1e-12, moves)
        found = timeline.smooth(evidence, 0.6, stay_seconds=4.0)
        assert np.mean(found == expected) > 0.99


def test_a_short_doubt_is_smoothed_and_a_turn_is_not():
    evidence = np.tile([0.9, 0.08, 0.02], (30, 1))
    evidence[15:] = [0.08, 0.9, 0.02]
    evidence[7] = [0.4, 0.58, 0.02]
    course = timeline.smooth(evidence, 0.6)
    assert course.tolist() == [0] * 15 + [1] * 15
    assert evidence.argmax(axis=1)[7] == 1
    assert timeline.smooth(evidence[:1], 3.0).tolist() == [0]


def test_error_rates_by_hand():
    rate = timeline.error_rate
    sung = [(0.0, 4.0, "a"), (4.0, 8.0, "b")]
    assert rate(sung, sung) == 0
    assert rate(sung, []) == 1
    assert rate(sung, [(0.0, 8.0, "a")]) == 0.5  # Half under another name.
    assert rate(sung, [(0.0, 5.0, "a"), (5.0, 8.0, "b")]) == 1 / 8
    assert rate(sung, [*sung, (8.0, 10.0, "a")]) == 2 / 8  # Invented.
    both = [(0.0, 6.0, "a"), (4.0, 8.0, "b")]  # Two sing for 2 of 10 seconds.
    assert rate(both, sung) == pytest.approx(2 / 10)
    assert rate(both, [(0.0, 8.0, "c")]) == pytest.approx((4 + 2 * 2 + 2) / 10)
    with pytest.raises(ValueError, match="nobody sings"):
        rate([], sung)


def test_evidence_of_a_clip(gallery):
    """Singers, somebody unknown and no voice share what there is."""
    rng = np.random.default_rng(1)
    size = len(gallery.center)
    prints = gallery.center + rng.normal(0, 5, (6, size)).astype("float32")
    probabilities = rng.dirichlet(np.ones(4), 6).astype("float32")
    voice = np.array([0.0, 0.2, 0.5, 0.9, 1.0, 1.0])
    found = timeline.clip_evidence(gallery, probabilities, prints, voice)
    np.testing.assert_allclose(found.sum(axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(found[:, 5], 1 - voice, atol=1e-6)
    near = gallery.similarities(prints).max(axis=1)
    odds = found[3:, 4] / found[3:, :4].sum(axis=1)
    expected = 2 * (gallery.clip_threshold - near[3:]) / gallery.clip_width
    np.testing.assert_allclose(np.log(odds), expected, rtol=1e-3, atol=1e-4)


@pytest.fixture
def duet(tmp_path, monkeypatch, exported_with_gallery):
    """A file: one artist, silence, another one; and what the network makes of it."""
    monkeypatch.chdir(tmp_path)
    pause = np.zeros(16000 * 5, "float32")
    sound = [song(12.0, 1), pause, song(12.0, 31)]
    soundfile.write("Дует 'x'.wav", np.concatenate(sound), 16000, subtype="FLOAT")
    return str(exported_with_gallery)


def test_a_timeline_of_a_file(duet, capsys):
    identifier = Identifier(duet)
    segments = timeline.timeline(identifier, "Дует 'x'.wav")
    assert segments[0].start == 0
    assert segments[-1].end == pytest.approx(29.0, abs=0.1)
    for one, other in itertools.pairwise(segments):
        assert one.end == other.start
        assert one.label != other.label
    pauses = [s for s in segments if s.status == "no voice" and s.confidence == 1]
    assert any(abs(s.start - 12.0) < 0.3 and abs(s.end - 17.0) < 0.3 for s in pauses)
    for one in segments:
        assert (one.singer in ARTISTS) == (one.status == "ok")
        assert 0 <= one.confidence <= 1
    outputs = ["t.json", "t.csv", "t.txt", "t.png"]
    command = ["--model", duet, "Дует 'x'.wav", "--timeline"]
    assert predict.main([*command, *outputs]) == 0
    capsys.readouterr()
    (told,) = json.loads(pathlib.Path("t.json").read_text(encoding="utf-8"))
    assert [Segment(**each) for each in told["segments"]] == segments
    lines = pathlib.Path("t.txt").read_text(encoding="utf-8").splitlines()
    for line, one in zip(lines, segments, strict=True):
        start, end, label = line.split("\t")
        assert (float(start), float(end), label) == (one.start, one.end, one.label)
    rows = pathlib.Path("t.csv").read_text(encoding="utf-8").splitlines()
    assert rows[0] == "song,start,end,status,singer,confidence"
    assert len(rows) == 1 + len(segments)
    assert pathlib.Path("t.png").stat().st_size > 5000
    assert predict.main([*command, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0] == told
    assert predict.main(command) == 0
    said = capsys.readouterr().out.splitlines()
    assert len(said) == 1 + len(segments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--timeline", "t.xml"], "expected one of .json, .csv, .txt, .png"),
        (["--timeline", "no/t.csv"], "no such folder"),
        (["--out", "o.csv", "--timeline"], "--out does not go with --timeline"),
        (["a.wav", "--timeline", "t.txt"], "labels are those of one song"),
        (["--top", "3", "--timeline"], "--top does not go with --timeline"),
        (["--workers", "2", "--timeline"], "--workers does not go with --timeline"),
    ],
)
def test_what_a_timeline_cannot_be(duet, arguments, message, capsys):
    soundfile.write("a.wav", song(7.0, 1), 16000)
    assert predict.main(["--model", duet, "Дует 'x'.wav", *arguments]) == 1
    assert message in capsys.readouterr().err


def test_a_model_of_before_has_none(exported, duet):
    with pytest.raises(UserError, match="has no voiceprints"):
        timeline.timeline(Identifier(exported), "Дует 'x'.wav")
