"""The stages of a pipeline: functions from artefacts to an artefact.

ExampleGen -> StatisticsGen -> ExampleValidator -> Tuner -> Trainer -> Evaluator ->
InfraValidator -> Pusher, as TFX names them. Each takes what it depends on, and its
settings name just that: of the songs a training depends on those of its parts, and
an evaluation on the test songs.
"""

import dataclasses
import shutil
import time

import numpy as np

from lca_keras.base import files
from lca_keras.base.config import Config
from lca_keras.base.errors import UserError
from lca_keras.corpora import doctor
from lca_keras.data import corpus
from lca_keras.data.extraction import Extractor
from lca_keras.exports import integrity, labels, versions
from lca_keras.exports.card import model_card
from lca_keras.workflow import course, judgement
from lca_keras.workflow.run import Run
from pipelines import artefacts, blessing, infra, statistics
from pipelines.extraction import extract
from pipelines.settings import LEVELS

# === Songs: ExampleGen, StatisticsGen, ExampleValidator ===


@dataclasses.dataclass(frozen=True)
class Examples:
    """Songs with features and parts."""

    corpus: corpus.Corpus
    division: corpus.Division
    unusable: dict  # From path to the reason why a file is left out.

    def keys(self, *parts):
        """Keys of the songs of these parts, in the songs' order."""
        of = self.division.part_of
        return [s.key for s in sorted(self.corpus.songs) if of.get(s.key) in parts]

    def content(self, *parts):
        """Dict for JSON that changes when something in these parts of songs does."""
        records = [self.corpus.store.records[key] for key in self.keys(*parts)]
        songs = [[r.artist, r.album, r.song, r.content_hash] for r in records]
        return {"artists": self.division.artists, "songs": artefacts.digest(songs)}

    def sources(self, config, *parts):
        """Dict from part to `lca_keras.data.clips.ClipSource`."""
        return corpus.clip_sources(
            self.corpus, self.division.part_of, self.division.artists, config, parts
        )


def example_gen(pipeline):
    """Lists the songs, computes what their features lack, divides them; `Examples`."""
    start, source, config = time.monotonic(), pipeline.source, pipeline.config
    folder = corpus.store_folder(source, config).absolute()
    unusable, statuses = {}, {}
    if source.data:
        songs = source.songs(unusable)
        extractor = Extractor(config.features, source.separator)
        others = corpus.neighbours(folder, config.features)
        statuses = extract(songs, folder, extractor, pipeline.workers, others=others)
    usable = corpus.prepare(corpus.DataSource(store=str(folder)), config)
    unusable |= usable.skipped
    if source.strict and (unusable or usable.doubtful):
        reasons = {**unusable, **usable.doubtful}
        listed = [f"{path}: {reason}" for path, reason in reasons.items()]
        raise UserError("\n  ".join(["--strict: unusable or doubtful files", *listed]))
    division = corpus.divide(config, usable)
    rows = []
    for song in sorted(usable.songs):
        record, part = usable.store.records[song.key], division.part_of.get(song.key)
        rows.append([*song.names, part or "", record.content_hash, record.path])
    settings = {
        "features": dataclasses.asdict(config.features),
        "songs": artefacts.digest([row[:5] for row in rows]),
        "unusable": unusable,
    }

    def make(folder):
        corpus.keep_split(folder, usable, division)
        columns = ["artist", "album", "song", "part", "content_hash", "path"]
        rest = [["", "", "", "left out", why, path] for path, why in unusable.items()]
        files.write_csv(folder / "songs.csv", columns, [*rows, *rest])
        verdict = f"{len(usable.songs)} songs of {len(division.artists)} artists"
        if unusable:
            verdict += f", {len(unusable)} files left out"
        return {"verdict": verdict, "store": str(usable.store.folder)}

    artefact = pipeline.artefact("ExampleGen", settings, make)
    # Of songs that came back the store had lost the features.
    artefact.reused &= all(status != "done" for status, _ in statuses.values())
    artefact.seconds = time.monotonic() - start
    return Examples(usable, division, unusable)


def statistics_gen(pipeline, examples):
    """Statistics of the store, and the doctor's findings; an `Artefact`."""
    source = pipeline.source
    settings = {
        "content": examples.content("train", "validation", "test"),
        "doctor": bool(pipeline.settings.schema.doctor and source.data),
    }

    def make(folder):
        with pipeline.observer.progress("Statistics") as progress:
            found = statistics.compute(examples.corpus, progress)
        found.save(folder)
        if settings["doctor"]:
            with pipeline.observer.progress("Examining the recordings") as progress:
                least = pipeline.config.least_seconds
                summary, findings = doctor.run(source, least, progress=progress)
            findings = [dataclasses.asdict(finding) for finding in findings]
            files.write_json(folder / "doctor.json", [summary, findings])
        seconds = sum(song["seconds"] for song in found.songs)
        return {"verdict": f"{len(found.songs)} songs, {seconds / 3600:.2f} h"}

    return pipeline.artefact("StatisticsGen", settings, make)


