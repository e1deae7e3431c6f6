"""Finds what would spoil an experiment in a corpus, before anybody trains on it.

`python -m lca_keras.corpora.doctor PATH` decodes every song, prints what a careful
colleague would find, and writes it as JSON. The exit code is 1 if there are errors:
songs that cannot be used, the same recording on two albums (it leaks from training
into test), artists with too few albums. Warnings are for people to judge.
"""

import collections
import dataclasses
import functools
import hashlib
import os
import runpy
import unicodedata

import numpy as np

from lca_keras.audio import fingerprint
from lca_keras.audio.decode import (
    CANCELLED,
    AudioError,
    Sound,
    SoundCheck,
    read_blocks,
    resampled,
)
from lca_keras.base import processes
from lca_keras.base.config import Config
from lca_keras.data.split import PARTS
from lca_keras.features import silence

ERROR, WARNING = "error", "warning"

_USUAL_RATES = (
    *(8000, 11025, 16000, 22050, 24000, 32000, 44100, 48000),
    *(88200, 96000, 176400, 192000),
)
# Below this rate the upper mel bands are empty: the rate, not the voice, is learned.
_LOW_RATE = 16000
# Share of samples at full scale, in runs, that makes a recording clipped.
_FULL_SCALE, _CLIPPED_SHARE, _RUN = 0.999, 1e-4, 3
# A trait that more than this share of an artist's songs have, and less than _RARE of
# other artists', tells the artist.
_MOST = 0.9
# A rate that fewer songs than this share have is worth a word.
_RARE = 0.1
# Hours of the artist with most over the one with least.
_IMBALANCE = 3.0
# Findings of a kind that are shown.
_SHOWN = 20
# Songs whose landmarks fit into memory all at once, with what is compared of them about
# 1 GiB.
_SONGS_IN_MEMORY = 1000
# What two recordings share of the shorter one, to be the same and not to share a
# passage, a jingle say.
_SAME_SHARE = 0.5
# Copies that differ less in speed are of one speed.
_ONE_SPEED = 0.003


@dataclasses.dataclass(frozen=True)
class Finding:
    """Something found in a corpus.

    Attributes:
        severity: `"error"` or `"warning"`.
        kind: What it is, in a word or two.
        where: Song, album or artist.
        path: Audio file, or empty.
        message: What is wrong.
    """

    severity: str
    kind: str
    where: str
    path: str
    message: str


@dataclasses.dataclass(frozen=True)
class Examination:
    """What was measured of one song.

    Attributes:
        problem: Why it cannot be decoded, or empty.
        notes: Sentences about sound that may be missing.
        seconds: Length.
        sound: Seconds that are left of it without its silence, as for clips.
        rate: Samples per second in the file.
        channels: Channels in the file.
        clipped: Share of samples that are clipped.
        level: Root mean square of all channels, decibels of full scale.
        same_channels: Whether it is mono, stored as two or more equal channels.
        silent_channels: Whether some but not all channels are silent.
        content_hash: Hash of the decoded samples.
        landmarks: What `lca_keras.audio.fingerprint.fingerprint` gave.
    """

    problem: str = ""
    notes: tuple[str, ...] = ()
    seconds: float = 0.0
    sound: float = 0.0
    rate: int = 0
    channels: int = 0
    clipped: float = 0.0
    level: float = 0.0
    same_channels: bool = False
    silent_channels: bool = False
    content_hash: str = ""
    landmarks: tuple | None = None


def examine(path, keep_every=1):
    """Decodes a song and measures what can be told from it alone; an `Examination`.

    `keep_every` is that of `lca_keras.audio.fingerprint.fingerprint`.
    """
    gauge, notes = _Gauge(), []
    try:
        mono = gauge.watch(read_blocks(path, notes))
        samples = [*resampled(mono, fingerprint.SAMPLE_RATE)]
        gauge.check.finish()
        if gauge.mono_energy < CANCELLED * gauge.energy.mean():
            notes.append("its channels cancel out: the first of them is heard alone")
            first = ((rate, block[:, 0]) for rate, block in read_blocks(path, []))
            samples = [*resampled(first, fingerprint.SAMPLE_RATE)]
    except AudioError as error:
        return Examination(problem=str(error))
    samples = np.concatenate(samples)
    channels = len(gauge.energy)
    silent = gauge.energy < 1e-6 * gauge.energy.max()
    return Examination(
        notes=tuple(notes),
        seconds=gauge.seconds,
        sound=_sound(samples, gauge.seconds),
        rate=gauge.rate,
        channels=channels,
        clipped=gauge.clipped / gauge.size,
        level=float(10 * np.log10(gauge.energy.sum() / gauge.size + 1e-12)),
        same_channels=channels > 1 and gauge.difference < 1e-6 * gauge.energy.sum(),
        silent_channels=bool(silent.any()),
        content_hash=gauge.digest.hexdigest()[:32],
        landmarks=fingerprint.fingerprint(samples, keep_every),
    )


