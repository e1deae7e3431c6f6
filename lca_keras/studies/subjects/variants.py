"""Ways to train beside each other, and what they listen to."""

import dataclasses
import functools

from lca_keras.base.errors import UserError
from lca_keras.evaluation import voice_report
from lca_keras.studies import scores
from lca_keras.studies.results import Column, Table
from lca_keras.studies.study import Study, has_vocals


class Variants(Study):
    """Any ways to train, compared."""

    title = "Ways to train"

    def __init__(self, args, crew):
        super().__init__(args, crew)
        source, split_file = self.data()
        # Where they are at hand, or asked for.
        stems = bool(args.separator) or has_vocals(source.songs())
        stems = stems or any("remix" in name.split("+") for name in args.variants)
        self.config = self.configuration(split_file, stems)
        self.against = args.against or args.variants[0]
        if self.against not in args.variants:
            raise UserError(f"--against {self.against}: not among --variants")
        self.variants = args.variants
        about = {"variants": self.variants, "against": self.against}
        self.settings = self.settings_of(source, **about)
        source = dataclasses.replace(source, separator=self.separator_folder)
        self.songs = self.laboratory(source)

    def trainings(self):
        """Each variant with each seed."""
        return self.by_seed(self.songs, self.variants)

    def measurements(self, trained):
        """Voice reports of what was trained on stems."""
        cells = {}
        for name, each in trained.items():
            if each.config.features.source == "stems":
                # The scores belong to it: another training makes another model.
                settings = {"training": each.result}
                listen = functools.partial(self._listen, each)
                cells[name] = each.folder / "voice-report", settings, listen
        return cells

    def _listen(self, trained):
        source = self.songs.sources(trained.config)[0]["test"]
        report = voice_report.report(trained.model(), source, trained.artists)
        return report.to_dict()

    def show(self, trained, found):
        """The table."""
        columns = [
            Column("variant", "variant"),
            Column("", "seeds"),
            Column("train clips", "train_clips"),
            Column("validation clips / songs", "validation_frame", "validation_song"),
            *(Column(f"test {name}", key) for name, key in scores.LEVELS.items()),
            Column(f"test songs minus {self.against}", "songs_minus_baseline"),
            Column("follows voice / band", "follows_voice", "follows_band"),
        ]
        scored = [scores.scores(self.of_seeds(trained, name)) for name in self.variants]
        against = [self.variants.index(self.against)] * len(self.variants)
        rows = scores.compared(scored, against, self.seeds)
        for name, row in zip(self.variants, rows, strict=True):
            results = [each.result for each in self.of_seeds(trained, name)]
            row["variant"] = name
            row["train_clips"] = scores.over_seeds(results, "train_f1")
            for level in ("frame", "song"):
                path = ("validation", level, "f1")
                row[f"validation_{level}"] = scores.over_seeds(results, *path)
            if (name, self.seeds[0]) in found:
                heard = self.of_seeds(found, name)
                row |= scores.prefixed("follows", scores.over_seeds(heard, "shares"))
        note = f"{scores.number_of(self.seeds)}. {scores.READING}"
        return {"tables": [Table.of("variants", self.title, columns, rows, note)]}
