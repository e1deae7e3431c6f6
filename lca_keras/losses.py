"""The six terms of the learnable counterfactual attention loss.

Notation of `DESIGN.md` section 5: y and y~ are the probabilities of the main and the
counterfactual branch, A and A~ their attentions, t the artist.
"""

from keras import ops

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


def counterfactual_terms(labels, logits, cf_logits, attention, cf_attention):
    """All six terms of each example, without weights and signs.

    Args:
        labels: Int tensor, `(batch,)`.
        logits: Main branch, `(batch, classes)`.
        cf_logits: Counterfactual branch, `(batch, classes)`.
        attention: A, `(batch, shifts)`.
        cf_attention: A~, `(batch, shifts)`.

    Returns:
        Dict from the names in `TERMS` to tensors `(batch,)`.
    """
    # The effect is a difference of probabilities that is used as logits again.
    effect = ops.softmax(logits, axis=-1) - ops.softmax(cf_logits, axis=-1)
    return {
        "main": cross_entropy(labels, logits),
        "effect": cross_entropy(labels, effect),
        "cf": cross_entropy(labels, cf_logits),
        "ent_cf": entropy(cf_logits),
        "att": attention_distance(attention, cf_attention),
        "ent_main": entropy(logits),
    }
