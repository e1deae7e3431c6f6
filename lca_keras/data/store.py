"""Feature store: the mel-spectrograms of a corpus as TFRecord shards.

A store is a folder with an `index.json` and shards of about 64 songs. Every file is
written under a temporary name and renamed. A finished song first becomes a file in
`parts/`; when all songs are done, parts and what is still valid of the old shards
become new shards, the index is renamed into place, and what it no longer names is
deleted. A killed extraction therefore leaves the old store whole and the finished
songs in `parts/`, and the next call continues from there.
"""

import dataclasses
import hashlib
import json
import os
import pathlib
import shutil

import numpy as np

from lca_keras import files
from lca_keras.audio.decode import AudioError, decode
from lca_keras.audio.features import mel_spectrogram
from lca_keras.config import FeatureConfig
from lca_keras.console import UserError

_FORMAT = 1
_SONGS_PER_SHARD = 64


class StoreError(UserError):
    """A store that cannot be used as it is; the message says what to do."""


@dataclasses.dataclass(frozen=True)
class SongFeatures:
    """What extraction yields for a song.

    Attributes:
        mel: Float16 array `(mel_bins, frames)`, decibels.
        duration: Seconds.
        content_hash: Hash of the decoded samples, the same for copies of a file.
    """

    mel: np.ndarray
    duration: float
    content_hash: str


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
    source: tuple[int, int]


@dataclasses.dataclass(frozen=True)
class Report:
    """What an update did: counts, and the reason of every failure by song key."""

    computed: int
    reused: int
    failed: dict[str, str]


def extract_song(path, config):
    """Decodes a song and computes its features; the unit of every extraction.

    Args:
        path: Audio file.
        config: `lca_keras.config.FeatureConfig`.

    Returns:
        `SongFeatures`.

    Raises:
        AudioError: The file holds no usable audio.
    """
    samples = decode(path, config.sample_rate)
    # Float16 is the store's contract: half the disk, and decibels keep 0.03 dB.
    mel = mel_spectrogram(samples, config).astype("float16")
    content_hash = hashlib.sha256(samples.tobytes()).hexdigest()[:32]
    return SongFeatures(mel, samples.size / config.sample_rate, content_hash)


def to_example(song, song_features, config):
    """Serialises a song as a `tf.train.Example`.

    Args:
        song: `lca_keras.data.catalogue.Song`.
        song_features: `SongFeatures`.
        config: `lca_keras.config.FeatureConfig`.

    Returns:
        Bytes.
    """
    import tensorflow as tf

    def text(value):
        value = value.encode("utf-8", "surrogateescape")
        return tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))

    mel = np.ascontiguousarray(song_features.mel, dtype="<f2")
    feature = {
        "key": text(song.key),
        "artist": text(song.artist),
        "album": text(song.album),
        "song": text(song.song),
        "source_path": text(os.fspath(song.path)),
        "content_hash": text(song_features.content_hash),
        "feature_config": text(config.digest),
        "duration": tf.train.Feature(
            float_list=tf.train.FloatList(value=[song_features.duration])
        ),
        "mel": tf.train.Feature(bytes_list=tf.train.BytesList(value=[mel.tobytes()])),
        "mel_shape": tf.train.Feature(int64_list=tf.train.Int64List(value=mel.shape)),
    }
    example = tf.train.Example(features=tf.train.Features(feature=feature))
    # Deterministic, so that equal stores are equal files.
    return example.SerializeToString(deterministic=True)


def parse_example(serialized):
    """Reads `to_example`'s form inside a graph.

    Args:
        serialized: String tensor, scalar.

    Returns:
        Dict with `"key"` (string) and `"mel"`, float16 `(mel_bins, frames)`.
    """
    import tensorflow as tf

    parsed = tf.io.parse_single_example(
        serialized,
        {
            "key": tf.io.FixedLenFeature([], tf.string, ""),
            "mel": tf.io.FixedLenFeature([], tf.string),
            "mel_shape": tf.io.FixedLenFeature([2], tf.int64),
        },
    )
    mel = tf.reshape(tf.io.decode_raw(parsed["mel"], tf.float16), parsed["mel_shape"])
    return {"key": parsed["key"], "mel": mel}


