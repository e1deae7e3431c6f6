"""What to learn from: where the data is, usable songs, parts, sources of clips."""

import collections
import dataclasses
import hashlib
import os
import pathlib

from lca_keras.audio import separation
from lca_keras.base.errors import UserError
from lca_keras.data import augment, catalogue, split
from lca_keras.data.clips import ClipSource
from lca_keras.data.extraction import Extractor, too_short
from lca_keras.data.store import FeatureStore
from lca_keras.data.update import WritableStore
from lca_keras.features import silence


@dataclasses.dataclass(frozen=True, kw_only=True)
class DataSource:
    """Where the data is. What is made of it, a `Config` says."""

    data: str | None = None  # Corpus, a folder or a manifest.
    data_root: str | None = None  # Folder that a manifest's paths are relative to.
    tags: bool = False  # Whether the songs' names are those in the files' tags.
    store: str | None = None  # Feature store that takes the place of `data`.
    features: str = "features"  # Folder of all stores that are made from corpora.
    separator: str | None = None  # Folder of the separator that the features need.
    strict: bool = False  # Whether an unusable or doubtful song is an error.
    # Corpus of songs by strangers, which measure what a model makes of singers whom it
    # does not know.
    unknown: str | None = None

    def absolute(self):
        """The same, to be kept: it means the same from every working folder."""
        places = ("data", "data_root", "store", "features", "separator", "unknown")
        given = {name: getattr(self, name) for name in places if getattr(self, name)}
        given = {name: os.path.abspath(path) for name, path in given.items()}
        return dataclasses.replace(self, **given)

    def songs(self, left_out=None):
        """What `lca_keras.data.catalogue.load` lists."""
        return catalogue.load(self.data, self.data_root, self.tags, left_out)


@dataclasses.dataclass(frozen=True)
class Corpus:
    """A corpus that is ready to be learned from."""

    store: FeatureStore
    songs: list[catalogue.Song]  # Usable ones.
    skipped: dict[str, str]  # From path to the reason why a file was left out.
    # From path to what is doubtful about a usable song, sound that may be missing say.
    doubtful: dict[str, str]
    notes: list[str]  # For people: how features came about, and what was damaged.


@dataclasses.dataclass(frozen=True)
class Division:
    """A corpus in parts."""

    part_of: dict[str, str]  # From song key to one of `lca_keras.data.split.PARTS`.
    artists: list[str]  # Class names.
    file: str | os.PathLike | None  # CSV that gave the parts; `None`: they were drawn.
    unknown: list[str]  # Songs of that file that the corpus lacks, for people.
    new: list[str]  # Songs that a folder's own file lacks, which are left out.


def prepare(source, config, progress=None):
    """The `Corpus` of a `DataSource`, its features brought up to date.

    `progress` is called with (done, total) songs while features are computed.

    Raises:
        UserError: No songs, none usable, or unusable or doubtful ones under `strict`.
    """
    augment.check_installed(config.augment)
    if source.store:
        store, notes = _open_store(source.store, config)
        songs = [record.as_song for record in store.records.values()]
        skipped = {failure.path: failure.reason for failure in store.failed.values()}
    else:
        store, songs, skipped, notes = _extract(source, config, progress)
    usable = []
    for song in sorted(songs):
        record = store.records[song.key]
        if record.frames < config.clip_frames:
            left = silence.seconds(record.passages)
            why = too_short(record.duration, left, config.least_seconds)
            skipped[str(song.path)] = why
        else:
            usable.append(song)
    notes_of = {str(s.path): store.records[s.key].notes for s in usable}
    doubtful = {path: "; ".join(said) for path, said in notes_of.items() if said}
    if not usable or (source.strict and (skipped or doubtful)):
        problem = (
            f"--strict: {len(skipped)} files cannot be used, {len(doubtful)} are "
            "doubtful"
        )
        if not usable:
            where, total = source.data or source.store, len(store.failed) + len(songs)
            problem = f"{where}: none of {total} songs can be used"
        reasons = [f"{p}: {reason}" for p, reason in (skipped | doubtful).items()]
        raise UserError("\n  ".join([problem, *notes, *reasons]))
    return Corpus(store, usable, skipped, doubtful, notes)


