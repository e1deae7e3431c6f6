"""What a model says of sounds that nobody sings, and of duets; both are made here."""

import dataclasses
import pathlib
import tempfile

import numpy as np
import soundfile

from lca_keras.audio.decode import AudioError
from lca_keras.corpora import voice
from lca_keras.corpora.accompaniment import draw_style, play_drums
from lca_keras.data import catalogue, split
from lca_keras.exports.export import export_model
from lca_keras.inference.identification import Identifier
from lca_keras.voices import timeline
from lca_keras.voices.gallery import NO_VOICE

# Files of each kind of sound that nobody sings, or no singer; and duets of each kind.
_SOUNDS, _DUETS = 20, 10
_TURN_SECONDS = 8.0


def measure(trained, model, gallery, corpus, root):
    """What the model of a `Trained` says with a gallery, once it is exported.

    Of `sounds` the shares, by kind, that are given no name; of `duets` the error rates
    of timelines, of singers who alternate and who overlap. `root` is the folder of the
    `corpus`, a `SynthesisConfig`, whose singers it knows.
    """
    songs = catalogue.load(root / "manifest.csv")
    parts = split.read_split(root / "split.csv", songs)
    tested = [song for song in songs if parts[song.key] == "test"]
    songs = {
        name: [song for song in tested if song.artist == name]
        for name in map(corpus.artist_name, range(corpus.artists))
        if name in trained.artists
    }
    with tempfile.TemporaryDirectory() as folder:
        network, artists = model.main_branch(), trained.artists
        about = (artists, trained.config, folder, "model", {}, None, gallery)
        exported = export_model(network, *about)
        identifier = Identifier(exported, runtime="tensorflow")
        seed, rate = trained.config.train.seed, corpus.sample_rate
        about = (identifier, songs, rate, pathlib.Path(folder, "sound.wav"))
        return {
            "sounds": _sounds(np.random.default_rng(seed), *about),
            "duets": _duets(np.random.default_rng(seed), artists, *about),
        }


def _sounds(rng, identifier, songs, rate, path):
    size = 16 * rate
    songs = [song for own in songs.values() for song in own]
    chosen = rng.permutation(len(songs))[:_SOUNDS]
    made = {
        "white noise": [0.1 * rng.standard_normal(size) for _ in range(_SOUNDS)],
        "silence": [np.zeros(size)] * _SOUNDS,
        "a spoken voice": _spoken(rng, size, rate),
        "a drum loop": [
            0.05 * play_drums(draw_style(rng), 110, size, rate, rng)
            for _ in range(_SOUNDS)
        ],
        "instrumentals of known songs": [
            soundfile.read(songs[number].accompaniment_path)[0] for number in chosen
        ],
    }

    def is_nameless(samples):
        soundfile.write(path, samples, rate, subtype="FLOAT")
        try:
            return identifier.identify(path).singer is None
        except AudioError:  # Silence.
            return True

    return {
        kind: sum(map(is_nameless, several)) / len(several)
        for kind, several in made.items()
    }


def _spoken(rng, size, rate):
    """Invented speakers: short syllables, a falling pitch, no vibrato."""
    sounds, seconds = [], size / rate
    for singer in voice.draw_cast(_SOUNDS, rng):
        speaker = dataclasses.replace(
            singer,
            vibrato_cents=0.0,
            scoop_cents=0.0,
            glide=0.05,
            center_midi=singer.center_midi - 7,
        )
        notes, now = [], 0.2
        while now < seconds - 3:
            count = int(rng.integers(6, 14))
            for syllable in range(count):
                length = rng.uniform(0.1, 0.25)
                pitch = speaker.center_midi + 3 - 5 * syllable / count
                consonant = str(rng.choice(["", "s", "t", "k"]))
                vowel = int(rng.integers(5))
                pitch += 0.7 * rng.standard_normal()
                notes.append(voice.Note(now, 0.9 * length, pitch, vowel, consonant))
                now += length
            now += rng.uniform(0.2, 0.6)
        sounds.append(0.05 * voice.sing(speaker, notes, size, rate, rng)[0])
    return sounds


def _duets(rng, artists, identifier, songs, rate, path):
    rates = {"alternating": [], "overlapping": []}
    for number in range(_DUETS):
        pair = [artists[place] for place in rng.permutation(len(artists))[:2]]
        for kind, errors in rates.items():
            samples, turns = _duet(songs, pair, kind == "overlapping", number)
            soundfile.write(path, samples, rate, subtype="FLOAT")
            said = [
                (each.start, each.end, each.label)
                for each in timeline.timeline(identifier, path)
                if each.status != NO_VOICE
            ]
            errors.append(timeline.error_rate(turns, said))
    return {kind: float(np.mean(errors)) for kind, errors in rates.items()}


def _duet(songs, pair, overlapping, seed):
    """Two singers who take turns over one band, by their test songs' stems.

    A turn of those who overlap begins half a turn early, while the other still sings.
    Comes with the turns: start, end (seconds) and artist.
    """
    rng = np.random.default_rng(seed)
    chosen = [songs[name][int(rng.integers(len(songs[name])))] for name in pair]
    rate = soundfile.info(chosen[0].vocals_path).samplerate
    (first, band), (other, other_band) = (
        [
            soundfile.read(path, dtype="float32")[0]
            for path in (song.vocals_path, song.accompaniment_path)
        ]
        for song in chosen
    )
    # Voices over one band, each as loud over it as over its own.
    voices = [first, other * np.sqrt(np.mean(band**2) / np.mean(other_band**2))]
    size = min(map(len, (band, *voices)))
    band, voices = np.tile(band[:size], 2), [np.tile(v[:size], 2) for v in voices]
    turn = int(_TURN_SECONDS * rate)
    samples, turns = band.copy(), []
    early = turn // 2 if overlapping else 0
    for number, start in enumerate(range(0, len(band), turn)):
        begin, end = max(0, start - early), min(start + turn, len(band))
        samples[begin:end] += voices[number % 2][begin:end]
        turns.append((begin / rate, end / rate, pair[number % 2]))
    return 0.7 * samples / np.abs(samples).max(), turns
