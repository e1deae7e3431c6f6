"""Feature store: the features of a corpus as TFRecord shards.

A store is a folder with an `index.json` and shards of about 64 songs. Every file is
written under a temporary name and renamed. A finished song first becomes a file in
`parts/`; when all songs are done, parts and what is still valid of the old shards
become new shards, the index is renamed into place, and what it no longer names is
deleted. A killed extraction therefore leaves the old store whole and the finished
songs in `parts/`, and the next call continues from there.

`FeatureStore.update` does all of it in one process. `pipelines.extract` spreads the
same steps over many: `plan`, then `compute_part` for every song that is pending,
`write_shard` for every shard, and `commit`.
"""

import contextlib
import copy
import dataclasses
import hashlib
import json
import os
import pathlib
import shutil

import numpy as np

from lca_keras import console, files
from lca_keras.audio.decode import AccessError, AudioError
from lca_keras.config import FeatureConfig
from lca_keras.console import UserError
from lca_keras.data.catalogue import Song
from lca_keras.data.extraction import Extractor, fingerprint

_FORMAT = 2
_SONGS_PER_SHARD = 64


class StoreError(UserError):
    """A store that cannot be used as it is; the message says what to do."""


@dataclasses.dataclass(frozen=True)
class Record:
    """What the index knows of a song: its names, size and origin."""

    artist: str
    album: str
    song: str
    path: str
    frames: int
    duration: float
    content_hash: str
    source: tuple[int, ...]
    vocals_path: str | None = None

    @property
    def as_song(self):
        """The `lca_keras.data.catalogue.Song` that the features are of."""
        vocals = self.vocals_path and pathlib.Path(self.vocals_path)
        path = pathlib.Path(self.path)
        return Song(self.artist, self.album, self.song, path, vocals)

    @classmethod
    def from_json(cls, raw):
        """Builds a record from `dataclasses.asdict`'s form, read as JSON."""
        return cls(**{**raw, "source": tuple(raw["source"])})


@dataclasses.dataclass(frozen=True)
class Failure:
    """Why a song has no features, and the state of its file then.

    A `passing` one, such as a disk that is not mounted, is tried again by every update.
    """

    path: str
    source: tuple[int, ...]
    reason: str
    passing: bool = False

    @classmethod
    def from_json(cls, raw):
        """Builds a failure from `dataclasses.asdict`'s form, read as JSON."""
        return cls(**{**raw, "source": tuple(raw["source"])})


@dataclasses.dataclass
class Plan:
    """Where an update stands.

    Attributes:
        songs: All songs that the store is to hold.
        records: Dict from song key to `Record`, features that exist.
        failed: Dict from song key to `Failure`.
        parts: Keys of the records whose features are in `parts/`.
        pending: Songs whose features have to be computed.
    """

    songs: list
    records: dict = dataclasses.field(default_factory=dict)
    failed: dict = dataclasses.field(default_factory=dict)
    parts: set = dataclasses.field(default_factory=set)
    pending: list = dataclasses.field(default_factory=list)

    @property
    def num_shards(self):
        """Shards of the updated store."""
        count = 1
        while count * _SONGS_PER_SHARD < len(self.songs):
            count *= 2  # A power of two: most growth leaves most shards as they are.
        return count


@dataclasses.dataclass(frozen=True)
class Report:
    """What an update did: counts, and the reason of every failure by song key."""

    computed: int
    reused: int
    failed: dict[str, str]


def to_example(key, record, mel, melody, config):
    """Serialises a song as a `tf.train.Example`.

    Args:
        key: Song key.
        record: `Record`.
        mel: Float16 array `(mel_bins, frames)`.
        melody: Int16 array `(frames,)`, or `None`.
        config: `lca_keras.config.FeatureConfig`.

    Returns:
        Bytes.
    """
    import tensorflow as tf

    def data(value):
        return tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))

    def text(value):
        return data(value.encode("utf-8", "surrogateescape"))

    feature = {
        "key": text(key),
        "artist": text(record.artist),
        "album": text(record.album),
        "song": text(record.song),
        "source_path": text(record.path),
        "content_hash": text(record.content_hash),
        "feature_config": text(config.digest),
        "duration": tf.train.Feature(
            float_list=tf.train.FloatList(value=[record.duration])
        ),
        "mel": data(np.ascontiguousarray(mel, dtype="<f2").tobytes()),
        "mel_shape": tf.train.Feature(int64_list=tf.train.Int64List(value=mel.shape)),
    }
    if melody is not None:
        feature["melody"] = data(np.ascontiguousarray(melody, dtype="<i2").tobytes())
    example = tf.train.Example(features=tf.train.Features(feature=feature))
    # Deterministic, so that equal stores are equal files.
    return example.SerializeToString(deterministic=True)