def _open_store(folder, config):
    """Opens a store to train from, without the shards that cannot be read."""
    store = FeatureStore(folder, config.features)
    corrupt = sorted({*store.damaged_shards(), *store.corrupt_shards()})
    notes = [f"features: {folder}"]
    if corrupt:
        whole, store = len(store.records), store.without_shards(corrupt)
        notes += [f"{path} is damaged or missing" for path in corrupt]
        notes.append(
            f"{whole - len(store.records)} songs are left out for that. "
            "`python -m pipelines.extract` computes them again once the damaged files "
            "are deleted."
        )
    return store, notes


def _extract(source, config, progress):
    """Computes missing features; returns store, songs, skipped files, notes."""
    store = WritableStore(store_folder(source, config), config.features)
    # Has the music moved, or is it not mounted?
    if store.records and not os.path.exists(source.data):
        songs = [record.as_song for record in store.records.values()]
        skipped = {failure.path: failure.reason for failure in store.failed.values()}
        note = (
            f"{source.data} is not there: its features are used as they are, and files "
            "that were left out are not listed. Where is it now? `evaluate --moved-to` "
            "and `fit --resume RUN --data` take the new place"
        )
        return store, songs, skipped, ["features: not looked for anew", note]
    skipped = {}
    songs = source.songs(skipped)
    damaged = store.damaged_shards()
    report, failed = _update(store, songs, source, progress)
    notes = [f"features: {report.computed} computed, {report.reused} reused"]
    notes += [
        f"{path} was missing or truncated: computed its songs again" for path in damaged
    ]
    songs = [song for song in songs if song.key in store.records]
    return store, songs, skipped | failed, notes


def _update(store, songs, source, progress):
    """Updates a store; its `Report`, and by path why a song has no features."""
    extractor = Extractor(store.config, source.separator)
    others = neighbours(store.folder, store.config)
    report = store.update(songs, progress, extractor, others)
    why = report.failed
    return report, {str(s.path): why[s.key] for s in songs if s.key in why}


def store_folder(source, config):
    """Folder of the features of a `DataSource`."""
    if source.store:
        return pathlib.Path(source.store)
    where = pathlib.Path(source.data).resolve()
    tag = hashlib.sha256(os.fsencode(where)).hexdigest()[:8]
    return pathlib.Path(source.features, f"{where.name}-{tag}-{config.features.digest}")


def learned_from(source, config, folder, corpus):
    """Songs of a `Corpus` that a run was trained on, or chose its best epoch by.

    By their names in the `split.csv` of the run's folder, and by their content where
    the features of its `source` and `config` are still there. Dict from song key to
    `"train"` or `"validation"`; and a note where content could not be compared, or
    `None`.
    """
    names = split.parts_by_name(pathlib.Path(folder, "split.csv"))
    contents, note = {}, None
    try:
        records = FeatureStore.open(store_folder(source, config)).records
        for record in records.values():
            contents[record.content_hash] = names.get(record.as_song.names)
    except (UserError, OSError) as error:
        note = (
            f"note: the features that {folder} learned from cannot be read ({error}): "
            "songs of it are known by their names alone"
        )
    found = {}
    for song in corpus.songs:
        content = corpus.store.records[song.key].content_hash
        part = contents.get(content) or names.get(song.names)
        if part in ("train", "validation"):
            found[song.key] = part
    return found, note


