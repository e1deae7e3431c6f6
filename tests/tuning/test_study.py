"""What several processes make of one search; here they are objects that take turns."""

import concurrent.futures
import json
import time

import pytest
from sklearn.gaussian_process import GaussianProcessRegressor

from lca_keras.base import files
from lca_keras.base.config import get_preset
from lca_keras.base.errors import UserError
from tuning import journal, oracle, space, study
from tuning.journal import Journal
from tuning.space import load_space


def begin(folder, algorithm="bayesian", trials=8, parameters=None):
    """Makes the folder of a search, or opens it again."""
    config = get_preset("demo").replace(train={"epochs": 15, "warmup_epochs": 6})
    limit = None if algorithm == "hyperband" else trials
    wanted = study.Search(
        algorithm, limit, 1, space.to_json(parameters or load_space()), config.to_dict()
    )
    study.open_folder(folder, wanted)
    return folder


def judge(values):
    return 1.0 / (1.0 + values["att"])


def go_on(part, count=100):
    """Runs at most so many trials; returns their values."""
    seen = []
    while len(seen) < count and (trial := part.ask()) is not None:
        seen.append(trial.hyperparameters.values)
        part.tell(trial, judge(seen[-1]))
    return seen


def events(folder):
    return Journal(folder / "events.jsonl").read()


def ended(folder):
    return [e["trial"] for e in events(folder) if e["event"] == "end"]


@pytest.fixture
def impatient(monkeypatch):
    """The dead are given up at once; nobody waits long for anybody."""
    monkeypatch.setattr(journal, "PATIENCE_SECONDS", 0.0)
    monkeypatch.setattr(study, "POLL_SECONDS", 0.01)


@pytest.mark.parametrize("algorithm", space.ALGORITHMS)
def test_stopping_after_any_trial_changes_nothing(tmp_path, algorithm):
    whole = go_on(study.Study(begin(tmp_path / "a", algorithm, 17), "w"), 17)
    pieces = []
    folder = begin(tmp_path / "b", algorithm, 17)
    while len(pieces) < 17 and (piece := go_on(study.Study(folder, "w"), 1)):
        pieces += piece
    assert pieces == whole
    assert len({json.dumps(values) for values in whole}) == len(whole)
    assert len(whole) >= 12


@pytest.mark.slow
def test_bayesian_proposals_do_not_depend_on_who_made_those_before(tmp_path):
    """Also with trials under way, whose scores are guessed."""
    values = []
    for name in ("one", "many"):
        folder = begin(tmp_path / name, trials=24)
        parts = [study.Study(folder, "a"), study.Study(folder, "b")]
        go_on(parts[0], 16)
        seen = []
        for turn in range(2):
            if name == "many":  # Others come and go.
                parts = [study.Study(folder, worker) for worker in ("a", "b")]
            pair = [part.ask() for part in parts]
            seen += [trial.hyperparameters.values for trial in pair]
            for part, trial in zip(parts, pair, strict=True):
                part.tell(trial, judge(trial.hyperparameters.values) + turn)
        values.append(seen)
    assert values[0] == values[1]


def test_continuing_after_200_trials_fits_nothing(tmp_path, monkeypatch):
    """A Gaussian process for each of them would take minutes."""
    folder = begin(tmp_path / "s", trials=201)
    parameters = load_space()
    made = oracle.make_oracle("random", parameters, None, 9, seed=3)
    first = study.Study(folder, "w")
    go_on(first, 15)
    for number in range(15, 200):
        trial = made.create_trial(f"w{number}")
        values = trial.hyperparameters.values
        facts = {"trial": f"{number:04d}", "worker": "w"}
        first.journal.append("start", values=values, **facts)
        first.journal.append("end", score=judge(values), message=None, **facts)
    fits = []
    fit = GaussianProcessRegressor.fit
    monkeypatch.setattr(
        GaussianProcessRegressor,
        "fit",
        lambda self, x, y: fits.append(len(x)) or fit(self, x, y),
    )
    again = study.Study(folder, "w")
    assert fits == []
    assert again.ask().trial_id == "0200"
    assert fits == [200]


@pytest.mark.parametrize("algorithm", ["random", "grid", "bayesian"])
def test_a_search_can_be_lengthened(tmp_path, algorithm):
    whole = go_on(study.Study(begin(tmp_path / "long", algorithm, 12), "w"))
    folder = begin(tmp_path / "short", algorithm, 5)
    short = go_on(study.Study(folder, "w"))
    assert len(short) == 5
    rest = go_on(study.Study(begin(folder, algorithm, 12), "w"))
    assert short + rest == whole


