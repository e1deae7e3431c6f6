"""What trainings without some artists make of these: rejected, enrolled, in duets."""

import dataclasses
import pathlib
import tempfile

import numpy as np
import soundfile

from lca_keras.data import catalogue, split
from lca_keras.studies.subjects import sounds, ways
from lca_keras.voices import strangers, timeline
from lca_keras.voices.detector import VOICED
from lca_keras.voices.gallery import NO_VOICE

# Songs that somebody is enrolled by.
ENROLLED_BY = 3
_DUETS = 10


def cell(laboratory, corpus, trained, everyone):
    """The arguments of `lca_keras.workflow.cells.cell` for a `Trained`.

    Args:
        laboratory: `lca_keras.studies.laboratory.Laboratory` with all songs of the
            corpus.
        corpus: `lca_keras.corpora.synthesis.SynthesisConfig`.
        trained: `Trained` without the strangers.
        everyone: `Trained` with them, of the first variant.
    """
    folder = trained.folder / "open-set"
    settings = {"training": trained.result, "everyone": everyone.result}
    return folder, settings, lambda: _measure(laboratory, corpus, trained, everyone)


def _measure(laboratory, corpus, trained, everyone):
    config, model = trained.config, trained.model()
    network, temperature = model.backbone, model.temperature
    sources, artists = laboratory.sources(
        config.replace(split={"file": everyone.config.split.file})
    )
    strange = [name for name in artists if name not in trained.artists]

    def of(part, names, **changes):
        """The songs of some artists, whose places are the labels."""
        labels = {
            key: names.index(artists[label])
            for key, label in sources[part].labels.items()
            if artists[label] in names
        }
        return dataclasses.replace(sources[part], labels=labels, **changes)

    known = {part: of(part, trained.artists) for part in sources}
    gallery, _, detector = strangers.fit(
        network, known, config.open_set.false_alarm, config.train.seed
    )
    heard = {}
    for part in sources:
        unknown = of(part, strange, hop_frames=None)
        for kind, source in (("known", known[part]), ("strange", unknown)):
            found = strangers.describe_clips(network, source, gallery.detector)
            heard[kind, part] = found
    unseen = [heard["strange", part] for part in sources]

    def shares(one):
        return strangers.shares(strangers.verdicts(gallery, one, temperature))

    told = {
        "detector": detector,
        "scores": ways.compare(heard, unseen),
        "known": shares(heard["known", "test"]),
        "strange": _mean([shares(each) for each in unseen]),
        "enrolled": _enrolled(
            gallery, heard, temperature, strange, trained, everyone, artists
        ),
    }
    with tempfile.TemporaryDirectory() as folder:
        identifier = _identifier(trained, model, gallery, folder)
        root = pathlib.Path(laboratory.source.data).parent
        songs = _test_songs(trained, corpus, root)
        about = (identifier, trained, songs, corpus.sample_rate, folder)
        told["sounds"] = _sounds(*about)
        told["duets"] = _duets(*about)
    return told


def _mean(shares):
    """Shares of several groups of songs as those of all."""
    songs = [each["songs"] for each in shares]
    found = {
        name: float(np.average([each[name] for each in shares], weights=songs))
        for name in ("unknown", "no_voice")
    }
    return {"songs": sum(songs), **found}


def _identifier(trained, model, gallery, folder):
    from lca_keras.exports.export import export_model
    from lca_keras.inference.identification import Identifier

    exported = export_model(
        model.main_branch(),
        trained.artists,
        trained.config,
        folder,
        "model",
        {},
        None,
        gallery,
    )
    return Identifier(exported, runtime="tensorflow")


# === Sounds that nobody sings, and duets ===


def _test_songs(trained, corpus, root):
    """Dict from artist to the list of `Song`s in test, of known artists."""
    songs = catalogue.load(root / "manifest.csv")
    parts = split.read_split(root / "split.csv", songs)
    tested = [song for song in songs if parts[song.key] == "test"]
    return {
        name: [song for song in tested if song.artist == name]
        for name in map(corpus.artist_name, range(corpus.artists))
        if name in trained.artists
    }


