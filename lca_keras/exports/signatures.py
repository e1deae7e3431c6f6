"""The signatures of an exported network: what a server is asked, and answers."""

import json

import tensorflow as tf

from lca_keras.audio import decode
from lca_keras.data.clips import sound_first
from lca_keras.data.examples import parse_example
from lca_keras.exports.encoded import attempt, decode_wav
from lca_keras.features.spectrogram_layer import MelFrontEnd
from lca_keras.voices.detector import VOICED
from lca_keras.voices.gallery import NO_VOICE, OK, TINY, UNKNOWN

# What a song's `status` says beside what `lca_keras.voices.gallery` has: why it is not
# judged.
NOT_FINITE = "samples are NaN or infinite"
DAMAGED = "damaged: a sample is far beyond full scale"
SILENT = "silent"
TOO_SHORT = "too short"
TOO_SILENT = "too short without its silence"
NO_LENGTH = "length out of range"
TOO_LONG = "too long"
NO_WAV = "no WAV file of 16-bit samples"
NO_RECORD = "no record of a feature store"
# Sound of all songs of a request; what is more has to be asked in several.
MOST_HOURS = 3.0
# Of one encoded song: 38 minutes of 44.1 kHz in stereo.
MOST_BYTES = 400_000_000
# Clips that go through the network together: bounds memory for long songs. More are
# not faster on a CPU, and their memory makes the first song slow.
_CLIPS_AT_ONCE = 8


