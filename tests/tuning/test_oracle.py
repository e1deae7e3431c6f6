import json

import pytest

from lca_keras.console import UserError
from tuning import oracle, space
from tuning.space import load_space


def make(tmp_path, algorithm="bayesian", trials=8):
    """An oracle as a search begins or continues it."""
    log = oracle.EventLog(tmp_path / "events.jsonl")
    log.trim()
    made = oracle.make_oracle(algorithm, load_space(), trials, 9, seed=0)
    oracle.replay(made, log.read())
    made.log = log
    return made


def finish(made, trial, score):
    trial.status = "FAILED" if score is None else "COMPLETED"
    trial.message = "ValueError: why" if score is None else None
    if score is not None:
        made.update_trial(trial.trial_id, {"score": score})
    made.end_trial(trial)


def judge(values):
    return 1.0 / (1.0 + values["att"])


def go_on(made, count, worker="tuner0"):
    """Runs at most so many trials; returns their values."""
    seen = []
    for _ in range(count):
        trial = made.create_trial(worker)
        if trial.status == "STOPPED":
            break
        seen.append(trial.hyperparameters.values)
        finish(made, trial, judge(seen[-1]))
    return seen


@pytest.mark.parametrize("algorithm", space.ALGORITHMS)
def test_stopping_after_any_trial_changes_nothing(tmp_path, algorithm):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    whole = go_on(make(tmp_path / "a", algorithm), 12)
    pieces = []
    while piece := go_on(make(tmp_path / "b", algorithm), 1):
        pieces += piece
        if len(pieces) == 12:
            break
    assert pieces == whole
    assert len({json.dumps(values) for values in whole}) == len(whole)
    assert len(whole) == (12 if algorithm == "hyperband" else 8)


@pytest.mark.parametrize("algorithm", ["random", "grid", "bayesian"])
def test_a_search_can_be_lengthened(tmp_path, algorithm):
    for name in ("long", "lengthened"):
        (tmp_path / name).mkdir()
    whole = go_on(make(tmp_path / "long", algorithm, trials=12), 20)
    short = go_on(make(tmp_path / "lengthened", algorithm, trials=5), 20)
    assert len(short) == 5
    rest = go_on(make(tmp_path / "lengthened", algorithm, trials=12), 20)
    assert short + rest == whole


def test_a_trial_that_was_begun_is_given_again(tmp_path):
    made = make(tmp_path)
    go_on(made, 2)
    begun = made.create_trial("tuner0")
    again = make(tmp_path)
    trial = again.create_trial("tuner0")
    assert trial.trial_id == begun.trial_id
    assert trial.hyperparameters.values == begun.hyperparameters.values


def test_a_line_cut_short_does_not_count(tmp_path):
    made = make(tmp_path)
    go_on(made, 3)
    path = tmp_path / "events.jsonl"
    content = path.read_bytes()
    path.write_bytes(content[:-20])  # The last trial's end.
    again = make(tmp_path)
    assert len(again.end_order) == 2
    assert again.create_trial("tuner0").trial_id == "0002"
    assert path.read_bytes().endswith(b"}\n")


def test_a_dead_workers_trial_goes_to_the_next_one(tmp_path):
    made = make(tmp_path, trials=2)
    first = made.create_trial("one")
    second = made.create_trial("two")
    finish(made, second, 0.5)
    # All trials are out, but "one" may die: "two" waits.
    assert made.create_trial("two").status == "IDLE"
    assert made.abandon("one").trial_id == first.trial_id
    taken = made.create_trial("two")
    assert taken.trial_id == first.trial_id
    # A chief that is killed and comes back knows who has what.
    made = make(tmp_path, trials=2)
    taken = made.create_trial("two")
    assert taken.trial_id == first.trial_id
    finish(made, taken, 0.7)
    finish(made, first, 0.1)  # It was not dead, only slow: too late.
    assert not made.ongoing_trials
    assert made.get_trial(first.trial_id).score == 0.7
    assert made.end_order == [second.trial_id, first.trial_id]
    assert made.create_trial("two").status == "STOPPED"
    assert not made.tuner_ids


def test_failures_in_a_row_end_the_search_and_are_tried_again(tmp_path):
    made = make(tmp_path)
    go_on(made, 2)
    for _ in range(oracle.MAX_FAILURES):
        assert made.fatal is None
        finish(made, made.create_trial("tuner0"), None)
    assert "consecutive failures" in made.fatal
    assert not made.ongoing_trials
    assert made.create_trial("tuner0").status == "STOPPED"
    again = make(tmp_path)
    assert again.fatal is None
    assert again.end_order == ["0000", "0001"]
    assert len(go_on(again, 10)) == 6