def strangers(source, config, artists, progress=None):
    """The songs of `DataSource.unknown`, as the network of a `Config` takes clips.

    `artists` are those that the model learns; `progress` is as for `prepare`.

    Returns:
        `Corpus`, and the `lca_keras.data.clips.ClipSource` of all its songs, with the
        class 0.

    Raises:
        UserError: There are none, or some are by artists that the model learns.
    """
    # Stems are not needed to name singers.
    features = dataclasses.asdict(config.served_features)
    config = config.replace(features=features, augment={"kinds": ()})
    place = dict(data=source.unknown, data_root=None, store=None, unknown=None)
    found = prepare(dataclasses.replace(source, **place), config, progress)
    known = sorted({song.artist for song in found.songs} & set(artists))
    if known:
        raise UserError(
            f"--unknown {source.unknown}: its songs are to be by strangers, and "
            f"{', '.join(known)} the model learns: take these songs out"
        )
    labels = {song.key: 0 for song in found.songs}
    return found, ClipSource(found.store, labels, config.clip_frames, config.streams)


def neighbours(folder, features):
    """Folders of the stores of a `FeatureConfig` beside a store's folder."""
    return sorted({*folder.parent.glob(f"*-{features.digest}")} - {folder})


def stems_of(source, config, songs, progress=None):
    """Brings the stems of some songs up to date, in a store of their own.

    For models that were trained without; a corpus with stems has them in its store.
    The `separator` of the `DataSource`, or the default one, takes the vocals out of
    songs that have none as a file; a `UserError` says that it cannot be had.

    Returns:
        `FeatureStore`, and a dict from path to the reason why a song has no stems.
    """
    separator = separation.separator_id(source.separator or separation.DEFAULT)
    features = dataclasses.replace(
        config.served_features, source="stems", separator=separator
    )
    keys = "".join(sorted(song.key for song in songs))
    tag = hashlib.sha256(keys.encode()).hexdigest()[:8]
    name = f"voice-report-{tag}-{features.digest}"
    store = WritableStore(pathlib.Path(source.features, name), features)
    _, reasons = _update(store, songs, source, progress)
    return store, reasons


def divide(config, corpus, folder=None):
    """The `Division` of a folder or of the user, or a drawn one; checked.

    The folder's `split.csv`, if there is one, goes before `config.split`: what was
    begun there goes on with its own songs and artists, whatever has come or gone since.

    Raises:
        UserError: The split is broken, or the corpus is too small for it.
    """
    own = folder and pathlib.Path(folder, "split.csv")
    path = own if own and own.exists() else config.split.file
    unknown, new, songs, artists = [], [], corpus.songs, None
    if path:
        part_of = split.read_split(path, songs, partial=path == own)
        listed, known = split.parts_by_name(path), {song.names for song in songs}
        unknown = [" / ".join(names) for names in listed if names not in known]
        if path == own:
            new = [song.label for song in songs if song.key not in part_of]
            songs = [song for song in songs if song.key in part_of]
            artists = split.artists_of(path)
    else:
        part_of = split.split_songs(corpus.songs, config.split, config.train.seed)
    hashes = {key: r.content_hash for key, r in corpus.store.records.items()}
    split.check_split(songs, part_of, hashes, config.split.kind)
    artists = artists or sorted({song.artist for song in songs})
    return Division(part_of, artists, path, unknown, new)


def keep_split(folder, corpus, division):
    """Writes `split.csv` of a folder unless it is there."""
    path = pathlib.Path(folder, "split.csv")
    if not path.exists():
        split.write_split(path, corpus.songs, division.part_of)


def clip_sources(corpus, part_of, artists, config, parts=split.PARTS):
    """The `lca_keras.data.clips.ClipSource` of each part, as the network takes clips.

    Songs that `part_of`, a dict from song key to part, does not name are left out.
    """
    labels = collections.defaultdict(dict)
    for song in corpus.songs:
        if song.key in part_of:
            labels[part_of[song.key]][song.key] = artists.index(song.artist)
    # Only training clips overlap: scores are of the clips that an export votes with.
    hops = {"train": config.hop_frames}
    store, frames, streams = corpus.store, config.clip_frames, config.streams
    return {
        part: ClipSource(store, labels[part], frames, streams, hops.get(part))
        for part in parts
    }
