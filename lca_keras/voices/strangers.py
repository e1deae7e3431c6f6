"""What a trained network makes of singers whom it does not know, and of no singing."""

import dataclasses

import keras
import numpy as np

from lca_keras.data.stem_reader import StemReader
from lca_keras.evaluation import scoring
from lca_keras.features.front_end import network_input
from lca_keras.voices.detector import VOICED, VoiceDetector
from lca_keras.voices.gallery import NO_VOICE, UNKNOWN, fit_gallery, song_scores

# Songs that teach what singing is, and clips of noise.
_TAUGHT_SONGS, _NOISES = 150, 100
# Share of the voice in a clip's power above which it has one, and below which none.
_VOICE, _NO_VOICE = 0.05, 0.003
# False alarms that are tabulated beside the one that was asked for.
_FALSE_ALARMS = (0.01, 0.05, 0.1, 0.2)


class Describer(keras.Model):
    """A network's inputs -> logits, embedding and voiceprint, as a dict."""

    def __init__(self, network):
        super().__init__()
        self.network = network

    def call(self, inputs):
        """Runs the main branch."""
        maps = self.network.encode(inputs, training=False)["maps"]
        described = self.network.describe(maps)
        logits = self.network.classifier(described["embedding"])
        return {**described, "logits": logits}


@dataclasses.dataclass(frozen=True)
class DescribedClips:
    """What a network makes of the clips of some songs."""

    predictions: scoring.ClipPredictions  # With the outputs of `Describer`.
    voice: np.ndarray  # `(clips,)`, probability of singing.

    @property
    def voiceprints(self):
        """Array `(clips, size)`."""
        return self.predictions.outputs["voiceprint"]

    @property
    def songs(self):
        """List of int arrays, songs' clips with voice; if none has any, all clips."""
        every = list(self.predictions.songs.values())
        voiced = [clips[self.voice[clips] >= VOICED] for clips in every]
        return [clips for clips in voiced if clips.size] or every


def describe_clips(network, source, detector=None):
    """The `DescribedClips` of a source; without a detector each one has a voice."""
    predictions = scoring.Predictor(source)(Describer(network))
    voiceprints = predictions.outputs["voiceprint"]
    voice = np.ones(len(voiceprints)) if detector is None else detector(voiceprints)
    return DescribedClips(predictions, voice)


def verdicts(gallery, clips, temperature):
    """The `lca_keras.voices.gallery.Verdict` of each song, by song key."""
    decided = clips.predictions.decide(temperature=temperature)
    values = decided.probabilities.astype("float32"), clips.voiceprints, clips.voice
    return {
        key: gallery.judge(*(each[few] for each in values))
        for key, few in clips.predictions.songs.items()
    }


# === The gallery ===


def fit(network, sources, false_alarm, seed=0):
    """Sets up the gallery of a network, from `"train"` and `"validation"` clips.

    Returns what `lca_keras.voices.gallery.fit_gallery` does, and a dict for JSON, the
    accuracy of the gallery's detector. The seed draws songs that teach what singing is.
    """
    detector, accuracy = fit_detector(network, sources, seed)
    train = describe_clips(network, sources["train"], detector)
    validation = describe_clips(network, sources["validation"], detector)
    pairs = [
        (each.voiceprints, each.predictions.labels) for each in (train, validation)
    ]
    gallery, known = fit_gallery(*pairs, validation.songs, false_alarm, detector)
    return gallery, known, accuracy


def fit_detector(network, sources, seed=0):
    """Teaches a network's `lca_keras.voices.detector.VoiceDetector`.

    Where the store has stems, singing is told from bands that play alone, and from
    noise; elsewhere from noise only. Beside it a dict for JSON says so, and which
    shares of validation clips with and without singing it takes for such.
    """
    describer = Describer(network)
    stems = sources["train"].store.config.source == "stems"
    rng = np.random.default_rng(seed)
    taught = {}
    for part in ("train", "validation"):
        source = sources[part]
        without = [_voiceprints(describer, _noises(source, rng))]
        with_voice = ()
        if stems:
            bands, with_voice = _sung_and_not(describer, source, rng)
            without.append(bands)
        if not len(with_voice):  # Of vocals without sound nothing can be taught.
            few = {key: source.labels[key] for key in _some(source, rng)}
            few = dataclasses.replace(source, labels=few)
            with_voice = describe_clips(network, few).voiceprints
        taught[part] = with_voice, np.concatenate(without)
    told = "bands without a voice, and noise" if stems else "noise"
    detector = VoiceDetector.fit(*taught["train"], told)
    shares = [
        float((detector(values) >= VOICED).mean()) for values in taught["validation"]
    ]
    return detector, {"heard": told, "voice": shares[0], "no_voice": 1 - shares[1]}


