"""The same recording, or a passage of it, more than once in a corpus."""

import collections

import numpy as np

from lca_keras.audio import fingerprint

# What two recordings share of the shorter one, to be the same and not to share a
# passage, a jingle say.
_SAME_SHARE = 0.5
# Copies that differ less in speed are of one speed.
_ONE_SPEED = 0.003


def copies(examinations):
    """Finds recordings that are the same.

    Args:
        examinations: List of `lca_keras.corpora.examination.Examination`.

    Returns:
        Dict from pairs of indices to what they are, in words; and a list of
        `lca_keras.audio.fingerprint.Match` of those that share a passage alone.
    """
    pairs, passages = {}, []
    same = collections.defaultdict(list)
    for index, examined in enumerate(examinations):
        same[examined.content_hash].append(index)
    for first, *others in same.values():
        pairs |= {(first, other): "the same samples" for other in others}
    for match in fingerprint.find_same([each.landmarks for each in examinations]):
        first, second = (examinations[n] for n in (match.first, match.second))
        if match.share < _SAME_SHARE:
            passages.append(match)
        elif first.content_hash != second.content_hash:
            what = f"the same recording (similarity {match.similarity:.2f})"
            if abs(change := match.speed - 1) > _ONE_SPEED:
                faster = "slower" if change > 0 else "faster"
                what += f", {abs(change):.1%} {faster},"
            pairs[match.first, match.second] = what
    return pairs, passages


def groups(passages):
    """Puts together what shares passages.

    Args:
        passages: List of `lca_keras.audio.fingerprint.Match`.

    Yields:
        Sorted indices of some recordings, and the median length in seconds of what two
        of them share.
    """
    from scipy.sparse import coo_array, csgraph

    if not passages:
        return
    ends = np.array([(match.first, match.second) for match in passages])
    ones, size = np.ones(len(ends)), ends.max() + 1
    graph = coo_array((ones, tuple(ends.T)), (size, size))
    _, group_of = csgraph.connected_components(graph, directed=False)
    for group in np.unique(group_of[ends[:, 0]]):
        seconds = [m.seconds for m in passages if group_of[m.first] == group]
        yield np.flatnonzero(group_of == group), np.median(seconds)
