"""Feature store: written, by one process or by many.

Every file is written under a temporary name and renamed. A finished song first becomes
a file in `parts/`; when all songs are done, parts and what is still valid of the old
shards become new shards, the index is renamed into place, and what it no longer names
is deleted. A killed extraction therefore leaves the old store whole and the finished
songs in `parts/`, and the next call continues from there.

`WritableStore.update` does all of it in one process. `pipelines.extract` spreads the
same steps over many: `plan`, then `compute_part` for every song that is pending,
`WritableStore.write_shard` for every shard, and `commit`.
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

from lca_keras.audio.decode import AccessError, AudioError
from lca_keras.base import console, files
from lca_keras.data.examples import (
    parse_example,
    read_example,
    to_example,
    untuned,
)
from lca_keras.data.extraction import STATE_SIZE, Extractor, file_state
from lca_keras.data.sharing import SharedFeatures
from lca_keras.data.store import (
    FORMAT,
    Failure,
    FeatureStore,
    Record,
    StoreError,
    damaged_shards_message,
    size_of,
)

SONGS_PER_SHARD = 64


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
        while count * SONGS_PER_SHARD < len(self.songs):
            count *= 2  # A power of two: most growth leaves most shards as they are.
        return count


@dataclasses.dataclass(frozen=True)
class Report:
    """What an update did: counts, and the reason of every failure by song key."""

    computed: int
    reused: int
    failed: dict[str, str]


def compute_part(folder, song, extractor, shared=None):
    """Extracts a `Song` into `parts/` of a store's folder.

    Safe to repeat and to run in many processes: files appear whole, and the same
    song gives the same file. What is among `SharedFeatures` is not computed again.

    Returns:
        `Record`, or `Failure` if the song holds no usable audio.

    Raises:
        OSError: The folder cannot be written to, or the disk is full.
    """
    parts = pathlib.Path(folder, "parts")
    parts.mkdir(exist_ok=True)
    source, path = file_state(song), os.fspath(song.path)
    digests = extractor.file_digests(song)
    try:
        extracted = (shared and shared.find(digests)) or extractor.extract(song)
    except AudioError as error:
        result = Failure(path, source, str(error), isinstance(error, AccessError))
    else:
        result = Record(
            song.artist,
            song.album,
            song.song,
            path,
            extractor.front_end.frames_of(extracted.arrays),
            extracted.duration,
            extracted.content_hash,
            source,
            song.vocals_path and os.fspath(song.vocals_path),
            song.accompaniment_path and os.fspath(song.accompaniment_path),
            song.accompaniment_artist,
            extracted.notes,
            extracted.passages,
            digests,
        )
        with files.atomic_path(parts / f"{song.key}.npz") as temporary:
            np.savez(temporary, **extracted.arrays)
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


class WritableStore(FeatureStore):
    """A feature store that can be changed; made by the first update.

    Args and attributes as for `FeatureStore`.
    """

    @property
    def _parts(self):
        return self.folder / "parts"

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
        """A light copy for `write_shard` in another process."""
        lean = copy.copy(self)
        lean.records, lean.failed = {}, {}
        return lean

    def update(self, songs, progress=None, extractor=None, others=()):
        """Makes the store hold exactly these songs, computing what is new or changed.

        A song is unchanged if its files are in the state of last time, or have the
        same content. What this store, or one of the folders `others`, has of files with
        the same content, under whatever name, is taken over. Files that failed last
        time and are unchanged are not tried again. `progress` is called with (done,
        total), at the start and after every song.

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
            shared = SharedFeatures(self._stores(others) if pending else [])
            for count, song in enumerate(pending, start=done + 1):
                result = compute_part(self.folder, song, extractor, shared)
                if isinstance(result, Failure):
                    plan.failed[song.key] = result
                else:
                    plan.records[song.key] = result
                    plan.parts.add(song.key)
                if progress is not None:
                    progress(count, len(songs))
            self.commit(plan)
        reasons = {key: failure.reason for key, failure in plan.failed.items()}
        computed = sum(song.key in plan.records for song in pending) - shared.found
        return Report(computed, len(plan.records) - computed, reasons)

    def adopt(self, songs, extractor, others):
        """Takes over into `parts/` what other stores have of some songs' files.

        The store has to be locked. Returns the number of songs.
        """
        shared = SharedFeatures(self._stores(others))
        for song in songs:
            if extractor.file_digests(song) in shared:
                compute_part(self.folder, song, extractor, shared)
        return shared.found

    def take_examples(self, examples):
        """Makes the store hold the songs of some serialised records, and only these.

        Args:
            examples: Iterable of bytes, as `lca_keras.data.examples.to_example` writes.

        Returns:
            List of song keys, in the order of the records.

        Raises:
            StoreError: A record of other features.
        """
        plan, keys = Plan([]), []
        with self.locked():
            self._parts.mkdir(exist_ok=True)
            for serialized in examples:
                read = read_example(serialized)
                if read["feature_config"] != self.config.digest:
                    raise StoreError(
                        f"{read['source_path']}: its record has the features "
                        f"{read['feature_config']}, not {self.config.digest}, those of "
                        "the configuration"
                    )
                record = Record(
                    *(read[name] for name in ("artist", "album", "song")),
                    path=read["source_path"],
                    frames=self.front_end.frames_of(read["arrays"]),
                    duration=read["duration"],
                    content_hash=read["content_hash"],
                    source=(),
                    passages=read["passages"],
                )
                key = read["key"]
                with files.atomic_path(self._parts / f"{key}.npz") as temporary:
                    np.savez(temporary, **read["arrays"])
                plan.songs.append(record.as_song)
                plan.records[key] = record
                plan.parts.add(key)
                keys.append(key)
            self.commit(plan)
        return keys

    def _stores(self, others):
        """Those of the folders that can be read, and this store."""
        stores = []
        for folder in others:
            with contextlib.suppress(StoreError, OSError):
                stores.append(FeatureStore(folder, self.config))
        return [*stores, self]

    def plan(self, songs, extractor, again=True):
        """Looks up what of an update is done already; returns a `Plan`.

        Vocals that the `Extractor` is to keep and that are not there make a song
        pending; so does, with `again`, a failure to read it.
        """
        lost = {
            key for path in self.damaged_shards() for key in self._shards[path.name][1]
        }
        plan = Plan(songs)
        for song in songs:
            source, path = file_state(song), os.fspath(song.path)
            failure = self.failed.get(song.key)
            part = self._read_part(song, source, extractor)
            kept = extractor.kept_vocals(song)
            same = failure and (failure.source, failure.path) == (source, path)
            if same and not (again and failure.passing):
                plan.failed[song.key] = failure
            elif isinstance(part, Failure) and not (again and part.passing):
                plan.failed[song.key] = part
            elif kept is not None and not kept.exists():
                plan.pending.append(song)
            elif song.key not in lost and (
                old := _confirmed(self.records.get(song.key), song, source, extractor)
            ):
                plan.records[song.key] = _as_named(old, song)
            elif isinstance(part, Record):
                plan.records[song.key] = _as_named(part, song)
                plan.parts.add(song.key)
            else:
                plan.pending.append(song)
        return plan

    def _read_part(self, song, source, extractor):
        """Returns what an interrupted update found out about a song, or `None`."""
        try:
            part = files.read_json(self._parts / f"{song.key}.json")
            if part["features"] != self.config.digest:
                return None
            if "failure" in part:
                failure = Failure.from_json(part["failure"])
            else:
                record = Record.from_json(part["record"])
                return _confirmed(record, song, source, extractor)
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return None
        same = (failure.source, failure.path) == (source, str(song.path))
        return failure if same else None

    def write_shard(self, number, count, records, parts):
        """Writes a shard unless it is there; safe to repeat.

        Args:
            number: Int, the shard.
            count: Int, number of shards.
            records: Dict from song key to `Record`, the songs of the shard, sorted.
            parts: Set with the keys of those whose features are in `parts/`; those of
                the others are in the shards that the index names.

        Returns:
            Whether it was not there.

        Raises:
            StoreError: An old shard cannot be read, or the disk is full.
        """
        path = self.folder / shard_name(number, count, records)
        # What is not in the index was written by an update that got no further.
        size = size_of(path)
        if size is not None and size == self._shards.get(path.name, (size,))[0]:
            return False
        console.quiet_tensorflow()
        import tensorflow as tf

        missing = set(records) - parts
        numbers = {shard_of(key, len(self._shards)) for key in missing}
        kept = {}
        for old in [self.folder / n for n in self._shards if _number(n) in numbers]:
            try:
                for example in untuned(tf.data.TFRecordDataset(os.fspath(old))):
                    key = parse_example(example)["key"].numpy().decode()
                    if key in missing:
                        kept[key] = example.numpy()
            except tf.errors.OpError as error:
                raise StoreError(damaged_shards_message([old])) from error
        try:
            with (
                files.atomic_path(path) as temporary,
                tf.io.TFRecordWriter(os.fspath(temporary)) as writer,
            ):
                for key, record in records.items():
                    if key in missing:
                        writer.write(kept[key])
                        continue
                    with np.load(self._parts / f"{key}.npz") as part:
                        arrays = dict(part)
                    writer.write(to_example(key, record, arrays, self.config))
        except tf.errors.OpError as error:
            raise StoreError(
                f"{path} cannot be written ({error.message}). Finished songs are kept: "
                "make room and run again."
            ) from error
        return True

    def commit(self, plan):
        """Writes the shards that are missing and makes an update valid.

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
        for number, records in enumerate(_by_shard(plan)):
            self.write_shard(number, plan.num_shards, records, plan.parts)
        lost = bool(self.damaged_shards())
        if (plan.records, plan.failed) == (self.records, self.failed) and not lost:
            self._remove_leftovers()
            return
        shards = {}
        for number, records in enumerate(_by_shard(plan)):
            name = shard_name(number, plan.num_shards, records)
            shards[name] = {
                "size": size_of(self.folder / name),
                "records": {k: dataclasses.asdict(r) for k, r in records.items()},
            }
        failures = {k: dataclasses.asdict(plan.failed[k]) for k in sorted(plan.failed)}
        self._write_index(shards, failures)
        self.records, self.failed = plan.records, plan.failed
        self._shards = {
            name: (shard["size"], list(shard["records"]))
            for name, shard in shards.items()
        }
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
                "format": FORMAT,
                "features": dataclasses.asdict(self.config),
                "shards": shards,
                "failures": failures,
            },
        )


def _confirmed(record, song, source, extractor):
    """The record, if there is one and it is of the song's files as they are now.

    Copies, and files from a backup, are in another state and have the same content.
    The path is in the example, so a corpus that moved is written anew.
    """
    if record is None or record.path != os.fspath(song.path):
        return None
    if record.source == source:
        return record
    sizes = record.source[::STATE_SIZE], source[::STATE_SIZE]
    if sizes[0] != sizes[1] or not record.digests:
        return None
    if record.digests != extractor.file_digests(song):
        return None
    return dataclasses.replace(record, source=source)


def _as_named(record, song):
    """A record with what the corpus says of the song now and no feature hangs on."""
    return dataclasses.replace(record, accompaniment_artist=song.accompaniment_artist)


def _by_shard(plan):
    """The records of every shard, sorted by key."""
    shards = [{} for _ in range(plan.num_shards)]
    for key in sorted(plan.records):
        shards[shard_of(key, plan.num_shards)][key] = plan.records[key]
    return shards


def shard_name(number, count, records):
    """File name of a shard: its number and a hash of what is in it."""
    identity = [[k, r.content_hash, r.path, r.digests] for k, r in records.items()]
    digest = hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:8]
    return f"songs-{number:05d}-of-{count:05d}-{digest}.tfrecord"


def shard_of(key, count):
    """Number of the shard, of `count`, that a song belongs to."""
    return int(key[:8], 16) % count


def _number(name):
    return int(name.split("-")[1])
