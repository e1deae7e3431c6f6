"""The stages of a pipeline: functions from artefacts to an artefact.

ExampleGen -> StatisticsGen -> ExampleValidator -> Tuner -> Trainer -> Evaluator ->
InfraValidator -> Pusher, as TFX names them. Each takes what it depends on, and its
settings name just that: of the songs a training depends on those of its parts, and
an evaluation on the test songs.
"""

import dataclasses
import functools
import pathlib
import shutil
import time

import numpy as np

from lca_keras.base import files
from lca_keras.base.config import Config
from lca_keras.base.errors import UserError
from lca_keras.base.observer import Observer
from lca_keras.corpora import doctor
from lca_keras.data import corpus
from lca_keras.data.corpus import DataSource
from lca_keras.data.extraction import Extractor
from lca_keras.exports import integrity, labels, versions
from lca_keras.exports.card import model_card
from lca_keras.workflow import course, judgement
from lca_keras.workflow.run import Run
from pipelines import artefacts, blessing, infra, page, statistics
from pipelines.extraction import LOCAL_RUNNER, extract
from pipelines.settings import Settings

# Raised by whoever changes what a stage makes of the same settings.
_FORMAT = 2


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pipeline:
    """What all stages share.

    Attributes:
        name: Name of the model.
        workshop: `pipelines.artefacts.Workshop`.
        config: `lca_keras.base.config.Config`.
        settings: `pipelines.settings.Settings`.
        source: `lca_keras.data.corpus.DataSource`.
        exports: Folder of all exports.
        beam_options: Beam's options of the extraction.
        observer: `lca_keras.base.observer.Observer` of the stages.
    """

    name: str
    workshop: artefacts.Workshop
    config: Config
    settings: Settings
    source: DataSource
    exports: pathlib.Path
    beam_options: tuple[str, ...] = (f"--runner={LOCAL_RUNNER}",)
    observer: Observer = dataclasses.field(default_factory=Observer)

    @property
    def model(self):
        """Folder of the pushed versions."""
        return pathlib.Path(self.exports, self.name)

    @functools.cached_property
    def blessings(self):
        """What was pushed before, a list of dicts, the last one last."""
        path = self.workshop.root / "blessed.json"
        return files.read_json(path) if path.exists() else []

    def artefact(self, stage, settings, make, **options):
        """`pipelines.artefacts.Workshop.artefact` of this release's stages."""
        settings = {"format": _FORMAT, **settings}
        return self.workshop.artefact(stage, settings, make, **options)

    def folder(self, stage, settings):
        """`pipelines.artefacts.Workshop.folder` of this release's stages."""
        return self.workshop.folder(stage, {"format": _FORMAT, **settings})


# === Examples ===


@dataclasses.dataclass(frozen=True)
class Examples:
    """Songs with features and parts.

    Attributes:
        artefact: `pipelines.artefacts.Artefact`, with `split.csv` and `songs.csv`.
        corpus: `lca_keras.data.corpus.Corpus`.
        division: `lca_keras.data.corpus.Division`.
        unusable: Dict from path to the reason why a file is left out.
    """

    artefact: artefacts.Artefact
    corpus: corpus.Corpus
    division: corpus.Division
    unusable: dict

    def content(self, *parts):
        """Dict for JSON that changes when something in these parts of songs does."""
        of = self.division.part_of
        records = self.corpus.store.records
        songs = [
            [song.artist, song.album, song.song, records[song.key].content_hash]
            for song in sorted(self.corpus.songs)
            if of.get(song.key) in parts
        ]
        return {"artists": self.division.artists, "songs": artefacts.digest(songs)}

    def sources(self, config, *parts):
        """Dict from part to `lca_keras.data.clips.ClipSource`."""
        return corpus.clip_sources(
            self.corpus, self.division.part_of, self.division.artists, config, parts
        )