def test_without_a_number_of_trials_there_is_a_default(tmp_path):
    numbers = {
        name: study.Search.load(begin(tmp_path / name, name, None)).trials
        for name in space.ALGORITHMS
    }
    assert numbers == {"bayesian": 20, "random": 20, "hyperband": None, "grid": None}
    assert study.Search.load(begin(tmp_path / "random", "random", 3)).trials == 3
    assert study.Search.load(begin(tmp_path / "random", "random", None)).trials == 3


def test_a_process_that_runs_follows_when_another_one_lengthens(tmp_path):
    folder = begin(tmp_path / "s", "random", 3)
    part = study.Study(folder, "w")
    assert len(go_on(part, 2)) == 2
    begin(folder, "random", 5)
    assert len(go_on(part)) == 3


def test_a_trial_that_was_begun_is_given_again(tmp_path):
    part = study.Study(begin(tmp_path / "s"), "w")
    go_on(part, 2)
    begun = part.ask()
    trial = study.Study(tmp_path / "s", "w").ask()
    assert trial.trial_id == begun.trial_id == "0002"
    assert trial.hyperparameters.values == begun.hyperparameters.values
    assert [e["event"] for e in events(tmp_path / "s")].count("start") == 3


def test_a_line_cut_short_does_not_count(tmp_path):
    folder = begin(tmp_path / "s")
    go_on(study.Study(folder, "w"), 3)
    path = folder / "events.jsonl"
    path.write_bytes(path.read_bytes()[:-20])  # The last trial's end.
    again = study.Study(folder, "w")
    assert ended(folder) == ["0000", "0001"]
    assert again.ask().trial_id == "0002"
    assert path.read_bytes().endswith(b"}\n")


def test_a_damaged_line_is_said_with_its_file(tmp_path):
    folder = begin(tmp_path / "s")
    go_on(study.Study(folder, "w"), 1)
    path = folder / "events.jsonl"
    path.write_bytes(path.read_bytes().replace(b'{"event": "end"', b'{"event" "end"'))
    with pytest.raises(UserError, match="events.jsonl is damaged"):
        study.Study(folder, "w")


@pytest.mark.parametrize("algorithm", ["random", "grid", "bayesian"])
def test_many_processes_are_all_kept_busy(tmp_path, algorithm):
    """KerasTuner's own grid proposes one trial at a time after the first two."""
    folder = begin(tmp_path / "s", algorithm, 8)
    parts = [study.Study(folder, f"w{number}") for number in range(4)]
    running = [part.ask() for part in parts]
    for part, trial in zip(parts, running, strict=True):
        part.tell(trial, 0.1)
    running += [part.ask() for part in parts]
    assert len({trial.trial_id for trial in running}) == 8
    assert len({json.dumps(t.hyperparameters.values) for t in running}) == 8
    # Who comes again knows what it had.
    for number, trial in enumerate(running[4:]):
        assert study.Study(folder, f"w{number}").ask().trial_id == trial.trial_id


def test_a_dead_processs_trial_goes_to_the_next_one(tmp_path, impatient):
    folder = begin(tmp_path / "s", trials=2)
    (folder / "workers").mkdir()
    said = []
    dead = study.Study(folder, "dead")
    lives = study.Study(folder, "lives", lambda event, past: said.append(event))
    first, second = dead.ask(), lives.ask()
    lives.tell(second, 0.5)
    # All trials are out, but "dead" shows no sign of life.
    taken = lives.ask()
    assert taken.trial_id == first.trial_id
    assert [e["worker"] for e in said if e["event"] == "abandon"] == ["dead"]
    # It was not dead, only slow, and is quicker after all: its result counts.
    dead.tell(first, 0.7)
    lives.tell(first, 0.1)
    assert lives.ask() is None
    assert dead.ask() is None
    scores = {e["trial"]: e["score"] for e in events(folder) if e["event"] == "end"}
    assert scores == {first.trial_id: 0.7, second.trial_id: 0.5}


