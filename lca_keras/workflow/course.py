"""The way of a run from its configuration to an export, step by step."""

import collections
import contextlib
import dataclasses
import pathlib

from lca_keras.base.observer import Observer
from lca_keras.data import corpus, split
from lca_keras.workflow import advice, records, training
from lca_keras.workflow.steps import Course, build

# By name, in their order.
STEPS = {
    "train": Course.train,
    "calibrate": Course.calibrate,
    "evaluate": Course.evaluate,
    "voice_report": Course.report_voices,
    "gallery": Course.set_up_gallery,
    "strangers": Course.measure_strangers,
    "export": Course.export,
}
# Those that need no test songs.
WITHOUT_TEST = tuple(name for name in STEPS if name != "voice_report")


@dataclasses.dataclass(frozen=True)
class Result:
    """What a run has come to, as its folder has it.

    Attributes:
        export: `pathlib.Path` of the exported version, or `None`.
        songs: Dict from part to its number of songs.
        scores: Dict from part to scores, of `lca_keras.evaluation.scoring.Evaluation`.
        told: Dict of what else the steps found, as `metrics.json` has it: `artists`,
            `best_epoch`, `temperature`, `parameters`, `voice_report`, and as `open_set`
            what the gallery is worth.
        evaluations: Dict from part to `Evaluation`; empty if nothing was evaluated now.
    """

    export: pathlib.Path | None
    songs: dict[str, int]
    scores: dict[str, dict]
    told: dict
    evaluations: dict = dataclasses.field(default_factory=dict, compare=False)

    @classmethod
    def of(cls, job, evaluations=()):
        """Reads it from the folder of a `lca_keras.workflow.run.Run`."""
        told = records.results(job.folder)
        scores = {part: told.pop(part) for part in split.PARTS if part in told}
        if export := told.pop("export", None):
            version = pathlib.Path(export).name
            export = pathlib.Path(job.exports, job.folder.name, version)
        parts = split.parts_by_name(job.folder / "split.csv").values()
        songs = dict(collections.Counter(parts))
        return cls(export, songs, scores, told, dict(evaluations))


def prepare_corpus(source, config, observer):
    """`lca_keras.data.corpus.prepare`, and an `Observer` sees what comes of it."""
    seen = observer if source.data else Observer()  # A store has its features.
    with seen.progress("Features") as show:
        found = corpus.prepare(source, config, show)
    observer.told("corpus", _counted(found))
    return found


def _counted(found):
    return {
        "songs": len(found.songs),
        "artists": len({song.artist for song in found.songs}),
        "skipped": found.skipped,
        "doubtful": found.doubtful,
        "notes": found.notes,
    }


def count_parts(division, sources):
    """Dict from part to its `songs`, its `clips` and the artists `lacking` there."""
    found = {}
    for part, source in sources.items():
        there = {division.artists[number] for number in source.labels.values()}
        found[part] = {
            "songs": len(source.labels),
            "clips": source.num_clips,
            # A fold may have none.
            "lacking": [artist for artist in division.artists if artist not in there],
        }
    return found


def prepare(job, observer=None):
    """Makes the songs of a `Run` ready: a `Course` with all parts.

    Nothing is left in its folder.
    """
    observer = observer or Observer()
    config, begun = job.config, (job.folder / "split.csv").exists()
    if job.source.data and not begun and not config.split.file:
        # Needs only the names: said before hours of feature extraction.
        split.split_songs(job.source.songs(), config.split, config.train.seed)
    observer.notes(advice.of_source(job.source))
    songs = prepare_corpus(job.source, config, observer)
    division = corpus.divide(config, songs, job.folder)
    strange = None
    if job.source.unknown is not None:
        with observer.progress("Features of strangers") as show:
            about = job.source, config, division.artists, show
            found, strange = corpus.strangers(*about)
        observer.told("strangers", _counted(found))
    if config.train.continue_from and not begun:
        observer.notes(advice.of_known(job, songs, division))
    observer.notes(advice.of_stems(config, songs.songs))
    sources = corpus.clip_sources(songs, division.part_of, division.artists, config)
    observer.notes(advice.of_parts(division))
    observer.told("parts", count_parts(division, sources))
    return Course(job, songs, division, sources, strange, observer)


def complete(job, wanted, observer=None, *, course=None, anew=False, held=False, **how):
    """Takes a run from where it stands to its end; a finished one tells its result.

    Its songs are made ready and its folder is begun in any case.

    Args:
        job: `lca_keras.workflow.run.Run`.
        wanted: Names of steps, of `STEPS`.
        observer: `lca_keras.base.observer.Observer`; without one nothing is shown.
        course: What `prepare` returned, or a `Course` of songs from elsewhere.
        anew: Whether a finished run is calibrated, evaluated and exported once more.
        held: Whether this process has locked the folder already.
        **how: `strategy` and `keep` of a `Course`.
    """
    if unknown := sorted(set(wanted) - set(STEPS)):
        raise ValueError(f"unknown steps {unknown}; these are {', '.join(STEPS)}")
    trained = training.TrainingState.load(job.checkpoints).epoch
    if not anew and "export" in wanted and trained >= job.config.train.epochs:
        result = Result.of(job)
        if result.export and result.export.exists():
            return result
    course = dataclasses.replace(course or prepare(job, observer), **how)
    if not job.folder.exists():
        job.save()
    with contextlib.nullcontext() if held else job.working(course.corpus.store):
        job.save()
        corpus.keep_split(job.folder, course.corpus, course.division)
        # What is exported from here on is another one.
        records.drop_result(job.folder, "export")
        for name, step in STEPS.items():
            if name in wanted:
                step(course)
    return Result.of(job, course.evaluations)


def train_along(job, songs, strategy):
    """Trains a `Run` as another process than the first, which does all the rest.

    The first has begun it; `songs` is its `lca_keras.data.corpus.Corpus`.
    """
    division = corpus.divide(job.config, songs, job.folder)
    artists, parts = division.artists, ("train", "validation")
    sources = corpus.clip_sources(songs, division.part_of, artists, job.config, parts)
    where = job.checkpoints, (), build(job), strategy
    return training.train(job.config, sources, len(artists), *where)
