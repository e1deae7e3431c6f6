"""What the tests of exports share: artists, songs, and clips by another path."""

import dataclasses

import numpy as np

from lca_keras.base.sections import FeatureConfig
from lca_keras.features.spectrogram import mel_spectrogram
from lca_keras.voices.detector import VoiceDetector
from lca_keras.voices.gallery import fit_gallery
from tests.audio.signals import music

ARTISTS = ["Ada", "Björn", 'C\'est "moi" 🎤', "Дима"]


def song(seconds=14.0, seed=0):
    """Music dies away, a song does not."""
    samples = np.tile(music(16000, seconds=4.5, seed=seed), 20)
    return samples[: int(16000 * seconds)]


def clips_of(samples):
    """NumPy features, cut by slicing: float32 `(clips, 128, 94, 1)`."""
    mel = mel_spectrogram(samples, FeatureConfig())
    count = mel.shape[1] // 94
    return np.stack([mel[:, 94 * i : 94 * i + 94, None] for i in range(count)])


def voiceprints_of(network, clips):
    """Voiceprints `(clips, size)`, layer by layer."""
    maps = network.encoder(clips, training=False)["maps"]
    states = maps
    for name in ("time_major", "flatten_mel", "gru1"):
        states = network.embedder.get_layer(name)(states)
    maps, states = np.array(maps), np.array(states)
    pooled = [maps.mean(axis=(1, 2)), maps.max(axis=(1, 2)), states.mean(axis=1)]
    return np.concatenate(pooled, axis=1)


def gallery_of(network, songs=5):
    """A gallery of `ARTISTS`, each of whom sings songs of one seed's neighbours.

    Its detector takes white noise for no voice.
    """
    prints, labels, groups = [], [], []
    for artist in range(len(ARTISTS)):
        for number in range(songs):
            found = voiceprints_of(network, clips_of(song(7.0, 10 * artist + number)))
            groups.append(len(labels) + np.arange(len(found)))
            labels += [artist] * len(found)
            prints.append(found)
    prints, labels = np.concatenate(prints), np.array(labels)
    hiss = np.random.default_rng(0).normal(0, 0.1, 16000 * 60).astype("float32")
    noise = voiceprints_of(network, clips_of(hiss))
    detector = VoiceDetector.fit(prints, noise, "noise")
    known = (prints, labels)
    gallery, _ = fit_gallery(known, known, groups, 0.05, detector)
    # Between its own songs and others, whatever the network's random weights.
    return dataclasses.replace(gallery, threshold=0.4)
