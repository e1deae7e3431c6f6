"""Division of a corpus into training, validation and test songs."""

import collections

import numpy as np

from lca_keras.base import files
from lca_keras.base.errors import UserError
from lca_keras.data.catalogue import readable

PARTS = ("train", "validation", "test")
_COLUMNS = ("artist", "album", "song", "part")


def split_songs(songs, config, seed):
    """Divides songs into parts, artist by artist; the `file` of `config` is not read.

    The folds of one seed hold every album (song) out once.

    Returns:
        Dict from song key to one of `PARTS`. It depends on the names and the seed,
        not on the order of `songs`.

    Raises:
        UserError: Fewer than two artists, or some artist has too few albums (songs)
            for every part.
    """
    # Of each artist what stays together: albums, or single songs.
    by_artist = collections.defaultdict(lambda: collections.defaultdict(list))
    together = slice(2 if config.kind == "album" else 3)
    for song in sorted(songs):
        by_artist[song.artist][song.names[together]].append(song)
    if len(by_artist) < 2:
        raise UserError(
            f"Only one artist ({', '.join(by_artist)}): telling singers apart needs "
            "at least two artist folders."
        )
    _check_enough(by_artist, config.kind)
    rng = np.random.default_rng(seed)
    part_of = {}
    for own in by_artist.values():
        groups, parts = list(own.values()), _parts(len(own), config)
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
    short = {artist: len(own) for artist, own in by_artist.items() if len(own) < 3}
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
    """Dict from song key to part, of a split by `write_split`, or by hand.

    Songs may have no part if it is `partial`. A `UserError` says that the file is
    wrong, or that songs and file do not match.
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
    # Others are unreadable, or of a larger corpus.
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


def _rows(path):
    """Yields artist, album and song of each line of a split file, and the line."""
    for row in files.read_csv(path, _COLUMNS):
        yield tuple(readable(row[column]) for column in _COLUMNS[:3]), row


def write_split(path, songs, part_of):
    """Writes a split as CSV."""
    rows = [[*song.names, part_of[song.key]] for song in sorted(songs)]
    files.write_csv(path, _COLUMNS, rows)


def check_split(songs, part_of, content_hashes, kind):
    """Raises a `UserError` if a split would spoil an experiment.

    A recording is in two parts, by its hash in `content_hashes`, or if `kind` is
    `"album"` an album; some artist has no training song, or a part is empty.
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
