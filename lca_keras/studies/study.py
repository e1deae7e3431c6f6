"""The way of every experiment, from its options to its result."""

import abc
import dataclasses
import os
import pathlib

import numpy as np

from lca_keras.audio import separation
from lca_keras.base import files
from lca_keras.base.config import get_preset
from lca_keras.base.errors import UserError
from lca_keras.base.registry import NETWORKS
from lca_keras.corpora import synthesis
from lca_keras.data.corpus import DataSource
from lca_keras.drawing import plots
from lca_keras.studies.laboratory import Laboratory, configure
from lca_keras.studies.results import Result, check_settings
from lca_keras.studies.schedule import Plan
from lca_keras.workflow import records


class Study(abc.ABC):
    """An experiment: what is trained, what is counted, what is shown.

    A subclass reads its options, `args`, in the constructor and sets `config`, which
    variants change, and `settings`, a dict for JSON, all that decides the result.
    """

    title = ""  # Of the result.
    hearings = None  # A `Hearings` that all trainings do.
    measuring = "Listening"  # What goes on once all is trained.

    def __init__(self, args, crew):
        self.args, self.crew = args, crew
        self.out, self.seeds = pathlib.Path(args.out), args.seeds

    @abc.abstractmethod
    def trainings(self):
        """Dict from a name to (laboratory, variant, configuration)."""

    def measurements(self, trained):
        """Dict from a name to the arguments of a cell that follows from trainings."""
        if self.hearings is None:
            return {}
        return {name: self.hearings.cell(each) for name, each in trained.items()}

    @abc.abstractmethod
    def show(self, trained, found):
        """What comes of it: `tables`, `pictures` and `notes` of a `Result`, a dict.

        Names in `trained` and `found` are those of `trainings` and `measurements`.
        """

    def result(self):
        """Does the experiment; a `Result`, or `None` of a helper."""
        check_settings(self.out, self.args.name, self.settings)
        trained = self.crew.train(Plan(self.trainings()))
        found = self.crew.analyse(self.measuring, self.measurements(trained))
        if self.crew.helper:
            return None
        shown = self.show(trained, found)
        runs = {each.folder.relative_to(self.out) for each in trained.values()}
        config = next(iter(trained.values())).config
        return Result(
            name=self.args.name,
            title=self.title,
            command=self.args.command,
            settings=self.settings,
            runs=sorted(map(os.fspath, runs)),
            environment=records.environment(config),
            **{"tables": [], "pictures": [], "notes": [], **shown},
        )

    # === Options ===

    def configuration(self, split_file=None, stems=False):
        """The configuration that variants change, for mixtures or stems."""
        args = self.args
        usual = "demo" if getattr(args, "data", None) is None else "paper"
        config = get_preset(args.preset or usual)
        features = {"source": "mixture", "separator": "", "level": args.level}
        if stems:
            features |= {"source": "stems", "separator": self.separator_id}
        train = {"epochs": args.epochs, "warmup_epochs": args.warmup_epochs}
        if not isinstance(args.clip_seconds, list):  # Or a table has several.
            train["clip_seconds"] = args.clip_seconds
        sections = {"augment": {"kinds": ()}, "split": {"file": split_file}}
        config = config.replace(features=features, train=train, **sections)
        train = config.train
        if train.warmup_epochs >= train.epochs:
            raise UserError(
                f"the warm-up ({train.warmup_epochs} epochs) outlasts the training "
                f"({train.epochs}): the counterfactual's terms would never act. Choose "
                "a smaller --warmup-epochs or more --epochs"
            )
        return config

    @property
    def separator_id(self):
        """Identifier of the separator."""
        given = getattr(self.args, "separator", None)
        return separation.separator_id(given) if given else separation.DEFAULT

    @property
    def separator_folder(self):
        """Folder of the separator, `None` if it is one that is known."""
        given = getattr(self.args, "separator", None)
        return None if given in separation.PRETRAINED else given

    def data(self):
        """`DataSource` without separator, and the split file, of the corpus options."""
        args = self.args
        if args.data is None:
            if args.tags or args.data_root:
                raise UserError("--tags and --data-root say how to read --data")
            with self.crew.observer.progress("Synthesising songs") as progress:
                folder = synthesis.write_built_in(progress)
            where = {"data": str(folder / "manifest.csv")}
        else:
            where = {"data": args.data, "data_root": args.data_root, "tags": args.tags}
            built_in = os.path.isdir(args.data) and synthesis.own_split(args.data)
            if built_in and not getattr(args, "separator", None):
                # It says where the stems are.
                where["data"] = os.path.join(args.data, "manifest.csv")
        source = DataSource(**where, features=args.features)
        source.songs()  # A corpus that is none is said before anything else.
        path = args.split_file
        if not path and (path := synthesis.own_split(source.data)):
            self.crew.observer.note(f"split: the corpus's own, {path}")
        return source.absolute(), path and os.path.abspath(path)

    def settings_of(self, source, **more):
        """Settings of an experiment on a `DataSource`."""
        about = {"config": self.config.to_dict(), "seeds": list(self.seeds)}
        return {"data": source.data, **about, **more}

    # === Trainings ===

    def laboratory(self, source):
        """The `Laboratory` of a `DataSource`."""
        return Laboratory(self.out, source, self.crew.observer)

    def training(self, laboratory, variant, seed, split_file=None):
        """A value of `trainings`."""
        own = {"file": split_file and os.path.abspath(split_file)}
        config = configure(variant, self.config)
        return laboratory, variant, config.replace(train={"seed": seed}, split=own)

    def by_seed(self, laboratory, variants):
        """The `trainings` of variants, by variant and seed."""
        return {
            (name, seed): self.training(laboratory, name, seed)
            for seed in self.seeds
            for name in variants
        }

    def of_seeds(self, values, *name):
        """What a dict has for each seed, under names that end with the seed; a list."""
        return [values[(*name, seed)] for seed in self.seeds]

    # === Files ===

    def made(self):
        """Folder of the corpora that an experiment makes."""
        folder = self.out / "corpora"
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def save(self, picture, figure, shown):
        """Writes a `Picture`, and what it shows: columns and rows, or named arrays."""
        plots.save_figure(figure, self.out / picture.file)
        if isinstance(shown, dict):
            with files.atomic_path(self.out / picture.data) as temporary:
                np.savez_compressed(temporary, **shown)
        else:
            files.write_csv(self.out / picture.data, *shown)
        return picture