def test_a_trial_that_waits_for_nobody_any_more(tmp_path, impatient):
    """Its process was given up and finished after all, before it was taken over."""
    folder = begin(tmp_path / "s")
    (folder / "workers").mkdir()
    slow, slower = study.Study(folder, "slow"), study.Study(folder, "slower")
    trials = [slow.ask(), slower.ask()]
    other = study.Study(folder, "other")
    other.tell(other.ask(), 0.1)  # Has seen nobody's sign of life so far.
    taken = other.ask()
    (left,) = [trial for trial in trials if trial.trial_id != taken.trial_id]
    slow.tell(left, 0.5)
    other.tell(taken, 0.4)
    assert other.ask().trial_id not in (left.trial_id, taken.trial_id)
    assert sorted(ended(folder)) == ["0000", "0001", "0002"]


def test_a_process_that_lives_keeps_its_trial(tmp_path, monkeypatch):
    monkeypatch.setattr(journal, "BEAT_SECONDS", 0.02)
    watch = journal.Watch(tmp_path)
    monkeypatch.setattr(journal, "PATIENCE_SECONDS", 0.3)
    with journal.beating(tmp_path, "w"):
        for _ in range(5):
            assert not watch.is_dead("w")
            time.sleep(0.1)
    assert not watch.is_dead("w")  # Just gone.
    time.sleep(0.4)
    assert watch.is_dead("w")


def test_asking_while_another_one_is_busy_changes_nothing(tmp_path, monkeypatch):
    """How often a process has to wait is not on record."""
    for algorithm in space.ALGORITHMS:
        orders = []
        for name, waits in (("patient", 0), ("polling", 20)):
            folder = begin(tmp_path / algorithm / name, algorithm, 5)
            busy, other = study.Study(folder, "busy"), study.Study(folder, "other")
            first = busy.ask()

            asked = iter(range(waits))

            def give_in(seconds, busy=busy, first=first, asked=asked):
                if next(asked, None) is None:
                    busy.tell(first, 0.3)

            monkeypatch.setattr(study.time, "sleep", give_in)
            go_on(other)
            rows = [(e["event"], e["trial"], e.get("values")) for e in events(folder)]
            orders.append(rows)
        assert orders[0] == orders[1]


def test_failures_in_a_row_end_the_search_and_are_tried_again(tmp_path):
    folder = begin(tmp_path / "s")
    part, other = study.Study(folder, "w"), study.Study(folder, "other")
    go_on(part, 2)
    for number in range(oracle.MAX_FAILURES):
        part.tell(part.ask(), None, f"reason {number}")
    for one in (part, other):  # All processes end.
        with pytest.raises(UserError, match=r"3 trials failed in a row.*reason 2"):
            one.ask()
    again = study.Study(folder, "w")
    assert ended(folder) == ["0000", "0001"]
    assert len(go_on(again)) == 6
    # Who was there when failures were forgotten reads the journal anew.
    assert other.ask() is None


@pytest.mark.slow
def test_a_result_of_forgotten_values_is_not_that_of_others(tmp_path):
    """A trial's number is given again, with other values, while it still runs."""
    folder = begin(tmp_path / "s", trials=30)
    bad, slow = study.Study(folder, "bad"), study.Study(folder, "slow")
    go_on(bad, 16)
    for _ in range(oracle.MAX_FAILURES - 1):
        bad.tell(bad.ask(), None, "why")
    running = slow.ask()
    last = bad.ask()
    bad.tell(last, None, "why")
    again = study.Study(folder, "bad")
    given = {}
    for _ in range(4):
        trial = again.ask()
        given[trial.trial_id] = trial.hyperparameters.values
        if trial.trial_id == running.trial_id:
            break
        again.tell(trial, 0.9)
    slow.tell(running, 0.123)
    assert given[running.trial_id] != running.hyperparameters.values
    scores = [e["score"] for e in events(folder) if e["event"] == "end"]
    assert 0.123 not in scores
    again.tell(trial, 0.5)
    assert slow.ask() is not None  # It has caught up.


def test_processes_that_were_there_when_failures_are_forgotten_see_all(tmp_path):
    folder = begin(tmp_path / "s", "random")
    said = []
    other = study.Study(folder, "other", lambda event, past: said.append(event))
    part = study.Study(folder, "w")
    go_on(part, 2)
    for _ in range(oracle.MAX_FAILURES):
        part.tell(part.ask(), None, "why")
    with pytest.raises(UserError):
        other.ask()
    go_on(study.Study(folder, "w"))
    assert other.ask() is None
    assert [e for e in said if e["event"] != "end" or e["score"]][-12:] == [
        e for e in events(folder) if e["trial"] > "0001"
    ]


