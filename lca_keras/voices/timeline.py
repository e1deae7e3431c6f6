"""Who sings when: a song's clips, overlapping and smoothed, as segments of time.

What each clip tells is the evidence of a hidden Markov model, whose states are the
singers, somebody unknown, and no voice; its most probable course (Viterbi) is the
timeline. All changes of state are equally probable.
"""

import dataclasses
import itertools

import numpy as np

from lca_keras.features import silence
from lca_keras.voices.gallery import NO_VOICE, OK, UNKNOWN, gallery_of

# Share of a clip that the next one has too, unless asked otherwise.
OVERLAP = 0.8
# Below, neither evidence nor change is quite impossible.
_LEAST = 1e-6


@dataclasses.dataclass(frozen=True)
class Segment:
    """A passage of a song."""

    start: float  # Seconds.
    end: float
    status: str  # `"ok"`, `"unknown"` or `"no voice"`.
    singer: str | None  # With the status `"ok"` alone.
    confidence: float  # Mean probability of that, by its clips alone; in silence 1.

    @property
    def label(self):
        """The singer, or the status."""
        return self.singer or self.status


def timeline(identifier, path, vocals_path=None, overlap=OVERLAP):
    """Who sings when, a list of `Segment` from a song's beginning to its end.

    Arguments are as for `lca_keras.inference.identification.Identifier.identify`.

    Raises:
        AudioError: The file cannot be decoded, is silent or too short.
        UserError: The model has no gallery.
    """
    gallery = gallery_of(identifier)
    heard = identifier.hear(path, vocals_path, overlap)
    told = identifier.answers(heard)
    evidence = clip_evidence(
        gallery, told["probabilities"], told["voiceprint"], told["voice"]
    )
    clip = identifier.metadata["clip_seconds"]
    hop = heard.starts[1] - heard.starts[0] if len(heard.starts) > 1 else clip
    states = smooth(evidence, hop)
    # Each moment of sound is told by the clip whose middle is nearest.
    edges = (heard.starts[1:] + heard.starts[:-1] + clip) / 2
    step = heard.front_end.main.hop / heard.front_end.sample_rate
    moments = np.arange(0, silence.seconds(heard.passages) - step / 2, step)
    nearest = np.searchsorted(edges, moments + 1e-6, side="right")
    frames = max(1, round(heard.seconds / step))
    places = silence.song_seconds(heard.passages, moments)
    places = np.minimum(np.round(places / step).astype(int), frames - 1)
    said = [(OK, singer) for singer in identifier.artists]
    said += [(UNKNOWN, None), (NO_VOICE, None)]
    course, certain = np.full(frames, len(said) - 1), np.ones(frames)
    course[places] = states[nearest]
    certain[places] = evidence[np.arange(len(states)), states][nearest]
    cuts = np.flatnonzero(np.diff(course)) + 1
    return [
        Segment(
            round(few[0] * step, 3),
            round((few[-1] + 1) * step, 3),
            *said[course[few[0]]],
            round(float(certain[few].mean()), 4),
        )
        for few in np.split(np.arange(frames), cuts)
    ]


def clip_evidence(gallery, probabilities, voiceprints, voice):
    """Probabilities of the states by each clip alone, `(clips, singers + 2)`.

    The last two are somebody unknown, and no voice. The similarity of a clip's
    voiceprint to its nearest singer's says how probable a stranger is: even at the
    threshold of clips, by a logistic curve of half their deviation. Arguments are as
    for `lca_keras.voices.gallery.Gallery.judge`.
    """
    near = gallery.similarities(voiceprints).max(axis=1)
    far = (gallery.clip_threshold - near) / (0.5 * gallery.clip_width)
    strange = 1 / (1 + np.exp(-np.clip(far, -50, 50)))
    singers = gallery.probabilities(probabilities, voiceprints)
    sung = np.column_stack([singers * (1 - strange)[:, None], strange])
    return np.column_stack([sung * voice[:, None], 1 - voice])


def smooth(evidence, step_seconds, stay_seconds=8.0):
    """The most probable course of states, an int array `(steps,)`.

    Each step counts in full, though clips that overlap tell the same in part: on duets
    of validation songs, error rates were lower so (0.16 instead of 0.23).

    `evidence` `(steps, states)` has their probabilities by each step alone; without
    any, a state lasts `stay_seconds` on average.

    References:
        - Rabiner, 1989, "A tutorial on hidden Markov models", section III B
    """
    steps, states = evidence.shape
    stay = np.exp(-step_seconds / stay_seconds)
    moves = np.full((states, states), (1 - stay) / max(1, states - 1))
    np.fill_diagonal(moves, stay)
    moves = np.log(np.maximum(moves, _LEAST))
    told = np.log(np.maximum(evidence, _LEAST))
    best, before = told[0], np.zeros((steps, states), int)
    for step in range(1, steps):
        paths = best[:, None] + moves
        before[step] = paths.argmax(axis=0)
        best = paths.max(axis=0) + told[step]
    course = [int(best.argmax())]
    for step in range(steps - 1, 0, -1):
        course.append(int(before[step, course[-1]]))
    return np.array(course[::-1])


def error_rate(reference, found):
    """Share of the time sung that is missed, invented, or under another name.

    The diarisation error rate of NIST, without its mapping of names: singers are
    known by theirs. Where several sing, each counts. It is above 1 where more is
    invented than was sung, and a `ValueError` where nobody sings in the reference.

    Both are lists of tuples of start, end (seconds) and name.
    """
    passages = [*reference, *found]
    edges = np.unique([time for start, end, _ in passages for time in (start, end)])
    total = wrong = 0.0
    for start, end in itertools.pairwise(edges):
        sung, said = (
            {name for a, b, name in each if a <= start and end <= b}
            for each in (reference, found)
        )
        total += (end - start) * len(sung)
        wrong += (end - start) * (max(len(sung), len(said)) - len(sung & said))
    if not total:
        raise ValueError("nobody sings in the reference")
    return wrong / total