def example_gen(pipeline):
    """Lists the songs, computes what their features lack, divides them; `Examples`."""
    start = time.monotonic()
    source, config = pipeline.source, pipeline.config
    unusable = {}
    if source.data:
        songs = source.songs(unusable)
        folder = corpus.store_folder(source, config).absolute()
        extractor = Extractor(config.features, source.separator)
        others = corpus.neighbours(folder, config.features)
        statuses = extract(
            songs, folder, extractor, list(pipeline.beam_options), others
        )
        for song in songs:
            status, reason = statuses[song.key]
            if status == "failed":
                unusable[str(song.path)] = reason
    else:
        folder, statuses = pathlib.Path(source.store).absolute(), {}
    usable = corpus.prepare(DataSource(store=str(folder)), config)
    unusable |= usable.skipped
    if source.strict and (unusable or usable.doubtful):
        reasons = {**unusable, **usable.doubtful}
        listed = [f"{path}: {reason}" for path, reason in reasons.items()]
        raise UserError("\n  ".join(["--strict: unusable or doubtful files", *listed]))
    division = corpus.divide(config, usable)
    records = usable.store.records
    rows = [
        [s.artist, s.album, s.song, division.part_of.get(s.key, ""), records[s.key]]
        for s in sorted(usable.songs)
    ]
    settings = {
        "features": dataclasses.asdict(config.features),
        "songs": artefacts.digest([[*row[:4], row[4].content_hash] for row in rows]),
        "unusable": unusable,
    }

    def make(folder):
        corpus.keep_split(folder, usable, division)
        columns = ["artist", "album", "song", "part", "content_hash", "path"]
        songs = [[*row[:4], row[4].content_hash, row[4].path] for row in rows]
        songs += [["", "", "", "left out", why, p] for p, why in unusable.items()]
        files.write_csv(folder / "songs.csv", columns, songs)
        verdict = f"{len(usable.songs)} songs of {len(division.artists)} artists"
        if unusable:
            verdict += f", {len(unusable)} files left out"
        return {"verdict": verdict, "store": str(usable.store.folder)}

    artefact = pipeline.artefact("ExampleGen", settings, make)
    computed = any(status == "done" for status, _ in statuses.values())
    artefact = dataclasses.replace(
        artefact,
        # Of songs that came back the store had lost the features.
        reused=artefact.reused and not computed,
        seconds=time.monotonic() - start,
    )
    pipeline.workshop.made[-1] = artefact
    return Examples(artefact, usable, division, unusable)


# === Statistics and what is wrong ===


def statistics_gen(pipeline, examples):
    """Statistics of the store, and the doctor's findings; an `Artefact`."""
    schema, source = pipeline.settings.schema, pipeline.source
    content = examples.content("train", "validation", "test")
    settings = {"content": content, "doctor": bool(schema.doctor and source.data)}

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
    schema = pipeline.settings.schema
    before = [
        each["statistics"]
        for each in pipeline.blessings
        if each["statistics"] != measured.folder.name
    ]
    last = before[-1] if before else None
    settings = {
        "statistics": measured.folder.name,
        "before": last,
        "unusable": len(examples.unusable),
        "schema": dataclasses.asdict(schema),
    }

    def make(folder):
        now = statistics.Statistics.load(measured.folder)
        found = statistics.check(now, examples.unusable, schema)
        there = last and (measured.folder.parent / last)
        if there and (there / statistics.SONGS).exists():
            found += statistics.drift(now, statistics.Statistics.load(there), schema)
        elif last:
            found.append(
                statistics.Anomaly(
                    "no baseline",
                    f"{there}, the statistics of the last pushed model, are gone",
                )
            )
        if (measured.folder / "doctor.json").exists():
            _, findings = files.read_json(measured.folder / "doctor.json")
            found += [
                statistics.Anomaly(each["kind"], f"{each['where']}: {each['message']}")
                for each in findings
                # A file that cannot be used is among the unusable ones already.
                if each["severity"] == doctor.ERROR
                and each["path"] not in examples.unusable
            ]
        rows = [
            [each.kind, each.message, int(each.kind in schema.accepted)]
            for each in found
        ]
        files.write_csv(folder / "anomalies.csv", ["kind", "message", "accepted"], rows)
        counted = [each for each in found if each.kind not in schema.accepted]
        verdict = f"{len(counted)} anomalies" if counted else "as the schema wants it"
        return {
            "verdict": verdict,
            "passed": not counted,
            "anomalies": [f"{each.kind}: {each.message}" for each in counted],
        }

    return pipeline.artefact("ExampleValidator", settings, make)