def test_a_line_cut_short_by_another_process_does_not_spoil_the_next(tmp_path):
    folder = begin(tmp_path / "s", "random")
    part = study.Study(folder, "w")
    go_on(part, 2)
    with open(folder / "events.jsonl", "ab") as file:
        file.write(b'{"event": "start", "tri')  # Killed here.
    assert len(go_on(part)) == 6
    assert len(ended(folder)) == 8


def test_nobody_begins_anew_what_another_one_prepares(tmp_path):
    folder = begin(tmp_path / "s", "random")
    with (
        study.worker_name(folder),
        pytest.raises(files.LockedError, match="another process"),
    ):
        begin(folder, "bayesian")
    assert study.Search.load(folder).algorithm == "random"
    begin(folder, "bayesian")  # Now it is free, and has begun no trial.
    assert study.Search.load(folder).algorithm == "bayesian"


def test_processes_may_start_at_the_same_moment(tmp_path):
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        for turn in range(10):
            list(pool.map(begin, [tmp_path / str(turn)] * 8))


def test_single_failures_are_recorded_and_passed(tmp_path):
    folder = begin(tmp_path / "s")
    part = study.Study(folder, "w")
    part.tell(part.ask(), None, "why")
    assert len(go_on(part)) == 7
    (failed,) = [e for e in events(folder) if e["event"] == "end" and not e["score"]]
    assert failed["message"] == "why"


def test_a_success_after_the_last_straw_does_not_hide_it(tmp_path):
    folder = begin(tmp_path / "s")
    good, bad = study.Study(folder, "good"), study.Study(folder, "bad")
    trial = good.ask()
    for _ in range(oracle.MAX_FAILURES):
        bad.tell(bad.ask(), None, "why")
    good.tell(trial, 0.5)
    again = study.Study(folder, "good")
    assert len(go_on(again)) >= 7
    assert len(ended(folder)) == 8


def test_events_of_something_else_are_refused(tmp_path):
    folder = begin(tmp_path / "s", "random")
    go_on(study.Study(folder, "w"), 2)
    path = folder / "events.jsonl"
    path.write_text(path.read_text().replace('"main": 0', '"main": 9'))
    with pytest.raises(UserError, match="another version of KerasTuner"):
        study.Study(folder, "w")


def test_seed_zero_is_a_seed(tmp_path):
    """KerasTuner draws a random seed for zero."""
    first, second = (
        go_on(study.Study(begin(tmp_path / name, "random"), "w"), 3) for name in "ab"
    )
    assert first == second


def test_the_number_of_trials_is_that_which_are_run(tmp_path):
    grid = {
        "att": space.Parameter("att", 0.1, 1.0, space.LOG),
        "cf_ratio": space.Parameter("cf_ratio", values=(0.2, 0.4)),
        **{name: space.Parameter(name, values=(0.5,)) for name in ("main", "ent_cf")},
        "ent_main_ratio": space.Parameter("ent_main_ratio", values=(0.1,)),
    }
    for limit in (None, 4):
        folder = begin(tmp_path / str(limit), "grid", limit, grid)
        seen = go_on(study.Study(folder, "w"))
        assert len(seen) == oracle.size("grid", grid, limit)
    assert oracle.size("hyperband", grid, None) is None


def test_names_of_processes_are_free_ones(tmp_path):
    with study.worker_name(tmp_path) as first, study.worker_name(tmp_path) as second:
        assert first.endswith("-1")
        assert second.endswith("-2")
        with pytest.raises(UserError, match=f"--worker {second}: another process"):
            study.worker_name(tmp_path, second).__enter__()
    with study.worker_name(tmp_path) as again:
        assert again == first


def test_a_search_from_before_a_field_was_there_goes_on(tmp_path):
    folder = begin(tmp_path, "random")
    go_on(study.Study(folder, "one"), 1)
    told = files.read_json(folder / "search.json")
    assert told["config"]["train"].pop("objective") == "frame_f1"
    files.write_json(folder / "search.json", told)
    begin(tmp_path, "random")
    told["config"]["train"]["objective"] = "song_f1"
    files.write_json(folder / "search.json", told)
    with pytest.raises(UserError, match="train.objective was 'song_f1', now 'frame_f1"):
        begin(tmp_path, "random")
