"""The training: Tuner and Trainer."""

import shutil

import numpy as np

from lca_keras.base.config import Config
from lca_keras.data.corpus import DataSource
from lca_keras.exports import versions
from lca_keras.workflow import course
from lca_keras.workflow.run import Run


def tuner(pipeline, examples):
    """Searches the loss weights, where the settings ask for it; `Artefact` or `None`.

    Leaves `best.yaml`.
    """
    trials, config = pipeline.settings.trials, pipeline.config
    if not trials:
        return None
    from tuning import space as spaces
    from tuning import study
    from tuning import trials as tuning_trials
    from tuning.journal import Journal

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
        where = folder / "search"
        study.open_folder(where, search)
        journal = Journal(where / "events.jsonl")
        sources = examples.sources(config, "train", "validation")
        with (
            study.worker_name(where) as worker,
            pipeline.observer.progress("Searching loss weights") as progress,
        ):

            def count(event, past):
                ended = [each for each in journal.read() if each["event"] == "end"]
                progress(len(ended), trials)

            classes = len(examples.division.artists)
            part = study.Study(where, worker, count)
            tuning_trials.run_trials(part, sources, classes, lambda *_: [])
        rows = tuning_trials.results(where, journal.read())
        best, found = tuning_trials.best_of(folder, rows, search)
        found.save(folder / "best.yaml")
        verdict = f"{config.train.objective} {best.score:.3f} of {len(rows)} trials"
        return {"verdict": verdict, "trial": best.trial}

    return pipeline.artefact("Tuner", settings, make, essential=("best.yaml",))


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
