"""The six terms of the learnable counterfactual attention loss.

Notation of `DESIGN.md` section 5: y and y~ are the probabilities of the main and the
counterfactual branch, A and A~ their attentions, t the artist.
"""

from keras import ops

from lca_keras.config import EFFECTS

TERMS = ("main", "effect", "cf", "ent_cf", "att", "ent_main")

# Cross-entropies are minimised; entropies and the attention distance maximised.
SIGNS = {
    "main": 1.0,
    "effect": 1.0,
    "cf": 1.0,
    "ent_cf": -1.0,
    "att": -1.0,
    "ent_main": -1.0,
}


def cross_entropy(labels, logits):
    """Cross-entropy of each example.

    Args:
        labels: Int tensor, `(batch,)`.
        logits: Float tensor, `(batch, classes)`.

    Returns:
        Float tensor, `(batch,)`, in nats.
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
    """The effect as logits, whose cross-entropy is the effect term.

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
        logits: Main branch, `(batch, classes)`.
        cf_logits: Counterfactual branch, `(batch, classes)`.
        form: One of `lca_keras.config.EFFECTS`.

    Returns:
        Float tensor, `(batch, classes)`.

    Raises:
        ValueError: Unknown form.

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
        logits: Main branch, `(batch, classes)`.
        cf_logits: Counterfactual branch, `(batch, classes)`.
        attention: A, `(batch, shifts)`.
        cf_attention: A~, `(batch, shifts)`.
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
