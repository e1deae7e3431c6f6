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
from lca_keras.data.examples import parse_example, read_example, to_example, untuned
from lca_keras.data.extraction import STATE_SIZE, Extractor, file_state
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
    """Where an update stands: of each song, what is there or that it is pending."""

    songs: list  # All that the store is to hold.
    records: dict = dataclasses.field(default_factory=dict)  # From song key.
    failed: dict = dataclasses.field(default_factory=dict)  # From song key.
    # Keys of the records whose features are in `parts/`.
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
    """Extracts a `Song` into `parts/` of a store's folder; a `Record` or `Failure`.

    Safe to repeat and to run in many processes: files appear whole, and the same
    song gives the same file. What is among `SharedFeatures` is not computed again.
    """
    parts = pathlib.Path(folder, "parts")
    parts.mkdir(exist_ok=True)
    state, digests = file_state(song), extractor.file_digests(song)
    # Names and paths, which are named alike in `Song` and `Record`.
    about = {name: value and os.fspath(value) for name, value in vars(song).items()}
    try:
        extracted = (shared and shared.find(digests)) or extractor.extract(song)
    except AudioError as error:
        passing = isinstance(error, AccessError)
        result = Failure(about["path"], state, str(error), passing)
    else:
        result = Record(
            **about,
            frames=extractor.front_end.frames_of(extracted.arrays),
            duration=extracted.duration,
            content_hash=extracted.content_hash,
            state=state,
            notes=extracted.notes,
            passages=extracted.passages,
            digests=digests,
        )
        with files.atomic_path(parts / f"{song.key}.npz") as temporary:
            np.savez(temporary, **extracted.arrays)
    kind = "record" if isinstance(result, Record) else "failure"
    told = {"features": extractor.config.digest, kind: dataclasses.asdict(result)}
    # The JSON comes last: where it is, the song is done.
    files.write_json(parts / f"{song.key}.json", told)
    return result


def finished_parts(folder):
    """Number of songs that an update under way has finished."""
    return sum(1 for _ in pathlib.Path(folder, "parts").glob("[!.]*.json"))


class SharedFeatures:
    """Songs' features in several stores, found by the content of the songs' files."""

    def __init__(self, stores):
        self.found = 0  # Songs, by `find`.
        self._places = {
            record.digests: (store, key)
            for store in stores
            for key, record in store.records.items()
            if record.digests
        }

    def __contains__(self, digests):
        return digests in self._places

    def find(self, digests):
        """The `SongFeatures` of files with these hashes, or `None`."""
        if digests not in self:
            return None
        store, key = self._places[digests]
        try:
            features = store.read(key)
        except StoreError:  # Damaged, or renewed by another process.
            return None
        self.found += 1
        return features


