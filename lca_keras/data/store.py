"""Feature store: the features of a corpus as TFRecord shards, read.

A store is a folder with an `index.json` and shards of about 64 songs, which
`lca_keras.data.update` writes.
"""

import dataclasses
import os
import pathlib

import numpy as np

from lca_keras.base import files
from lca_keras.base.errors import UserError
from lca_keras.base.sections import FeatureConfig
from lca_keras.data.catalogue import Song
from lca_keras.data.examples import parse_example, read_record, record_offsets, untuned
from lca_keras.data.extraction import SongFeatures
from lca_keras.features.front_end import STEMS, front_end_of

FORMAT = 5


class StoreError(UserError):
    """A store that cannot be used as it is; the message says what to do."""


class _Entry:
    """What an index says of a song."""

    @classmethod
    def from_json(cls, raw):
        """Builds an entry from `dataclasses.asdict`'s form, read as JSON."""
        tuples = {n: tuple(v) for n, v in raw.items() if isinstance(v, list)}
        return cls(**{**raw, **tuples})


@dataclasses.dataclass(frozen=True)
class Record(_Entry):
    """What the index knows of a song: its names, size and origin.

    `frames` are those of the front end's first stream, of the song's sound without
    silence; `passages` where that lies in the song, seconds. `state` is that of
    its files, `digests` their hashes, as `lca_keras.data.extraction` gives them;
    `notes` are sentences about sound that its files announce and do not have.
    """

    artist: str
    album: str
    song: str
    path: str
    frames: int
    duration: float
    content_hash: str
    state: tuple[int, ...]
    vocals_path: str | None = None
    accompaniment_path: str | None = None
    accompaniment_artist: str | None = None
    notes: tuple[str, ...] = ()
    passages: tuple[float, ...] = ()
    digests: tuple[str, ...] = ()

    @property
    def as_song(self):
        """The `lca_keras.data.catalogue.Song` that the features are of."""
        given = (self.path, self.vocals_path, self.accompaniment_path)
        paths = (name and pathlib.Path(name) for name in given)
        band = self.accompaniment_artist
        return Song(self.artist, self.album, self.song, *paths, band)


@dataclasses.dataclass(frozen=True)
class Failure(_Entry):
    """Why a song has no features, and the state of its file then.

    A `passing` one, such as a disk that is not mounted, is tried again by every update.
    """

    path: str
    state: tuple[int, ...]
    reason: str
    passing: bool = False


