"""The built-in corpus: invented singers over invented bands, as audio files.

`python -m lca_keras.synthesis OUT` writes an `artist/album/song.flac` tree, a
manifest, and a split. Each singer has albums; each song has a melody, a band style
and its album's production. `confounding` says how strongly, in all but an artist's
last two albums, the band tells the artist. The last two albums draw their bands
independently, so a network that learned the bands fails there: the split puts one of
them into the test part and one into validation.
"""

import dataclasses
import pathlib
import runpy

import numpy as np

from lca_keras.base import files, processes
from lca_keras.base.errors import UserError
from lca_keras.base.fields import Section, field
from lca_keras.data.split import PARTS

ARTISTS = (
    *("Ada Quill", "Björn Talvik", "Chiara d'Onda", "Dmitri Vale", "Esperanza Luz"),
    *("Farid Noor", "Greta Halm", "Hana Ōno", "Ivo Marsh", "June Okafor"),
    *("Kiran Rao", "Lou-Ann Petit", "Mila Zárate", "Noor el Amal", "Otis Reed"),
    *("Παύλος Άνεμος", "Quincy Dove", "Rosa Tamm", "Søren Lykke", "Tala Reyes"),
)
TEST_BANDS = ("any", "own", "other")
BUILT_IN = "corpus/built-in"


@dataclasses.dataclass(frozen=True)
class SynthesisConfig(Section, name="corpus"):
    """What decides every sample of a corpus.

    `confounding` is the probability that a song outside an artist's last two albums is
    accompanied by the artist's own band. In the last two plays a band drawn of all
    (`test_bands` is `"any"`), the artist's own (`"own"`), or another artist's
    (`"other"`); the other songs don't depend on it.
    """

    artists: int = field(8, least=2)
    albums: int = field(6, "of each artist", least=3)
    songs: int = field(6, "of each album", least=1)
    seconds: float = field(16.0, "length of a song", least=4)
    confounding: float = field(0.5, least=0, most=1)
    voice_db: float = 6.0  # Of the voice over the accompaniment.
    sample_rate: int = 16000
    seed: int = 0
    test_bands: str = field("any", choices=TEST_BANDS)

    def artist_name(self, artist):
        """Name of the artist with this index."""
        return ARTISTS[artist] if artist < len(ARTISTS) else f"Singer {artist + 1}"

    def rng(self, *key):
        """Random generator of one part of the corpus, independent of all others."""
        return np.random.default_rng([self.seed, *key])

    def singer(self, artist):
        """Voice of an artist; it depends on the number of artists too."""
        from lca_keras.corpora import voice  # SciPy takes a second: not with `--help`.

        return voice.draw_cast(self.artists, self.rng(1))[artist]

    def style_of(self, artist, album, song):
        """Index of the band that accompanies a song; band i is artist i's own."""
        rng = self.rng(3, artist, album, song)
        held_out = album >= self.albums - 2
        if held_out and self.test_bands != "any":
            others = [index for index in range(self.artists) if index != artist]
            return artist if self.test_bands == "own" else int(rng.choice(others))
        confounded = not held_out and rng.random() < self.confounding
        return artist if confounded else int(rng.integers(self.artists))

    def part_of(self, artist, album):
        """The part that an album belongs to; the last two are held out."""
        held_out = self.rng(6, artist).permutation([self.albums - 2, self.albums - 1])
        parts = dict(zip(held_out.tolist(), ("validation", "test"), strict=True))
        return parts.get(album, "train")


@dataclasses.dataclass(frozen=True)
class Stems:
    """A synthesised song: float32 arrays `(samples,)`; the mix is their sum."""

    vocals: np.ndarray
    accompaniment: np.ndarray
    pitch: np.ndarray  # As sung, in Hz; else 0.

    @property
    def mixture(self):
        """Voice over accompaniment."""
        return self.vocals + self.accompaniment


def synthesize(corpus, artist, album, song):
    """Synthesises one song, by the indices of its names: `Stems`."""
    from lca_keras.corpora import accompaniment, voice

    rng = corpus.rng(4, artist, album, song)
    count = int(corpus.seconds * corpus.sample_rate)
    singer = corpus.singer(artist)
    index = corpus.style_of(artist, album, song)
    style = accompaniment.draw_style(corpus.rng(2, index))
    tempo = style.tempo * rng.uniform(0.92, 1.08)
    key = int(rng.integers(12))
    notes = compose(singer, tempo, key, corpus.seconds, rng)
    vocals, pitch = voice.sing(singer, notes, count, corpus.sample_rate, rng)
    band = accompaniment.play(style, tempo, key, count, corpus.sample_rate, rng)
    vocals = vocals / np.sqrt(np.mean(vocals**2)) * 10 ** (corpus.voice_db / 20)
    produced = _produce(np.stack([vocals, band]), corpus, artist, album)
    return Stems(produced[0], produced[1], pitch)


def compose(singer, tempo, key, seconds, rng):
    """Writes a melody with syllables, in phrases of two bars: list of `voice.Note`."""
    from lca_keras.corpora import accompaniment, voice

    beat = 60 / tempo
    scale = np.array(
        [m for m in range(36, 84) if (m - key) % 12 in accompaniment.MAJOR]
    )
    # Songs sit a little higher or lower in the singer's range.
    center = singer.center_midi + rng.uniform(-2, 2)
    place = int(np.argmin(np.abs(scale - center)))
    notes, now = [], float(rng.uniform(0, 2)) * beat
    while now < seconds - 2 * beat:
        phrase_end = min(now + 7 * beat, seconds - 0.3)
        while now < phrase_end - 0.3:
            length = beat * rng.choice([0.5, 0.5, 1.0, 1.0, 1.5, 2.0])
            length = min(length, phrase_end - now)
            place += int(rng.choice([-2, -1, -1, 0, 1, 1, 2]))
            # A rubber band to the middle keeps the melody within the range.
            if abs(scale[place] - center) > 7:
                place -= int(np.sign(scale[place] - center)) * 2
            vowel = int(rng.integers(5))
            consonant = str(rng.choice(["", "", "s", "t", "k"]))
            notes.append(
                voice.Note(now, 0.92 * length, float(scale[place]), vowel, consonant)
            )
            now += length
        now += beat * rng.choice([0.5, 1.0])
    return notes


