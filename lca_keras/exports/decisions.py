"""Votes and verdicts in a graph, as `lca_keras.voices.gallery` has them in NumPy."""

import tensorflow as tf

from lca_keras.voices.detector import VOICED
from lca_keras.voices.gallery import NO_VOICE, OK, TINY, UNKNOWN


def judge_songs(gallery, names, clips, told, filled, status):
    """As `lca_keras.voices.gallery.Gallery.judge`, for many songs.

    Args:
        gallery: `lca_keras.voices.gallery.Gallery`.
        names: String tensor, its singers.
        clips: Float tensor `(batch, clips, known)`, probabilities.
        told: Dict of tensors `(batch, clips, …)`, `voiceprint` and `voice`.
        filled: Bool tensor `(batch, clips)`, which clips have sound.
        status: String tensor `(batch,)`, as far as it is known.

    Returns:
        Dict of what is answered, and `likeliest`, the singer of an unknown song too.
    """
    voice = only(told["voice"], filled)
    voiced = filled & (voice[..., 0] >= VOICED)
    own = vote(only(clips, voiced))
    near = similarities(gallery, told["voiceprint"])
    if gallery.enrolled:
        new = tf.nn.softmax(gallery.scale * near)[..., gallery.known :]
        rest = 1 - tf.reduce_sum(new, axis=-1, keepdims=True)
        clips = tf.concat([rest * clips, new], axis=-1)
    means = mean(only(clips, voiced), voiced)
    winner = tf.argmax(means, axis=-1)
    winner = tf.where(winner < gallery.known, own, winner)
    near = similarities(gallery, mean(only(told["voiceprint"], voiced), voiced))
    score, nearest = tf.reduce_max(near, axis=-1), tf.argmax(near, axis=-1)
    heard = tf.equal(status, OK)
    sung = heard & tf.reduce_any(voiced, axis=-1)
    known = sung & (score >= gallery.threshold)
    status = tf.where(heard & ~sung, NO_VOICE, status)
    status = tf.where(sung & ~known, UNKNOWN, status)
    likeliest = tf.where(sung, tf.gather(names, winner), "")
    return {
        "probabilities": means,
        "singer": tf.where(known, likeliest, ""),
        "likeliest": likeliest,
        "status": status,
        "nearest": tf.where(sung, tf.gather(names, nearest), ""),
        "score": tf.where(sung, score, 0.0),
        "frame_probabilities": only(clips, filled),
        "frame_voice": voice[..., 0],
    }


def similarities(gallery, voiceprints):
    """As `lca_keras.voices.gallery.Gallery.similarities`."""
    moved = tf.tensordot(voiceprints - gallery.center, gallery.projection, axes=1)
    length = tf.norm(moved, axis=-1, keepdims=True)
    directions = moved / tf.maximum(length, TINY)
    return tf.tensordot(directions, gallery.means.T, axes=1)


def first_of(*cases):
    """What the first case says that holds, of pairs of a text and bool (batch,)."""
    found = tf.fill(tf.shape(cases[0][1]), OK)
    for said, holds in reversed(cases):
        found = tf.where(holds, said, found)
    return found


def only(values, filled):
    """(batch, clips, n) with zeros for clips without sound."""
    return tf.where(filled[..., None], values, 0.0)


def mean(values, filled):
    """(batch, clips, n), zero for clips without sound -> their mean (batch, n)."""
    count = tf.reduce_sum(tf.cast(filled, tf.float32), axis=1, keepdims=True)
    return tf.math.divide_no_nan(tf.reduce_sum(values, axis=1), count)


def vote(clip_probabilities):
    """`lca_keras.base.metrics.vote` of a batch; clips of zeros have no vote."""
    classes = tf.shape(clip_probabilities)[-1]
    winners = tf.one_hot(tf.argmax(clip_probabilities, axis=-1), classes)
    winners *= tf.sign(tf.reduce_max(clip_probabilities, axis=-1, keepdims=True))
    counts = tf.reduce_sum(winners, axis=1)
    sums = tf.reduce_sum(clip_probabilities, axis=1)
    tied = tf.equal(counts, tf.reduce_max(counts, axis=-1, keepdims=True))
    return tf.argmax(tf.where(tied, sums, -1.0), axis=-1)