def _sounds(identifier, trained, songs, rate, folder):
    """Shares of sounds of each kind that are given no name."""
    from lca_keras.audio.decode import AudioError

    rng = np.random.default_rng(trained.config.train.seed)
    size, count = 16 * rate, sounds.SOUNDS
    songs = [song for own in songs.values() for song in own]
    chosen = rng.permutation(len(songs))[:count]
    made = {
        "white noise": [0.1 * rng.standard_normal(size) for _ in range(count)],
        "silence": [np.zeros(size)] * count,
        "a spoken voice": sounds.spoken(rng, size, rate),
        "a drum loop": sounds.drums(rng, size, rate),
        "instrumentals of known songs": [
            soundfile.read(songs[number].accompaniment_path)[0] for number in chosen
        ],
    }
    path = pathlib.Path(folder, "sound.wav")

    def is_nameless(samples):
        soundfile.write(path, samples, rate, subtype="FLOAT")
        try:
            return identifier.identify(path).singer is None
        except AudioError:  # Silence.
            return True

    return {
        kind: sum(map(is_nameless, several)) / len(several)
        for kind, several in made.items()
    }


def _duets(identifier, trained, songs, rate, folder):
    """Error rates of timelines, of singers who alternate and who overlap."""
    rng = np.random.default_rng(trained.config.train.seed)
    path = pathlib.Path(folder, "duet.wav")
    rates = {"alternating": [], "overlapping": []}
    for number in range(_DUETS):
        pair = rng.permutation(len(trained.artists))[:2]
        pair = [trained.artists[place] for place in pair]
        for kind, errors in rates.items():
            overlapping = kind == "overlapping"
            samples, turns = sounds.duet(songs, pair, overlapping, number)
            soundfile.write(path, samples, rate, subtype="FLOAT")
            said = [
                (each.start, each.end, each.label)
                for each in timeline.timeline(identifier, path)
                if each.status != NO_VOICE
            ]
            errors.append(timeline.error_rate(turns, said))
    return {kind: float(np.mean(errors)) for kind, errors in rates.items()}


# === Enrolled ===


def _enrolled(gallery, heard, temperature, strange, trained, everyone, artists):
    """F1 of strangers who are enrolled by a few songs, and what others lose.

    Nobody is unknown here, as in the training with everyone that it is compared to.

    Returns:
        Dict: `new`, mean F1 of the strangers once enrolled; `trained`, the same of the
        training with all artists; `before` and `after`, mean F1 of known singers on
        their own test songs.
    """
    rng = np.random.default_rng(trained.config.train.seed)
    songs = heard["strange", "train"]
    groups, labels = songs.predictions.songs.values(), songs.predictions.labels
    closed = extended = dataclasses.replace(gallery, threshold=-1.0)
    for number, name in enumerate(strange):
        own = [clips for clips in groups if labels[clips[0]] == number]
        prints = []
        for place in rng.permutation(len(own))[:ENROLLED_BY]:
            voiced = own[place][songs.voice[own[place]] >= VOICED]
            prints.append(songs.voiceprints[voiced].mean(axis=0))
        extended = extended.with_singer(name, prints)

    def named(gallery, one, offset=0):
        """Arrays `(songs,)`, true places of the singers and those that are said."""
        told = strangers.verdicts(gallery, one, temperature).values()
        said = [-1 if each.singer is None else each.singer for each in told]
        return one.predictions.decide().song_labels + offset, np.array(said)

    count = len(trained.artists)
    known, new = range(count), range(count, count + len(strange))
    before = named(closed, heard["known", "test"])
    after = named(extended, heard["known", "test"])
    added = named(extended, heard["strange", "test"], count)
    everybody = map(np.concatenate, zip(after, added, strict=True))
    decisions = everyone.predictions.decide()
    places = [artists.index(name) for name in strange]
    return {
        "new": _f1(*everybody, new),
        "trained": _f1(decisions.song_labels, decisions.votes, places),
        "before": _f1(*before, known),
        "after": _f1(*after, known),
    }


def _f1(truth, said, classes):
    from sklearn.metrics import f1_score

    how = {"average": "macro", "zero_division": 0}
    return float(f1_score(truth, said, labels=list(classes), **how))
