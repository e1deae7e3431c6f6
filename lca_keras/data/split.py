"""Division of a corpus into training, validation and test songs."""

import collections

import numpy as np

from lca_keras.base import files
from lca_keras.base.errors import UserError
from lca_keras.data.catalogue import readable

PARTS = ("train", "validation", "test")
_COLUMNS = ("artist", "album", "song", "part")


def split_songs(songs, config, seed):
    """Divides songs into parts, artist by artist.

    Args:
        songs: List of `lca_keras.data.catalogue.Song`.
        config: `lca_keras.base.config.SplitConfig`, whose `file` is not read here.
        seed: Int. The folds of one seed hold every album (song) out once.

    Returns:
        Dict from song key to one of `PARTS`. It depends on the names and the seed,
        not on the order of `songs`.

    Raises:
        UserError: Fewer than two artists, or some artist has too few albums (songs)
            for every part.
    """
    by_artist = collections.defaultdict(lambda: collections.defaultdict(list))
    for song in sorted(songs):
        by_artist[song.artist][song.album].append(song)
    if len(by_artist) < 2:
        raise UserError(
            f"Only one artist ({', '.join(by_artist)}): telling singers apart needs "
            "at least two artist folders."
        )
    _check_enough(by_artist, config.kind)
    rng = np.random.default_rng(seed)
    part_of = {}
    for albums in by_artist.values():
        # What stays together.
        groups = [albums[name] for name in sorted(albums)]
        if config.kind == "song":
            groups = [[song] for group in groups for song in group]
        parts = _parts(len(groups), config)
        for part, index in zip(parts, rng.permutation(len(groups)), strict=True):
            part_of.update({song.key: part for song in groups[index]})
    return part_of


def _parts(count, config):
    """The parts of so many albums, or songs, of an artist, in the order of drawing."""
    if config.folds:
        of_fold = {config.fold - 1: "test", config.fold % config.folds: "validation"}
        return [of_fold.get(n % config.folds, "train") for n in range(count)]
    usual = 0.1 if config.kind == "song" else 0.0
    held_out = []
    for share in (config.test_share, config.validation_share):
        wanted = round((usual if share is None else share) * count)
        # At least one, and so many that each part has one.
        most = count - 2 - sum(max(0, number - 1) for number in held_out)
        held_out.append(max(1, min(wanted, most)))
    test, validation = held_out
    rest = count - test - validation
    return ["test"] * test + ["validation"] * validation + ["train"] * rest


def _check_enough(by_artist, kind):
    """Raises if some artist cannot have a song in every part."""
    counts = {
        artist: len(albums) if kind == "album" else sum(map(len, albums.values()))
        for artist, albums in by_artist.items()
    }
    short = {artist: count for artist, count in counts.items() if count < 3}
    if short:
        listed = ", ".join(f"{artist} ({count})" for artist, count in short.items())
        advice = (
            "add albums, leave these artists out, or use --split song (which lets "
            "album sound leak into the scores)"
            if kind == "album"
            else "add songs or leave these artists out"
        )
        raise UserError(
            f"Artists with fewer than 3 {kind}s, one for each part: {listed}. "
            f"What to do: {advice}."
        )


def read_split(path, songs, partial=False):
    """Reads a split written by `write_split`, or by hand.

    Args:
        path: CSV.
        songs: List of `lca_keras.data.catalogue.Song`.
        partial: Whether songs may have no part.

    Returns:
        Dict from song key to part.

    Raises:
        UserError: The file is wrong, or songs and file do not match.
    """
    parts, lines = {}, {}
    for names, row in _rows(path):
        where = f"{path}, line {row.line}"
        if row["part"] not in PARTS:
            raise UserError(
                f"{where}: part must be one of {', '.join(PARTS)}; not {row['part']!r}"
            )
        if names in lines:
            raise UserError(
                f"{where}: {' / '.join(names)} is in line {lines[names]} already"
            )
        lines[names], parts[names] = row.line, row["part"]
    # Others are unreadable, or of a larger corpus: `unknown_songs`.
    part_of = {song.key: parts[song.names] for song in songs if song.names in parts}
    missing = [song.label for song in songs if song.key not in part_of]
    if missing and not partial:
        raise UserError(
            f"{path}: no part for {len(missing)} songs, the first is {missing[0]}. "
            "Add them to the file or take them out of the corpus."
        )
    return part_of


def artists_of(path):
    """Sorted names of the artists in a split file."""
    return sorted({artist for artist, _, _ in parts_by_name(path)})


def parts_by_name(path):
    """Dict from artist, album and song to the part, of a split file."""
    return {names: row["part"] for names, row in _rows(path)}


def unknown_songs(path, songs):
    """Returns the songs of a split file that a corpus does not have, for people."""
    known = {song.names for song in songs}
    return [" / ".join(names) for names in parts_by_name(path) if names not in known]


def _rows(path):
    """Yields artist, album and song of each line of a split file, and the line."""
    for row in files.read_csv(path, _COLUMNS):
        yield tuple(readable(row[column]) for column in _COLUMNS[:3]), row


def write_split(path, songs, part_of):
    """Writes a split as CSV."""
    rows = [[*song.names, part_of[song.key]] for song in sorted(songs)]
    files.write_csv(path, _COLUMNS, rows)


def check_split(songs, part_of, content_hashes, kind):
    """Raises if a split would spoil an experiment.

    Args:
        songs: List of `Song`.
        part_of: Dict from song key to part.
        content_hashes: Dict from song key to the hash of the decoded audio.
        kind: `"album"` also forbids an album in two parts.

    Raises:
        UserError: An album or a recording is in two parts, some artist has no
            training song, or a part is empty.
    """
    # Of each recording, and each album, the first song in every part.
    groups = collections.defaultdict(dict)
    for song in songs:
        keys = [("the same recording", content_hashes[song.key])]
        if kind == "album":
            keys.append(("the album", song.names[:2]))
        for key in keys:
            groups[key].setdefault(part_of[song.key], song)
    for (what, _), first in groups.items():
        if len(first) > 1:
            pair = list(first.items())[:2]
            listed = " and ".join(f"{song.path} ({part})" for part, song in pair)
            raise UserError(
                f"{what} is in the parts {' and '.join(sorted(first))}: {listed}. "
                "Scores on it would be too good: remove one, or put both into one "
                "part with --split-file."
            )
    artists = {song.artist for song in songs}
    for part in PARTS:
        present = {song.artist for song in songs if part_of[song.key] == part}
        if not present:
            raise UserError(f"The split has no {part} songs.")
        if part == "train" and artists - present:
            raise UserError(
                f"No training song of {', '.join(sorted(artists - present))}."
            )
