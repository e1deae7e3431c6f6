"""Ways to train beside each other, and what they listen to."""

from lca_keras.evaluation.voice_report import FOLLOWED
from lca_keras.studies import tables
from lca_keras.studies.results import Table


def report_cell(laboratory, trained):
    """The arguments of `lca_keras.workflow.cells.cell` for a `Trained`."""
    from lca_keras.evaluation import voice_report

    def listen():
        source = laboratory.sources(trained.config, ["test"])[0]["test"]
        report = voice_report.listen(trained.model(), source, trained.artists)
        return report.to_dict()

    # The scores belong to it: another training makes another model.
    settings = {"training": trained.result}
    return trained.folder / "voice-report", settings, listen


def table(trained, reports, variants, seconds, seeds, against):
    """The `Table` of variants.

    Args:
        trained: Dict from (variant, seconds, seed) to `Trained`.
        reports: Dict from the same to what `report_cell` computes, or empty.
        variants: List of variants.
        seconds: Int, length of a clip.
        seeds: List of ints.
        against: The variant that all are compared with.
    """
    columns = ["variant", "train clips", "validation clips / songs"]
    columns += [f"test {level}" for level in tables.LEVELS]
    columns += [f"test songs minus {against}", "follows voice / band"]
    found = {
        name: tables.scores([trained[name, seconds, seed] for seed in seeds])
        for name in variants
    }
    rows, records = [], []
    for name in variants:
        results = [trained[name, seconds, seed].result for seed in seeds]
        training = tables.Plain([each["train_f1"] for each in results])
        validation = {
            level: tables.Plain([each["validation"][level]["f1"] for each in results])
            for level in ("frame", "song")
        }
        record = {"variant": name, "seeds": " ".join(map(str, seeds))}
        record |= training.record("train_clips")
        for level, plain in validation.items():
            record |= plain.record(f"validation_{level}")
        row = [name, training.describe()]
        row.append(" / ".join(plain.describe() for plain in validation.values()))
        for level in tables.LEVELS:
            row.append(found[name][level].describe())
            record |= found[name][level].record(
                level.replace(", ", "_").replace(" ", "_")
            )
        lead = ""
        if name != against:
            ahead = tables.Lead.of(found[name]["songs"], found[against]["songs"])
            lead = ahead.describe()
            record |= ahead.record("songs_minus_baseline")
        row.append(lead)
        followed = ""
        listened = [reports.get((name, seconds, seed)) for seed in seeds]
        if all(listened):
            shares = {
                kind: tables.Plain([each["shares"][kind] for each in listened])
                for kind in FOLLOWED[:2]
            }
            followed = " / ".join(share.describe() for share in shares.values())
            for kind, share in shares.items():
                record |= share.record(f"follows_{kind}")
        row.append(followed)
        rows.append(row)
        records.append(record)
    kinds = "seed" if len(seeds) == 1 else "seeds"
    note = f"{len(seeds)} {kinds} ({', '.join(map(str, seeds))}). {tables.READING}"
    title = "Ways to train"
    return Table("variants", title, columns, rows, records, note)
