"""Statistics of a feature store, and what is wrong with it by a schema or by before."""

import collections
import dataclasses

import numpy as np

from lca_keras.base import files

SONGS, SPECTRA = "songs.csv", "spectra.npz"
_COLUMNS = ("artist", "album", "song", "content_hash", "seconds", "sound_seconds")
_COLUMNS += ("range_db", "bandwidth_hz")
# A band counts as heard that much above the floor of a song's spectrogram.
_ABOVE_FLOOR_DB = 6.0


@dataclasses.dataclass(frozen=True)
class Schema:
    """What a store has to be like; the section `schema` of a pipeline's settings."""

    least_artists: int = 2
    least_songs: int = 3  # Usable ones of each artist.
    most_unusable: float = 0.2  # Share of the listed songs.
    # Between a song's quiet cells and loud ones, its 5th and 95th percentile; silence
    # and noise have less.
    least_range_db: float = 10.0
    least_bandwidth_hz: float = 2000.0  # Highest frequency with sound in a song.
    most_outside: float = 0.05  # Share of songs that may miss one of the two above.
    # Since the last blessed statistics: share of the bandwidth, the median over songs,
    # that may be gone; root mean square over bands that the mean spectrum may have
    # moved; share of the artists that may be gone.
    most_narrowed: float = 0.2
    most_drift_db: float = 3.0
    most_lost: float = 0.1
    doctor: bool = True  # Whether `lca_keras.corpora.doctor` examines the recordings.
    accepted: tuple[str, ...] = ()  # Kinds of anomalies that don't count.


@dataclasses.dataclass(frozen=True)
class Statistics:
    """What can be said of the songs of a store."""

    songs: list  # Dicts by `_COLUMNS`.
    spectra: np.ndarray  # `(songs, mel_bins)`, mean decibels over sounding frames.

    @classmethod
    def load(cls, folder):
        """Reads what `save` wrote."""
        songs = []
        for row in files.read_csv(folder / SONGS, _COLUMNS):
            numbers = {name: float(row[name]) for name in _COLUMNS[4:]}
            songs.append({name: row[name] for name in _COLUMNS} | numbers)
        with np.load(folder / SPECTRA, allow_pickle=False) as arrays:
            return cls(songs, arrays["spectra"])

    def save(self, folder):
        """Writes `songs.csv` and `spectra.npz`."""
        files.write_csv(folder / SONGS, _COLUMNS, self.songs)
        with files.atomic_path(folder / SPECTRA) as temporary:
            np.savez_compressed(temporary, spectra=self.spectra.astype("float32"))

    @property
    def artists(self):
        """Counts the songs of each artist."""
        return collections.Counter(song["artist"] for song in self.songs)


@dataclasses.dataclass(frozen=True)
class Anomaly:
    """Something that a store should not be like: its kind, and a sentence."""

    kind: str
    message: str


def compute(corpus, progress=None):
    """Statistics of the usable songs of a `lca_keras.data.corpus.Corpus`."""
    store, songs, spectra = corpus.store, [], []
    front_end = store.front_end
    front_end.require_frequencies("statistics of a corpus")
    for number, song in enumerate(sorted(corpus.songs), 1):
        record = store.records[song.key]
        mel = store.read(song.key).arrays[front_end.main.name]
        kept = mel[..., 0].astype("float32")
        low, high = np.percentile(kept, (5, 95))
        loud = np.percentile(kept, 95, axis=1)
        heard = np.flatnonzero(loud > kept.min() + _ABOVE_FLOOR_DB)
        values = (
            *song.names,
            record.content_hash,
            round(record.duration, 3),
            round(kept.shape[1] / front_end.frame_rate, 3),
            round(float(high - low), 2),
            round(float(front_end.frequencies[heard[-1]]) if heard.size else 0, 1),
        )
        songs.append(dict(zip(_COLUMNS, values, strict=True)))
        spectra.append(kept.mean(axis=1))
        if progress is not None:
            progress(number, len(corpus.songs))
    return Statistics(songs, np.stack(spectra))


