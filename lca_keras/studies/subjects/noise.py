"""Corpora with noise on the recordings of some artists."""

import pathlib

from lca_keras.base import files
from lca_keras.base.errors import UserError
from lca_keras.corpora import bias
from lca_keras.data import catalogue, split


def corpora(out, songs, root, parts_file, artist, band, snr_db, progress=None):
    """Writes two noisy copies of a corpus; those that are there are kept.

    Args:
        out: Folder of the experiment.
        songs: List of `lca_keras.data.catalogue.Song`.
        root: Folder that they are in.
        parts_file: CSV of the split.
        artist: Name of the artist whose recordings get noise.
        band: Pair of floats, Hz.
        snr_db: Float, decibels, the recording over the noise.
        progress: As for `lca_keras.corpora.bias.write_biased`.

    Returns:
        Dict from name to manifest: `"biased"`, with noise in all songs of the artist;
        and `"noised"`, test songs with noise in those of all the others.

    Raises:
        UserError: No such artist, songs that cannot be read, or copies of other
            settings.
    """
    part_of = split.read_split(parts_file, songs)
    tested = [song for song in songs if part_of[song.key] == "test"]
    others = sorted({song.artist for song in songs} - {artist})
    made = {}
    for name, chosen, artists in (
        ("biased", songs, [artist]),
        ("noised", tested, others),
    ):
        folder = pathlib.Path(out, "corpora", name)
        made[name] = folder / "manifest.csv"
        if (folder / "bias.json").exists():
            _check_copy(made[name], chosen, root, artists, band, snr_db)
            continue
        # Half a copy is none: it is written aside.
        with files.atomic_path(folder) as temporary:
            settings = (artists, band, snr_db)
            left_out, _ = bias.write_biased(
                chosen, root, temporary, *settings, progress=progress
            )
            if left_out:
                path, reason = next(iter(left_out.items()))
                raise UserError(f"{path}: {reason}")
    return made


def _check_copy(manifest, songs, root, artists, band, snr_db):
    """Raises unless a noisy copy is of these songs and settings."""
    wanted = {"band": list(band), "snr_db": snr_db, "seed": 0}
    wanted |= {"artists": artists, "corpus": str(root)}
    kept = files.read_json(manifest.with_name("bias.json"))
    copied = {song.key for song in catalogue.load(manifest)}
    if wanted.items() <= kept.items() and copied == {song.key for song in songs}:
        return
    raise UserError(
        f"{manifest.parent} holds noise of other settings or songs (bias.json): choose "
        "another --out, or delete the folder"
    )


def clipping(made):
    """What noise took beyond full scale in the copies of `corpora`: sentences."""
    notes = []
    for name, manifest in made.items():
        clipped = files.read_json(manifest.with_name("bias.json"))["clipped"]
        if clipped["songs"]:
            notes.append(
                f"Noise took {clipped['songs']} songs ({name}) beyond full scale, up "
                f"to {clipped['most']:.3%} of the samples of one; these are clipped."
            )
    return notes