def _sound(samples, seconds):
    """Seconds of a recording without its silence; heard at the fingerprint's rate."""
    sound = Sound.of(samples, fingerprint.SAMPLE_RATE)
    passages = silence.passages(sound, Config().front_end.range_db)
    left_out = sound.seconds - silence.seconds(passages)
    # Less than a block is no silence.
    return seconds if left_out < silence.BLOCK_SECONDS else seconds - left_out


class _Gauge:
    """Measures a recording while it is decoded, piece by piece."""

    def __init__(self):
        self.check = SoundCheck()
        self.digest = hashlib.sha256()
        self.rate, self.seconds = 0, 0.0
        self.size, self.clipped = 0, 0
        self.energy, self.mono_energy = np.zeros(0), 0.0
        self.difference = 0.0

    def watch(self, blocks):
        """Yields the blocks of `read_blocks` as mono."""
        for rate, block in blocks:
            mono = block.mean(axis=1)
            self.check.add(block)
            self.mono_energy += np.sum(np.square(mono, dtype="float64"))
            self.digest.update(block.tobytes())
            self.rate = self.rate or rate
            self.seconds += len(block) / rate
            self.size += block.size
            self.clipped += _count_clipped(block)
            energy = np.sum(np.square(block, dtype="float64"), axis=0)
            # Of files that were joined, the channels that all of them have.
            count = min(len(energy), len(self.energy) or len(energy))
            before = self.energy[:count] if len(self.energy) else 0.0
            self.energy = before + energy[:count]
            self.difference += np.sum(np.square(block - block[:, :1], dtype="float64"))
            yield rate, mono


def _count_clipped(block):
    """Samples at full scale that are part of a run."""
    high = np.abs(block) >= _FULL_SCALE
    run = high.copy()
    for step in range(1, _RUN):
        run[step:] &= high[:-step]
    return int(run[_RUN - 1 :].sum())


def diagnose(songs, examinations, clip_seconds):
    """Draws the conclusions: a list of `Finding`, errors first.

    `songs` and `examinations` are in the same order; songs shorter than
    `clip_seconds` give no clip.
    """
    found = [
        finding
        for song, examined in zip(songs, examinations, strict=True)
        for finding in _of_song(song, examined, clip_seconds)
    ]
    usable = [
        (song, examined)
        for song, examined in zip(songs, examinations, strict=True)
        if not examined.problem
        and min(examined.seconds, examined.sound) >= clip_seconds
    ]
    found += _rates(usable)
    found += _tell_artist(usable)
    found += _duplicates(usable)
    found += _artists(songs, usable)
    found += _look_alikes(songs)
    return sorted(found, key=lambda f: (f.severity != ERROR, f.kind, f.where))


def _of_song(song, examined, clip_seconds):
    """What is wrong with one song by itself."""

    def finding(severity, kind, message):
        return Finding(severity, kind, song.label, str(song.path), message)

    if examined.problem:
        kind = "silent" if "silent" in examined.problem else "unreadable"
        yield finding(ERROR, kind, examined.problem)
        return
    if examined.seconds < clip_seconds:
        message = f"lasts {examined.seconds:.3f} s, a clip needs {clip_seconds:.3f} s"
        yield finding(ERROR, "too short", message)
    elif examined.sound < clip_seconds:
        message = (
            f"{examined.sound:.3f} s without its silence, a clip needs "
            f"{clip_seconds:.3f} s"
        )
        yield finding(ERROR, "too short", message)
    for note in examined.notes:
        yield finding(WARNING, "not whole", note)
    if examined.clipped > _CLIPPED_SHARE:
        message = f"{examined.clipped:.2%} of its samples are clipped"
        yield finding(WARNING, "clipped", message)
    if examined.same_channels:
        message = f"mono, stored as {examined.channels} equal channels"
        yield finding(WARNING, "mono as stereo", message)
    if examined.silent_channels:
        yield finding(WARNING, "silent channel", "a channel of it is silent")