def _some(source, rng):
    """Keys of some songs of a source."""
    keys = sorted(source.labels)
    count = min(len(keys), _TAUGHT_SONGS)
    return [keys[number] for number in sorted(rng.choice(len(keys), count, False))]


def _sung_and_not(describer, source, rng):
    """Voiceprints of clips without singing and with it, of some songs with stems."""
    reader = StemReader(source)
    without, with_voice = [], []
    for key in _some(source, rng):
        if len(reader.times(None, key)):
            without.append(_voiceprints(describer, reader.clips(None, key)))
        whole = _voiceprints(describer, reader.clips(key, key))
        share = reader.voice_share(key)
        without.append(whole[share < _NO_VOICE])
        with_voice.append(whole[share > _VOICE])
    return np.concatenate(without), np.concatenate(with_voice)


def _voiceprints(describer, clips):
    return describer.predict(clips, batch_size=32, verbose=0)["voiceprint"]


def _noises(source, rng):
    """Clips of noise of many colours, as the network of a `ClipSource` takes them."""
    front_end, clips = source.front_end, []
    size = front_end.clip_samples(source.clip_frames) + front_end.main.hop
    nobody = {"vocals": np.zeros(size, "float32")}
    shape = np.maximum(np.arange(size // 2 + 1), 1) / (size // 2)
    for _ in range(_NOISES):
        # From violet to brown.
        spectrum = np.fft.rfft(rng.standard_normal(size))
        noise = np.fft.irfft(spectrum * shape ** rng.uniform(-1.0, 1.0), size)
        noise = (0.1 * noise / noise.std()).astype("float32")
        heard = front_end.frames(noise, nobody)
        clips.append(front_end.cut(heard, [0.0], source.clip_frames))
    joined = {name: np.concatenate([c[name] for c in clips]) for name in source.streams}
    return network_input(source.streams, joined)


# === Measured ===


def measure(gallery, known, strange, temperature):
    """How songs by strangers and by known singers are told apart, a dict for JSON.

    AUROC over songs and clips, shares of the strangers' songs that are rejected and
    that are taken to have no voice, and the share that other false alarms would reject.

    `known` are similarities of songs and of clips by singers of the gallery, two
    arrays, and `strange` the `DescribedClips` of songs by others.
    """
    from sklearn.metrics import roc_auc_score

    def auroc(of_known, of_strange):
        truth = np.repeat([1, 0], [len(of_known), len(of_strange)])
        return float(roc_auc_score(truth, np.concatenate([of_known, of_strange])))

    songs = song_scores(gallery, strange.voiceprints, strange.songs)
    voiced = strange.voiceprints[np.concatenate(strange.songs)]
    clips = gallery.similarities(voiced).max(axis=1)
    trade_off = []
    for false_alarm in _FALSE_ALARMS:
        rejected = songs < np.quantile(known[0], false_alarm)
        trade_off.append({"known": false_alarm, "strange": float(rejected.mean())})
    return {
        "auroc_songs": auroc(known[0], songs),
        "auroc_clips": auroc(known[1], clips),
        **shares(verdicts(gallery, strange, temperature)),
        "trade_off": trade_off,
    }


def shares(found):
    """Of verdicts by song, how many there are and the shares that name nobody."""
    said = [verdict.status for verdict in found.values()]
    return {
        "songs": len(said),
        "unknown": said.count(UNKNOWN) / len(said),
        "no_voice": said.count(NO_VOICE) / len(said),
    }