def example_validator(pipeline, examples, measured):
    """What is wrong with the store; an `Artefact` that says whether it may be used.

    Its statistics are compared with the last ones that led to a pushed model.
    """
    schema, own = pipeline.settings.schema, measured.folder.name
    before = [each["statistics"] for each in pipeline.blessings]
    last = next((name for name in reversed(before) if name != own), None)
    settings = {
        "statistics": own,
        "before": last,
        "unusable": len(examples.unusable),
        "schema": dataclasses.asdict(schema),
    }

    def make(folder):
        load = statistics.Statistics.load
        now = load(measured.folder)
        found = statistics.check(now, examples.unusable, schema)
        there = last and (measured.folder.parent / last)
        if there and (there / statistics.SONGS).exists():
            found += statistics.drift(now, load(there), schema)
        elif last:
            gone = f"{there}, the statistics of the last pushed model, are gone"
            found.append(statistics.Anomaly("no baseline", gone))
        if (measured.folder / "doctor.json").exists():
            _, findings = files.read_json(measured.folder / "doctor.json")
            found += [
                statistics.Anomaly(each["kind"], f"{each['where']}: {each['message']}")
                for each in findings
                # A file that cannot be used is among the unusable ones already.
                if each["severity"] == doctor.ERROR
                and each["path"] not in examples.unusable
            ]
        counted = [each for each in found if each.kind not in schema.accepted]
        rows = [[each.kind, each.message, int(each not in counted)] for each in found]
        files.write_csv(folder / "anomalies.csv", ["kind", "message", "accepted"], rows)
        verdict = f"{len(counted)} anomalies" if counted else "as the schema wants it"
        return {
            "verdict": verdict,
            "passed": not counted,
            "anomalies": [f"{each.kind}: {each.message}" for each in counted],
        }

    return pipeline.artefact("ExampleValidator", settings, make)


# === Training: Tuner, Trainer ===


def tuner(pipeline, examples):
    """Searches the loss weights, if the settings ask for it; `Artefact` or `None`."""
    count, config = pipeline.settings.trials, pipeline.config
    if not count:
        return None
    from tuning import journal, space, study, trials

    weights = space.load_space(None)
    space.check(weights, config)
    searched = space.to_json(weights)
    search = study.Search("bayesian", count, 1, searched, config.to_dict())
    settings = {
        "content": examples.content("train", "validation"),
        "config": config.to_dict(),
        "trials": count,
    }

    def make(folder):
        where = folder / "search"
        study.open_folder(where, search)
        events = journal.Journal(where / "events.jsonl")
        sources = examples.sources(config, "train", "validation")
        with (
            study.worker_name(where) as worker,
            pipeline.observer.progress("Searching loss weights") as progress,
        ):

            def show(event, past):
                progress(sum(each["event"] == "end" for each in events.read()), count)

            classes = len(examples.division.artists)
            part = study.Study(where, worker, show)
            trials.run_trials(part, sources, classes, lambda *_: [])
        rows = trials.results(where, events.read())
        best, found = trials.best_of(folder, rows, search)
        found.save(folder / "best.yaml")
        verdict = f"{config.train.objective} {best.score:.3f} of {len(rows)} trials"
        return {"verdict": verdict, "trial": best.trial}

    return pipeline.artefact("Tuner", settings, make, essential=("best.yaml",))


def trainer(pipeline, examples, tuned, strategy):
    """Trains, calibrates, scores validation songs and exports; an `Artefact`.

    It is a run folder, named as the model, beside `candidate/`, the export; it does not
    depend on test songs. `tuned` is what `tuner` returned.
    """
    from lca_keras.voices import strangers

    job, settings = training_run(pipeline, examples, tuned)

    def make(folder):
        if (folder / "candidate").exists():  # Of an export that was killed.
            shutil.rmtree(folder / "candidate")
        sources = examples.sources(job.config, "train", "validation")
        way = examples.corpus, examples.division, sources
        result = job.complete(
            course.WITHOUT_TEST,
            course=course.Course(job, *way, observer=pipeline.observer),
            strategy=strategy,
            anew=True,
        )
        found, (model, _) = result.evaluations["validation"], job.load_model()
        keys, means = list(found.main.predictions.songs), found.main.means
        gallery = job.gallery
        if gallery is not None:  # Clips without voice don't count.
            about = sources["validation"], gallery.detector
            heard = strangers.describe_clips(model.backbone, *about)
            verdicts = strangers.verdicts(gallery, heard, model.temperature)
            keys = list(verdicts)
            means = np.stack([verdicts[key].probabilities for key in keys])
        np.savez(folder / "answers.npz", keys=keys, means=means)
        return {"verdict": f"validation songs F1 {found.scores['song']['f1']:.3f}"}

    essential = ("answers.npz", "candidate/**/*", f"{pipeline.name}/model.keras")
    return pipeline.artefact("Trainer", settings, make, essential=essential)