class OwnCorpora(Study):
    """An experiment on built-in corpora whose bands tell the singer, more or less."""

    usual = None  # `SynthesisConfig` of which the options change something.
    usual_values = ()  # Confoundings where none are asked for.
    usual_variants = ()  # Variants, the same.

    def __init__(self, args, crew):
        super().__init__(args, crew)
        names = ("artists", "albums", "songs", "seconds", "voice_db")
        wanted = {n: v for n in names if (v := getattr(args, n)) is not None}
        self.corpus = dataclasses.replace(self.usual, **wanted)
        self.values = args.values or list(self.usual_values)
        if not all(0 <= value <= 1 for value in self.values):
            raise UserError("--values are probabilities, 0 to 1")
        self.variants = args.variants or list(self.usual_variants)
        check_variants(args.name, self.variants)
        self.config = self.configuration(stems=True)
        self.settings = {
            "corpus": dataclasses.asdict(self.corpus),
            "config": self.config.to_dict(),
            "seeds": list(self.seeds),
            "values": self.values,
            "variants": self.variants,
        }

    def laboratory_of(self, manifest):
        """The `Laboratory` of a corpus with stems that the experiment has made."""
        where = {"data": str(manifest), "features": self.args.features}
        source = DataSource(**where, separator=self.separator_folder)
        return self.laboratory(source.absolute())

    def write_corpora(self, test_bands=()):
        """Writes a corpus with stems for each confounding, and test songs alone.

        These are the same whatever the confounding in training. Returns manifests, by
        confounding and by `test_bands`, of `synthesis.TEST_BANDS`.
        """
        folder = self.made()

        def write(name, parts=synthesis.PARTS, **changes):
            corpus = dataclasses.replace(self.corpus, **changes)
            how = {"stems": True, "progress": progress, "parts": parts}
            synthesis.write_corpus(corpus, folder / name, **how)
            return folder / name / "manifest.csv"

        with (
            files.lock(folder / ".synthesis.lock"),
            self.crew.observer.progress("Synthesising songs") as progress,
        ):
            made = {
                value: write(f"confounding-{value:g}", confounding=value)
                for value in self.values
            }
            only = {"parts": ("test",), "confounding": 0.0}
            tested = {
                bands: write(f"test-{bands}", test_bands=bands, **only)
                for bands in test_bands
            }
        return made, tested


def has_vocals(songs):
    """Whether each song of a corpus has the voice alone beside it."""
    return all(song.vocals_path for song in songs)


def list_songs(path, songs):
    """Writes a manifest of `Song`s and their vocals; what of a `DataSource` changes."""
    columns = ("path", "artist", "album", "song", "vocals_path")
    rows = [[s.path, s.artist, s.album, s.song, vocals] for s, vocals in songs]
    files.write_csv(path, columns, rows)
    root = os.path.abspath(os.sep)
    return {"data": str(path), "data_root": root, "tags": False}


def check_variants(name, variants):
    """Raises for networks that take more than spectrograms."""
    words = {word for each in variants or () for word in each.split("+")}
    several = [w for w in words & set(NETWORKS) if len(NETWORKS[w].streams) > 1]
    if several:
        raise UserError(
            f"{name} has no {several[0]}: the melody would have to be tracked anew in "
            "every version of a song. Leave it out of --variants"
        )