class FeatureStore:
    """A feature store on disk.

    Args:
        folder: Folder of the store; made by the first `update`.
        config: `lca_keras.config.FeatureConfig` that its features must have.

    Attributes:
        records: Dict from song key to `Record`, songs ready to be read.

    Raises:
        StoreError: The folder holds something else, a store of another feature
            configuration, or a damaged index.
    """

    def __init__(self, folder, config=None):
        self.folder = pathlib.Path(folder)
        self.config = config or FeatureConfig()
        self.records = {}
        self._failures = {}
        self._shards = {}
        if self._index_path.exists():
            self._read_index()
        elif self.folder.is_dir() and set(os.listdir(self.folder)) - {".lock"}:
            raise StoreError(
                f"{self.folder} exists and is not a feature store (no index.json): "
                "choose another folder for the features."
            )

    @property
    def _index_path(self):
        return self.folder / "index.json"

    @property
    def _parts(self):
        return self.folder / "parts"

    def _read_index(self):
        try:
            index = files.read_json(self._index_path)
            version, stored = index["format"], index["features"]
            shards, failures = index["shards"], index["failures"]
        except (ValueError, KeyError, TypeError) as error:
            raise StoreError(
                f"{self._index_path} is damaged ({error}): delete {self.folder} and "
                "run again to extract the features anew."
            ) from error
        if version != _FORMAT:
            raise StoreError(f"{self.folder}: store format {version}, not {_FORMAT}")
        if stored != dataclasses.asdict(self.config):
            wanted = dataclasses.asdict(self.config)
            changed = {k: (stored.get(k), v) for k, v in wanted.items()}
            changed = {k: pair for k, pair in changed.items() if pair[0] != pair[1]}
            raise StoreError(
                f"{self.folder} holds features of another configuration (stored, "
                f"wanted): {changed}. Use another folder, or that configuration."
            )
        self._failures = {key: (tuple(s), r) for key, (s, r) in failures.items()}
        self.records, self._shards = {}, {}
        for name, shard in shards.items():
            self._shards[name] = shard["size"]
            for key, record in shard["records"].items():
                record = {**record, "source": tuple(record["source"])}
                self.records[key] = Record(**record)

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
            try:
                for _ in tf.data.TFRecordDataset(os.fspath(self.folder / name)):
                    pass
            except tf.errors.OpError:
                corrupt.append(self.folder / name)
        return corrupt

    def update(self, songs, progress=None):
        """Makes the store hold exactly these songs, computing what is new or changed.

        A song is unchanged if its file has the size and the modification time of
        last time. Files that failed then and are unchanged are not tried again.

        Args:
            songs: List of `lca_keras.data.catalogue.Song`.
            progress: Optional function called after every song with (done, total).

        Returns:
            `Report`.

        Raises:
            OSError: The folder cannot be written to.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        with files.lock(self.folder / ".lock"):
            if self._index_path.exists():
                self._read_index()  # Another process may have updated it meanwhile.
            else:
                self._write_index({}, {})  # From now on the folder is a store.
            return self._update(songs, progress)

    def _update(self, songs, progress):
        lost = {key for path in self.damaged_shards() for key in self._members(path)}
        computed = reused = 0
        records, failed, pending = {}, {}, set()
        for done, song in enumerate(songs, start=1):
            source = _fingerprint(song.path)
            old = self.records.get(song.key)
            known_failure = self._failures.get(song.key)
            # The path is in the example, so a corpus that moved is written anew.
            unchanged = old and (old.source, old.path) == (source, str(song.path))
            if unchanged and song.key not in lost:
                records[song.key] = old
                reused += 1
            elif known_failure and known_failure[0] == source:
                failed[song.key] = known_failure
            elif part := self._read_part(song, source):
                records[song.key] = part
                pending.add(song.key)
                reused += 1
            else:
                try:
                    records[song.key] = self._compute(song, source)
                    pending.add(song.key)
                    computed += 1
                except AudioError as error:
                    failed[song.key] = (source, str(error))
            if progress is not None:
                progress(done, len(songs))
        if records != self.records or failed != self._failures or lost:
            self._commit(records, failed, pending)
        reasons = {key: reason for key, (_, reason) in failed.items()}
        return Report(computed, reused, reasons)

    def _members(self, path):
        """Keys that the index assigns to a shard."""
        shard = _shard_number(path.name)
        count = len(self._shards)
        return [key for key in self.records if _shard_of(key, count) == shard]

    def _compute(self, song, source):
        """Extracts a song into `parts/`."""
        import tensorflow as tf

        extracted = extract_song(song.path, self.config)
        self._parts.mkdir(exist_ok=True)
        record = Record(
            song.artist,
            song.album,
            song.song,
            os.fspath(song.path),
            extracted.mel.shape[1],
            extracted.duration,
            extracted.content_hash,
            source,
        )
        with (
            files.atomic_path(self._parts / f"{song.key}.tfrecord") as temporary,
            tf.io.TFRecordWriter(os.fspath(temporary)) as writer,
        ):
            writer.write(to_example(song, extracted, self.config))
        # The JSON comes last: where it is, the record is whole.
        files.write_json(
            self._parts / f"{song.key}.json",
            {"features": self.config.digest, "record": dataclasses.asdict(record)},
        )
        return record

    def _read_part(self, song, source):
        """Returns the record of a song that an interrupted update finished."""
        try:
            part = files.read_json(self._parts / f"{song.key}.json")
            record = Record(
                **{**part["record"], "source": tuple(part["record"]["source"])}
            )
        except (OSError, ValueError, KeyError, TypeError):
            return None
        same = (record.source, record.path) == (source, str(song.path))
        return record if same and part["features"] == self.config.digest else None

    def _commit(self, records, failed, pending):
        """Turns parts and old shards into the shards of `records`."""
        count = 1
        while count * _SONGS_PER_SHARD < len(records):
            count *= 2  # A power of two: most growth leaves most shards as they are.
        members = {number: [] for number in range(count)}
        for key in sorted(records):
            members[_shard_of(key, count)].append(key)
        shards = {}
        for number, keys in members.items():
            identity = [[k, records[k].content_hash, records[k].path] for k in keys]
            digest = hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:8]
            name = f"songs-{number:05d}-of-{count:05d}-{digest}.tfrecord"
            size = self._shards.get(name)
            if size is None or _size(self.folder / name) != size:
                self._write_shard(name, keys, pending)
                size = _size(self.folder / name)
            shards[name] = {
                "size": size,
                "records": {key: dataclasses.asdict(records[key]) for key in keys},
            }
        self._write_index(shards, failed)
        for path in self.folder.glob("*songs-*.tfrecord"):  # Temporary ones too.
            if path.name not in shards:
                path.unlink()
        if self._parts.exists():
            shutil.rmtree(self._parts)
        self.records, self._failures = records, failed
        self._shards = {name: shard["size"] for name, shard in shards.items()}

    def _write_index(self, shards, failed):
        files.write_json(
            self._index_path,
            {
                "format": _FORMAT,
                "features": dataclasses.asdict(self.config),
                "shards": shards,
                "failures": failed,
            },
        )

    def _write_shard(self, name, keys, pending):
        """Collects the records of a shard from parts and from old shards."""
        import tensorflow as tf

        serialized = {}
        for key in keys:
            if key in pending:
                path = os.fspath(self._parts / f"{key}.tfrecord")
                serialized[key] = next(iter(tf.data.TFRecordDataset(path))).numpy()
        missing = set(keys) - set(serialized)
        old_numbers = {_shard_of(key, len(self._shards)) for key in missing}
        for old in self._shards:
            if _shard_number(old) not in old_numbers:
                continue
            for example in tf.data.TFRecordDataset(os.fspath(self.folder / old)):
                key = parse_example(example)["key"].numpy().decode()
                if key in missing:
                    serialized[key] = example.numpy()
        with (
            files.atomic_path(self.folder / name) as temporary,
            tf.io.TFRecordWriter(os.fspath(temporary)) as writer,
        ):
            for key in keys:
                writer.write(serialized[key])

    def shard_paths(self):
        """Returns the shards' paths, in order.

        Raises:
            StoreError: The store is empty, or a shard is missing or truncated.
        """
        damaged = self.damaged_shards()
        if damaged:
            raise StoreError(
                f"{damaged[0]} is missing or truncated. Run `fit` or `evaluate` with "
                "--data to compute its songs again."
            )
        if not self.records:
            raise StoreError(f"{self.folder} holds no songs.")
        return [os.fspath(self.folder / name) for name in self._shards]


def _fingerprint(path):
    """Size and modification time, or zeros for a file that cannot be looked at."""
    try:
        status = os.stat(path)
    except OSError:
        return (0, 0)
    return (status.st_size, status.st_mtime_ns)


def _size(path):
    return path.stat().st_size if path.is_file() else None


def _shard_of(key, count):
    return int(key[:8], 16) % count


def _shard_number(name):
    return int(name.split("-")[1])
