"""Whether a model may be pushed: Evaluator and InfraValidator."""

import dataclasses

import numpy as np

from lca_keras.base import files
from lca_keras.base.errors import UserError
from lca_keras.data import corpus
from lca_keras.exports import integrity, versions
from lca_keras.workflow import judgement
from lca_keras.workflow.run import Run
from pipelines import artefacts, blessing, infra, page
from pipelines.settings import LEVELS
from pipelines.stages.pushing import identity, pushed_before
from pipelines.stages.training import candidate


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
        known = _known_to(baseline, examples, keys) if baseline else 0
        judged = blessing.judge(thresholds, scores, share, bool(baseline))
        if baseline:
            judged.append(blessing.judge_artists(export, baseline, may_drop))
        files.write_csv(folder / "scores.csv", *blessing.table(scores))
        page.write(folder, pipeline.name, judged, scores, rows, share, baseline, known)
        broken = [
            f"{each.threshold}, is {each.describe()}"
            for each in judged
            if not each.passed
        ]
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
        failed = [f"{each.what}: {each.said}" for each in checks if not each.passed]
        verdict = "; ".join(failed) or f"{len(checks)} checks passed"
        return {"verdict": verdict, "passed": not failed}

    return pipeline.artefact("InfraValidator", settings, make)