def test_single_failures_are_recorded_and_passed(tmp_path):
    made = make(tmp_path)
    finish(made, made.create_trial("tuner0"), None)
    assert len(go_on(made, 10)) == 7
    ends = [e for e in made.log.read() if e["event"] == "end"]
    assert (ends[0]["score"], ends[0]["message"]) == (None, "ValueError: why")
    assert len(make(tmp_path).end_order) == 8


def test_events_of_something_else_are_refused(tmp_path):
    made = make(tmp_path)
    go_on(made, 2)
    path = tmp_path / "events.jsonl"
    path.write_text(path.read_text().replace('"main": 0', '"main": 9'))
    with pytest.raises(UserError, match="another version of KerasTuner"):
        make(tmp_path)


def test_seed_zero_is_a_seed(tmp_path):
    """KerasTuner draws a random seed for zero."""
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    first = go_on(make(tmp_path / "a", "random"), 3)
    assert first == go_on(make(tmp_path / "b", "random"), 3)


@pytest.mark.parametrize("algorithm", ["random", "hyperband", "grid", "bayesian"])
def test_asking_in_vain_changes_nothing(tmp_path, algorithm):
    """Workers poll while another one is busy; a replay does not know how often."""
    for name in ("polled", "quiet"):
        (tmp_path / name).mkdir()
        made = make(tmp_path / name, algorithm, trials=5)
        busy = made.create_trial("busy")
        seen = []
        while (trial := made.create_trial("two")).status == "RUNNING":
            seen.append(trial)
            finish(made, trial, judge(trial.hyperparameters.values))
        assert trial.status == "IDLE"
        if name == "polled":
            for _ in range(20):
                assert made.create_trial("two").status == "IDLE"
        finish(made, busy, 0.3)
        go_on(made, 50, "two")
        assert make(tmp_path / name, algorithm, trials=5).end_order == made.end_order
    logs = [
        [(e["event"], e["trial"], e.get("values")) for e in log.read()]
        for log in (
            oracle.EventLog(tmp_path / n / "events.jsonl") for n in ("polled", "quiet")
        )
    ]
    assert logs[0] == logs[1]


def test_a_stalled_worker_that_finishes_first(tmp_path):
    """It was given up, but nobody has taken its trial yet: nobody has to."""
    made = make(tmp_path, trials=2)
    trial = made.create_trial("slow")
    made.abandon("slow")
    finish(made, trial, 0.5)
    assert made.create_trial("other").trial_id != trial.trial_id
    assert make(tmp_path, trials=2).end_order == [trial.trial_id]


def test_a_success_after_the_last_straw_does_not_hide_it(tmp_path):
    made = make(tmp_path)
    good = made.create_trial("good")
    for _ in range(oracle.MAX_FAILURES):
        finish(made, made.create_trial("bad"), None)
    finish(made, good, 0.5)
    again = make(tmp_path)
    for worker in list(again.ongoing_trials):
        again.abandon(worker)
    go_on(again, 20)
    assert len(again.end_order) == 8
    assert again.fatal is None


@pytest.mark.parametrize("algorithm", ["random", "grid", "bayesian"])
def test_many_workers_are_all_kept_busy(tmp_path, algorithm):
    """KerasTuner's own grid proposes one trial at a time after the first two."""
    made = make(tmp_path, algorithm, trials=8)
    running = [made.create_trial(f"w{number}") for number in range(4)]
    assert [trial.status for trial in running] == ["RUNNING"] * 4
    for number, trial in enumerate(running):
        finish(made, trial, 0.1 * number)
    again = [made.create_trial(f"w{number}") for number in range(4)]
    assert [trial.status for trial in again] == ["RUNNING"] * 4
    assert len({trial.trial_id for trial in [*running, *again]}) == 8
    assert list(make(tmp_path, algorithm, trials=8).ongoing_trials) == [
        f"w{number}" for number in range(4)
    ]


def test_the_number_of_trials_is_that_which_are_run(tmp_path):
    grid = {
        "att": space.Parameter("att", 0.1, 1.0, space.LOG),
        "cf_ratio": space.Parameter("cf_ratio", values=(0.2, 0.4)),
        "main": space.Parameter("main", values=(1.0,)),
    }
    for limit in (None, 4):
        made = oracle.make_oracle("grid", grid, limit, 9, seed=0)
        assert len(go_on(made, 50)) == oracle.size("grid", grid, limit)
    assert oracle.size("hyperband", grid, None) is None