def parse_example(serialized, melody=False):
    """Reads `to_example`'s form inside a graph.

    Args:
        serialized: String tensor, scalar.
        melody: Whether to read the melody too; the song must have one.

    Returns:
        Dict with `"key"` (string), `"mel"`, float16 `(mel_bins, frames)` and, if
        asked for, `"melody"`, int16 `(frames,)`.
    """
    import tensorflow as tf

    spec = {
        "key": tf.io.FixedLenFeature([], tf.string, ""),
        "mel": tf.io.FixedLenFeature([], tf.string),
        "mel_shape": tf.io.FixedLenFeature([2], tf.int64),
    }
    if melody:
        spec["melody"] = tf.io.FixedLenFeature([], tf.string)
    parsed = tf.io.parse_single_example(serialized, spec)
    mel = tf.reshape(tf.io.decode_raw(parsed["mel"], tf.float16), parsed["mel_shape"])
    example = {"key": parsed["key"], "mel": mel}
    if melody:
        example["melody"] = tf.io.decode_raw(parsed["melody"], tf.int16)
    return example


def untuned(dataset):
    """A dataset without TensorFlow's tuning of its buffers and threads.

    There is nothing to tune in our pipelines, and the tuner costs seconds. Taking an
    iterator down wakes the tuner's thread *before* it is called cancelled (TensorFlow
    2.21, `CancellationManager::StartCancelWithStatus`), so on a busy processor that
    thread may look too early and sleep on, for up to a minute that the program waits.

    Args:
        dataset: `tf.data.Dataset`, whole: options inside of `flat_map` do not count.

    Returns:
        `tf.data.Dataset` of the same elements.
    """
    import tensorflow as tf

    options = tf.data.Options()
    options.autotune.enabled = False
    return dataset.with_options(options)


def compute_part(folder, song, extractor):
    """Extracts a song into `parts/` of a store.

    Safe to repeat and to run in many processes: files appear whole, and the same
    song gives the same file.

    Args:
        folder: Folder of the store.
        song: `lca_keras.data.catalogue.Song`.
        extractor: `lca_keras.data.extraction.Extractor`.

    Returns:
        `Record`, or `Failure` if the song holds no usable audio.

    Raises:
        OSError: The folder cannot be written to, or the disk is full.
    """
    parts = pathlib.Path(folder, "parts")
    parts.mkdir(exist_ok=True)
    source, path = fingerprint(song), os.fspath(song.path)
    try:
        extracted = extractor.extract(song)
    except AudioError as error:
        result = Failure(path, source, str(error), isinstance(error, AccessError))
    else:
        result = Record(
            song.artist,
            song.album,
            song.song,
            path,
            extracted.mel.shape[1],
            extracted.duration,
            extracted.content_hash,
            source,
            song.vocals_path and os.fspath(song.vocals_path),
        )
        arrays = {"mel": extracted.mel}
        if extracted.melody is not None:
            arrays["melody"] = extracted.melody
        with files.atomic_path(parts / f"{song.key}.npz") as temporary:
            np.savez(temporary, allow_pickle=False, **arrays)
    kind = "record" if isinstance(result, Record) else "failure"
    # The JSON comes last: where it is, the song is done.
    files.write_json(
        parts / f"{song.key}.json",
        {"features": extractor.config.digest, kind: dataclasses.asdict(result)},
    )
    return result


def finished_parts(folder):
    """Number of songs that an update under way has finished."""
    with contextlib.suppress(FileNotFoundError):
        names = os.listdir(pathlib.Path(folder, "parts"))
        return sum(name.endswith(".json") and name[0] != "." for name in names)
    return 0


