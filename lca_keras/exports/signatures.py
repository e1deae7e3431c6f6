"""The signatures of an exported network: what a server is asked, and answers."""

import json

import tensorflow as tf

from lca_keras.audio import decode
from lca_keras.data.examples import parse_example
from lca_keras.exports.decisions import first_of, judge_songs, mean, only, vote
from lca_keras.exports.encoded import attempt, decode_wav
from lca_keras.features.front_end import network_input
from lca_keras.features.silence import block_size, cut_in_graph
from lca_keras.voices.gallery import OK

# Why a song is not judged: what its `status` says beside `lca_keras.voices.gallery`'s.
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
    cut out before anything else, as `lca_keras.features.silence` says. Clips that are
    not filled with what is left are last, have no vote, and their own probabilities and
    embeddings are zero. So are all of a song that cannot be judged, that fills no clip,
    say, or has samples that are not finite: its singer is empty, and its status says
    why.

    With a gallery clips without voice have no vote either, and a song by nobody of the
    singers has the status `unknown` and no singer; then answers have `nearest`, the
    singer whose voiceprint is the most similar, and `score`, how much.

    What is heard, the front end says: signatures take samples if it has a layer, and
    beside these the streams that no graph computes, on the frames of the whole song.

    `about` is a dict for JSON, what the signature of that name answers. Who is enrolled
    in the gallery comes behind the artists.
    """

    def __init__(self, network, artists, config, about=None, gallery=None):
        self.network = network
        self.gallery = gallery
        enrolled = [] if gallery is None else gallery.enrolled
        self.names = tf.constant([*artists, *enrolled])
        self.clip_frames = config.clip_frames
        self.front_end = config.front_end
        self.streams = [self.front_end.stream(name) for name in config.streams]
        self.given = [stream for stream in self.streams if not stream.in_graph]
        self._layer = self.front_end.layer()
        self._about = json.dumps(about or {}, ensure_ascii=False)
        # Each is traced once, for all signatures that need it.
        self._clip_specs = [
            tf.TensorSpec((None, *config.clip_shapes[stream.name]), tf.float32)
            for stream in self.streams
        ]
        waveform = tf.TensorSpec((None, None), tf.float32)
        status = tf.TensorSpec((None,), tf.string)
        each = tf.TensorSpec((None,), tf.int32)
        songs = [song_spec(stream) for stream in self.streams]
        self._describe_clips = _shared(self._describe_in_pieces, *self._clip_specs)
        self._hear = _shared(self._hear, waveform, each, *map(song_spec, self.given))
        self._cut_and_describe = _shared(self._cut_and_describe, status, each, *songs)

    def signatures(self):
        """Dict from name to a method and the list of its inputs' `tf.TensorSpec`s."""
        waveform = tf.TensorSpec((None, None), tf.float32, "waveform")
        lengths = tf.TensorSpec((None,), tf.int32, "lengths")
        streams = [song_spec(stream) for stream in self.streams]
        given = [song_spec(stream) for stream in self.given]
        examples = tf.TensorSpec((None,), tf.string, "examples")
        audio = tf.TensorSpec((None,), tf.string, "audio_bytes")
        request = tf.TensorSpec((None,), tf.string, "request")
        found = {}
        if self._layer is not None:
            found["serving_default"] = self.from_waveform, [waveform, *given]
            found["songs"] = self.from_songs, [waveform, lengths, *given]
            found["embed"] = self.embed, [waveform, *given]
            if not given:
                found["audio_bytes"] = self.from_audio, [audio]
        return {
            **found,
            self.front_end.signature: (self.from_streams, streams),
            "clips": (self.from_clips, streams),
            "examples": (self.from_examples, [examples]),
            "labels": (self.labels_of, [examples]),
            "about": (self.about, [request]),
        }

    # === Signatures ===

    def from_waveform(self, waveform, *given):
        """`(batch, samples)` -> probabilities, singer, status, frame_probabilities.

        With a gallery also nearest, score and frame_voice, probabilities of singing.
        """
        return _public(self._answer(*self._heard(waveform, None, given)))

    def from_songs(self, waveform, lengths, *given):
        """The same for songs of several lengths: `(batch, samples)`, `(batch,)`.

        What follows a song is padding, and no matter.
        """
        return _public(self._answer(*self._heard(waveform, lengths, given)))

    def from_audio(self, audio_bytes):
        """`(batch,)` WAV files, of any rate -> probabilities, singer, status.

        Channels are averaged and resampled as `lca_keras.audio.decode.decode` does.
        """

        def one(content):
            too_long = tf.strings.length(content) > MOST_BYTES
            content = tf.where(too_long, "", content)
            samples = decode_wav(content, self.front_end.sample_rate)
            why = (TOO_LONG, too_long), (NO_WAV, tf.size(samples) == 0)
            return self.from_waveform(samples[None]), why

        return self._one_by_one(one, audio_bytes)

    def from_streams(self, *streams):
        """What the front end makes of songs without silence -> as `from_waveform`."""
        return _public(self._answer_streams(*streams))

    def from_clips(self, *clips):
        """`(clips, …)` of each stream -> what is told of each clip.

        Probabilities of the network's own artists, status, voiceprint and, with a
        gallery, voice. For whoever cuts clips otherwise, or a song in pieces.
        """
        clips = [
            tf.ensure_shape(each, spec.shape)
            for each, spec in zip(clips, self._clip_specs, strict=True)
        ]
        finite = tf.reduce_all([_all_finite(each) for each in clips], axis=0)
        told = self._describe_clips(*clips)
        told["probabilities"] = self._classify(told.pop("embedding"))
        told = {n: tf.where(finite[:, None], v, 0.0) for n, v in told.items()}
        told["voice"] = told["voice"][:, 0]
        if self.gallery is None:
            del told["voice"]
        return {**told, "status": tf.where(finite, OK, NOT_FINITE)}

    def embed(self, waveform, *given):
        """`(batch, samples)` -> embedding, frame_embeddings, status.

        And voiceprint, frame_voiceprints: what voices are compared by.
        """
        told, filled, status = self._describe_songs(*self._heard(waveform, None, given))
        found = {"status": status}
        for name in ("embedding", "voiceprint"):
            values = only(told[name], filled)
            found[name], found[f"frame_{name}s"] = mean(values, filled), values
        return found

    def from_examples(self, examples):
        """`(batch,)` serialised records of a feature store -> as `from_audio`.

        With `decision`, one-hot `(batch, classes)`, whose song it would be, were it
        one of the singers'; zeros where that cannot be said.
        """

        def parse(serialized):
            example = parse_example(serialized, self.streams)
            arrays = [example[stream.name] for stream in self.streams]
            return tuple(tf.cast(array, tf.float32) for array in arrays)

        nothing = tuple(tf.zeros(stream.sized(0)) for stream in self.streams)

        def one(serialized):
            found = attempt(parse, serialized, nothing)
            answer = self._answer_streams(*[array[None] for array in found])
            return answer, [(NO_RECORD, tf.size(found[0]) == 0)]

        answer = self._one_by_one(one, examples, "likeliest")
        likeliest = answer.pop("likeliest")
        return {**answer, "decision": self._one_hot(likeliest)}

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
        """What is answered to songs that differ in length, without their clips.

        `one` gives the answer to a batch of one, and cases as `first_of` takes them.
        """
        kinds = {"probabilities": tf.float32, "singer": tf.string, "status": tf.string}
        if self.gallery is not None:
            kinds |= {"nearest": tf.string, "score": tf.float32}
        kinds |= dict.fromkeys(more, tf.string)

        def whole(song):
            answer, why = one(song)
            found = {name: answer[name][0] for name in kinds}
            return {**found, "status": first_of(*why, (found["status"], True))}

        # One song in memory.
        return tf.map_fn(whole, songs, fn_output_signature=kinds, parallel_iterations=1)

    def _heard(self, waveform, lengths, given):
        """What `_answer` takes: status, frames and streams of songs' samples."""
        waveform = tf.ensure_shape(waveform, (None, None))
        batch, samples = tf.unstack(tf.shape(waveform))
        most = int(MOST_HOURS * 3600 * self.front_end.sample_rate)
        total = tf.size(waveform, tf.int64)
        said = [f"too much: at most {MOST_HOURS:g} h in a request, samples:", total]
        checks = [tf.debugging.Assert(total <= most, said)]
        if lengths is None:
            lengths = tf.fill([batch], samples)
        else:
            lengths = tf.ensure_shape(lengths, (None,))
            said = ["one length for each song, songs:", batch, tf.size(lengths)]
            checks.append(tf.debugging.Assert(tf.size(lengths) == batch, said))
        with tf.control_dependencies(checks):
            inside = tf.sequence_mask(lengths, samples)
        status, sound = self._judge(tf.where(inside, waveform, 0.0), lengths, inside)
        heard = self._hear(sound, tf.clip_by_value(lengths, 0, samples), *given)
        left, streams = heard[0], heard[1:]
        least = self.front_end.clip_samples(self.clip_frames)
        status = first_of(
            (status, tf.not_equal(status, OK)),
            (SILENT, left == 0),
            (TOO_SILENT, left < least),
        )
        return status, self.front_end.main.frames(left), *streams

    def _hear(self, samples, lengths, *given):
        """Samples of songs without silence, and the streams of what is left."""
        front_end, size = self.front_end, block_size(self.front_end.sample_rate)
        sound, left, order = cut_in_graph(
            samples, lengths, front_end.sample_rate, front_end.range_db
        )
        computed, given = self._layer(sound, left), list(given)
        found = []
        for stream in self.streams:
            if stream.in_graph:
                found.append(computed[stream.name])
                continue
            # On the frames of the song; those of its sound are where these blocks were.
            whole, axis = given.pop(0), 1 + stream.axis
            tf.debugging.assert_equal(
                tf.shape(whole)[axis],
                stream.frames(tf.shape(samples)[1]),
                f"the frames of {stream.name} do not match those of the waveform",
            )
            places = stream.hop * tf.range(stream.frames(tf.shape(sound)[1]))
            block = tf.minimum(places // size, tf.shape(order)[1] - 1)
            places = tf.gather(order, block, axis=1) * size + (places - block * size)
            places = tf.minimum(places // stream.hop, tf.shape(whole)[axis] - 1)
            found.append(tf.gather(whole, places, axis=axis, batch_dims=1))
        return (left, *found)

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
        status = first_of(
            (NO_LENGTH, (lengths < 0) | (lengths > tf.shape(sound)[1])),
            (NOT_FINITE, ~finite),
            (TOO_SHORT, lengths < self.front_end.clip_samples(self.clip_frames)),
            (DAMAGED, damaged),
            (SILENT, (high - low) / 2 < decode.SILENCE_PEAK),
        )
        return status, tf.where(tf.equal(status, OK)[:, None], sound, 0.0)

    def _classify(self, embeddings):
        return self.network.probabilities(self.network.classifier(embeddings))

    def _answer_streams(self, *streams):
        main, axis = streams[0], 1 + self.streams[0].axis
        frames = tf.fill(tf.shape(main)[:1], tf.shape(main)[axis])
        every = list(range(1, len(main.shape)))
        # Where nothing ever changes, nothing is heard; of no frames, nothing either.
        flat = tf.reduce_max(main, axis=every) <= tf.reduce_min(main, axis=every)
        status = first_of((TOO_SHORT, frames < self.clip_frames), (SILENT, flat))
        return self._answer(status, frames, *streams)

    def _answer(self, status, frames, *streams):
        """What is answered, and `likeliest`, the singer of an unknown song too."""
        told, filled, status = self._describe_songs(status, frames, *streams)
        clips = self._classify(told["embedding"])
        if self.gallery is None:
            clips = only(clips, filled)
            names = tf.gather(self.names, vote(clips))
            names = tf.where(tf.equal(status, OK), names, "")
            return {
                "probabilities": mean(clips, filled),
                "singer": names,
                "likeliest": names,
                "status": status,
                "frame_probabilities": clips,
            }
        return judge_songs(self.gallery, self.names, clips, told, filled, status)

    def _describe_songs(self, status, frames, *streams):
        """As `_cut_and_describe`; the shapes of streams are checked.

        The C++ interface does not check them against the signature.
        """
        songs = [
            tf.ensure_shape(song, song_spec(stream).shape)
            for song, stream in zip(streams, self.streams, strict=True)
        ]
        return self._cut_and_describe(status, frames, *songs)

    def _cut_and_describe(self, status, frames, *songs):
        """Songs' streams, (batch, …) -> what is told of clips, filled, status.

        The first is as `_describe_in_pieces` gives it, (batch, clips, …), the second
        says which clips are filled with sound, bool (batch, clips).
        """
        front_end, clip = self.front_end, self.clip_frames
        main = self.streams[0]
        size = tf.shape(songs[0])[1 + main.axis]
        one = [1 if n else size for n in main.shape]
        own = tf.reshape(tf.sequence_mask(frames, size), [-1, *one])
        finite = _all_finite(tf.where(own, songs[0], 0.0))
        for song in songs[1:]:
            finite &= _all_finite(song)
        # A clip at least, of nothing, where there is none.
        clips = tf.maximum(1, size // clip)
        pieces = []
        for stream, song in zip(self.streams, songs, strict=True):
            axis, width = 1 + stream.axis, front_end.frames_in(stream, clip)
            starts = clip * main.hop * tf.range(clips) // stream.hop
            places = starts[:, None] + tf.range(width)
            lacking = tf.maximum(0, starts[-1] + width - tf.shape(song)[axis])
            padding = [[0, 0] for _ in song.shape]
            padding[axis] = [0, lacking]
            found = tf.gather(tf.pad(song, padding), places, axis=axis)
            # The axis of clips goes to the front.
            order = [n for n in range(len(found.shape)) if n != axis]
            found = tf.transpose(found, [0, axis, *order[1:]])
            pieces.append(tf.reshape(found, (-1, *stream.sized(width))))
        batch = tf.shape(songs[0])[0]
        told = {
            name: tf.reshape(value, (batch, clips, value.shape[-1]))
            for name, value in self._describe_clips(*pieces).items()
        }
        status = first_of((status, tf.not_equal(status, OK)), (NOT_FINITE, ~finite))
        filled = (1 + tf.range(clips)) * clip <= frames[:, None]
        return told, filled & tf.equal(status, OK)[:, None], status

    def _describe_in_pieces(self, *clips):
        """(clips, …) of each stream -> embedding, voiceprint and voice.

        A dict of tensors (clips, …), voice (clips, 1); a few clips at once.
        """
        count = tf.shape(clips[0])[0]
        steps = -(-count // _CLIPS_AT_ONCE)
        network = self.network
        sizes = [network.embedding_size, network.voiceprint_size, 1]
        outputs = tf.TensorArray(
            tf.float32, size=steps, infer_shape=False, element_shape=(None, sum(sizes))
        )
        names = [stream.name for stream in self.streams]
        detector = self.gallery and self.gallery.detector
        for step in tf.range(steps):
            few = slice(step * _CLIPS_AT_ONCE, (step + 1) * _CLIPS_AT_ONCE)
            batch = {n: each[few] for n, each in zip(names, clips, strict=True)}
            told = describe_clips(network, network_input(names, batch), detector)
            outputs = outputs.write(step, tf.concat(list(told.values()), axis=-1))
        names = ("embedding", "voiceprint", "voice")
        return dict(zip(names, tf.split(outputs.concat(), sizes, -1), strict=True))


def describe_clips(network, clips, detector):
    """What is told of clips: embedding, voiceprint and voice, in this order.

    Without a detector every clip has a voice.
    """
    told = network.describe(network.encode(clips, training=False)["maps"])
    voiceprints = told["voiceprint"]
    if detector is None:
        voice = tf.ones((tf.shape(voiceprints)[0], 1))
    else:
        logits = tf.tensordot(voiceprints, detector.weights, axes=1) + detector.bias
        voice = tf.sigmoid(logits)[:, None]
    return {"embedding": told["embedding"], "voiceprint": voiceprints, "voice": voice}


def song_spec(stream):
    """`tf.TensorSpec` of a `lca_keras.features.front_end.Stream` of whole songs."""
    return tf.TensorSpec((None, *stream.shape), tf.float32, stream.name)


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