# === Training ===


def tuner(pipeline, examples):
    """Searches the loss weights, where the settings ask for it; `Artefact` or `None`.

    Leaves `best.yaml`.
    """
    trials = pipeline.settings.trials
    if not trials:
        return None
    from tuning import space as spaces
    from tuning import study, work
    from tuning import trials as tuning_trials
    from tuning.journal import Journal

    config = pipeline.config
    space = spaces.load_space(None)
    spaces.check(space, config)
    search = study.Search(
        "bayesian", trials, 1, spaces.to_json(space), config.to_dict()
    )
    settings = {
        "content": examples.content("train", "validation"),
        "config": config.to_dict(),
        "trials": trials,
    }

    def make(folder):
        study.open_folder(folder / "search", search)
        sources = examples.sources(config, "train", "validation")
        with (
            study.worker_name(folder / "search") as worker,
            pipeline.observer.progress("Searching loss weights") as progress,
        ):

            def count(event, past):
                progress(len(_ended(folder / "search")), trials)

            classes = len(examples.division.artists)
            work.run_trials(
                folder / "search", sources, classes, worker, lambda *_: [], count
            )
        events = Journal(folder / "search" / "events.jsonl").read()
        rows = tuning_trials.results(folder / "search", events)
        best, found = tuning_trials.best_of(folder, rows, search)
        found.save(folder / "best.yaml")
        verdict = f"{search.objective} {best.score:.3f} of {len(rows)} trials"
        return {"verdict": verdict, "trial": best.trial}

    return pipeline.artefact("Tuner", settings, make, essential=("best.yaml",))


def _ended(folder):
    from tuning.journal import Journal

    events = Journal(folder / "events.jsonl").read()
    return [event for event in events if event["event"] == "end"]


def trainer(pipeline, examples, tuned, strategy=None):
    """Trains, calibrates, scores validation songs and exports; an `Artefact`.

    It is a run folder, named as the model, beside `candidate/`, the export; it does not
    depend on test songs.

    Args:
        pipeline: `Pipeline`.
        examples: `Examples`.
        tuned: What `tuner` returned.
        strategy: Optional `tf.distribute.Strategy` to train under.
    """
    from lca_keras.voices import strangers

    settings = _training(pipeline, examples, tuned)

    def make(folder):
        job = training_run(pipeline, examples, tuned)
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
        network, gallery = model.backbone, job.gallery
        keys, means = list(found.main.predictions.songs), found.main.means
        if gallery is not None:  # Clips without voice don't count.
            heard = strangers.describe_clips(
                network, sources["validation"], gallery.detector
            )
            verdicts = strangers.verdicts(gallery, heard, model.temperature)
            keys = list(verdicts)
            means = np.stack([verdicts[key].probabilities for key in keys])
        np.savez(folder / "answers.npz", keys=keys, means=means)
        f1 = found.scores["song"]["f1"]
        return {"verdict": f"validation songs F1 {f1:.3f}"}

    essential = ("answers.npz", "candidate/**/*", f"{pipeline.name}/model.keras")
    return pipeline.artefact("Trainer", settings, make, essential=essential)


def _training(pipeline, examples, tuned):
    """What decides a training, a dict for JSON."""
    config = pipeline.config
    if tuned is not None:
        config = Config.load(tuned.folder / "best.yaml")
    return {
        "content": examples.content("train", "validation"),
        "config": config.to_dict(),
        "name": pipeline.name,
    }


