"""The songs: ExampleGen, StatisticsGen, ExampleValidator."""

import dataclasses
import time

from lca_keras.base import files
from lca_keras.base.errors import UserError
from lca_keras.corpora import doctor
from lca_keras.data import corpus
from lca_keras.data.corpus import DataSource
from lca_keras.data.extraction import Extractor
from pipelines import artefacts, statistics
from pipelines.extraction import extract
from pipelines.statistics import Anomaly, Statistics


@dataclasses.dataclass(frozen=True)
class Examples:
    """Songs with features and parts.

    Attributes:
        corpus: `lca_keras.data.corpus.Corpus`.
        division: `lca_keras.data.corpus.Division`.
        unusable: Dict from path to the reason why a file is left out.
    """

    corpus: corpus.Corpus
    division: corpus.Division
    unusable: dict

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
    usable = corpus.prepare(DataSource(store=str(folder)), config)
    unusable |= usable.skipped
    if source.strict and (unusable or usable.doubtful):
        reasons = {**unusable, **usable.doubtful}
        listed = [f"{path}: {reason}" for path, reason in reasons.items()]
        raise UserError("\n  ".join(["--strict: unusable or doubtful files", *listed]))
    division = corpus.divide(config, usable)
    rows = []
    for song in sorted(usable.songs):
        record, part = usable.store.records[song.key], division.part_of.get(song.key)
        about = [song.artist, song.album, song.song, part or "", record.content_hash]
        rows.append([*about, record.path])
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
        now = Statistics.load(measured.folder)
        found = statistics.check(now, examples.unusable, schema)
        there = last and (measured.folder.parent / last)
        if there and (there / statistics.SONGS).exists():
            found += statistics.drift(now, Statistics.load(there), schema)
        elif last:
            gone = f"{there}, the statistics of the last pushed model, are gone"
            found.append(Anomaly("no baseline", gone))
        if (measured.folder / "doctor.json").exists():
            _, findings = files.read_json(measured.folder / "doctor.json")
            found += [
                Anomaly(each["kind"], f"{each['where']}: {each['message']}")
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