def training_run(pipeline, examples, tuned):
    """The `Run` of `trainer`, whether it has begun or not, and all that decides it."""
    config = pipeline.config
    if tuned is not None:
        config = Config.load(tuned.folder / "best.yaml")
    settings = {
        "content": examples.content("train", "validation"),
        "config": config.to_dict(),
        "name": pipeline.name,
    }
    folder = pipeline.folder("Trainer", settings)
    job = Run(
        folder=folder / pipeline.name,
        config=config,
        source=corpus.DataSource(store=str(examples.corpus.store.folder)),
        exports=str(folder / "candidate"),
    )
    return job, settings


def candidate(pipeline, trained):
    """Folder of the version that `trainer` has exported."""
    return versions.find_version(trained.folder / "candidate" / pipeline.name)


def identity(export):
    """What tells two models apart: a digest of the files that compute."""
    computing = ("saved_model.pb", "variables/", "labels.txt")
    sums = integrity.read_sums(export).items()
    return artefacts.digest({n: v for n, v in sums if n.startswith(computing)})


# === Judging: Evaluator, InfraValidator ===


def evaluator(pipeline, examples, trained):
    """Scores the candidate beside the pushed version, and judges; an `Artefact`."""
    export = candidate(pipeline, trained)
    own, pushed = identity(export), pipeline.pushed
    # The newest one that is another model.
    baseline = next((folder for folder in pushed if identity(folder) != own), None)
    thresholds, may_drop = pipeline.settings.thresholds, pipeline.settings.may_drop
    settings = {
        "content": examples.content("test"),
        "candidate": own,
        "baseline": baseline and identity(baseline),
        "thresholds": [dataclasses.asdict(each) for each in thresholds],
        "may_drop": may_drop,
    }

    def make(folder):
        keys, rows = examples.keys("test"), []
        if not keys:
            raise UserError("no test songs: a candidate cannot be judged")
        exports = {blessing.CANDIDATE: export, blessing.BASELINE: baseline}
        with pipeline.observer.working("Deciding about test songs"):
            for name, each in exports.items():
                if each:
                    rows += blessing.decide(each, examples.corpus, keys, name)
        files.write_csv(folder / "decisions.csv", list(rows[0]), rows)
        with pipeline.observer.working("Analysing"):
            scores = blessing.analyse(rows, folder / "analysis")
        share = _band_share(pipeline, examples, trained, thresholds)
        known = _known_to(pipeline, baseline, examples, keys) if baseline else 0
        judged = blessing.judge(thresholds, scores, share, bool(baseline))
        if baseline:
            judged.append(blessing.judge_artists(export, baseline, may_drop))
        files.write_csv(folder / "scores.csv", *blessing.table(scores))
        about = judged, scores, rows, share, baseline, known
        blessing.write_page(folder, pipeline.name, *about)
        missed = [each for each in judged if not each.passed]
        broken = [f"{each.threshold}, is {each.describe()}" for each in missed]
        return {
            "verdict": f"not blessed: {'; '.join(broken)}" if broken else "blessed",
            "passed": not broken,
            "baseline": baseline and baseline.name,
            "known_to_baseline": known,
            "judgements": [dataclasses.asdict(each) for each in judged],
            "scores": {at: scores[blessing.CANDIDATE, at, "", ""] for at in LEVELS},
            "band_share": share,
        }

    return pipeline.artefact("Evaluator", settings, make)


def _known_to(pipeline, baseline, examples, keys):
    """How many of these songs a version learned from; `None` if its run is gone."""
    about = files.read_json(baseline / versions.METADATA)
    try:
        job = Run.load(about.get("run", ""))
    except UserError:
        return None
    how = job.source, job.config, job.folder
    learned, note = corpus.learned_from(*how, examples.corpus)
    pipeline.observer.notes([note] if note else [])
    return len(set(learned) & set(keys))


