"""The six terms of the learnable counterfactual attention loss; embedding losses.

y and y~ are the probabilities of the main and the counterfactual branch, A and A~ their
attentions, t the artist.
"""

import math

from keras import ops

from lca_keras.base.sections import EFFECTS

# Cross-entropies are minimised; entropies and the attention distance maximised.
SIGNS = {
    "main": 1.0,
    "effect": 1.0,
    "cf": 1.0,
    "ent_cf": -1.0,
    "att": -1.0,
    "ent_main": -1.0,
}
TERMS = tuple(SIGNS)


def cross_entropy(labels, logits):
    """Cross-entropy of each example, `(batch,)`, in nats.

    Labels are ints `(batch,)`, logits floats `(batch, classes)`.
    """
    target = ops.one_hot(labels, ops.shape(logits)[-1], dtype=logits.dtype)
    return -ops.sum(target * ops.log_softmax(logits, axis=-1), axis=-1)


def entropy(logits):
    """Entropy H of the softmax of each example, `(batch,)`, in nats."""
    log_probabilities = ops.log_softmax(logits, axis=-1)
    return -ops.sum(ops.exp(log_probabilities) * log_probabilities, axis=-1)


def attention_distance(attention, cf_attention):
    """Mean of |A - A~| over shifts, `(batch,)`."""
    return ops.mean(ops.abs(attention - cf_attention), axis=-1)


def effect_logits(logits, cf_logits, form="probability"):
    """The effect as logits `(batch, classes)`, whose cross-entropy is the effect term.

    With t the artist, p the softmax of what is returned, and z, z~ the logits of the
    two branches, the gradients on the main branch differ in what they make of y~:

    - `"probability"`, y - y~, as published. Differences within [-1, 1] make a nearly
      flat softmax, and the gradient hardly depends on y~: of 20 artists at y_t = 0.5
      the slope along z_t is -0.243 where y~_t = 0.05 and -0.254 where it is 0.9.
    - `"logit"`, z - z~ (Rao et al.). The gradient p - 1_t grows where the
      counterfactual knows the artist: -0.50 and -0.99 in that example. Clips that can
      be solved by what misleads weigh more.
    - `"product"`, z + z~, a product of experts. It shrinks there, to -0.50 and
      -0.01: what misleads may explain these clips, the main branch learns the others.

    Args:
        logits, cf_logits: Of the two branches, `(batch, classes)`.
        form: One of `lca_keras.base.sections.EFFECTS`; others are a ValueError.

    References:
        - Rao et al., 2021, https://arxiv.org/abs/2108.08728 (difference of logits)
        - Clark et al., 2019, https://arxiv.org/abs/1909.03683 (product of experts
          against known biases)
    """
    if form == "probability":
        return ops.softmax(logits, axis=-1) - ops.softmax(cf_logits, axis=-1)
    if form == "logit":
        return logits - cf_logits
    if form == "product":
        return logits + cf_logits
    raise ValueError(
        f"`form` must be one of {', '.join(EFFECTS)}. Received: form={form!r}"
    )


def counterfactual_terms(
    labels, logits, cf_logits, attention, cf_attention, effect="probability"
):
    """All six terms of each example, without weights and signs.

    Args:
        labels: Int tensor, `(batch,)`.
        logits, cf_logits: Of the two branches, `(batch, classes)`.
        attention, cf_attention: A and A~, `(batch, shifts)`.
        effect: Form of the effect, see `effect_logits`.

    Returns:
        Dict from the names in `TERMS` to tensors `(batch,)`.
    """
    return {
        "main": cross_entropy(labels, logits),
        "effect": cross_entropy(labels, effect_logits(logits, cf_logits, effect)),
        "cf": cross_entropy(labels, cf_logits),
        "ent_cf": entropy(cf_logits),
        "att": attention_distance(attention, cf_attention),
        "ent_main": entropy(logits),
    }


# === Of the embedding ===


def supervised_contrastive(labels, embedding, temperature=0.1):
    """Draws embeddings of one artist together, and those of others apart.

    With z the embeddings at unit length, P(i) the other examples of i's artist in the
    batch, and tau the temperature, of each example i

        - mean over p in P(i) of log( exp(z_i z_p / tau) / sum over a != i of
                                      exp(z_i z_a / tau) )

    and zero where P(i) is empty. Labels are ints `(batch,)`, the embedding is
    `(batch, units)`, what is returned `(batch,)`.

    References:
        - Khosla et al., 2020, https://arxiv.org/abs/2004.11362 (equation 2, tau 0.1)
    """
    z = ops.normalize(embedding, axis=-1)
    similarity = ops.matmul(z, ops.transpose(z)) / temperature
    itself = ops.eye(ops.shape(z)[0], dtype=z.dtype)
    # Far below any similarity, and finite: its product with zero is zero.
    others = similarity - 1e9 * itself
    log_share = similarity - ops.logsumexp(others, axis=1, keepdims=True)
    labels = ops.convert_to_tensor(labels)
    same = ops.cast(labels[:, None] == labels[None], z.dtype) - itself
    total = ops.sum(same * log_share, axis=1)
    return -total / ops.maximum(ops.sum(same, axis=1), 1.0)


def additive_angular_margin(labels, embedding, classes, margin=0.2, scale=30.0):
    """Cross-entropy over angles to a vector of each artist, with a margin.

    With theta_j the angle between the embedding and the vector of artist j, the logits
    are scale cos(theta_j), and scale cos(theta_t + margin) for the artist t. Beyond pi
    the latter goes on falling as scale (cos(theta_t) - margin sin(margin)).

    Args:
        labels: Int tensor, `(batch,)`.
        embedding: Float tensor, `(batch, units)`.
        classes: Float tensor, `(units, classes)`; columns of any length.
        margin: Float, radians.

    Returns:
        Float tensor, `(batch,)`.

    References:
        - Deng et al., 2019, https://arxiv.org/abs/1801.07698 (equation 3); margin and
          scale as is usual for speakers
    """
    cosine = ops.matmul(
        ops.normalize(embedding, axis=-1), ops.normalize(classes, axis=0)
    )
    # At its ends the angle has no gradient.
    cosine = ops.clip(cosine, -1 + 1e-6, 1 - 1e-6)
    angle = ops.arccos(cosine)
    inside = angle < math.pi - margin
    beyond = cosine - margin * math.sin(margin)
    moved = ops.where(inside, ops.cos(angle + margin), beyond)
    target = ops.one_hot(labels, ops.shape(cosine)[-1], dtype=cosine.dtype)
    return cross_entropy(labels, scale * (target * moved + (1 - target) * cosine))