class ServedNetwork:
    """The signatures of an exported network, one method each.

    Results for a song do not depend on what else is in the batch, nor on silence: it is
    cut out before clips are cut, as `lca_keras.features.spectrogram.kept_frames` says.
    Clips that are not filled with what is left are last, have no vote, and their own
    probabilities and embeddings are zero. So are all of a song that cannot be judged,
    that fills no clip, say, or has samples that are not finite: its singer is empty,
    and its status says why.

    With a gallery clips without voice have no vote either, and a song by nobody of the
    singers has the status `unknown` and no singer; then answers have `nearest`, the
    singer whose voiceprint is the most similar, and `score`, how much.

    Args:
        network: `SingerNetwork` for inference.
        artists: List of class names, in class order.
        config: `lca_keras.base.config.Config` of the run.
        about: Dict for JSON, what the signature `about` answers.
        gallery: Optional `lca_keras.voices.gallery.Gallery`; who is enrolled in it
            comes behind the artists.
    """

    def __init__(self, network, artists, config, about=None, gallery=None):
        self.network = network
        self.gallery = gallery
        enrolled = [] if gallery is None else gallery.enrolled
        self.names = tf.constant([*artists, *enrolled])
        self.known = len(artists)
        self.mel_bins = config.features.mel_bins
        self.clip_frames = config.clip_frames
        self.front_end = MelFrontEnd(config.features)
        self.units = network.embedder.output.shape[-1]
        # Spectrogram and melody travel as the channels of one tensor.
        self.channels = 2 if network.takes_melody else 1
        self.clip_shape = (self.mel_bins, self.clip_frames, self.channels)
        self._about = json.dumps(about or {}, ensure_ascii=False)
        # Each is traced once, for all signatures that need it.
        clips = tf.TensorSpec((None, *self.clip_shape), tf.float32)
        waveform = tf.TensorSpec((None, None), tf.float32)
        songs = tf.TensorSpec((None, self.mel_bins, None, self.channels), tf.float32)
        status = tf.TensorSpec((None,), tf.string)
        each = tf.TensorSpec((None,), tf.int32)
        self._describe_clips = _shared(self._describe_in_pieces, clips)
        self._spectrograms = _shared(self.front_end.__call__, waveform, each)
        self._cut_and_describe = _shared(self._cut_and_describe, songs, status, each)

    def signatures(self):
        """Dict from name to a method and the list of its inputs' `tf.TensorSpec`s."""
        waveform = tf.TensorSpec((None, None), tf.float32, "waveform")
        lengths = tf.TensorSpec((None,), tf.int32, "lengths")
        song_shape = (None, self.mel_bins, None, 1)
        mel = tf.TensorSpec(song_shape, tf.float32, "mel_spectrogram")
        melody = [tf.TensorSpec(song_shape, tf.float32, "melody")][: self.channels - 1]
        examples = tf.TensorSpec((None,), tf.string, "examples")
        audio = tf.TensorSpec((None,), tf.string, "audio_bytes")
        request = tf.TensorSpec((None,), tf.string, "request")
        found = {
            "serving_default": (self.from_waveform, [waveform, *melody]),
            "songs": (self.from_songs, [waveform, lengths, *melody]),
            "audio_bytes": (self.from_audio, [audio]),
            "mel": (self.from_mel, [mel, *melody]),
            "clips": (self.from_clips, [mel, *melody]),
            "embed": (self.embed, [waveform, *melody]),
            "examples": (self.from_examples, [examples]),
            "labels": (self.labels_of, [examples]),
            "about": (self.about, [request]),
        }
        if self.channels == 2:  # No graph tracks a melody.
            del found["audio_bytes"]
        return found

    # === Signatures ===

    def from_waveform(self, waveform, melody=None):
        """`(batch, samples)` -> probabilities, singer, status, frame_probabilities.

        With a gallery also nearest, score and frame_voice, probabilities of singing.
        """
        mel, refused = self._mel_of(waveform)
        return _public(self._answer(mel, melody, refused))

    def from_songs(self, waveform, lengths, melody=None):
        """The same for songs of several lengths: `(batch, samples)`, `(batch,)`.

        What follows a song is padding, and no matter.
        """
        mel, refused = self._mel_of(waveform, lengths)
        frames = 1 + lengths // self.front_end.feature_config.hop_length
        return _public(self._answer(mel, melody, refused, frames))

    def from_audio(self, audio_bytes):
        """`(batch,)` WAV files, of any rate -> probabilities, singer, status.

        Channels are averaged and resampled as `lca_keras.audio.decode.decode` does.
        """

        def one(content):
            rate = self.front_end.feature_config.sample_rate
            too_long = tf.strings.length(content) > MOST_BYTES
            samples = decode_wav(tf.where(too_long, "", content), rate)
            answer = self.from_waveform(samples[None])
            status = answer["status"][0]
            status = tf.where(tf.size(samples) == 0, NO_WAV, status)
            status = tf.where(too_long, TOO_LONG, status)
            return {**{n: v[0] for n, v in answer.items()}, "status": status}

        return self._one_by_one(one, audio_bytes)

    def from_mel(self, mel_spectrogram, melody=None):
        """`(batch, mel_bins, frames, 1)` -> as `from_waveform`."""
        return _public(self._answer_mel(mel_spectrogram, melody))

    def from_clips(self, mel_spectrogram, melody=None):
        """`(clips, mel_bins, clip_frames, 1)` -> what is told of each clip.

        Probabilities of the network's own artists, status, voiceprint and, with a
        gallery, voice. For whoever cuts clips otherwise, or a song in pieces.
        """
        clips = tf.ensure_shape(mel_spectrogram, (None, *self.clip_shape[:2], 1))
        if melody is not None:
            melody = tf.ensure_shape(melody, (None, *self.clip_shape[:2], 1))
            clips = tf.concat([clips, melody], axis=-1)
        finite = _all_finite(clips)
        told = self._describe_clips(clips)
        told["probabilities"] = self._classify(told.pop("embedding"))
        told = {n: tf.where(finite[:, None], v, 0.0) for n, v in told.items()}
        told["voice"] = told["voice"][:, 0]
        if self.gallery is None:
            del told["voice"]
        return {**told, "status": tf.where(finite, OK, NOT_FINITE)}

    def embed(self, waveform, melody=None):
        """`(batch, samples)` -> embedding, frame_embeddings, status.

        And voiceprint, frame_voiceprints: what voices are compared by.
        """
        mel, refused = self._mel_of(waveform)
        told, filled, status = self._describe_songs(mel, melody, refused)
        found = {"status": status}
        for name in ("embedding", "voiceprint"):
            values = _only(told[name], filled)
            found[name], found[f"frame_{name}s"] = _mean(values, filled), values
        return found

    def from_examples(self, examples):
        """`(batch,)` serialised records of a feature store -> as `from_audio`.

        With `decision`, one-hot `(batch, classes)`, whose song it would be, were it
        one of the singers'; zeros where that cannot be said.
        """
        columns = ("mel", "melody")[: self.channels]

        def parse(serialized):
            example = parse_example(serialized, columns)
            mel = tf.cast(tf.reshape(example["mel"], (self.mel_bins, -1)), tf.float32)
            if self.channels == 1:
                return (mel,)
            bands = tf.cast(example["melody"], tf.int32)
            melody = tf.one_hot(bands, self.mel_bins, axis=0)
            return tuple(tf.unstack(tf.stack((mel, melody))))  # Of one length.

        def one(serialized):
            nothing = tf.zeros((self.mel_bins, 0))
            found = attempt(parse, serialized, (nothing,) * self.channels)
            answer = self._answer_mel(*[each[None, ..., None] for each in found])
            status = answer["status"][0]
            status = tf.where(tf.size(found[0]) == 0, NO_RECORD, status)
            return {**{n: v[0] for n, v in answer.items()}, "status": status}

        answer = self._one_by_one(one, examples, "likeliest")
        return {**answer, "decision": self._one_hot(answer.pop("likeliest"))}

    def labels_of(self, examples):
        """`(batch,)` serialised records -> their true artists, one-hot.

        For TensorFlow Model Analysis, which takes labels in the model's classes.
        """
        spec = {"artist": tf.io.FixedLenFeature([], tf.string)}
        artists = tf.io.parse_example(examples, spec)["artist"]
        return {"label": self._one_hot(artists)}

    def about(self, request):
        """`(batch,)` strings, no matter which -> JSON about the model, for clients."""
        return {"metadata": tf.fill(tf.shape(request), self._about)}

    # === Their parts ===

    def _one_hot(self, singers):
        return tf.cast(tf.equal(singers[:, None], self.names), tf.float32)

    def _one_by_one(self, one, songs, *more):
        """Answers of `one` to songs that differ in length, without their clips."""
        kinds = {"probabilities": tf.float32, "singer": tf.string, "status": tf.string}
        if self.gallery is not None:
            kinds |= {"nearest": tf.string, "score": tf.float32}
        kinds |= dict.fromkeys(more, tf.string)

        def whole(song):
            answer = one(song)
            return {name: answer[name] for name in kinds}

        return tf.map_fn(
            whole,
            songs,
            fn_output_signature=kinds,
            parallel_iterations=1,  # One song in memory.
        )

    def _mel_of(self, waveform, lengths=None):
        """Spectrograms, and the status of each song as far as the samples tell."""
        waveform = tf.ensure_shape(waveform, (None, None))
        batch, samples = tf.unstack(tf.shape(waveform))
        most = int(MOST_HOURS * 3600 * self.front_end.feature_config.sample_rate)
        total = tf.size(waveform, tf.int64)
        checks = [
            tf.debugging.Assert(
                total <= most,
                [f"too much: at most {MOST_HOURS:g} h in a request, samples:", total],
            )
        ]
        if lengths is None:
            lengths = tf.fill([batch], samples)
        else:
            lengths = tf.ensure_shape(lengths, (None,))
            count = tf.size(lengths)
            checks.append(
                tf.debugging.Assert(
                    count == batch, ["one length for each song, songs:", batch, count]
                )
            )
        with tf.control_dependencies(checks):
            inside = tf.sequence_mask(lengths, samples)
        status, sound = self._judge(tf.where(inside, waveform, 0.0), lengths, inside)
        return self._spectrograms(sound, tf.clip_by_value(lengths, 0, samples)), status

    def _judge(self, sound, lengths, inside):
        """Status of each song, and sound without what cannot be computed with.

        By the rules of `lca_keras.audio.decode.SoundCheck`.
        """
        finite = _all_finite(sound)
        sound = tf.where(finite[:, None], sound, 0.0)
        # An offset is no sound.
        high = tf.reduce_max(tf.where(inside, sound, tf.float32.min), axis=1)
        low = tf.reduce_min(tf.where(inside, sound, tf.float32.max), axis=1)
        peak = tf.maximum(high, -low)
        # Relative to the peak: squares of what is far too loud are infinite.
        relative = tf.math.divide_no_nan(sound, peak[:, None])
        size = tf.cast(tf.maximum(lengths, 1), tf.float32)
        spike = tf.reduce_sum(tf.square(relative), axis=1) < decode.SPIKE * size
        damaged = (peak > decode.LARGEST) | ((peak > decode.LOUDEST) & spike)
        frames = 1 + lengths // self.front_end.feature_config.hop_length
        status = _first_of(
            (NO_LENGTH, (lengths < 0) | (lengths > tf.shape(sound)[1])),
            (NOT_FINITE, ~finite),
            (TOO_SHORT, frames < self.clip_frames),
            (DAMAGED, damaged),
            (SILENT, (high - low) / 2 < decode.SILENCE_PEAK),
        )
        return status, tf.where(tf.equal(status, OK)[:, None], sound, 0.0)

    def _classify(self, embeddings):
        return self.network.probabilities(self.network.classifier(embeddings))

    def _answer_mel(self, mel, melody=None):
        return self._answer(mel, melody, tf.fill(tf.shape(mel)[:1], OK))

    def _answer(self, mel, melody, refused, frames=None):
        """What is answered, and `likeliest`, the singer of an unknown song too."""
        told, filled, status = self._describe_songs(mel, melody, refused, frames)
        clips = self._classify(told["embedding"])
        if self.gallery is None:
            clips = _only(clips, filled)
            names = tf.gather(self.names, vote(clips))
            names = tf.where(tf.equal(status, OK), names, "")
            return {
                "probabilities": _mean(clips, filled),
                "singer": names,
                "likeliest": names,
                "status": status,
                "frame_probabilities": clips,
            }
        return self._judge_songs(clips, told, filled, status)

    def _judge_songs(self, clips, told, filled, status):
        """As `lca_keras.voices.gallery.Gallery.judge`, for many songs."""
        gallery, own = self.gallery, clips
        voice = _only(told["voice"], filled)
        voiced = filled & (voice[..., 0] >= VOICED)
        near = self._similarities(told["voiceprint"])
        if gallery.enrolled:
            new = tf.nn.softmax(gallery.scale * near)[..., self.known :]
            rest = 1 - tf.reduce_sum(new, axis=-1, keepdims=True)
            clips = tf.concat([rest * clips, new], axis=-1)
        means = _mean(_only(clips, voiced), voiced)
        winner = tf.argmax(means, axis=-1)
        own = vote(_only(own, voiced))
        winner = tf.where(winner < self.known, own, winner)
        near = self._similarities(_mean(_only(told["voiceprint"], voiced), voiced))
        score, nearest = tf.reduce_max(near, axis=-1), tf.argmax(near, axis=-1)
        heard = tf.equal(status, OK)
        sung = heard & tf.reduce_any(voiced, axis=-1)
        known = sung & (score >= gallery.threshold)
        status = tf.where(heard & ~sung, NO_VOICE, status)
        status = tf.where(sung & ~known, UNKNOWN, status)
        likeliest = tf.where(sung, tf.gather(self.names, winner), "")
        return {
            "probabilities": means,
            "singer": tf.where(known, likeliest, ""),
            "likeliest": likeliest,
            "status": status,
            "nearest": tf.where(sung, tf.gather(self.names, nearest), ""),
            "score": tf.where(sung, score, 0.0),
            "frame_probabilities": _only(clips, filled),
            "frame_voice": voice[..., 0],
        }

    def _similarities(self, voiceprints):
        """As `lca_keras.voices.gallery.Gallery.similarities`."""
        moved = tf.tensordot(
            voiceprints - self.gallery.center, self.gallery.projection, axes=1
        )
        length = tf.norm(moved, axis=-1, keepdims=True)
        directions = moved / tf.maximum(length, TINY)
        return tf.tensordot(directions, self.gallery.means.T, axes=1)

    def _describe_songs(self, mel, melody, refused, frames=None):
        """Both (batch, mel_bins, frames, 1) -> as `_cut_and_describe`.

        `frames` are those of each song, if not all.
        """
        # The C++ interface does not check shapes against the signature.
        song_shape = (None, self.mel_bins, None, 1)
        songs = tf.ensure_shape(mel, song_shape)
        if melody is not None:
            songs = tf.concat([songs, tf.ensure_shape(melody, song_shape)], axis=-1)
        if frames is None:
            frames = tf.fill(tf.shape(songs)[:1], tf.shape(songs)[2])
        return self._cut_and_describe(songs, refused, frames)

    def _cut_and_describe(self, songs, refused, frames):
        """(batch, mel_bins, frames, channels) -> what is told of clips, filled, status.

        The first is as `_describe_in_pieces` gives it, (batch, clips, …), the second
        says which clips are filled with sound, bool (batch, clips).
        """
        size, clip = tf.shape(songs)[2], self.clip_frames
        own = tf.sequence_mask(frames, size)[:, None, :, None]
        finite = _all_finite(tf.where(own, songs, 0.0))
        # A clip at least, of nothing, where there is none.
        songs = tf.pad(songs, [[0, 0], [0, 0], [0, tf.maximum(0, clip - size)], [0, 0]])
        config = self.front_end.feature_config
        order, kept = sound_first(songs[..., 0], config, frames)
        songs = tf.gather(songs, order, axis=2, batch_dims=1)
        batch, clips = tf.shape(songs)[0], tf.shape(songs)[2] // clip
        shape = (batch, self.mel_bins, clips, clip, self.channels)
        pieces = tf.reshape(songs[:, :, : clips * clip], shape)
        pieces = tf.reshape(
            tf.transpose(pieces, (0, 2, 1, 3, 4)), (-1, *self.clip_shape)
        )
        told = {
            name: tf.reshape(value, (batch, clips, value.shape[-1]))
            for name, value in self._describe_clips(pieces).items()
        }
        status = _first_of(
            (refused, tf.not_equal(refused, OK)),
            (NOT_FINITE, ~finite),
            (TOO_SHORT, frames < clip),
            (SILENT, kept == 0),
            (TOO_SILENT, kept < clip),
        )
        filled = (1 + tf.range(clips)) * clip <= kept[:, None]
        return told, filled & tf.equal(status, OK)[:, None], status

    def _describe_in_pieces(self, clips):
        """(clips, mel_bins, clip_frames, channels) -> embedding, voiceprint and voice.

        A dict of tensors (clips, …), voice (clips, 1); a few clips at once.
        """
        count = tf.shape(clips)[0]
        steps = -(-count // _CLIPS_AT_ONCE)
        sizes = [self.units, self.network.voiceprint_size, 1]
        outputs = tf.TensorArray(
            tf.float32, size=steps, infer_shape=False, element_shape=(None, sum(sizes))
        )
        for step in tf.range(steps):
            start = step * _CLIPS_AT_ONCE
            batch = encoder_input(self.network, clips[start : start + _CLIPS_AT_ONCE])
            maps = self.network.encode(batch, training=False)["maps"]
            told = self.network.describe(maps)
            detector = None if self.gallery is None else self.gallery.detector
            voice = voice_of(told["voiceprint"], detector)
            both = [told["embedding"], told["voiceprint"], voice]
            outputs = outputs.write(step, tf.concat(both, axis=-1))
        names = ("embedding", "voiceprint", "voice")
        return dict(zip(names, tf.split(outputs.concat(), sizes, -1), strict=True))


def _shared(method, *specs):
    """A function that is traced once, whatever calls it."""
    function = tf.function(method, input_signature=specs)
    return tf.autograph.experimental.do_not_convert(function)


def _public(answer):
    """Without what only other signatures need."""
    return {name: value for name, value in answer.items() if name != "likeliest"}


def _all_finite(values):
    """(batch, ...) -> bool (batch,)."""
    axes = list(range(1, len(values.shape)))
    return tf.reduce_all(tf.math.is_finite(values), axis=axes)


def _first_of(*cases):
    """What the first case says that holds, of pairs of a text and bool (batch,)."""
    found = tf.fill(tf.shape(cases[0][1]), OK)
    for said, holds in reversed(cases):
        found = tf.where(holds, said, found)
    return found


def _only(values, filled):
    """(batch, clips, n) with zeros for clips without sound."""
    return tf.where(filled[..., None], values, 0.0)


def _mean(values, filled):
    """(batch, clips, n), zero for clips without sound -> their mean (batch, n)."""
    count = tf.reduce_sum(tf.cast(filled, tf.float32), axis=1, keepdims=True)
    return tf.math.divide_no_nan(tf.reduce_sum(values, axis=1), count)


def voice_of(voiceprints, detector):
    """The probabilities of a `VoiceDetector` in a graph, `(clips, 1)`; ones without."""
    if detector is None:
        return tf.ones((tf.shape(voiceprints)[0], 1))
    logits = tf.tensordot(voiceprints, detector.weights, axes=1) + detector.bias
    return tf.sigmoid(logits)[:, None]


def encoder_input(network, clips):
    """What a network's encoder takes, of clips with the inputs as channels."""
    if not network.takes_melody:
        return clips
    return {"mel_spectrogram": clips[..., :1], "melody": clips[..., 1:]}


def vote(clip_probabilities):
    """`lca_keras.base.metrics.vote` for a batch, inside a graph.

    Args:
        clip_probabilities: Float tensor `(batch, clips, classes)`; clips of zeros have
            no vote.

    Returns:
        Int64 tensor `(batch,)`, class indices.
    """
    classes = tf.shape(clip_probabilities)[-1]
    winners = tf.one_hot(tf.argmax(clip_probabilities, axis=-1), classes)
    winners *= tf.sign(tf.reduce_max(clip_probabilities, axis=-1, keepdims=True))
    counts = tf.reduce_sum(winners, axis=1)
    sums = tf.reduce_sum(clip_probabilities, axis=1)
    tied = tf.equal(counts, tf.reduce_max(counts, axis=-1, keepdims=True))
    return tf.argmax(tf.where(tied, sums, -1.0), axis=-1)
