"""A run: its folder, what was asked of it, and what it has left there."""

import contextlib
import dataclasses
import os
import pathlib

import keras

import lca_keras.models  # noqa: F401  Registers the saved model's classes.
from lca_keras.base import files
from lca_keras.base.config import Config, get_preset
from lca_keras.base.errors import UserError
from lca_keras.base.observer import Observer
from lca_keras.base.sections import SplitConfig
from lca_keras.data import split
from lca_keras.data.corpus import DataSource
from lca_keras.data.store import FeatureStore, damaged_shards_message
from lca_keras.voices.gallery import Gallery
from lca_keras.workflow import course, records


@dataclasses.dataclass(frozen=True, kw_only=True)
class Run:
    """A run folder and what was asked of it.

        run = Run.create("runs/mine", data="MUSIC", preset="demo")
        result = run.complete()  # Goes on where it stopped.
        print(result.export, result.scores["test"]["song"]["f1"])

    The name of the folder is the model's; the configuration decides the result.
    """

    folder: pathlib.Path
    config: Config
    source: DataSource
    exports: str = "saved_models"

    @classmethod
    def create(
        cls,
        folder,
        data=None,
        store=None,
        *,
        preset=None,
        config=None,
        exports="saved_models",
        source=None,
        observer=None,
        **sections,
    ):
        """A new run, or the one in `folder`, should that be the same.

        Nothing is written before its songs are found usable; `complete` does it.

        Args:
            data: Corpus, an `artist/album/song.ext` folder or a CSV manifest. Without
                `data` and `store` it is the built-in one, with its stems and its split.
            store: Feature store instead, which decides the features.
            preset: Name in `lca_keras.base.config.PRESETS`; the default is `"paper"`,
                for the built-in corpus `"demo"`.
            config: `Config`, or a YAML file of one, instead of a preset.
            source: `DataSource` instead of `data` and `store`, to say more of the data.
            **sections: Dicts of fields by section of the configuration, as for
                `Config.replace`: `train={"epochs": 10}`.

        Raises:
            UserError: Arguments that exclude each other, or the folder is another run.
        """
        if config and preset:
            raise UserError("a configuration and a preset exclude each other")
        if [data, store, source].count(None) < 2:
            raise UserError("data, store and source exclude each other")
        places = {"data": data, "store": store}
        places = {name: path and os.fspath(path) for name, path in places.items()}
        source = source or DataSource(**places)
        built_in = source.data is None and source.store is None
        if config is None:
            config = get_preset(preset or ("demo" if built_in else "paper"))
            if built_in:
                config = config.replace(
                    features={"source": "stems", "separator": "umxl"},
                    augment={"kinds": ("remix",)},
                )
        elif not isinstance(config, Config):
            config = Config.load(config)
        if built_in:
            source, own = use_built_in(source, observer)
            if config.split == SplitConfig() and "split" not in sections:
                config = config.replace(split=own)
        if source.store:
            features = vars(FeatureStore.open(source.store).config)
            sections["features"] = {**features, **sections.get("features", {})}
        config, folder = config.replace(**sections), pathlib.Path(folder)
        run = cls(folder=folder, config=config, source=source, exports=exports)
        if folder.exists():
            run._check_same(cls.load(folder))
        return run

    def _settings(self):
        """Dict from `section.name` to a value, of all that was asked of it."""
        asked = {**self.config.to_dict(), "data": vars(self.source.absolute())}
        del asked["version"]
        return {f"{s}.{name}": asked[s][name] for s in asked for name in asked[s]}

    def _check_same(self, other):
        others, differ = other._settings(), []
        for name, value in self._settings().items():
            if others.get(name) != value:
                differ.append(f"{name} {others.get(name)!r}, not {value!r}")
        if differ:
            raise UserError(
                f"{self.folder} is a run with other settings ({'; '.join(differ)}). "
                "Choose another folder, or delete it"
            )

    def complete(self, steps=course.STEPS, observer=None, **options):
        """Goes the way to an export; `lca_keras.workflow.course.complete`."""
        return course.complete(self, steps, observer, **options)

    @property
    def checkpoints(self):
        """Folder of the checkpoints."""
        return self.folder / "checkpoints"

    def save(self):
        """Writes what is needed to go on with the run; makes its folder in one step."""
        if self.folder.exists():
            self._write(self.folder)
            return
        with files.atomic_path(self.folder) as temporary:
            temporary.mkdir(parents=True)
            self._write(temporary)

    def _write(self, folder):
        if not (folder / "environment.json").exists():
            about = records.environment(self.config)
            files.write_json(folder / "environment.json", about)
        exports = os.path.abspath(self.exports)
        job = {"data": vars(self.source.absolute()), "exports": exports}
        files.write_json(folder / "job.json", job)
        self.config.save(folder / "config.yaml")

    @classmethod
    def load(cls, folder):
        """Reads a run folder."""
        folder = pathlib.Path(folder)
        try:
            job = files.read_json(folder / "job.json")
            if not isinstance(job["data"], dict):
                raise ValueError("of an earlier version; begin a new run")
            source, exports = DataSource(**job["data"]), job["exports"]
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise UserError(f"{folder} is not a run folder ({error})") from error
        config = Config.load(folder / "config.yaml")
        return cls(folder=folder, config=config, source=source, exports=exports)

    @contextlib.contextmanager
    def working(self, store):
        """Holds the run for this process; names shards of `store` that are damaged."""
        import tensorflow as tf

        with files.lock(self.folder / ".lock", wait=False):
            try:
                yield
            except tf.errors.OpError as error:
                corrupt = store.corrupt_shards()
                if not corrupt:
                    raise
                raise UserError(damaged_shards_message(corrupt)) from error

    @property
    def gallery(self):
        """The `lca_keras.voices.gallery.Gallery` of a run; `None` if it has none."""
        path = self.folder / "gallery.json"
        return Gallery.from_dict(files.read_json(path)) if path.exists() else None

    def load_model(self):
        """Returns the calibrated model of a finished run, and its artists."""
        path, results = self.folder / "model.keras", records.results(self.folder)
        if not path.exists() or "artists" not in results:
            raise UserError(
                f"{self.folder} is not finished. Continue it with "
                f"`python -m lca_keras.fit --resume {self.folder}`."
            )
        return keras.saving.load_model(path), results["artists"]

    def explainer(self, layer=None, separator=None):
        """The `Explainer` of a finished run, which says what the arguments are."""
        from lca_keras.explanation.explainer import Explainer

        model, artists = self.load_model()
        listed, moved = {}, None
        try:
            if self.source.data:
                listed = {song.path: song for song in self.source.songs()}
        except (UserError, OSError) as error:
            moved = str(error)
        separators = separator, self.source.separator
        songs = listed, split.parts_by_name(self.folder / "split.csv"), moved
        what = model.main_branch(), artists, self.config, layer
        return Explainer(*what, *separators, model, *songs)


def use_built_in(source, observer=None):
    """Makes the built-in corpus unless it is there.

    Returns the `DataSource` with it, and the fields of the `SplitConfig` of its own
    split: the albums whose bands do not tell the artist.
    """
    from lca_keras.corpora import synthesis

    with (observer or Observer()).progress("Synthesising songs") as progress:
        folder = synthesis.write_built_in(progress)
    source = dataclasses.replace(source, data=str(folder / "manifest.csv"))
    return source, {"file": str(folder / "split.csv")}
