"""What a model listens to: test songs heard whole, in parts, and remixed.

A model that follows the band names the band's artist whoever sings over it; one that
follows the voice names the singer whatever is played. Scores on held-out albums cannot
tell the two apart where a band goes with its singer there too.
"""

import dataclasses

import numpy as np

from lca_keras.base import files, metrics
from lca_keras.base.errors import UserError
from lca_keras.data.examples import untuned
from lca_keras.data.stem_reader import StemReader
from lca_keras.drawing import plots
from lca_keras.evaluation import scoring
from lca_keras.features.front_end import network_input

# How a song is heard, for people.
HEARINGS = {
    "mixture": "the song",
    "vocals": "its voice alone",
    "accompaniment": "its band alone, named after the band",
    "other_accompaniment": "its voice over another band",
    "other_voice": "its band under another voice, named after the band",
}
FOLLOWED = ("voice", "band", "neither")
_COLORS = ("#2166ac", "#b2182b", "#bdbdbd")


@dataclasses.dataclass(frozen=True)
class Swap:
    """A song whose voice and accompaniment are of different artists, and its decision.

    Voice and accompaniment are the keys of the songs that they are of, the rest class
    indices: of the voice's artist, of the one whose band plays (-1 for a stranger's),
    and of the one that the model voted for.
    """

    voice: str
    accompaniment: str
    singer: int
    band: int
    decision: int

    @property
    def follows(self):
        """`"voice"`, `"band"` or `"neither"`."""
        return {self.singer: "voice", self.band: "band"}.get(self.decision, "neither")


@dataclasses.dataclass(frozen=True)
class VoiceReport:
    """What a model listens to.

    `scores` is from the names in `HEARINGS` to the F1 over clips and songs, `"frame"`
    and `"song"`. Right is the singer, and for `"accompaniment"` and `"other_voice"` the
    artist whose band plays. `swaps` has two of each song: with another accompaniment,
    and with another voice.
    """

    artists: list[str]
    scores: dict[str, dict[str, float]]
    swaps: list[Swap]

    @property
    def shares(self):
        """Dict from the names in `FOLLOWED` to the share of swaps."""
        return _shares(self.swaps)

    @property
    def by_artist(self):
        """Dict from artist to the shares of the swaps that the artist sings."""
        return {
            self.artists[singer]: _shares([s for s in self.swaps if s.singer == singer])
            for singer in sorted({swap.singer for swap in self.swaps})
        }

    def to_dict(self):
        """Plain dicts and numbers, for `metrics.json`."""
        return {
            "scores": self.scores,
            "shares": self.shares,
            "by_artist": self.by_artist,
            "swaps": len(self.swaps),
        }


def _shares(swaps):
    followed = [swap.follows for swap in swaps]
    return {name: followed.count(name) / len(followed) for name in FOLLOWED}


def followed(shares):
    """What most decisions follow, of `FOLLOWED`; `"neither"` when two are equal."""
    first = [name for name in FOLLOWED if shares[name] == max(shares.values())]
    return first[0] if len(first) == 1 else "neither"


def verdict(shares):
    """The same as a sentence for people."""
    said = {
        "voice": "the voice",
        "band": "the band, not the voice",
        "neither": "neither the voice nor the band",
    }
    return (
        f"It follows {said[followed(shares)]}: of songs put together from two artists, "
        f"{shares['voice']:.0%} are named after the voice, {shares['band']:.0%} after "
        f"the band, {shares['neither']:.0%} after neither."
    )


def report(model, source, artists):
    """Lets a model hear songs in parts and remixed; returns the `VoiceReport`.

    Args:
        model: `lca_keras.models.LCAModel` that was trained on mixtures.
        source: `lca_keras.data.clips.ClipSource` of the songs, of a store with stems.
        artists: List of class names.

    Raises:
        UserError: The store has no stems, or all songs are by one artist.
    """
    store, labels = source.store, source.labels
    if store.config.source != "stems":
        raise UserError(f"{store.folder} has no stems, which a voice report needs")
    if len(set(labels.values())) < 2:
        raise UserError("a voice report needs songs of at least two artists")
    keys = sorted(labels, key=lambda key: (labels[key], key))
    bands = {key: _band(store.records[key], labels[key], artists) for key in keys}
    singers, players = [labels[key] for key in keys], [bands[key] for key in keys]
    lent = [keys[index] for index in _partners(singers, players)]
    sung = [keys[index] for index in _partners(players, singers)]
    nothing = [None] * len(keys)
    # For each hearing: the songs whose voices and whose bands are used, song by song,
    # and whom the decisions are to name.
    heard = {
        "mixture": (keys, keys, singers),
        "vocals": (keys, nothing, singers),
        "accompaniment": (nothing, keys, players),
        "other_accompaniment": (keys, lent, singers),
        "other_voice": (sung, keys, players),
    }
    reader = StemReader(source)
    scores, swaps = {}, []
    for hearing, (voices, played, right) in heard.items():
        parts = list(zip(voices, played, strict=True))
        decisions = _decide(model, reader, keys, parts, right)
        levels = {
            "frame": (decisions.predictions.labels, decisions.winners),
            "song": (decisions.song_labels, decisions.votes),
        }
        scores[hearing] = {
            level: metrics.identification_scores(*named, len(artists))["f1"]
            for level, named in levels.items()
        }
        if hearing in ("other_accompaniment", "other_voice"):
            for (voice, band), vote in zip(parts, decisions.votes, strict=True):
                swap = Swap(voice, band, labels[voice], bands[band], int(vote))
                swaps.append(swap)
    return VoiceReport(artists, scores, swaps)


