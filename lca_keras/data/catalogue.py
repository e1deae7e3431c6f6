"""The songs of a corpus: a folder tree or a CSV manifest."""

import collections
import contextlib
import dataclasses
import hashlib
import os
import pathlib
import re
import unicodedata

from lca_keras.audio.decode import EXTENSIONS
from lca_keras.base import files
from lca_keras.base.errors import UserError

# Of a corpus that `lca_keras.corpora.synthesis` has written, say.
_MANIFEST = "manifest.csv"
_COLUMNS = ("path", "artist", "album", "song")
# A disc of an album: its folder, or the end of the album's name.
_DISC = re.compile(r"(cd|dis[ck]|dvd|lp|side)[ _.-]*(\d{1,2}|[a-f]|[ivx]{1,4})", re.I)
_END = re.compile(
    r"(?P<album>.*[^ _,-])[ _,-]*[ _,\-(\[{]"
    r"(?P<disc>(cd|dis[ck])[ _.-]*\d{1,2})[)\]}]?",
    re.I,
)
_COLLECTIONS = {"various artists", "various", "va", "v.a.", "verschiedene interpreten"}


@dataclasses.dataclass(frozen=True, order=True)
class Song:
    """One recording."""

    artist: str  # The class to predict.
    album: str  # Unique within the artist.
    song: str  # Unique within the album.
    path: pathlib.Path
    # Of the voice alone, and of everything else; each as long as `path`.
    vocals_path: pathlib.Path | None = dataclasses.field(default=None, compare=False)
    accompaniment_path: pathlib.Path | None = dataclasses.field(
        default=None, compare=False
    )
    # Whose band it is, where it is not the artist's own.
    accompaniment_artist: str | None = dataclasses.field(default=None, compare=False)

    @property
    def names(self):
        """Artist, album and song."""
        return self.artist, self.album, self.song

    @property
    def key(self):
        """Identifies the song in stores; safe as a file name whatever the names."""
        names = "\0".join(self.names).encode("utf-8", "surrogateescape")
        return hashlib.sha256(names).hexdigest()[:16]

    @property
    def label(self):
        """`artist / album / song`, for people."""
        return " / ".join(self.names)


def load(path, root=None, tags=False, left_out=None):
    """Lists the songs of a corpus, sorted.

    Names are as `readable` makes them, so forms of one name are one name.

    Args:
        path: Folder `artist/album/song.ext`, where an album may have folders for its
            discs (`CD1`, `Disc 2`); or a CSV manifest with the columns `path`
            (relative to the CSV's folder), `artist`, `album` and `song`, and
            optionally those of `Song`.
        root: Optional folder that a manifest's paths are relative to, in the place of
            the CSV's; they may be absolute then.
        tags: Whether artist, album and song are read from the files' tags, whatever
            folders they are in.
        left_out: Optional dict; takes, by path, why an audio file is no song here.

    Raises:
        UserError: Nothing there, no audio in it, or a manifest that is wrong.
    """
    # Absolute, so that a store knows its songs however the corpus is spelled.
    path = pathlib.Path(path).absolute()
    left_out = {} if left_out is None else left_out
    if not path.exists():
        raise UserError(f"{path}: no such folder or manifest")
    if not path.is_dir():
        if tags:
            raise UserError(f"--tags is for a folder of songs; {path} is none")
        return sorted(_read_manifest(path, root))
    if root:
        raise UserError(f"--data-root is for a manifest; {path} is a folder")
    songs = sorted(_scan(path, _tagged if tags else _placed, left_out))
    if not songs:
        raise UserError(
            f"{path}: no songs found. Expected audio files (mp3, m4a, flac, ogg, wav "
            "and others) as artist/album/song.ext; or, with --tags, files with tags in "
            "any folders; or a CSV manifest with the columns "
            f"{', '.join(_COLUMNS)}.{_hint(left_out, tags)}{_examples(left_out)}"
        )
    return songs


def readable(name):
    """A name as people read it: composed characters, and single spaces.

    Bytes that are not UTF-8 are taken for Windows' Western European characters.
    """
    try:
        name.encode()
    except UnicodeEncodeError:
        name = os.fsencode(name).decode("cp1252", "replace")
    return " ".join(unicodedata.normalize("NFC", name).split())


# === Folders ===


class _NoSong(Exception):
    """Why an audio file is no song of a corpus."""


def _scan(root, name, left_out):
    """Yields the songs of a folder. `name` gives artist, album and song of a file."""
    named, listed = collections.defaultdict(list), ""
    if name is _placed and (root / _MANIFEST).is_file():
        listed = f". The songs are listed in {root / _MANIFEST}: give that as --data"
    for path in audio_files(root, left_out):
        place = path.relative_to(root)
        try:
            if any(part.startswith(".") for part in place.parts):
                raise _NoSong("hidden")
            names = tuple(readable(part) for part in name(path, place))
            if not all(names):
                raise _NoSong("a name of it is blank")
        except _NoSong as error:
            left_out[str(path)] = f"{error}{listed}"
        else:
            named[names].append(path)
    for (artist, album, song), paths in named.items():
        for number, path in enumerate(sorted(paths), 1):
            if len(paths) == 1:
                yield Song(artist, album, song, path)
                continue
            # song.mp3 beside song.wav: two songs, so the suffix tells them apart.
            unique = song + path.suffix
            if len({other.suffix for other in paths}) < len(paths):
                unique = f"{song} ({number})"
            yield Song(artist, album, unique, path)