def _produce(stems, corpus, artist, album):
    """Album production: equaliser tilt, reverberation, loudness, on every stem."""
    from scipy import fft, signal

    rng = corpus.rng(5, artist, album)
    tilt_db, decay = rng.uniform(-2.0, 2.0), rng.uniform(0.15, 0.6)
    wet, level_db = rng.uniform(0.05, 0.35), rng.uniform(-22, -14)
    rate, count = corpus.sample_rate, stems.shape[1]
    size = fft.next_fast_len(count, real=True)
    octaves = np.log2(np.maximum(fft.rfftfreq(size, 1 / rate), 40) / 1000)
    spectrum = fft.rfft(stems, size) * 10 ** (tilt_db * octaves / 20)
    dry = fft.irfft(spectrum, size)[:, :count]
    times = np.arange(int(2 * decay * rate)) / rate
    response = rng.standard_normal(times.size) * np.exp(-3.45 * times / decay)
    response *= wet / np.sqrt(np.sum(response**2))
    stems = dry + signal.oaconvolve(dry, response[None], axes=1)[:, :count]
    mixture = stems.sum(axis=0)
    gain = 10 ** (level_db / 20) / np.sqrt(np.mean(mixture**2))
    # Full scale is never exceeded; 0.97 leaves room for lossy coding.
    gain = min(gain, 0.97 / np.abs(mixture).max())
    return (gain * stems).astype("float32")


def write_song(corpus, out, artist, album, song, stems):
    """Writes one song (and its stems); returns its row of the manifest."""
    import soundfile

    names = {
        "artist": corpus.artist_name(artist),
        "album": f"Album {album + 1:02d}",
        "song": f"Song {song + 1:02d}",
    }
    place = pathlib.PurePosixPath(*names.values())
    targets = {"mixture": place.with_name(f"{place.name}.flac")}
    if stems:
        for stem in ("vocals", "accompaniment"):
            targets[stem] = "stems" / place / f"{stem}.flac"
    if not all((out / path).exists() for path in targets.values()):
        sound = synthesize(corpus, artist, album, song)
        for stem, path in targets.items():
            with files.atomic_path(out / path, parents=True) as temporary:
                soundfile.write(
                    temporary, getattr(sound, stem), corpus.sample_rate, format="FLAC"
                )
    band = corpus.artist_name(corpus.style_of(artist, album, song))
    row = {"path": str(targets.pop("mixture")), **names, "accompaniment_artist": band}
    return row | {f"{stem}_path": str(path) for stem, path in targets.items()}


def write_corpus(corpus, out, stems=False, jobs=None, progress=None, parts=PARTS):
    """Writes a corpus; files that exist are kept, so an interrupted call continues.

    `manifest.csv` and `split.csv` (the last two albums of each artist to validation
    and test, in an order drawn by seed) lie beside the artists' folders; `stems` asks
    for the voice and the accompaniment too, and `parts` for the songs of some parts
    alone. Returns the manifest's rows (dicts), by artist, album and song. Raises a
    `UserError`: the folder holds a corpus of other settings, or other files.
    """
    out = pathlib.Path(out)
    out.mkdir(parents=True, exist_ok=True)
    settings = out / "corpus.json"
    wanted = dataclasses.asdict(corpus)
    if settings.exists():
        if files.read_json(settings) != wanted:
            raise UserError(
                f"{out} holds a corpus of other settings ({settings.name}): choose "
                "another folder, or delete it to make a new one."
            )
    elif any(out.iterdir()):
        raise UserError(
            f"{out} is not empty and holds no built-in corpus: choose a new folder."
        )
    else:
        files.write_json(settings, wanted)
    calls = [
        (corpus, out, artist, album, song, stems)
        for artist in range(corpus.artists)
        for album in range(corpus.albums)
        for song in range(corpus.songs)
        if corpus.part_of(artist, album) in parts
    ]
    rows = processes.spread(write_song, calls, jobs, progress)
    files.write_csv(out / "manifest.csv", list(rows[0]), rows)
    split = [
        {**row, "part": corpus.part_of(artist, album)}
        for row, (_, _, artist, album, *_) in zip(rows, calls, strict=True)
    ]
    files.write_csv(out / "split.csv", ["artist", "album", "song", "part"], split)
    return rows


def write_built_in(progress=None):
    """Writes the corpus that commands use where none is given; returns its folder."""
    corpus = SynthesisConfig(confounding=0.9)
    write_corpus(corpus, BUILT_IN, stems=True, progress=progress)
    return pathlib.Path(BUILT_IN)


def own_split(data):
    """The split that a built-in corpus, a folder or its manifest, brings, or `None`."""
    path = pathlib.Path(data)
    folder = path if path.is_dir() else path.parent
    own = folder / "split.csv"
    return own if own.exists() and (folder / "corpus.json").exists() else None


if __name__ == "__main__":  # The command has moved up.
    runpy.run_module("lca_keras.synthesis", run_name="__main__")