def _band_share(pipeline, examples, trained, thresholds):
    """Share of decisions that follow the band, or why it is not known."""
    if all(each.metric != "band_share" for each in thresholds):
        return "no threshold asks for it"
    job = Run.load(trained.folder / pipeline.name)
    source = dataclasses.replace(pipeline.source, store=None)
    try:
        judgement.check_voice_report(job.config)
        model, artists = job.load_model()
        clips = examples.sources(job.config, "test")["test"]
        songs = [s for s in examples.corpus.songs if s.key in clips.labels]
        separable = source.separator or judgement.stems_at_hand(songs)
        if job.config.features.source != "stems" and not separable:
            return "these songs have no stems, and no separator was named"
        about = clips, artists, source, job.config, songs, pipeline.observer
        report = judgement.voice_report(job.folder, model, *about, whole=True)
    except UserError as error:
        return str(error)
    return report.shares["band"]


def infra_validator(pipeline, examples, trained):
    """Tries the candidate as a server would have it; an `Artefact`."""
    export, limits = candidate(pipeline, trained), pipeline.settings.infra
    settings = {
        "candidate": identity(export),
        "sums": artefacts.digest(integrity.read_sums(export)),
        "limits": dataclasses.asdict(limits),
    }

    def make(folder):
        with np.load(trained.folder / "answers.npz", allow_pickle=False) as arrays:
            expected = dict(zip(arrays["keys"].tolist(), arrays["means"], strict=True))
        with pipeline.observer.working("Asking the candidate in a process of its own"):
            checks = infra.validate(export, examples.corpus.store, expected, limits)
        rows = [[check.what, int(check.passed), check.said] for check in checks]
        files.write_csv(folder / "checks.csv", ["check", "passed", "said"], rows)
        failed = [f"{each.what}: {each.said}" for each in checks if not each.passed]
        verdict = "; ".join(failed) or f"{len(checks)} checks passed"
        return {"verdict": verdict, "passed": not failed}

    return pipeline.artefact("InfraValidator", settings, make)


# === Pushing: Pusher ===


def pusher(pipeline, measured, trained, evaluated, tried):
    """Pushes the candidate, unless it was pushed already; an `Artefact`.

    The version's card carries the scores on the test songs. What was pushed once, and
    another version has followed, after a roll-back say, is not pushed again unasked.
    """
    for artefact in (evaluated, tried):
        if not artefact.outcome["passed"]:
            live = pipeline.live
            raise UserError(
                f"not pushed, {f'{live} stays live' if live else 'nothing is'}. "
                f"{artefact.stage}: {artefact.outcome['verdict']}. See "
                f"{artefact.folder}"
            )
    export = candidate(pipeline, trained)
    # Not the evaluation: other test songs make no other model.
    settings = {"candidate": identity(export)}

    def make(folder):
        # A push that was killed after its rename has pushed all the same.
        pushed = pipeline.live
        if not pushed or identity(pushed) != settings["candidate"]:
            about = {"pipeline": pipeline.name, **settings}
            pushed = _push(pipeline, export, evaluated.outcome, about)
        number, verdict = int(pushed.name), f"pushed as {pushed}"
        label = "canary" if pipeline.settings.canary else "stable"
        labels.follow(pipeline.model, number, label)
        blessed = {"version": number, "statistics": measured.folder.name}
        kept = pipeline.root / "blessed.json"
        files.write_json(kept, [*pipeline.blessings, blessed])
        if pipeline.settings.keep:
            spare = labels.labels_of(pipeline.model).values()
            found = versions.prune(pipeline.model, pipeline.settings.keep, spare)
            for done, numbers in zip(("deleted", "spared"), found, strict=True):
                if numbers:
                    verdict += f", {done} {', '.join(map(str, numbers))}"
        return {"verdict": verdict, "version": number}

    def lost(outcome):
        return None if pipeline.live else f"{pipeline.model} has no version"

    artefact = pipeline.artefact("Pusher", settings, make, lost=lost)
    live = pipeline.live
    if artefact.reused and int(live.name) != artefact.outcome["version"]:
        if identity(live) == settings["candidate"]:
            artefact.outcome["verdict"] = f"live as {live}"
        else:
            artefact.outcome["verdict"] += (
                f", NOT LIVE: {live} is, which has followed it. --from Pusher pushes "
                "it again"
            )
    return artefact


def _push(pipeline, export, outcome, about):
    integrity.check(export)
    with versions.staging(pipeline.model) as temporary:
        shutil.copytree(export, temporary, dirs_exist_ok=True)
        metadata = files.read_json(temporary / versions.METADATA)
        metadata["metrics"]["test"] = outcome["scores"]
        told = ("judgements", "baseline", "band_share")
        metadata["evaluation"] = {name: outcome[name] for name in told}
        files.write_json(temporary / versions.METADATA, metadata)
        card = model_card(metadata)
        (temporary / "model_card.md").write_text(card, encoding="utf-8")
        integrity.write_sums(temporary)
        return versions.publish(temporary, pipeline.model, about)
