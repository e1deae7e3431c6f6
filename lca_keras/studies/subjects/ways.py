"""Ways to tell strangers from singers whom a model knows, and how well each does."""

import functools

import numpy as np

from lca_keras.voices.gallery import fit_gallery

_NEIGHBOURS = 10
# The one that `lca_keras.voices.gallery` has.
CHOSEN = "voiceprint: cosine, songs whitened"


def compare(heard, unseen):
    """AUROC of ways to tell strangers: dict from name to that of `songs` and `clips`.

    `heard` has `DescribedClips` by kind, `"known"` say, and part; `unseen` is the list
    of those of strangers.
    """
    from sklearn.metrics import roc_auc_score

    def auroc(known, strange):
        truth = np.repeat([1, 0], [len(known), len(strange)])
        return float(roc_auc_score(truth, np.concatenate([known, strange])))

    found = {}
    ways = _candidates(heard["known", "train"], heard["known", "validation"])
    for name, score in ways.items():
        known = score(heard["known", "test"])
        strange = map(np.concatenate, zip(*map(score, unseen), strict=True))
        clips, songs = map(auroc, known, strange)
        found[name] = {"clips": clips, "songs": songs}
    return found


def _candidates(train, validation):
    """Dict from name to a function of `DescribedClips`: scores of clips and of songs.

    Higher ones are of known singers.
    """
    found = {
        "maximum probability": _probability,
        "share of the votes": _votes,
        "energy": _energy,
    }
    for layer in ("embedding", "voiceprint"):
        for name, measure in _measures(train, validation, layer).items():
            found[f"{layer}: {name}"] = functools.partial(_of_vectors, layer, measure)
    return found


def _songs(heard, values):
    return [values[clips] for clips in heard.predictions.songs.values()]


def _probability(heard):
    values = heard.predictions.decide().probabilities
    means = [song.mean(axis=0).max() for song in _songs(heard, values)]
    return values.max(axis=1), means


def _votes(heard):
    values = heard.predictions.decide().probabilities
    votes = [np.bincount(song.argmax(axis=1)) for song in _songs(heard, values)]
    return values.max(axis=1), [counts.max() / counts.sum() for counts in votes]


def _energy(heard):
    from scipy.special import logsumexp

    values = logsumexp(heard.predictions.outputs["logits"], axis=1)
    return values, [song.mean() for song in _songs(heard, values)]


def _of_vectors(layer, measure, heard):
    values = heard.predictions.outputs[layer]
    means = np.stack([song.mean(axis=0) for song in _songs(heard, values)])
    return measure(values), measure(means)


def _measures(train, validation, layer):
    """Dict from name to a function of vectors `(n, size)` of a layer: scores `(n,)`."""
    from scipy.spatial.distance import cdist
    from sklearn.covariance import LedoitWolf
    from sklearn.metrics.pairwise import cosine_similarity
    from sklearn.neighbors import NearestNeighbors

    own, labels = train.predictions.outputs[layer], train.predictions.labels
    center, spread = own.mean(axis=0), own.std(axis=0).clip(1e-6)
    means = np.stack([own[labels == n].mean(axis=0) for n in np.unique(labels)])
    precision = LedoitWolf().fit((own - means[labels]) / spread).precision_
    index = NearestNeighbors(n_neighbors=_NEIGHBOURS).fit((own - center) / spread)
    held_out = validation.predictions.outputs[layer], validation.predictions.labels
    gallery, _ = fit_gallery((own, labels), held_out, validation.songs, 0.05)

    def cosine(values):
        return cosine_similarity(values - center, means - center).max(axis=1)

    def mahalanobis(values):
        pair = (values / spread, means / spread)
        return -cdist(*pair, "mahalanobis", VI=precision).min(axis=1)

    def nearest(values):
        return -index.kneighbors((values - center) / spread)[0].mean(axis=1)

    def whitened(values):
        return gallery.similarities(values).max(axis=1)

    return {
        "cosine to the nearest mean": cosine,
        "Mahalanobis distance": mahalanobis,
        f"{_NEIGHBOURS} nearest clips": nearest,
        "cosine, songs whitened": whitened,
    }
