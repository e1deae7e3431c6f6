"""Adds singers to an exported model, and takes them away, without training."""

import dataclasses
import pathlib

import numpy as np

from lca_keras.audio.decode import AudioError
from lca_keras.base.errors import UserError
from lca_keras.exports.export import with_gallery
from lca_keras.voices.gallery import gallery_of

# With fewer, a song's own sound counts as the singer's.
LEAST_SONGS = 3


@dataclasses.dataclass(frozen=True)
class Enrollment:
    """Somebody who was enrolled."""

    exported: pathlib.Path  # The version that knows the singer.
    songs: dict[str, float]  # From path to the similarity of a song to the others.
    skipped: dict[str, str]  # From path to the reason why a song was left out.
    nearest: str  # Singer with the most similar voice among those known before,
    similarity: float  # to that one,
    alike: bool  # and whether it is above the threshold: they may be the same.


def enroll(identifier, folder, artist, paths, vocals, progress):
    """Writes the next version of a model: the same network, a gallery of one more.

    `folder` is that of the version that `identifier` has opened, `vocals` says whether
    the files are vocals already, and `progress` is a function of (done, total) songs.

    Raises:
        UserError: The model has no gallery or the name, or too few songs can be used;
            nothing is written.
    """
    gallery = gallery_of(identifier)
    if artist in identifier.artists:
        raise UserError(
            f"{artist} is known to {folder} already; --remove takes away who is "
            "enrolled"
        )
    prints, skipped = {}, {}
    for done, path in enumerate(paths):
        progress(done, len(paths))
        try:
            heard = identifier.hear(path, path if vocals else None)
            clips, _ = identifier.voiceprints(heard)
            prints[str(path)] = clips.mean(axis=0)
        except AudioError as error:
            skipped[str(path)] = str(error)
    progress(len(paths), len(paths))
    if len(prints) < LEAST_SONGS:
        reasons = "".join(f"\n  {path}: {why}" for path, why in skipped.items())
        raise UserError(
            f"enrolling needs {LEAST_SONGS} songs that can be used, better more and of "
            f"several albums; there are {len(prints)}{reasons}"
        )
    extended = gallery.with_singer(artist, list(prints.values()))
    near = gallery.means @ extended.means[-1]
    others = {}
    for path in prints:
        rest = np.mean([p for other, p in prints.items() if other != path], axis=0)
        pair = gallery.directions(np.stack([prints[path], rest]))
        others[path] = float(pair[0] @ pair[1])
    return Enrollment(
        with_gallery(folder, extended),
        others,
        skipped,
        identifier.artists[int(near.argmax())],
        float(near.max()),
        bool(near.max() >= gallery.threshold),
    )


def remove(identifier, folder, artist):
    """Writes the next version of a model, without somebody enrolled; its path."""
    gallery = gallery_of(identifier)
    if artist not in gallery.enrolled:
        if artist in identifier.artists:
            raise UserError(f'"{artist}" was trained, not enrolled: it stays')
        known = ", ".join(gallery.enrolled) or "nobody"
        verb = "are" if len(gallery.enrolled) > 1 else "is"
        raise UserError(f'"{artist}" is not enrolled in {folder}; {known} {verb}')
    return with_gallery(folder, gallery.without_singer(artist))