def _rates(usable):
    """Songs whose sample rate sets them apart."""
    counts = collections.Counter(examined.rate for _, examined in usable)
    if not counts:
        return
    usual = counts.most_common(1)[0][0]
    for song, examined in usable:
        rate = examined.rate
        reasons = []
        if rate not in _USUAL_RATES:
            reasons.append("an unusual rate")
        if rate < _LOW_RATE:
            reasons.append(f"no sound above {rate // 2} Hz")
        if rate != usual and counts[rate] < _RARE * len(usable):
            reasons.append(f"most songs have {usual} Hz")
        if reasons:
            message = f"{rate} Hz: {', '.join(reasons)}"
            yield Finding(WARNING, "odd rate", song.label, str(song.path), message)
    by_artist = collections.defaultdict(list)
    for song, examined in usable:
        by_artist[song.artist].append(examined.rate < _LOW_RATE)
    low = sorted(a for a, flags in by_artist.items() if np.mean(flags) > 0.5)
    if low and len(low) < len(by_artist):
        message = (
            f"most recordings have less than {_LOW_RATE} Hz, those of other artists "
            "have not: the missing treble tells the artist"
        )
        for artist in low:
            yield Finding(ERROR, "rate tells artist", artist, "", message)


def _tell_artist(usable):
    """What all of an artist's recordings have, and hardly another's.

    A network that is asked to tell artists apart learns that, before any voice.
    """
    traits = {
        "format": lambda song, examined: song.path.suffix.lower().lstrip("."),
        "rate": lambda song, examined: f"{examined.rate} Hz",
        "channels": lambda song, examined: (
            "mono"
            if examined.channels == 1 or examined.same_channels
            else f"{examined.channels} channels"
        ),
    }
    songs = collections.Counter(song.artist for song, _ in usable)
    # Of these more is to be said: `_rates`.
    low = {f"{e.rate} Hz" for _, e in usable if e.rate < _LOW_RATE}
    for name, trait in traits.items():
        having = collections.Counter((s.artist, trait(s, e)) for s, e in usable)
        totals = collections.Counter()
        for (_, value), number in having.items():
            totals[value] += number
        for (artist, value), number in sorted(having.items()):
            others = len(usable) - songs[artist]
            if value in low:
                continue
            own = number / songs[artist]
            elsewhere = (totals[value] - number) / others if others else 1.0
            if own >= _MOST and elsewhere <= _RARE:
                message = (
                    f"{own:.0%} of the recordings are {value}, of other artists' "
                    f"{elsewhere:.0%}: it tells the artist. Bring all songs to one "
                    f"{name}"
                )
                yield Finding(WARNING, f"{name} tells artist", artist, "", message)
    levels = collections.defaultdict(list)
    for song, examined in usable:
        levels[song.artist].append(examined.level)
    for artist, own in sorted(levels.items()):
        others = [x for name, them in levels.items() if name != artist for x in them]
        if len(own) < len(PARTS) or not others:
            continue
        if min(own) > max(others) or max(own) < min(others):
            message = (
                f"{np.mean(own):.0f} dB of full scale on average, other artists "
                f"{np.mean(others):.0f} dB, without overlap: it tells the artist to "
                "features of --level none"
            )
            yield Finding(WARNING, "loudness tells artist", artist, "", message)


def _duplicates(usable):
    """The same recording more than once."""
    pairs = {}
    same = collections.defaultdict(list)
    for index, (_, examined) in enumerate(usable):
        same[examined.content_hash].append(index)
    for indices in same.values():
        for second in indices[1:]:
            pairs[indices[0], second] = "the same samples"
    landmarks = [examined.landmarks for _, examined in usable]
    passages = []
    for match in fingerprint.find_same(landmarks):
        pair = match.first, match.second
        hashes = {usable[index][1].content_hash for index in pair}
        if match.share < _SAME_SHARE:
            passages.append(match)
        elif len(hashes) > 1:
            pairs[pair] = f"the same recording (similarity {match.similarity:.2f})"
            if abs(change := match.speed - 1) > _ONE_SPEED:
                faster = "slower" if change > 0 else "faster"
                pairs[pair] += f", {abs(change):.1%} {faster},"
    yield from _shared_passages(usable, passages)
    for (first, second), what in pairs.items():
        one, other = usable[first][0], usable[second][0]
        if one.artist != other.artist:
            severity, kind = ERROR, "duplicate across artists"
        elif one.album != other.album:
            severity, kind = ERROR, "duplicate across albums"
        else:
            severity, kind = WARNING, "duplicate in album"
        message = f"{what} as {other.label} ({other.path})"
        yield Finding(severity, kind, one.label, str(one.path), message)