def training_run(pipeline, examples, tuned):
    """The `lca_keras.workflow.run.Run` of `trainer`, whether it has begun or not."""
    settings = _training(pipeline, examples, tuned)
    folder = pipeline.folder("Trainer", settings)
    return Run(
        folder=folder / pipeline.name,
        config=Config.from_dict(settings["config"]),
        source=DataSource(store=str(examples.corpus.store.folder)),
        exports=str(folder / "candidate"),
    )


def candidate(pipeline, trained):
    """Folder of the version that `trainer` has exported."""
    return versions.find_version(trained.folder / "candidate" / pipeline.name)


# === Judgement ===


def evaluator(pipeline, examples, trained):
    """Scores the candidate beside the pushed version, and judges; an `Artefact`.

    Leaves the decisions, TensorFlow Model Analysis' files, `scores.csv` and
    `results.html`.
    """
    export = candidate(pipeline, trained)
    baseline = pushed_before(pipeline, export)
    thresholds = pipeline.settings.thresholds
    may_drop = pipeline.settings.may_drop
    settings = {
        "content": examples.content("test"),
        "candidate": identity(export),
        "baseline": baseline and identity(baseline),
        "thresholds": [dataclasses.asdict(each) for each in thresholds],
        "may_drop": may_drop,
    }

    def make(folder):
        part_of = examples.division.part_of
        keys = [s.key for s in sorted(examples.corpus.songs)]
        keys = [key for key in keys if part_of.get(key) == "test"]
        if not keys:
            raise UserError("no test songs: a candidate cannot be judged")
        with pipeline.observer.working("Deciding about test songs"):
            rows = blessing.decide(export, examples.corpus, keys)
            if baseline:
                rows += blessing.decide(
                    baseline, examples.corpus, keys, blessing.BASELINE
                )
        blessing.write_decisions(folder / "decisions.csv", rows)
        with pipeline.observer.working("Analysing"):
            scores = blessing.analyse(rows, folder / "analysis")
        share = _band_share(pipeline, examples, trained, thresholds)
        known = _known_to(baseline, examples, keys) if baseline else 0
        judged = blessing.judge(thresholds, scores, share, bool(baseline))
        if baseline:
            judged.append(blessing.judge_artists(export, baseline, may_drop))
        columns, table = blessing.table(scores)
        files.write_csv(folder / "scores.csv", columns, table)
        blessed = all(each.passed for each in judged)
        broken = [each for each in judged if not each.passed]
        page.write(folder, pipeline.name, judged, scores, rows, share, baseline, known)
        verdict = (
            "blessed"
            if blessed
            else "not blessed: "
            + "; ".join(f"{each.threshold}, is {each.describe()}" for each in broken)
        )
        overall = {
            level: scores[blessing.CANDIDATE, level, "", ""]
            for level in ("song", "frame")
        }
        return {
            "verdict": verdict,
            "passed": blessed,
            "baseline": baseline and baseline.name,
            "known_to_baseline": known,
            "judgements": [dataclasses.asdict(each) for each in judged],
            "scores": overall,
            "band_share": share,
        }

    return pipeline.artefact("Evaluator", settings, make)


def _known_to(baseline, examples, keys):
    """How many of these songs a pushed version was trained on or chosen by.

    As far as its run is still there.
    """
    about = files.read_json(baseline / versions.METADATA)
    try:
        job = Run.load(about.get("run", ""))
    except UserError:
        return 0
    learned = corpus.learned_from(job.source, job.config, job.folder, examples.corpus)
    return len(set(learned) & set(keys))


def pushed_before(pipeline, export):
    """Folder of the newest pushed version that is another model, or `None`."""
    own = identity(export)
    for number in reversed(versions.versions(pipeline.model)):
        folder = pipeline.model / str(number)
        if identity(folder) != own:
            return folder
    return None


