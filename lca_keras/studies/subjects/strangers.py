"""What trainings without some artists make of these: rejected, enrolled, in duets."""

import dataclasses
import pathlib
import tempfile

import numpy as np
import soundfile

from lca_keras.base import files
from lca_keras.data import split
from lca_keras.studies.subjects import sounds, ways
from lca_keras.voices import openset, strangers, timeline

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
            found = strangers.hear(network, source, gallery.detector)
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
        about = (identifier, trained, corpus.sample_rate, root, folder)
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


def _test_songs(trained, root):
    """Dict from artist to rows of the manifest: known test songs."""
    parts, found = split.parts_by_name(root / "split.csv"), {}
    for row in files.read_csv(root / "manifest.csv"):
        key = row["artist"], row["album"], row["song"]
        if row["artist"] in trained.artists and parts[key] == "test":
            found.setdefault(row["artist"], []).append(row)
    return found


def _sounds(identifier, trained, rate, root, folder):
    """Shares of sounds of each kind that are given no name."""
    from lca_keras.audio.decode import AudioError

    rng = np.random.default_rng(trained.config.train.seed)
    size, count = 16 * rate, sounds.SOUNDS
    songs = [row for rows in _test_songs(trained, root).values() for row in rows]
    chosen = rng.permutation(len(songs))[:count]
    made = {
        "white noise": [0.1 * rng.standard_normal(size) for _ in range(count)],
        "silence": [np.zeros(size)] * count,
        "a spoken voice": sounds.spoken(rng, size, rate),
        "a drum loop": sounds.drums(rng, size, rate),
        "instrumentals of known songs": [
            soundfile.read(root / songs[number]["accompaniment_path"])[0]
            for number in chosen
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


def _duets(identifier, trained, rate, root, folder):
    """Error rates of timelines, of singers who alternate and who overlap."""
    rng = np.random.default_rng(trained.config.train.seed)
    songs, path = _test_songs(trained, root), pathlib.Path(folder, "duet.wav")
    rates = {"alternating": [], "overlapping": []}
    for number in range(_DUETS):
        pair = rng.permutation(len(trained.artists))[:2]
        pair = [trained.artists[place] for place in pair]
        for kind, errors in rates.items():
            overlapping = kind == "overlapping"
            samples, turns = sounds.duet(songs, pair, root, overlapping, number)
            soundfile.write(path, samples, rate, subtype="FLOAT")
            said = [
                (each.start, each.end, each.label)
                for each in timeline.timeline(identifier, path)
                if each.status != openset.NO_VOICE
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
    extended = dataclasses.replace(gallery, threshold=-1.0)
    keys = list(songs.predictions.songs)
    labels = songs.predictions.labels
    singer = {key: labels[clips[0]] for key, clips in songs.predictions.songs.items()}
    for number, name in enumerate(strange):
        own = [key for key in keys if singer[key] == number]
        prints = []
        for place in rng.permutation(len(own))[:ENROLLED_BY]:
            clips = songs.predictions.songs[own[place]]
            voiced = clips[songs.voice[clips] >= openset.VOICED]
            prints.append(songs.voiceprints[voiced].mean(axis=0))
        extended = extended.with_singer(name, prints)
    names = [*trained.artists, *strange]

    def named(gallery, one, offset=0):
        truth, said = [], []
        for key, verdict in strangers.verdicts(gallery, one, temperature).items():
            label = one.predictions.labels[one.predictions.songs[key][0]]
            truth.append(offset + int(label))
            said.append(-1 if verdict.singer is None else verdict.singer)
        return np.array(truth), np.array(said)

    closed = dataclasses.replace(gallery, threshold=-1.0)
    before = named(closed, heard["known", "test"])
    after = named(extended, heard["known", "test"])
    new = named(extended, heard["strange", "test"], len(trained.artists))
    truth, said = (np.concatenate(pair) for pair in zip(after, new, strict=True))
    decisions = everyone.predictions.decide()
    places = [artists.index(name) for name in names]
    full = _f1_by_class(decisions.song_labels, decisions.votes, places)
    by_class = _f1_by_class(truth, said, range(len(names)))
    count = len(trained.artists)
    return {
        "new": float(np.mean(by_class[count:])),
        "trained": float(np.mean(full[count:])),
        "before": float(np.mean(_f1_by_class(*before, range(count)))),
        "after": float(np.mean(_f1_by_class(*after, range(count)))),
    }


def _f1_by_class(truth, said, classes):
    from sklearn.metrics import f1_score

    return f1_score(truth, said, labels=list(classes), average=None, zero_division=0)
