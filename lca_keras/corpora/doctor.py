"""What would spoil an experiment in a corpus, found before anybody trains on it.

Errors are songs that cannot be used, the same recording on two albums (it leaks from
training into test), and artists with too few albums. Warnings are for people to judge.
"""

import collections
import dataclasses
import functools
import os
import runpy
import unicodedata

import numpy as np

from lca_keras.base import processes
from lca_keras.corpora.examination import Examination, copies, examine, groups
from lca_keras.data.split import PARTS

ERROR, WARNING = "error", "warning"

_USUAL_RATES = (
    *(8000, 11025, 16000, 22050, 24000, 32000, 44100, 48000),
    *(88200, 96000, 176400, 192000),
)
# Below this rate the upper mel bands are empty: the rate, not the voice, is learned.
_LOW_RATE = 16000
# Share of clipped samples that is worth a word.
_CLIPPED_SHARE = 1e-4
# A trait that more than this share of an artist's songs have, and less than _RARE of
# other artists', tells the artist.
_MOST = 0.9
# A rate that fewer songs than this share have is worth a word.
_RARE = 0.1
# Hours of the artist with most over the one with least.
_IMBALANCE = 3.0
# Songs whose landmarks fit into memory all at once, with what is compared of them about
# 1 GiB.
_SONGS_IN_MEMORY = 1000


@dataclasses.dataclass(frozen=True)
class Finding:
    """Something found in a corpus."""

    severity: str  # ERROR or WARNING.
    kind: str  # In a word or two.
    where: str  # Song, album or artist.
    path: str  # Of an audio file, or empty.
    message: str

    @classmethod
    def of_song(cls, song, severity, kind, message):
        """A finding about a `lca_keras.data.catalogue.Song`."""
        return cls(severity, kind, song.label, str(song.path), message)


def diagnose(songs, examinations, clip_seconds):
    """Draws the conclusions: a list of `Finding`, errors first."""
    examined = list(zip(songs, examinations, strict=True))
    found = [each for pair in examined for each in _of_song(*pair, clip_seconds)]
    usable = [
        (song, about)
        for song, about in examined
        if not about.problem and min(about.seconds, about.sound) >= clip_seconds
    ]
    for conclude in (_rates, _traits, _levels, _duplicates):
        found += conclude(usable)
    found += [*_artists(songs, usable), *_look_alikes(songs)]
    return sorted(found, key=lambda f: (f.severity != ERROR, f.kind, f.where))


def _of_song(song, examined, clip_seconds):
    """What is wrong with one song by itself."""
    finding = functools.partial(Finding.of_song, song)
    if examined.problem:
        kind = "silent" if "silent" in examined.problem else "unreadable"
        yield finding(ERROR, kind, examined.problem)
        return
    needs = f"a clip needs {clip_seconds:.3f} s"
    if examined.seconds < clip_seconds:
        yield finding(ERROR, "too short", f"lasts {examined.seconds:.3f} s, {needs}")
    elif examined.sound < clip_seconds:
        message = f"{examined.sound:.3f} s without its silence, {needs}"
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
    usual = max(counts, key=counts.get, default=None)
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
            yield Finding.of_song(song, WARNING, "odd rate", message)
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


def _traits(usable):
    """What all of an artist's recordings have, and hardly another's: learned first."""
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
        totals = collections.Counter(trait(*pair) for pair in usable)
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


def _levels(usable):
    """Artists whose recordings are all louder, or softer, than all others'."""
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
    songs = [song for song, _ in usable]
    pairs, passages = copies([examined for _, examined in usable])
    for indices, seconds in groups(passages):
        first, *rest = (songs[index] for index in indices)
        others = ", ".join(song.label for song in rest[:4])
        if len(rest) > 4:
            others += f" and {len(rest) - 4} more"
        message = (
            f"shares a passage of about {seconds:.0f} s with {others}. A "
            "jingle, a sample, or one recording cut into another? In two parts of a "
            "split it is known before it is tested"
        )
        yield Finding.of_song(first, WARNING, "shared passage", message)
    for (first, second), what in pairs.items():
        one, other = songs[first], songs[second]
        if one.artist != other.artist:
            severity, kind = ERROR, "duplicate across artists"
        elif one.album != other.album:
            severity, kind = ERROR, "duplicate across albums"
        else:
            severity, kind = WARNING, "duplicate in album"
        message = f"{what} as {other.label} ({other.path})"
        yield Finding.of_song(one, severity, kind, message)


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


def run(corpus, clip_seconds, jobs=None, progress=None):
    """Examines a `DataSource`: returns a summary (dict), and a list of `Finding`.

    Songs shorter than `clip_seconds` give no clip; `jobs` and `progress` are those of
    `lca_keras.base.processes.spread`.
    """
    left_out = {}
    songs = corpus.songs(left_out)
    work = functools.partial(examine, keep_every=1 + len(songs) // _SONGS_IN_MEMORY)
    died = Examination(problem=processes.DIED)
    calls = [(song.path,) for song in songs]
    examinations = processes.spread(work, calls, jobs, progress, died)
    findings = diagnose(songs, examinations, clip_seconds)
    findings += [
        Finding(WARNING, "left out", os.path.basename(path), path, reason)
        for path, reason in left_out.items()
    ]
    by_artist = collections.defaultdict(list)
    for song, examined in zip(songs, examinations, strict=True):
        by_artist[song.artist].append((song.album, examined.seconds))
    artists = {
        artist: {
            "albums": len({album for album, _ in own}),
            "songs": len(own),
            "hours": _hours(seconds for _, seconds in own),
        }
        for artist, own in by_artist.items()
    }
    summary = {
        "corpus": os.fspath(corpus.data),
        "songs": len(songs),
        "left_out": len(left_out),
        "hours": _hours(examined.seconds for examined in examinations),
        "rates": dict(collections.Counter(e.rate for e in examinations if e.rate)),
        "artists": artists,
        "errors": sum(f.severity == ERROR for f in findings),
        "warnings": sum(f.severity == WARNING for f in findings),
    }
    return summary, findings


def _hours(seconds):
    return round(sum(seconds) / 3600, 4)


if __name__ == "__main__":  # The command has moved up.
    runpy.run_module("lca_keras.doctor", run_name="__main__")
