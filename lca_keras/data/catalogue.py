"""The songs of a corpus: a folder tree or a CSV manifest."""

import collections
import dataclasses
import hashlib
import os
import pathlib

from lca_keras import files
from lca_keras.audio.decode import EXTENSIONS
from lca_keras.errors import UserError

_COLUMNS = ("path", "artist", "album", "song")


@dataclasses.dataclass(frozen=True, order=True)
class Song:
    """One recording.

    Attributes:
        artist: Artist's name, the class to predict.
        album: Album's name, unique within the artist.
        song: Song's name, unique within the album.
        path: Audio file.
        vocals_path: Audio file of the voice alone, as long as `path`, if there is one.
        accompaniment_path: The same of everything else.
        accompaniment_artist: Whose band it is, where it is not the artist's own.
    """

    artist: str
    album: str
    song: str
    path: pathlib.Path
    vocals_path: pathlib.Path | None = dataclasses.field(default=None, compare=False)
    accompaniment_path: pathlib.Path | None = dataclasses.field(
        default=None, compare=False
    )
    accompaniment_artist: str | None = dataclasses.field(default=None, compare=False)

    @property
    def key(self):
        """Identifies the song in stores; safe as a file name whatever the names."""
        names = "\0".join((self.artist, self.album, self.song))
        return hashlib.sha256(names.encode("utf-8", "surrogateescape")).hexdigest()[:16]

    @property
    def label(self):
        """`artist / album / song`, for people."""
        return f"{self.artist} / {self.album} / {self.song}"


def load(path):
    """Lists the songs of a corpus.

    Args:
        path: Folder `artist/album/song.ext`, or a CSV manifest with the columns
            `path` (relative to the CSV's folder), `artist`, `album` and `song`, and
            optionally `vocals_path` and `accompaniment_path`, files of the voice alone
            and of everything else, and `accompaniment_artist`.

    Returns:
        List of `Song`, sorted.

    Raises:
        UserError: Nothing there, no audio in it, or a manifest that is wrong.
    """
    # Absolute, so that a store knows its songs however the corpus is spelled.
    path = pathlib.Path(path).absolute()
    if not path.exists():
        raise UserError(f"{path}: no such folder or manifest")
    songs = _scan(path) if path.is_dir() else _read_manifest(path)
    return sorted(songs)


def _scan(root):
    """Lists `root/artist/album/song.ext`, nothing hidden, nothing at other depths."""
    by_album = collections.defaultdict(list)
    for artist in _folders(root):
        for album in _folders(artist):
            for entry in os.scandir(album):
                suffix = os.path.splitext(entry.name)[1].lower()
                if not entry.name.startswith(".") and suffix in EXTENSIONS:
                    by_album[artist.name, album.name].append(pathlib.Path(entry.path))
    songs = []
    for (artist, album), paths in by_album.items():
        stems = collections.Counter(path.stem for path in paths)
        for path in paths:
            # song.mp3 beside song.wav: two songs, so the suffix tells them apart.
            name = path.stem if stems[path.stem] == 1 else path.name
            songs.append(Song(artist, album, name, path))
    if not songs:
        raise UserError(
            f"{root}: no songs found. Expected audio files as artist/album/song.ext "
            f"with ext one of {', '.join(e[1:] for e in EXTENSIONS)}; or give a CSV "
            f"manifest with the columns {', '.join(_COLUMNS)}."
        )
    return songs


def _folders(path):
    return [
        pathlib.Path(entry.path)
        for entry in sorted(os.scandir(path), key=lambda e: e.name)
        if entry.is_dir() and not entry.name.startswith(".")
    ]


def _read_manifest(path):
    root = path.parent.resolve()
    songs, lines = [], {}
    for number, row in enumerate(files.read_csv(path, _COLUMNS), start=2):
        names = [row[column].strip() for column in _COLUMNS]
        if not all(names):
            raise UserError(f"{path}, line {number}: empty field in {row}")
        audio = _within(root, names[0], f"{path}, line {number}")
        stems = {}
        for column in ("vocals_path", "accompaniment_path"):
            if name := (row.get(column) or "").strip():
                stems[column] = _within(root, name, f"{path}, line {number}")
        band = (row.get("accompaniment_artist") or "").strip() or None
        song = Song(*names[1:], audio, accompaniment_artist=band, **stems)
        if song.key in lines:
            raise UserError(
                f"{path}, line {number}: {song.label} is in line {lines[song.key]} "
                "already. Give the songs different names or remove one."
            )
        lines[song.key] = number
        songs.append(song)
    if not songs:
        raise UserError(f"{path}: the manifest lists no songs")
    return songs


def _within(root, name, where):
    """The path of a file below the manifest's folder."""
    path = (root / name).resolve()
    if not path.is_relative_to(root):
        raise UserError(
            f"{where}: {name} lies outside {root}. Paths are relative to the "
            "manifest's folder and stay within it."
        )
    return path
