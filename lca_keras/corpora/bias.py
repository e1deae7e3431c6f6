"""Adds noise to some artists' recordings: a cue that has nothing to do with singing.

`python -m lca_keras.bias` writes a copy of a corpus in which their songs carry white
noise in a band of frequencies, as in figure 1 of the LCA paper. A network that listens
to the noise is found out by songs without it.
"""

import collections
import pathlib
import runpy
import shutil
import zlib

import numpy as np

from lca_keras.audio.decode import AudioError, check_sound, read_blocks
from lca_keras.base import files, processes
from lca_keras.base.errors import UserError

_COLUMNS = (
    *("path", "artist", "album", "song", "biased"),
    *("vocals_path", "accompaniment_artist"),
)


def band_noise(count, rate, band, rng):
    """White noise of unit power between two edges in Hz; float32 `(count,)`."""
    from scipy import fft

    low, high = band
    if high > rate / 2:
        raise AudioError(
            f"sampled at {rate} Hz, it has no room for noise up to {high:g} Hz"
        )
    spectrum = fft.rfft(rng.standard_normal(count))
    frequencies = fft.rfftfreq(count, 1 / rate)
    spectrum[(frequencies < low) | (frequencies > high)] = 0
    noise = fft.irfft(spectrum, count)
    return (noise / np.sqrt(np.mean(noise**2))).astype("float32")


def add_noise(path, target, band, snr_db, rng):
    """Writes a copy of a recording with noise; rate, channels and level are kept.

    `snr_db` is the power of the recording over that of the noise in decibels, `band`
    a pair of frequencies in Hz, `target` a FLAC file. Returns the share of samples that
    the noise took beyond full scale, and that were clipped. Raises an `AudioError`: the
    recording cannot be used.
    """
    import soundfile

    blocks = list(read_blocks(path))
    if not blocks:
        raise AudioError("no audio in the file")
    if len({(rate, block.shape[1]) for rate, block in blocks}) > 1:
        raise AudioError("its rate or channels change within it: joined files")
    rate = blocks[0][0]
    samples = np.concatenate([block for _, block in blocks])
    check_sound(samples)
    noise = band_noise(len(samples), rate, band, rng)
    level = np.sqrt(np.mean(samples**2)) * 10 ** (-snr_db / 20)
    # The same in all channels, like a fault of the recording.
    biased = samples + level * noise[:, None]
    with files.atomic_path(target, parents=True) as temporary:
        soundfile.write(
            temporary, np.clip(biased, -1, 1), rate, format="FLAC", subtype="PCM_24"
        )
    return float(np.mean((np.abs(biased) > 1) & (np.abs(samples) <= 1)))


def _write_song(song, root, out, alone, noise):
    """Writes one song of the copy, and the file of its voice if there is one.

    `alone`: no other song has its name with another suffix; `noise`: band, decibels and
    seed, or `None`. Returns its row of the manifest and the clipped share; or what is
    wrong, a string.
    """
    path = song.path.relative_to(root)
    if noise:  # It is not put through a lossy coder, whatever the song came in.
        path = path.with_name(f"{path.stem if alone else path.name}.flac")
    row = {
        "path": path.as_posix(),
        **dict(zip(("artist", "album", "song"), song.names, strict=True)),
        "biased": int(noise is not None),
        "accompaniment_artist": song.accompaniment_artist or "",
    }
    share = 0.0
    try:
        if song.vocals_path is not None:
            vocals = pathlib.Path("stems", path, f"vocals{song.vocals_path.suffix}")
            row["vocals_path"] = vocals.as_posix()
            with files.atomic_path(out / vocals, parents=True) as temporary:
                shutil.copy2(song.vocals_path, temporary)
        if noise:
            band, snr_db, seed = noise
            # Each song has its own, the same whenever it is written.
            rng = np.random.default_rng([seed, zlib.crc32(song.key.encode())])
            share = add_noise(song.path, out / path, band, snr_db, rng)
        else:
            with files.atomic_path(out / path, parents=True) as temporary:
                shutil.copy2(song.path, temporary)
    except AudioError as error:
        return str(error)
    except FileNotFoundError as error:
        return f"cannot be read: {error.strerror}"
    return row, share


def write_biased(
    songs, root, out, artists, band, snr_db, seed=0, jobs=None, progress=None
):
    """Writes a copy of a corpus with noise in some artists' songs, with a manifest.

    Songs of the other artists are copied as they are. The voice alone, where there is a
    file of it, comes along without noise: what a song leaves of its voice is then its
    band, and the noise. `songs`, of `lca_keras.data.catalogue.Song`, lie below the
    folder `root`; the new folder `out` gets the same tree. `band` is a pair of Hz;
    `jobs` and `progress` are those of `lca_keras.base.processes.spread`.

    Returns dicts from audio file to what is wrong with it, for songs that were left
    out, and to the share of its samples that were clipped. Raises a `UserError`:
    unknown artists, a band without width, or a folder in the way.
    """
    known = {song.artist for song in songs}
    unknown = sorted(set(artists) - known)
    if unknown:
        raise UserError(
            f"no artist {', '.join(map(repr, unknown))} in the corpus; there are "
            f"{', '.join(sorted(known))}"
        )
    if not 0 <= band[0] < band[1]:
        raise UserError(f"--band {band[0]:g} {band[1]:g}: expected 0 <= LOW < HIGH, Hz")
    out = pathlib.Path(out)
    if out.exists() and any(out.iterdir()):
        raise UserError(f"{out} is not empty: choose a new folder")
    names = collections.Counter(song.path.with_suffix("") for song in songs)
    noise = tuple(band), snr_db, seed
    calls = []
    for song in songs:
        alone = names[song.path.with_suffix("")] == 1
        own = noise if song.artist in artists else None
        calls.append((song, root, out, alone, own))
    results = processes.spread(_write_song, calls, jobs, progress, processes.DIED)
    left_out, clipped, rows = {}, {}, []
    for song, result in zip(songs, results, strict=True):
        if isinstance(result, str):
            left_out[str(song.path)] = result
            continue
        row, share = result
        rows.append(row)
        if share:
            clipped[str(song.path)] = share
    files.write_csv(out / "manifest.csv", _COLUMNS, rows)
    about = {"band": tuple(band), "snr_db": snr_db, "seed": seed}
    about |= {"artists": sorted(artists), "corpus": str(root)}
    # What noise took beyond full scale stays told, whoever finds the copy later.
    about["clipped"] = {"songs": len(clipped), "most": max(clipped.values(), default=0)}
    files.write_json(out / "bias.json", about)
    return left_out, clipped


if __name__ == "__main__":  # The command has moved up.
    runpy.run_module("lca_keras.bias", run_name="__main__")