class WritableStore(FeatureStore):
    """A feature store that can be changed; made by the first update."""

    @property
    def _parts(self):
        return self.folder / "parts"

    @contextlib.contextmanager
    def locked(self):
        """Holds the store for an update and brings this object up to date."""
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

        Returns a `Report`; a `UserError` says what the features need and is not there.
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

        The store has to be locked.
        """
        shared = SharedFeatures(self._stores(others))
        for song in songs:
            if extractor.file_digests(song) in shared:
                compute_part(self.folder, song, extractor, shared)

    def take_examples(self, examples):
        """Makes the store hold the songs of some serialised records, and only these.

        These are bytes, as `lca_keras.data.examples.to_example` writes; returns their
        songs' keys, in order. A record of other features is a `StoreError`.
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
                    state=(),
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
        damaged = self.damaged_shards()
        lost = {key for path in damaged for key in self._shards[path.name][1]}
        plan = Plan(songs)
        for song in songs:
            state, path = file_state(song), os.fspath(song.path)
            failure = self.failed.get(song.key)
            part = self._read_part(song, state, extractor)
            kept = extractor.kept_vocals(song)
            same = failure and (failure.state, failure.path) == (state, path)
            if same and not (again and failure.passing):
                plan.failed[song.key] = failure
            elif isinstance(part, Failure) and not (again and part.passing):
                plan.failed[song.key] = part
            elif kept is not None and not kept.exists():
                plan.pending.append(song)
            elif song.key not in lost and (
                old := _confirmed(self.records.get(song.key), song, state, extractor)
            ):
                plan.records[song.key] = old
            elif isinstance(part, Record):
                plan.records[song.key] = part
                plan.parts.add(song.key)
            else:
                plan.pending.append(song)
        return plan

    def _read_part(self, song, state, extractor):
        """Returns what an interrupted update found out about a song, or `None`."""
        try:
            part = files.read_json(self._parts / f"{song.key}.json")
            if part["features"] != self.config.digest:
                return None
            if "record" in part:
                record = Record.from_json(part["record"])
                return _confirmed(record, song, state, extractor)
            failure = Failure.from_json(part["failure"])
            same = (failure.state, failure.path) == (state, str(song.path))
            return failure if same else None
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return None

    def write_shard(self, number, count, records, parts):
        """Writes a shard, if it is not there; returns whether. Safe to repeat.

        `records` of its songs are sorted by key. The features of those in `parts` are
        in `parts/`, of the others in the shards that the index names.

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

        missing, kept = set(records) - parts, {}
        for name, (_, keys) in self._shards.items():
            if missing.isdisjoint(keys):
                continue
            old = self.folder / name
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
        count, failed = plan.num_shards, plan.failed
        by_shard = [{} for _ in range(count)]
        for key in sorted(plan.records):
            by_shard[shard_of(key, count)][key] = plan.records[key]
        for number, records in enumerate(by_shard):
            self.write_shard(number, count, records, plan.parts)
        same = (plan.records, failed) == (self.records, self.failed)
        if not same or self.damaged_shards():
            shards = {}
            for number, records in enumerate(by_shard):
                name = shard_name(number, count, records)
                rows = {key: dataclasses.asdict(r) for key, r in records.items()}
                shards[name] = {"size": size_of(self.folder / name), "records": rows}
            failures = {key: dataclasses.asdict(failed[key]) for key in sorted(failed)}
            self._write_index(shards, failures)
            self._read_index()
        # Deletes what the index does not name.
        for path in self.folder.glob("*songs-*.tfrecord"):  # Temporary ones too.
            if path.name not in self._shards:
                path.unlink()
        # A worker that outlived its killed pipeline may still be writing there.
        shutil.rmtree(self._parts, ignore_errors=True)

    def _write_index(self, shards, failures):
        index = {"format": FORMAT, "features": dataclasses.asdict(self.config)}
        index |= {"shards": shards, "failures": failures}
        files.write_json(self._index_path, index)


def _confirmed(record, song, state, extractor):
    """The record, if there is one and it is of the song's files as they are now.

    Copies, and files from a backup, are in another state and have the same content.
    The path is in the example, so a corpus that moved is written anew.
    """
    if record is None or record.path != os.fspath(song.path):
        return None
    if record.state != state:
        same_sizes = record.state[::STATE_SIZE] == state[::STATE_SIZE]
        if not (same_sizes and record.digests):
            return None
        if record.digests != extractor.file_digests(song):
            return None
    # The corpus may say another artist now, on whom no feature hangs.
    band = song.accompaniment_artist
    return dataclasses.replace(record, state=state, accompaniment_artist=band)


def shard_name(number, count, records):
    """File name of a shard: its number and a hash of what is in it."""
    identity = [[k, r.content_hash, r.path, r.digests] for k, r in records.items()]
    digest = hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:8]
    return f"songs-{number:05d}-of-{count:05d}-{digest}.tfrecord"


def shard_of(key, count):
    """Number of the shard, of `count`, that a song belongs to."""
    return int(key[:8], 16) % count