def check(statistics, unusable, schema):
    """Compares `Statistics` with a `Schema`; a list of `Anomaly`.

    `unusable` is a dict from path to the reason why a listed song is left out.
    """
    found, artists = {}, statistics.artists
    if len(artists) < schema.least_artists:
        found["few artists"] = (
            f"{len(artists)} artists, {schema.least_artists} are needed"
        )
    few = [f"{name} ({n})" for name, n in artists.items() if n < schema.least_songs]
    if few:
        found["few songs"] = f"fewer than {schema.least_songs} songs: {', '.join(few)}"
    total = len(statistics.songs) + len(unusable)
    if len(unusable) > schema.most_unusable * total:
        path, reason = next(iter(unusable.items()))
        found["unusable songs"] = (
            f"{len(unusable)} of {total} songs, the first is {path}: {reason}"
        )
    for kind, column, least, unit in (
        ("no dynamics", "range_db", schema.least_range_db, "dB"),
        ("narrow band", "bandwidth_hz", schema.least_bandwidth_hz, "Hz"),
    ):
        outside = [song for song in statistics.songs if song[column] < least]
        if len(outside) > schema.most_outside * len(statistics.songs):
            found[kind] = (
                f"{len(outside)} of {len(statistics.songs)} songs have less than "
                f"{least:g} {unit}, the first is {_label(outside[0])}: "
                f"{outside[0][column]:g} {unit}"
            )
    return [Anomaly(*each) for each in found.items()]


def drift(statistics, before, schema):
    """Compares statistics with those of the last blessed run; a list of `Anomaly`."""
    found = {}
    lost = sorted(set(before.artists) - set(statistics.artists))
    if len(lost) > schema.most_lost * len(before.artists):
        found["missing artists"] = (
            f"{len(lost)} of {len(before.artists)} are gone: {', '.join(lost)}"
        )
    recorded = {song["content_hash"]: song for song in before.songs}
    pairs = [(s, recorded.get(s["content_hash"], s)) for s in statistics.songs]
    swapped = [(song, was) for song, was in pairs if song["artist"] != was["artist"]]
    if swapped:
        song, was = swapped[0]
        found["swapped artists"] = (
            f"{len(swapped)} recordings are of another artist than before, the first "
            f"is {_label(song)}: it was {_label(was)}"
        )
    named = {_label(song): song for song in before.songs}
    pairs = [(s, named.get(_label(s), s)["seconds"]) for s in statistics.songs]
    stretched = [
        (s, was) for s, was in pairs if abs(s["seconds"] - was) > 0.02 * s["seconds"]
    ]
    if len(stretched) > schema.most_outside * len(pairs):
        song, was = stretched[0]
        found["changed lengths"] = (
            f"{len(stretched)} songs last longer or shorter than before, the first is "
            f"{_label(song)}: {song['seconds']:.1f} s, it was {was:.1f} s. Of another "
            "sample rate?"
        )
    width, wide = (
        float(np.median([song["bandwidth_hz"] for song in each.songs]))
        for each in (statistics, before)
    )
    if width < (1 - schema.most_narrowed) * wide:
        found["narrowed band"] = (
            f"songs reach up to {width:.0f} Hz, it was {wide:.0f} Hz"
        )
    difference = statistics.spectra.mean(axis=0) - before.spectra.mean(axis=0)
    moved = float(np.sqrt(np.mean(difference**2)))
    if moved > schema.most_drift_db:
        found["drift"] = (
            f"the mean spectrum has moved by {moved:.1f} dB, {schema.most_drift_db:g} "
            "dB are allowed"
        )
    return [Anomaly(*each) for each in found.items()]


def _label(song):
    return " / ".join(song[name] for name in ("artist", "album", "song"))