class FeatureStore:
    """A feature store on disk.

    Args:
        folder: Folder of the store; made by the first `update`.
        config: `lca_keras.config.FeatureConfig` that its features must have.

    Attributes:
        records: Dict from song key to `Record`, songs ready to be read.
        failed: Dict from song key to `Failure`, songs that could not be used.

    Raises:
        StoreError: The folder holds something else, a store of another feature
            configuration, or a damaged index.
    """

    def __init__(self, folder, config=None):
        self.folder = pathlib.Path(folder)
        self.config = config or FeatureConfig()
        self.records = {}
        self.failed = {}
        self._shards = {}
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
        """Opens a store that exists, whatever its feature configuration.

        Args:
            folder: Folder of the store.

        Returns:
            `FeatureStore`.

        Raises:
            StoreError: There is no store, or its index is damaged.
        """
        folder = pathlib.Path(folder)
        if not (folder / "index.json").exists():
            raise StoreError(
                f"{folder} is not a feature store (no index.json). "
                "`python -m pipelines.extract --data PATH --out STORE` makes one."
            )
        index = _read_index(folder)
        known = {field.name for field in dataclasses.fields(FeatureConfig)}
        if unknown := sorted(set(index["features"]) - known):
            raise StoreError(
                f"{folder} was written by another release: its features have the "
                f"settings {', '.join(unknown)}, which are unknown here."
            )
        return cls(folder, FeatureConfig(**index["features"]))

    @property
    def _index_path(self):
        return self.folder / "index.json"

    @property
    def _parts(self):
        return self.folder / "parts"

    def _read_index(self):
        index = _read_index(self.folder)
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
                self._shards[name] = shard["size"]
                for key, record in shard["records"].items():
                    self.records[key] = Record.from_json(record)
        except (KeyError, TypeError, AttributeError) as error:
            raise _damaged_index(self.folder, error) from error

    def damaged_shards(self):
        """Returns the paths of shards that are missing or of another size."""
        return [
            self.folder / name
            for name, size in self._shards.items()
            if _size(self.folder / name) != size
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
        """A view of the store that leaves shards and their songs out.

        Args:
            paths: Iterable of paths, as `corrupt_shards` returns them.

        Returns:
            `FeatureStore`; not to be updated.
        """
        view = FeatureStore(self.folder, self.config)
        for path in paths:
            for key in view._members(path):
                del view.records[key]
        names = {path.name for path in paths}
        view._shards = {k: v for k, v in view._shards.items() if k not in names}
        return view

    @contextlib.contextmanager
    def locked(self):
        """Holds the store for an update and brings this object up to date.

        Raises:
            OSError: The folder cannot be written to.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        with files.lock(self.folder / ".lock"):
            if self._index_path.exists():
                self._read_index()  # Another process may have updated it meanwhile.
            else:
                self._write_index({}, {})  # From now on the folder is a store.
            yield

    def for_workers(self):
        """A light copy that `shard_job` can be asked of in another process."""
        lean = copy.copy(self)
        lean.records, lean.failed = {}, {}
        return lean

    def update(self, songs, progress=None, extractor=None):
        """Makes the store hold exactly these songs, computing what is new or changed.

        A song is unchanged if its file has the size and the modification time of
        last time. Files that failed then and are unchanged are not tried again.

        Args:
            songs: List of `lca_keras.data.catalogue.Song`.
            progress: Optional function called with (done, total), at the start and
                after every song.
            extractor: Optional `lca_keras.data.extraction.Extractor`.

        Returns:
            `Report`.

        Raises:
            OSError: The folder cannot be written to.
            UserError: What the features need is not there.
        """
        extractor = extractor or Extractor(self.config)
        with self.locked():
            plan = self.plan(songs, extractor)
            extractor.check(plan.pending)
            done = len(songs) - len(plan.pending)
            pending, plan.pending = plan.pending, []
            if progress is not None:
                progress(done, len(songs))
            for count, song in enumerate(pending, start=done + 1):
                result = compute_part(self.folder, song, extractor)
                if isinstance(result, Failure):
                    plan.failed[song.key] = result
                else:
                    plan.records[song.key] = result
                    plan.parts.add(song.key)
                if progress is not None:
                    progress(count, len(songs))
            self.commit(plan)
        reasons = {key: failure.reason for key, failure in plan.failed.items()}
        computed = sum(song.key in plan.records for song in pending)
        return Report(computed, len(plan.records) - computed, reasons)

    def plan(self, songs, extractor, again=True):
        """Looks up what of an update is done already.

        Args:
            songs: List of `lca_keras.data.catalogue.Song`.
            extractor: `lca_keras.data.extraction.Extractor`; vocals that it is to
                keep and that are not there make a song pending.
            again: Whether songs that could not be read are to be tried again.

        Returns:
            `Plan`.
        """
        lost = {key for path in self.damaged_shards() for key in self._members(path)}
        plan = Plan(songs)
        for song in songs:
            source, path = fingerprint(song), os.fspath(song.path)
            old = self.records.get(song.key)
            failure = self.failed.get(song.key)
            part = self._read_part(song, source)
            kept = extractor.kept_vocals(song)
            same = failure and (failure.source, failure.path) == (source, path)
            if same and not (again and failure.passing):
                plan.failed[song.key] = failure
            elif isinstance(part, Failure) and not (again and part.passing):
                plan.failed[song.key] = part
            elif kept is not None and not kept.exists():
                plan.pending.append(song)
            # The path is in the example, so a corpus that moved is written anew.
            elif (
                old is not None
                and (old.source, old.path) == (source, path)
                and song.key not in lost
            ):
                plan.records[song.key] = old
            elif isinstance(part, Record):
                plan.records[song.key] = part
                plan.parts.add(song.key)
            else:
                plan.pending.append(song)
        return plan

    def _read_part(self, song, source):
        """Returns what an interrupted update found out about a song, or `None`."""
        try:
            part = files.read_json(self._parts / f"{song.key}.json")
            if part["features"] != self.config.digest:
                return None
            if "failure" in part:
                result = Failure.from_json(part["failure"])
            else:
                result = Record.from_json(part["record"])
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return None
        same = (result.source, result.path) == (source, str(song.path))
        return result if same else None

    def _members(self, path):
        """Keys that the index assigns to a shard."""
        shard, count = _shard_number(path.name), len(self._shards)
        return [key for key in self.records if shard_of(key, count) == shard]

    def shard_jobs(self, plan):
        """Lists the shards of an update that have to be written.

        Args:
            plan: `Plan` without pending songs.

        Returns:
            List of `ShardJob`.
        """
        jobs = []
        for number, records in enumerate(_by_shard(plan)):
            job = self.shard_job(number, plan.num_shards, records, plan.parts)
            if job is not None:
                jobs.append(job)
        return jobs

    def shard_job(self, number, count, records, parts):
        """What has to be done for one shard.

        Args:
            number: Int, the shard.
            count: Int, number of shards.
            records: Dict from song key to `Record`, the songs of the shard.
            parts: Set that holds the keys whose features are in `parts/`.

        Returns:
            `ShardJob`, or `None` if the shard is there.
        """
        name = shard_name(number, count, records)
        path = self.folder / name
        # What is not in the index was written by an update that got no further.
        if _size(path) is not None and _size(path) == self._shards.get(
            name, _size(path)
        ):
            return None
        old = {shard_of(key, len(self._shards)) for key in set(records) - parts}
        return ShardJob(
            path,
            records,
            frozenset(parts & set(records)),
            [self.folder / n for n in self._shards if _shard_number(n) in old],
            self.config,
        )

    def commit(self, plan):
        """Writes the shards that are missing and makes the update valid.

        Args:
            plan: `Plan` without pending songs.

        Raises:
            StoreError: An old shard that is still needed cannot be read, a shard cannot
                be written, or no song can be read any more.
        """
        assert not plan.pending
        if self.records and plan.failed and not plan.records:
            failure = next(iter(plan.failed.values()))
            raise StoreError(
                f"none of {len(plan.songs)} songs can be used any more, the first is "
                f"{failure.path}: {failure.reason}. {self.folder} is left as it was."
            )
        for job in self.shard_jobs(plan):
            write_shard(job)
        lost = bool(self.damaged_shards())
        if (plan.records, plan.failed) == (self.records, self.failed) and not lost:
            self._remove_leftovers()
            return
        shards = {}
        for number, records in enumerate(_by_shard(plan)):
            name = shard_name(number, plan.num_shards, records)
            shards[name] = {
                "size": _size(self.folder / name),
                "records": {k: dataclasses.asdict(r) for k, r in records.items()},
            }
        failures = {k: dataclasses.asdict(plan.failed[k]) for k in sorted(plan.failed)}
        self._write_index(shards, failures)
        self.records, self.failed = plan.records, plan.failed
        self._shards = {name: shard["size"] for name, shard in shards.items()}
        self._remove_leftovers()

    def _remove_leftovers(self):
        """Deletes what the index does not name."""
        for path in self.folder.glob("*songs-*.tfrecord"):  # Temporary ones too.
            if path.name not in self._shards:
                path.unlink()
        # A worker that outlived its killed pipeline may still be writing there.
        shutil.rmtree(self._parts, ignore_errors=True)

    def _write_index(self, shards, failures):
        files.write_json(
            self._index_path,
            {
                "format": _FORMAT,
                "features": dataclasses.asdict(self.config),
                "shards": shards,
                "failures": failures,
            },
        )

    def shard_paths(self):
        """Returns the shards' paths, in order.

        Raises:
            StoreError: The store is empty, or a shard is missing or truncated.
        """
        damaged = self.damaged_shards()
        if damaged:
            raise StoreError(
                f"{damaged[0]} is missing or truncated. Run `fit` or `evaluate` with "
                "--data, or `pipelines.extract`, to compute its songs again."
            )
        if not self.records:
            raise StoreError(f"{self.folder} holds no songs.")
        return [os.fspath(self.folder / name) for name in self._shards]


@dataclasses.dataclass(frozen=True)
class ShardJob:
    """A shard to write: its file, its songs, and where their features are.

    Attributes:
        path: File to write.
        records: Dict from song key to `Record`, sorted by key.
        parts: Keys whose features are in `parts/`.
        old_shards: Files with the features of all the others.
        config: `lca_keras.config.FeatureConfig`.
    """

    path: pathlib.Path
    records: dict
    parts: frozenset
    old_shards: list
    config: FeatureConfig


def write_shard(job):
    """Writes a shard; safe to repeat.

    Args:
        job: `ShardJob`.

    Raises:
        StoreError: An old shard cannot be read.
    """
    console.quiet_tensorflow()
    import tensorflow as tf

    serialized = {}
    missing = set(job.records) - job.parts
    for old in job.old_shards:
        try:
            for example in untuned(tf.data.TFRecordDataset(os.fspath(old))):
                key = parse_example(example)["key"].numpy().decode()
                if key in missing:
                    serialized[key] = example.numpy()
        except tf.errors.OpError as error:
            raise StoreError(
                f"feature store damaged: {old} cannot be read. Delete this file and "
                "run again: the songs in it are computed anew."
            ) from error
    try:
        with (
            files.atomic_path(job.path) as temporary,
            tf.io.TFRecordWriter(os.fspath(temporary)) as writer,
        ):
            for key, record in job.records.items():
                if key in missing:
                    writer.write(serialized[key])
                    continue
                with np.load(job.path.parent / "parts" / f"{key}.npz") as part:
                    mel, melody = part["mel"], part.get("melody")
                writer.write(to_example(key, record, mel, melody, job.config))
    except tf.errors.OpError as error:
        raise StoreError(
            f"{job.path} cannot be written ({error.message}). Finished songs are kept: "
            "make room and run again."
        ) from error


def _by_shard(plan):
    """The records of every shard, sorted by key."""
    shards = [{} for _ in range(plan.num_shards)]
    for key in sorted(plan.records):
        shards[shard_of(key, plan.num_shards)][key] = plan.records[key]
    return shards


def shard_name(number, count, records):
    """File name of a shard: its number and a hash of what is in it."""
    identity = [[k, r.content_hash, r.path, r.source] for k, r in records.items()]
    digest = hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:8]
    return f"songs-{number:05d}-of-{count:05d}-{digest}.tfrecord"


def shard_of(key, count):
    """Number of the shard, of `count`, that a song belongs to."""
    return int(key[:8], 16) % count


def _shard_number(name):
    return int(name.split("-")[1])


def _read_index(folder):
    """Reads `index.json` as far as it can be judged without knowing its features."""
    path = folder / "index.json"
    try:
        index = files.read_json(path)
        if index["format"] != _FORMAT:
            raise StoreError(
                f"{folder}: store format {index['format']}, not {_FORMAT}. It was "
                "written by another release: delete the folder to extract the "
                "features anew."
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


def _size(path):
    return path.stat().st_size if path.is_file() else None