class FeatureStore:
    """A feature store on disk, in a folder that need not be there yet.

    Attributes:
        config: `lca_keras.base.sections.FeatureConfig` that its features must have.
        front_end: `lca_keras.features.front_end.FrontEnd` that they are of.
        records: Dict from song key to `Record`, songs ready to be read.
        failed: Dict from song key to `Failure`, songs that could not be used.

    Raises:
        StoreError: The folder holds something else, a store of another feature
            configuration, or a damaged index.
    """

    def __init__(self, folder, config=None):
        self.folder = pathlib.Path(folder)
        self._index_path = self.folder / "index.json"
        self.config = config or FeatureConfig()
        self.front_end = front_end_of(self.config)
        self.records, self.failed = {}, {}
        self._shards = {}  # Dict from file name to its size and its songs' keys.
        if self._index_path.exists():
            self._read_index()
        elif self.folder.is_dir() and any(
            not name.startswith(".") for name in os.listdir(self.folder)
        ):
            raise StoreError(
                f"{self.folder} exists and is not a feature store (no index.json): "
                "choose another folder for the features."
            )

    @classmethod
    def open(cls, folder):
        """Opens a store that exists, whatever its feature configuration."""
        folder = pathlib.Path(folder)
        if not (folder / "index.json").exists():
            raise StoreError(
                f"{folder} is not a feature store (no index.json). "
                "`python -m pipelines.extract --data PATH --out STORE` makes one."
            )
        features = _index_of(folder)["features"]
        known = {field.name for field in dataclasses.fields(FeatureConfig)}
        if unknown := sorted(set(features) - known):
            raise StoreError(
                f"{folder} was written by another release: its features have the "
                f"settings {', '.join(unknown)}, which are unknown here."
            )
        return cls(folder, FeatureConfig(**features))

    def _read_index(self):
        index = _index_of(self.folder)
        stored, wanted = index["features"], dataclasses.asdict(self.config)
        if stored != wanted:
            changes = [
                f"{name} is {stored.get(name)!r} there, {wanted.get(name)!r} was asked "
                "for"
                for name in {**wanted, **stored}
                if stored.get(name) != wanted.get(name)
            ]
            raise StoreError(
                f"{self.folder} holds features of another configuration: "
                f"{'; '.join(changes)}. Use another folder, or that configuration."
            )
        self.records, self.failed, self._shards = {}, {}, {}
        try:
            for key, failure in index["failures"].items():
                self.failed[key] = Failure.from_json(failure)
            for name, shard in index["shards"].items():
                self._shards[name] = shard["size"], list(shard["records"])
                for key, record in shard["records"].items():
                    self.records[key] = Record.from_json(record)
        except (KeyError, TypeError, AttributeError) as error:
            raise _damaged_index(self.folder, error) from error

    def damaged_shards(self):
        """Returns the paths of shards that are missing or of another size."""
        return [
            self.folder / name
            for name, (size, _) in self._shards.items()
            if size_of(self.folder / name) != size
        ]

    def corrupt_shards(self):
        """Reads all shards; returns the paths of those that cannot be read."""
        import tensorflow as tf

        corrupt = []
        for name in self._shards:
            path = os.fspath(self.folder / name)
            try:
                for _ in untuned(tf.data.TFRecordDataset(path)):
                    pass
            except tf.errors.OpError:
                corrupt.append(self.folder / name)
        return corrupt

    def without_shards(self, paths):
        """A view of the store without shards, given by path, and their songs."""
        view = FeatureStore(self.folder, self.config)
        for path in paths:
            _, keys = view._shards.pop(path.name)
            for key in keys:
                del view.records[key]
        return view

    def shard_paths(self):
        """Returns the shards' paths, in order; a `StoreError` if any is damaged."""
        if damaged := self.damaged_shards():
            raise StoreError(
                f"{damaged[0]} is missing or truncated. Run `fit` or `evaluate` with "
                "--data, or `pipelines.extract`, to compute its songs again."
            )
        if not self.records:
            raise StoreError(f"{self.folder} holds no songs.")
        return [os.fspath(self.folder / name) for name in self._shards]

    def read(self, key):
        """The `SongFeatures` of a song; a `StoreError` if its shard cannot be read."""
        import tensorflow as tf

        name = next(n for n, (_, keys) in self._shards.items() if key in keys)
        path, number = self.folder / name, self._shards[name][1].index(key)
        try:
            offset, end = record_offsets(path)[number : number + 2]
            place = os.fspath(path), np.int64(offset), np.int64(end - offset)
            # `read_record` is for the inside of a graph.
            place = tf.data.Dataset.from_tensors(place)
            (serialized,) = untuned(place.flat_map(read_record))
        except (tf.errors.OpError, OSError, ValueError) as error:
            raise StoreError(damaged_shards_message([path])) from error
        streams = [*self.front_end.streams]
        if self.config.source == "stems":
            streams += map(self.front_end.stream, STEMS)
        example = parse_example(serialized, streams)
        arrays = {stream.name: example[stream.name].numpy() for stream in streams}
        about = self.records[key]
        told = (about.duration, about.content_hash, about.notes, about.passages)
        return SongFeatures(arrays, *told)

    def locations(self):
        """Where the songs' examples lie; a `StoreError` if a shard is damaged.

        Dict from a shard's path to a dict from song key to (offset, size) of the
        record, bytes, in the order of the file.
        """
        found = {}
        for path, name in zip(self.shard_paths(), self._shards, strict=True):
            try:
                offsets = record_offsets(path)
                places = zip(offsets[:-1], np.diff(offsets).tolist(), strict=True)
                found[path] = dict(zip(self._shards[name][1], places, strict=True))
            except ValueError as error:
                raise StoreError(damaged_shards_message([path])) from error
        return found


def _index_of(folder):
    """Reads `index.json` as far as it can be judged without knowing its features."""
    path = folder / "index.json"
    try:
        index = files.read_json(path)
        if index["format"] != FORMAT:
            raise StoreError(
                f"{folder}: store format {index['format']}, not {FORMAT}. It was "
                "written by another release, whose features were others: delete the "
                "folder, or choose another one, to extract them anew."
            )
        parts = [index[name] for name in ("features", "shards", "failures")]
        if not all(isinstance(part, dict) for part in parts):
            raise TypeError("not the form of an index")
    except (ValueError, KeyError, TypeError) as error:
        raise _damaged_index(folder, error) from error
    return index


def _damaged_index(folder, error):
    return StoreError(
        f"{folder / 'index.json'} is damaged ({error}): delete {folder} and run again "
        "to extract the features anew."
    )


def damaged_shards_message(paths):
    """What to do about shards that cannot be read."""
    return (
        f"feature store damaged: {', '.join(map(str, paths))}. Delete "
        f"{'these files' if len(paths) > 1 else 'this file'} and continue: the songs "
        "in it are computed again."
    )


def size_of(path):
    """Size of a file in bytes, or `None` if it is not there."""
    return path.stat().st_size if path.is_file() else None
