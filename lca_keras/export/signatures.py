"""The signatures of an exported network: what a server is asked, and answers."""

import json

import tensorflow as tf

from lca_keras.audio import decode
from lca_keras.data.clips import sound_first
from lca_keras.data.examples import parse_example
from lca_keras.export.encoded import attempt, decode_wav
from lca_keras.layers import MelFrontEnd

# What a song's `status` says: this, or why nobody is named.
OK = "ok"
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
    cut out before clips are cut, as `lca_keras.audio.features.kept_frames` says. Clips
    that are not filled with what is left are last, have no vote, and their own
    probabilities and embeddings are zero. So are all of a song that cannot be judged,
    that fills no clip, say, or has samples that are not finite: its singer is empty,
    and its status says why.

    Args:
        network: `SingerNetwork` for inference.
        artists: List of class names, in class order.
        config: `lca_keras.config.Config` of the run.
        about: Dict for JSON, what the signature `about` answers.
    """

    def __init__(self, network, artists, config, about=None):
        self.network = network
        self.names = tf.constant(artists)
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
        self._embed_clips = _shared(self._embed_in_pieces, clips)
        self._spectrograms = _shared(self.front_end.__call__, waveform, each)
        self._cut_and_embed = _shared(self._cut_and_embed, songs, status, each)

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
        """`(batch, samples)` -> probabilities, singer, status, frame_probabilities."""
        mel, refused = self._mel_of(waveform)
        return self._answer(mel, melody, refused)

    def from_songs(self, waveform, lengths, melody=None):
        """The same for songs of several lengths: `(batch, samples)`, `(batch,)`.

        What follows a song is padding, and no matter.
        """
        mel, refused = self._mel_of(waveform, lengths)
        frames = 1 + lengths // self.front_end.feature_config.hop_length
        return self._answer(mel, melody, refused, frames)

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
            return answer["probabilities"][0], answer["singer"][0], status

        return dict(
            zip(
                ("probabilities", "singer", "status"),
                self._one_by_one(one, audio_bytes),
                strict=True,
            )
        )

    def from_mel(self, mel_spectrogram, melody=None):
        """`(batch, mel_bins, frames, 1)` -> as `from_waveform`."""
        refused = tf.fill(tf.shape(mel_spectrogram)[:1], OK)
        return self._answer(mel_spectrogram, melody, refused)

    def from_clips(self, mel_spectrogram, melody=None):
        """`(clips, mel_bins, clip_frames, 1)` -> probabilities and status of each clip.

        For whoever cuts clips otherwise, or a song in pieces.
        """
        clips = tf.ensure_shape(mel_spectrogram, (None, *self.clip_shape[:2], 1))
        if melody is not None:
            melody = tf.ensure_shape(melody, (None, *self.clip_shape[:2], 1))
            clips = tf.concat([clips, melody], axis=-1)
        finite = _all_finite(clips)
        probabilities = self._classify(self._embed_clips(clips))
        return {
            "probabilities": tf.where(finite[:, None], probabilities, 0.0),
            "status": tf.where(finite, OK, NOT_FINITE),
        }

    def embed(self, waveform, melody=None):
        """`(batch, samples)` -> embedding, frame_embeddings, status."""
        mel, refused = self._mel_of(waveform)
        embeddings, filled, status = self._embed_songs(mel, melody, refused)
        embeddings = _only(embeddings, filled)
        return {
            "embedding": _mean(embeddings, filled),
            "frame_embeddings": embeddings,
            "status": status,
        }

    def from_examples(self, examples):
        """`(batch,)` serialised records of a feature store -> as `from_audio`.

        With `decision`, one-hot `(batch, classes)`; zeros where nobody is named.
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
            answer = self.from_mel(*[each[None, ..., None] for each in found])
            status = answer["status"][0]
            status = tf.where(tf.size(found[0]) == 0, NO_RECORD, status)
            return answer["probabilities"][0], answer["singer"][0], status

        probabilities, singers, status = self._one_by_one(one, examples)
        return {
            "probabilities": probabilities,
            "singer": singers,
            "status": status,
            "decision": self._one_hot(singers),
        }

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

    def _one_by_one(self, one, songs):
        """Probabilities, singer and status of songs that differ in length."""
        return tf.map_fn(
            one,
            songs,
            fn_output_signature=(tf.float32, tf.string, tf.string),
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

    def _answer(self, mel, melody, refused, frames=None):
        embeddings, filled, status = self._embed_songs(mel, melody, refused, frames)
        clips = _only(self._classify(embeddings), filled)
        names = tf.gather(self.names, vote(clips))
        return {
            "probabilities": _mean(clips, filled),
            "singer": tf.where(tf.equal(status, OK), names, ""),
            "status": status,
            "frame_probabilities": clips,
        }

    def _embed_songs(self, mel, melody, refused, frames=None):
        """Both (batch, mel_bins, frames, 1) -> as `_cut_and_embed`.

        `frames` are those of each song, if not all.
        """
        # The C++ interface does not check shapes against the signature.
        song_shape = (None, self.mel_bins, None, 1)
        songs = tf.ensure_shape(mel, song_shape)
        if melody is not None:
            songs = tf.concat([songs, tf.ensure_shape(melody, song_shape)], axis=-1)
        if frames is None:
            frames = tf.fill(tf.shape(songs)[:1], tf.shape(songs)[2])
        return self._cut_and_embed(songs, refused, frames)

    def _cut_and_embed(self, songs, refused, frames):
        """(batch, mel_bins, frames, channels) -> (batch, clips, units), filled, status.

        The second says which clips are filled with sound, bool (batch, clips).
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
        embeddings = tf.reshape(self._embed_clips(pieces), (batch, clips, self.units))
        status = _first_of(
            (refused, tf.not_equal(refused, OK)),
            (NOT_FINITE, ~finite),
            (TOO_SHORT, frames < clip),
            (SILENT, kept == 0),
            (TOO_SILENT, kept < clip),
        )
        filled = (1 + tf.range(clips)) * clip <= kept[:, None]
        return embeddings, filled & tf.equal(status, OK)[:, None], status

    def _embed_in_pieces(self, clips):
        """(clips, mel_bins, clip_frames, channels) -> (clips, units), a few at once."""
        count = tf.shape(clips)[0]
        steps = -(-count // _CLIPS_AT_ONCE)
        outputs = tf.TensorArray(
            tf.float32, size=steps, infer_shape=False, element_shape=(None, self.units)
        )
        for step in tf.range(steps):
            start = step * _CLIPS_AT_ONCE
            batch = encoder_input(self.network, clips[start : start + _CLIPS_AT_ONCE])
            maps = self.network.encode(batch, training=False)["maps"]
            outputs = outputs.write(step, self.network.embed(maps))
        return outputs.concat()


def _shared(method, *specs):
    """A function that is traced once, whatever calls it."""
    function = tf.function(method, input_signature=specs)
    return tf.autograph.experimental.do_not_convert(function)


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


def encoder_input(network, clips):
    """What a network's encoder takes, of clips with the inputs as channels."""
    if not network.takes_melody:
        return clips
    return {"mel_spectrogram": clips[..., :1], "melody": clips[..., 1:]}


def vote(clip_probabilities):
    """`lca_keras.metrics.vote` for a batch, inside a graph.

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
