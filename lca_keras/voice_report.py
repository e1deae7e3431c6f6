"""What a model listens to: test songs heard whole, in parts, and remixed.

A model that follows the band names the band's artist whoever sings over it; one that
follows the voice names the singer whatever is played. Scores on held-out albums cannot
tell the two apart where a band goes with its singer there too.
"""

import dataclasses

import numpy as np

from lca_keras import evaluation, files, plots
from lca_keras.audio import features
from lca_keras.data.clips import cut_clips
from lca_keras.data.examples import parse_example, read_record, untuned
from lca_keras.data.extraction import STEMS
from lca_keras.errors import UserError

# How a song is heard; and whose name is then the right one, for people.
HEARINGS = {
    "mixture": "the song",
    "vocals": "its voice alone",
    "accompaniment": "its accompaniment alone",
    "other_accompaniment": "its voice over another artist's accompaniment",
    "other_voice": "its accompaniment under another artist's voice",
}
FOLLOWED = ("voice", "band", "neither")
_COLORS = ("#2166ac", "#b2182b", "#bdbdbd")


@dataclasses.dataclass(frozen=True)
class Swap:
    """A song whose voice and accompaniment are of different artists, and its decision.

    Attributes:
        voice: Key of the song whose voice it has.
        accompaniment: Key of the one whose accompaniment it has.
        singer: Class index of the voice's artist.
        band: Class index of the accompaniment's.
        decision: Class index that the model voted for.
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

    Attributes:
        artists: List of class names.
        scores: Dict from the names in `HEARINGS` to the F1 over clips and songs,
            `"frame"` and `"song"`. Right is the song's own artist: what a model that
            hears voices cannot know of `"accompaniment"` and `"other_voice"`.
        swaps: List of `Swap`; two for each song, which lends its voice once and its
            accompaniment once.
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
        sung = {index: [] for index in sorted({swap.singer for swap in self.swaps})}
        for swap in self.swaps:
            sung[swap.singer].append(swap)
        return {self.artists[index]: _shares(swaps) for index, swaps in sung.items()}

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
    """What most decisions follow, of `FOLLOWED`; `"neither"` when two are equal.

    Args:
        shares: Dict, `VoiceReport.shares`.
    """
    first = [name for name in FOLLOWED if shares[name] == max(shares.values())]
    return first[0] if len(first) == 1 else "neither"


def verdict(shares):
    """The same as a sentence for people."""
    said = {
        "voice": "It follows the voice",
        "band": "It follows the band, not the voice",
        "neither": "It follows neither the voice nor the band",
    }
    return (
        f"{said[followed(shares)]}: of songs put together from two artists, "
        f"{shares['voice']:.0%} are named after the voice, {shares['band']:.0%} after "
        f"the band, {shares['neither']:.0%} after neither."
    )


def listen(model, source, artists):
    """Lets a model hear songs in parts and remixed.

    Args:
        model: `lca_keras.models.LCAModel` that was trained on mixtures.
        source: `lca_keras.data.clips.ClipSource` of the songs, of a store with stems.
        artists: List of class names.

    Returns:
        `VoiceReport`.

    Raises:
        UserError: The store has no stems, or all songs are by one artist.
    """
    store, labels = source.store, source.labels
    if store.config.source != "stems":
        raise UserError(f"{store.folder} has no stems, which a voice report needs")
    if len(set(labels.values())) < 2:
        raise UserError("a voice report needs songs of at least two artists")
    keys = sorted(labels, key=lambda key: (labels[key], key))
    others = dict(zip(keys, _partners([labels[key] for key in keys]), strict=True))
    others = {key: keys[index] for key, index in others.items()}
    # Of each hearing the songs that lend the voice and the accompaniment, and the name.
    heard = {
        "mixture": [(key, key, key) for key in keys],
        "vocals": [(key, None, key) for key in keys],
        "accompaniment": [(None, key, key) for key in keys],
        "other_accompaniment": [(key, others[key], key) for key in keys],
        "other_voice": [(others[key], key, key) for key in keys],
    }
    reader = _Reader(store, source.clip_frames, source.melody)
    scores, swaps = {}, []
    for hearing, parts in heard.items():
        decisions = _decide(model, reader, parts, labels)
        scores[hearing] = {
            level: decisions.scores[level]["f1"] for level in ("frame", "song")
        }
        if hearing in ("other_accompaniment", "other_voice"):
            for (voice, band, _), vote in zip(parts, decisions.votes, strict=True):
                swap = Swap(voice, band, labels[voice], labels[band], int(vote))
                swaps.append(swap)
    return VoiceReport(artists, scores, swaps)


def _partners(labels):
    """For each of sorted labels the index of one that differs, as evenly as can be."""
    count = len(labels)
    # Further than any artist's songs reach; all differ unless one has half of them.
    step = max(labels.count(label) for label in set(labels))
    partners = []
    for index, label in enumerate(labels):
        partner = (index + step) % count
        if labels[partner] == label:
            other = [i for i in range(count) if labels[i] != label]
            partner = other[index % len(other)]
        partners.append(partner)
    return partners


class _Reader:
    """Clips of songs of a store, from any voice and any accompaniment."""

    def __init__(self, store, clip_frames, melody):
        self.config = store.config
        self.clip_frames = clip_frames
        self.melody = melody
        self._records = store.records
        self._places = {
            key: (path, *np.array(place, "int64"))
            for path, songs in store.locations().items()
            for key, place in songs.items()
        }

    def _read(self, key, columns):
        import tensorflow as tf

        place = tf.data.Dataset.from_tensors(self._places[key])
        (record,) = untuned(place.flat_map(read_record))
        example = parse_example(record, columns)
        if example["key"].numpy().decode() != key:
            raise UserError("index.json is not that of these shards: delete the store")
        return {name: example[name].numpy() for name in columns}

    def frames(self, voice, band):
        """Frames of what these two songs give, one of which may be `None`."""
        return min(self._records[key].frames for key in (voice, band) if key)

    def clips(self, voice, band):
        """Network inputs of their clips, float32, with a batch axis.

        A song with itself is the stored mixture, not the sum of its stems.
        """
        if voice == band:
            mel = self._read(voice, ("mel",))["mel"].astype("float32")
        else:
            power, count = 0.0, self.frames(voice, band)
            for key, column in zip((voice, band), STEMS, strict=True):
                if key:
                    levels = self._read(key, (column,))[column][:, :count]
                    power = power + features.stem_power(levels)
            mel = features.to_decibels(power, self.config)
        mel = cut_clips(mel, self.clip_frames).numpy()[..., None]
        if not self.melody:
            return mel
        from lca_keras.audio.melody import UNVOICED, contour

        # The melody is the voice's.
        bands = np.full(self.frames(voice, band), UNVOICED)
        if voice:
            bands = self._read(voice, ("melody",))["melody"][: len(bands)]
        drawn = contour(bands, self.config.mel_bins)
        melody = cut_clips(drawn, self.clip_frames).numpy()[..., None]
        return {"mel_spectrogram": mel, "melody": melody.astype("float32")}


def _decide(model, reader, parts, labels):
    """`lca_keras.evaluation.Decisions` of what (voice, accompaniment, key)s give."""
    import tensorflow as tf

    counts = [reader.frames(v, a) // reader.clip_frames for v, a, _ in parts]
    ends = np.cumsum(counts)
    groups = np.split(np.arange(ends[-1]), ends[:-1])
    songs = {key: group for (_, _, key), group in zip(parts, groups, strict=True)}
    truth = np.repeat([labels[key] for _, _, key in parts], counts)

    def clips():
        for voice, band, _ in parts:
            yield reader.clips(voice, band)

    shape = (None, reader.config.mel_bins, reader.clip_frames, 1)
    spec = tf.TensorSpec(shape, tf.float32)
    if reader.melody:
        spec = {"mel_spectrogram": spec, "melody": spec}
    batches = tf.data.Dataset.from_generator(clips, output_signature=spec)
    batches = batches.unbatch().batch(32)
    size = tf.data.experimental.assert_cardinality(-(-int(ends[-1]) // 32))
    outputs = model.predict(untuned(batches.apply(size)), verbose=0)
    logits = {"logits": outputs["logits"]}
    return evaluation.ClipPredictions(truth, songs, logits).decide()


def write(folder, report, records):
    """Writes `voice_report.csv`, one line for each swap, and `voice_report.png`."""
    rows = []
    for swap in report.swaps:
        row = []
        for key in (swap.voice, swap.accompaniment):
            song = records[key]
            row += [song.artist, song.album, song.song]
        rows.append([*row, report.artists[swap.decision], swap.follows])
    columns = [
        f"{part}_{name}"
        for part in ("voice", "band")
        for name in ("artist", "album", "song")
    ]
    columns += ["predicted", "follows"]
    files.write_csv(folder / "voice_report.csv", columns, rows)
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
        left.set_xlabel("F1, named after the song's own artist")
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