def audio_files(root, left_out):
    """Yields what looks like audio below a folder; links are followed.

    `left_out`, a dict, takes folders that cannot be read, with the reason.
    """
    seen = set()

    def failed(error):
        left_out[error.filename] = f"cannot be read: {error.strerror}"

    for folder, folders, names in os.walk(root, onerror=failed, followlinks=True):
        status = os.stat(folder)
        if (status.st_dev, status.st_ino) in seen:  # A link back, or a second one.
            folders.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        folders.sort()
        for name in sorted(names):
            if os.path.splitext(name)[1].lower() in EXTENSIONS:
                yield pathlib.Path(folder, name)


def _placed(path, place):
    """Names of a file by its place in artist/album/song.ext."""
    *folders, _ = place.parts
    if len(folders) == 3 and _DISC.fullmatch(folders[2]):
        return folders[0], folders[1], f"{folders[2]} {path.stem}"
    if len(folders) < 2:
        raise _NoSong("in no folder of an album: artist/album/song is expected")
    if len(folders) > 2:
        raise _NoSong("too deep: artist/album/song is expected, or artist/album/CD1")
    return folders[0], *_of_album(folders[1], path.stem)


def _of_album(album, song):
    """Album and song, the discs of an album taken together."""
    ending = _END.fullmatch(album)
    if ending is None:
        return album, song
    return ending["album"], f"{ending['disc']} {song}"


def _tagged(path, place):
    """Names of a file by its tags; the folders have no say.

    The artist is the album's, unless that is a collection of several.
    """
    import mutagen

    try:
        tags = mutagen.File(path, easy=True) or {}
    except (mutagen.MutagenError, OSError) as error:
        why = f"its tags cannot be read ({error}): damaged or cut off?"
        raise _NoSong(why) from error

    def tag(*names):
        values = (" & ".join(tags.get(name) or []).strip() for name in names)
        return next(filter(None, values), "")

    artist = tag("albumartist", "artist")
    if artist.casefold() in _COLLECTIONS:
        artist = tag("artist")
    album, title = tag("album"), tag("title") or path.stem
    lacking = [n for n, v in (("artist", artist), ("album", album)) if not v]
    if lacking:
        raise _NoSong(f"its tags name no {' and no '.join(lacking)}")
    return artist, *_of_album(album, title)


def _hint(left_out, tags):
    """Says so if files that were left out have tags, for an error message."""
    for path in [] if tags else list(left_out)[:5]:
        with contextlib.suppress(_NoSong):
            _tagged(pathlib.Path(path), None)
            return " These files have tags: add --tags."
    return ""


def _examples(left_out):
    """What was left out, a file for each reason, for an error message."""
    first = {why: path for path, why in reversed(left_out.items())}
    count = collections.Counter(left_out.values())
    return "".join(
        f"\n  {path}: {why}"
        + (f" (and {count[why] - 1} more)" if count[why] > 1 else "")
        for why, path in first.items()
    )


# === Manifests ===


def _read_manifest(path, root):
    where = pathlib.Path(root or path.parent).absolute()
    if not where.is_dir():
        raise UserError(f"--data-root {root}: no such folder")
    songs, lines = [], {}
    for row in files.read_csv(path, _COLUMNS):
        line = f"{path}, line {row.line}"
        names = [readable(row[column]) for column in _COLUMNS[1:]]
        if not all(names) or not row["path"].strip():
            raise UserError(f"{line}: empty field in {dict(row)}")
        paths = {
            column: _path(where, row[column].strip(), line, bool(root))
            for column in ("path", "vocals_path", "accompaniment_path")
            if (row.get(column) or "").strip()
        }
        band = readable(row.get("accompaniment_artist") or "") or None
        song = Song(*names, **paths, accompaniment_artist=band)
        if song.key in lines:
            raise UserError(
                f"{line}: {song.label} is in line {lines[song.key]} already. Give the "
                "songs different names or remove one."
            )
        lines[song.key] = row.line
        songs.append(song)
    if not songs:
        raise UserError(f"{path}: the manifest lists no songs")
    return songs


def _path(root, name, line, anywhere):
    """The path of a file that a manifest names; `anywhere` allows those outside.

    Links are followed as in a folder, so it is the name that must stay within.
    """
    if not (root / name).exists() and "\\" in name:  # Written on Windows.
        name = name.replace("\\", "/")
    if re.match(r"[A-Za-z]:[/\\]", name):
        raise UserError(
            f"{line}: {name} is a path of Windows' drives. Make the paths relative to "
            "the manifest's folder, or to --data-root."
        )
    path = pathlib.Path(os.path.normpath(root / name))
    if not anywhere and not path.is_relative_to(root):
        raise UserError(
            f"{line}: {name} lies outside {root}. Paths are relative to the manifest's "
            "folder and stay within it, unless --data-root says what they are relative "
            "to."
        )
    return path