def _band(record, own, artists):
    """Class index of the artist whose band plays in a song, -1 for a stranger's."""
    name = record.accompaniment_artist
    if name is None:
        return own
    return artists.index(name) if name in artists else -1


def _partners(names, others):
    """For each song another one that lends what it lacks: `names[i] != others[p[i]]`.

    Lists are of class indices: what songs bring, what they would lend. Which one is
    drawn, the same whenever it is, among those that have lent the least.
    """
    rng = np.random.default_rng(0)
    names, others = np.array(names), np.array(others)
    used, partners = np.zeros((2, len(names)), int)
    for index in rng.permutation(len(names)):
        allowed = np.flatnonzero(others != names[index])
        if not allowed.size:
            raise UserError("a voice report needs voices and bands of other artists")
        least = allowed[used[allowed] == used[allowed].min()]
        partners[index] = rng.choice(least)
        used[partners[index]] += 1
    return partners.tolist()


def _decide(model, reader, keys, parts, right):
    """`Decisions` about `keys` of what pairs (voice, accompaniment) give."""
    import tensorflow as tf

    starts = [reader.times(*pair) for pair in parts]
    counts = [len(each) for each in starts]
    ends = np.cumsum(counts)
    groups = np.split(np.arange(ends[-1]), ends[:-1])
    songs = dict(zip(keys, groups, strict=True))
    specs = {
        name: tf.TensorSpec((None, *shape), tf.float32)
        for name, shape in reader.source.shapes.items()
    }
    spec = network_input(reader.source.streams, specs)
    batches = tf.data.Dataset.from_generator(
        lambda: (reader.clips(*pair) for pair in parts), output_signature=spec
    )
    batches = batches.unbatch().batch(32)
    size = tf.data.experimental.assert_cardinality(-(-int(ends[-1]) // 32))
    outputs = model.predict(untuned(batches.apply(size)), verbose=0)
    starts = dict(zip(keys, starts, strict=True))
    truth, logits = np.repeat(right, counts), {"logits": outputs["logits"]}
    return scoring.ClipPredictions(truth, songs, starts, logits).decide()


def write(folder, report, records):
    """Writes `voice_report.csv`, one line for each swap, and `voice_report.png`."""
    rows = []
    for swap in report.swaps:
        row = {}
        for part, key in (("voice", swap.voice), ("band", swap.accompaniment)):
            for name in ("artist", "album", "song"):
                row[f"{part}_{name}"] = getattr(records[key], name)
        row["predicted"] = report.artists[swap.decision]
        rows.append({**row, "follows": swap.follows})
    files.write_csv(folder / "voice_report.csv", list(rows[0]), rows)
    plots.save_figure(figure(report), folder / "voice_report.png")


def figure(report):
    """Draws F1 by hearing, and what decisions follow for each singer."""
    artists = {"all": report.shares, **report.by_artist}
    with plots.style():
        drawn = plots.new_figure(12, 2.2 + 0.3 * len(artists))
        left, right = drawn.subplots(1, 2)
        places = np.arange(len(HEARINGS))
        for offset, level, title in ((-0.2, "frame", "clips"), (0.2, "song", "songs")):
            values = [report.scores[name][level] for name in HEARINGS]
            bars = left.barh(places + offset, values, 0.36, label=title)
            left.bar_label(bars, fmt="%.2f", padding=2, fontsize=8)
        left.axhspan(-0.5, 0.5, color="0.95", zorder=0)
        left.set_yticks(places, HEARINGS.values())
        left.invert_yaxis()
        left.set_xlim(0, 1.1)
        left.set_xlabel("F1")
        left.legend(loc="lower center", bbox_to_anchor=(0.5, 1), ncols=2)
        start = np.zeros(len(artists))
        for name, color in zip(FOLLOWED, _COLORS, strict=True):
            values = np.array([shares[name] for shares in artists.values()])
            right.barh(list(artists), values, left=start, color=color, label=name)
            start += values
        right.invert_yaxis()
        right.set_xlim(0, 1)
        right.set_xlabel("share of remixed songs whose decision follows")
        right.set_ylabel("singer")
        right.legend(loc="lower center", bbox_to_anchor=(0.5, 1), ncols=3)
    return drawn