def _shared_passages(usable, matches):
    """Groups of songs that have a passage in common, which is not the whole song."""
    import scipy.sparse

    if not matches:
        return
    ends = tuple(zip(*((m.first, m.second) for m in matches), strict=True))
    size = len(usable)
    graph = scipy.sparse.coo_array((np.ones(len(matches)), ends), (size, size))
    _, group_of = scipy.sparse.csgraph.connected_components(graph, directed=False)
    for group in np.unique(group_of[list(ends[0])]):
        songs = [usable[index][0] for index in np.flatnonzero(group_of == group)]
        seconds = [m.seconds for m in matches if group_of[m.first] == group]
        others = ", ".join(song.label for song in songs[1:5])
        if len(songs) > 5:
            others += f" and {len(songs) - 5} more"
        message = (
            f"shares a passage of about {np.median(seconds):.0f} s with {others}. A "
            "jingle, a sample, or one recording cut into another? In two parts of a "
            "split it is known before it is tested"
        )
        first = songs[0]
        yield Finding(WARNING, "shared passage", first.label, str(first.path), message)


def _look_alikes(songs):
    """Artists whose names differ in letter case, punctuation or the like."""
    forms = collections.defaultdict(set)
    for song in songs:
        plain = unicodedata.normalize("NFKD", song.artist).casefold()
        letters = "".join(c for c in plain.removeprefix("the ") if c.isalnum())
        forms[letters or plain].add(song.artist)
    for names in forms.values():
        first, *others = sorted(names)
        if others:
            message = (
                f"looks like {', '.join(map(repr, others))}: if these are one artist, "
                "give all of the songs one name"
            )
            yield Finding(WARNING, "look-alike artists", first, "", message)


def _artists(songs, usable):
    """Artists with too few albums, and unequal shares."""
    artists = sorted({song.artist for song in songs})
    if len(artists) < 2:
        message = "the only artist: telling singers apart needs two"
        yield Finding(ERROR, "one artist", artists[0], "", message)
    albums, seconds = collections.defaultdict(set), collections.Counter()
    count = collections.Counter(song.artist for song, _ in usable)
    for song, examined in usable:
        albums[song.artist].add(song.album)
        seconds[song.artist] += examined.seconds
    for artist in artists:
        if len(albums[artist]) < len(PARTS):
            # A split by song needs one for each part, too.
            by_song = ", or use --split song" if count[artist] >= len(PARTS) else ""
            message = (
                f"{len(albums[artist])} albums with usable songs; the album split "
                f"needs {len(PARTS)}. Add albums or leave the artist out{by_song}."
            )
            yield Finding(ERROR, "too few albums", artist, "", message)
    if len(seconds) > 1:
        (most, longest), *_, (least, shortest) = seconds.most_common()
        if longest > _IMBALANCE * shortest:
            message = (
                f"{longest / 60:.1f} min of {most}, {shortest / 60:.1f} min of "
                f"{least}: accuracy will favour the former; read the macro F1"
            )
            yield Finding(WARNING, "imbalance", most, "", message)


def run(source, clip_seconds, jobs=None, progress=None):
    """Examines a corpus, a `lca_keras.data.corpus.DataSource`.

    `clip_seconds` is the length below which a song gives no clip; `jobs` and
    `progress` are those of `lca_keras.base.processes.spread`.

    Returns:
        Tuple of a summary (dict), and a list of `Finding`.

    Raises:
        UserError: Nothing there, no audio in it, or a manifest that is wrong.
    """
    left_out = {}
    songs = source.songs(left_out)
    work = functools.partial(examine, keep_every=1 + len(songs) // _SONGS_IN_MEMORY)
    calls = [(song.path,) for song in songs]
    examinations = processes.spread(work, calls, jobs, progress)
    findings = [
        Finding(WARNING, "left out", os.path.basename(path), path, reason)
        for path, reason in left_out.items()
    ]
    findings = diagnose(songs, examinations, clip_seconds) + findings
    by_artist = collections.defaultdict(lambda: {"albums": set(), "songs": 0, "s": 0.0})
    for song, examined in zip(songs, examinations, strict=True):
        entry = by_artist[song.artist]
        entry["albums"].add(song.album)
        entry["songs"] += 1
        entry["s"] += examined.seconds
    artists = {
        artist: {
            "albums": len(entry["albums"]),
            "songs": entry["songs"],
            "hours": round(entry["s"] / 3600, 4),
        }
        for artist, entry in by_artist.items()
    }
    summary = {
        "corpus": os.fspath(source.data),
        "songs": len(songs),
        "left_out": len(left_out),
        "hours": round(sum(e.seconds for e in examinations) / 3600, 4),
        "rates": dict(collections.Counter(e.rate for e in examinations if e.rate)),
        "artists": artists,
        "errors": sum(f.severity == ERROR for f in findings),
        "warnings": sum(f.severity == WARNING for f in findings),
    }
    return summary, findings


if __name__ == "__main__":  # The command has moved up.
    runpy.run_module("lca_keras.doctor", run_name="__main__")