def identity(export):
    """What tells two models apart: a digest of the files that compute."""
    computing = ("saved_model.pb", "variables/", "labels.txt")
    sums = integrity.read_sums(export).items()
    return artefacts.digest({n: v for n, v in sums if n.startswith(computing)})


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
    export = candidate(pipeline, trained)
    limits = pipeline.settings.infra
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
        failed = [check for check in checks if not check.passed]
        verdict = f"{len(checks)} checks passed"
        if failed:
            verdict = "; ".join(f"{check.what}: {check.said}" for check in failed)
        return {"verdict": verdict, "passed": not failed}

    return pipeline.artefact("InfraValidator", settings, make)


# === Pushing ===


def pusher(pipeline, examples, measured, trained, evaluated, tried):
    """Pushes the candidate, unless it was pushed already; an `Artefact`.

    The version's card carries the scores on the test songs. What was pushed once, and
    another version has followed, after a roll-back say, is not pushed again unasked.

    Raises:
        UserError: The candidate is not blessed, or cannot be served.
    """
    for artefact in (evaluated, tried):
        if not artefact.outcome["passed"]:
            live = _live(pipeline)
            raise UserError(
                f"not pushed, {f'{live} stays live' if live else 'nothing is'}. "
                f"{artefact.stage}: {artefact.outcome['verdict']}. See "
                f"{artefact.folder}"
            )
    export = candidate(pipeline, trained)
    # Not the evaluation: other test songs make no other model.
    settings = {"candidate": identity(export)}
    own = {"pipeline": pipeline.name, "candidate": identity(export)}

    def make(folder):
        # A push that was killed after its rename has pushed all the same.
        pushed = _live(pipeline)
        if not pushed or identity(pushed) != own["candidate"]:
            pushed = _push(pipeline, export, evaluated, own)
        label = "canary" if pipeline.settings.canary else "stable"
        labels.follow(pipeline.model, int(pushed.name), label)
        blessed = {"version": int(pushed.name), "statistics": measured.folder.name}
        files.write_json(
            pipeline.workshop.root / "blessed.json", [*pipeline.blessings, blessed]
        )
        verdict = f"pushed as {pushed}"
        if pipeline.settings.keep:
            spare = labels.labels_of(pipeline.model).values()
            found = versions.prune(pipeline.model, pipeline.settings.keep, spare)
            for done, numbers in zip(("deleted", "spared"), found, strict=True):
                if numbers:
                    verdict += f", {done} {', '.join(map(str, numbers))}"
        return {"verdict": verdict, "version": int(pushed.name)}

    def lost(outcome):
        return None if _live(pipeline) else f"{pipeline.model} has no version"

    artefact = pipeline.artefact("Pusher", settings, make, lost=lost)
    live = _live(pipeline)
    if artefact.reused and int(live.name) != artefact.outcome["version"]:
        verdict = artefact.outcome["verdict"]
        if identity(live) == own["candidate"]:
            verdict = f"live as {live}"
        else:
            verdict += (
                f", NOT LIVE: {live} is, which has followed it. --from Pusher pushes "
                "it again"
            )
        outcome = {**artefact.outcome, "verdict": verdict}
        artefact = dataclasses.replace(artefact, outcome=outcome)
        pipeline.workshop.made[-1] = artefact
    return artefact


def _live(pipeline):
    """Folder of the newest version, or `None`."""
    numbers = versions.versions(pipeline.model)
    return pipeline.model / str(numbers[-1]) if numbers else None


def _push(pipeline, export, evaluated, own):
    integrity.check(export)
    with versions.staging(pipeline.model) as temporary:
        shutil.copytree(export, temporary, dirs_exist_ok=True)
        metadata = files.read_json(temporary / versions.METADATA)
        outcome = evaluated.outcome
        metadata["metrics"]["test"] = outcome["scores"]
        metadata["evaluation"] = {
            name: outcome[name] for name in ("judgements", "baseline", "band_share")
        }
        files.write_json(temporary / versions.METADATA, metadata)
        card = model_card(metadata)
        (temporary / "model_card.md").write_text(card, encoding="utf-8")
        integrity.write_sums(temporary)
        return versions.publish(temporary, pipeline.model, own)
