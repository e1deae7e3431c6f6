"""Ways to train beside each other, and what they listen to."""

import dataclasses

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
        config = self.configuration(stems)
        self.config = config.replace(split={"file": split_file})
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
        return {
            name: self._report_cell(each)
            for name, each in trained.items()
            if each.config.features.source == "stems"
        }

    def _report_cell(self, trained):
        def listen():
            source = self.songs.sources(trained.config, ["test"])[0]["test"]
            report = voice_report.listen(trained.model(), source, trained.artists)
            return report.to_dict()

        # The scores belong to it: another training makes another model.
        settings = {"training": trained.result}
        return trained.folder / "voice-report", settings, listen

    def show(self, trained, found):
        """The table."""
        return {"tables": [self._table(trained, found)]}

    def _table(self, trained, reports):
        columns = [
            Column("variant", "variant"),
            Column("", "seeds"),
            Column("train clips", "train_clips"),
            Column("validation clips / songs", "validation_frame", "validation_song"),
            *(Column(f"test {name}", key) for name, key in scores.LEVELS.items()),
            Column(f"test songs minus {self.against}", "songs_minus_baseline"),
            Column("follows voice / band", "follows_voice", "follows_band"),
        ]
        tested = {
            name: scores.scores(self.of_seeds(trained, name)) for name in self.variants
        }
        rows = []
        for name in self.variants:
            results = [each.result for each in self.of_seeds(trained, name)]
            row = {
                "variant": name,
                "seeds": " ".join(map(str, self.seeds)),
                "train_clips": scores.over_seeds(results, "train_f1"),
                **{
                    f"validation_{level}": scores.over_seeds(
                        results, "validation", level, "f1"
                    )
                    for level in ("frame", "song")
                },
                **scores.by_key(tested[name]),
            }
            if name != self.against:
                pair = (tested[each]["songs"] for each in (name, self.against))
                row["songs_minus_baseline"] = scores.Lead.of(*pair)
            if (name, self.seeds[0]) in reports:
                heard = self.of_seeds(reports, name)
                shares = scores.over_seeds(heard, "shares")
                row |= scores.prefixed("follows", shares)
            rows.append(row)
        note = f"{scores.number_of(self.seeds)}. {scores.READING}"
        return Table.of("variants", self.title, columns, rows, note)
