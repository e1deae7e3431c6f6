"""Singers whom a model does not know: rejected, enrolled, and told in duets.

Built-in corpora of which some artists are left out of training. Which ones, the seed
draws.
"""

import dataclasses
import pathlib
import tempfile

import numpy as np

from lca_keras.base import files
from lca_keras.corpora import accompaniment, synthesis, voice
from lca_keras.studies import tables
from lca_keras.studies.results import Table
from lca_keras.voices import strangers, timeline
from lca_keras.voices.detector import VOICED
from lca_keras.voices.gallery import NO_VOICE, TINY, fit_gallery

CORPUS = synthesis.SynthesisConfig(artists=20, albums=6, songs=4, seconds=16.0)
STRANGERS = 5
VALUES = (0.5, 0.9)
VARIANTS = ("remix+lca", "remix+lca+aam", "remix+lca+supcon")
# Files of each kind of sound that nobody sings, or no singer.
_SOUNDS = 20
# Songs that somebody is enrolled by.
_ENROLLED_BY = 3
_DUETS, _TURN_SECONDS = 10, 8.0
_NEIGHBOURS = 10
# Of the ways to tell strangers, the one that `lca_keras.voices.gallery` has.
_CHOSEN = "voiceprint: cosine, songs whitened"


def strangers_of(corpus, seed, count=STRANGERS):
    """Names of the artists whom a draw leaves out, sorted."""
    order = np.random.default_rng(seed).permutation(corpus.artists)
    return sorted(corpus.artist_name(int(number)) for number in order[:count])


def known_of(manifest, seed, names):
    """Writes the manifest and the split of all songs but those of some artists.

    Returns:
        Their paths, beside the corpus's own manifest.
    """
    folder, written = pathlib.Path(manifest).parent, []
    for name in ("manifest.csv", "split.csv"):
        rows = [r for r in files.read_csv(folder / name) if r["artist"] not in names]
        path = folder / f"{name.removesuffix('.csv')}-without-{seed}.csv"
        files.write_csv(path, list(rows[0]), rows)
        written.append(path)
    return tuple(written)


@dataclasses.dataclass(frozen=True)
class Listening:
    """What trainings without strangers make of these.

    Attributes:
        laboratories: Dict from confounding to the
            `lca_keras.studies.laboratory.Laboratory` with all songs of its corpus.
        corpus: `lca_keras.corpora.synthesis.SynthesisConfig` of all.
    """

    laboratories: dict
    corpus: synthesis.SynthesisConfig

    def cell(self, name, trained, everyone):
        """The arguments of `lca_keras.workflow.cells.cell` for a `Trained`.

        Args:
            name: Tuple that begins with the confounding.
            trained: `Trained` without the strangers.
            everyone: `Trained` with them, of the first variant.
        """
        folder = trained.folder / "open-set"
        settings = {"training": trained.result, "everyone": everyone.result}
        return folder, settings, lambda: self._listen(name[0], trained, everyone)

    def _listen(self, value, trained, everyone):
        laboratory, config = self.laboratories[value], trained.config
        sources, artists = laboratory.sources(
            config.replace(split={"file": everyone.config.split.file})
        )
        strange = [name for name in artists if name not in trained.artists]
        places = {artists.index(name): n for n, name in enumerate(trained.artists)}

        def of(part, known):
            labels = {
                key: places.get(label, label)
                for key, label in sources[part].labels.items()
                if (label in places) == known
            }
            return dataclasses.replace(sources[part], labels=labels)

        model = trained.model()
        network, temperature = model.backbone, model.temperature
        known = {part: of(part, True) for part in sources}
        gallery, _, detector = strangers.fit(
            network, known, config.open_set.false_alarm, config.train.seed
        )
        heard = {
            ("known", part): strangers.describe_clips(network, source, gallery.detector)
            for part, source in known.items()
        }
        for part in sources:
            labels = {
                key: strange.index(artists[label])
                for key, label in of(part, False).labels.items()
            }
            source = dataclasses.replace(sources[part], labels=labels, hop_frames=None)
            found = strangers.describe_clips(network, source, gallery.detector)
            heard["strange", part] = found
        unseen = [heard["strange", part] for part in sources]
        told = {
            "detector": detector,
            "scores": compare(heard, unseen),
            "known": strangers.shares(
                strangers.verdicts(gallery, heard["known", "test"], temperature)
            ),
            "strange": _mean(
                [
                    strangers.shares(strangers.verdicts(gallery, each, temperature))
                    for each in unseen
                ]
            ),
            "enrolled": enrolled(
                gallery, heard, temperature, strange, trained, everyone, artists
            ),
        }
        with tempfile.TemporaryDirectory() as folder:
            identifier = _identifier(trained, model, gallery, folder)
            root = pathlib.Path(laboratory.source.data).parent
            told["sounds"] = self._sounds(identifier, trained, root, folder)
            told["duets"] = self._duets(identifier, trained, root, folder)
        return told

    def _test_songs(self, trained, root):
        """Dict from artist to rows of the manifest: known test songs."""
        rows = files.read_csv(root / "manifest.csv")
        parts = {
            (row["artist"], row["album"], row["song"]): row["part"]
            for row in files.read_csv(root / "split.csv")
        }
        found = {}
        for row in rows:
            key = row["artist"], row["album"], row["song"]
            if row["artist"] in trained.artists and parts[key] == "test":
                found.setdefault(row["artist"], []).append(row)
        return found

    def _sounds(self, identifier, trained, root, folder):
        """Shares of sounds of each kind that are given no name."""
        import soundfile

        from lca_keras.audio.decode import AudioError

        rng = np.random.default_rng(trained.config.train.seed)
        rate, size = self.corpus.sample_rate, int(16 * self.corpus.sample_rate)
        songs = [r for rows in self._test_songs(trained, root).values() for r in rows]
        chosen = rng.permutation(len(songs))[:_SOUNDS]
        made = {
            "white noise": [0.1 * rng.standard_normal(size) for _ in range(_SOUNDS)],
            "silence": [np.zeros(size)] * _SOUNDS,
            "a spoken voice": spoken(rng, size, rate),
            "a drum loop": drums(rng, size, rate),
            "instrumentals of known songs": [
                soundfile.read(root / songs[number]["accompaniment_path"])[0]
                for number in chosen
            ],
        }
        shares, path = {}, pathlib.Path(folder, "sound.wav")
        for kind, sounds in made.items():
            nameless = 0
            for samples in sounds:
                soundfile.write(path, samples, rate, subtype="FLOAT")
                try:
                    nameless += identifier.identify(path).singer is None
                except AudioError:  # Silence.
                    nameless += 1
            shares[kind] = nameless / len(sounds)
        return shares

    def _duets(self, identifier, trained, root, folder):
        """Error rates of timelines, of singers who alternate and who overlap."""
        import soundfile

        rng = np.random.default_rng(trained.config.train.seed)
        songs, path = self._test_songs(trained, root), pathlib.Path(folder, "duet.wav")
        rates = {"alternating": [], "overlapping": []}
        for number in range(_DUETS):
            pair = rng.permutation(len(trained.artists))[:2]
            pair = [trained.artists[place] for place in pair]
            for kind, errors in rates.items():
                samples, turns = duet(songs, pair, root, kind == "overlapping", number)
                soundfile.write(path, samples, self.corpus.sample_rate, subtype="FLOAT")
                found = timeline.timeline(identifier, path)
                said = [
                    (each.start, each.end, each.label)
                    for each in found
                    if each.status != NO_VOICE
                ]
                errors.append(timeline.error_rate(turns, said))
        return {kind: float(np.mean(errors)) for kind, errors in rates.items()}


def _mean(shares):
    """Shares of several groups of songs as those of all."""
    songs = sum(each["songs"] for each in shares)
    found = {"songs": songs}
    for name in ("unknown", "no_voice"):
        found[name] = sum(each[name] * each["songs"] for each in shares) / songs
    return found


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


# === Sounds ===


def spoken(rng, size, rate):
    """Invented speakers: short syllables, a falling pitch, no vibrato."""
    sounds, seconds = [], size / rate
    for singer in voice.draw_cast(_SOUNDS, rng):
        speaker = dataclasses.replace(
            singer,
            vibrato_cents=0.0,
            scoop_cents=0.0,
            glide=0.05,
            center_midi=singer.center_midi - 7,
        )
        notes, now = [], 0.2
        while now < seconds - 3:
            count = int(rng.integers(6, 14))
            for syllable in range(count):
                length = rng.uniform(0.1, 0.25)
                pitch = speaker.center_midi + 3 - 5 * syllable / count
                consonant = str(rng.choice(["", "s", "t", "k"]))
                vowel = int(rng.integers(5))
                pitch += 0.7 * rng.standard_normal()
                notes.append(voice.Note(now, 0.9 * length, pitch, vowel, consonant))
                now += length
            now += rng.uniform(0.2, 0.6)
        sounds.append(0.05 * voice.sing(speaker, notes, size, rate, rng)[0])
    return sounds


def drums(rng, size, rate):
    """Drum loops of invented bands."""
    return [
        0.05
        * accompaniment.play_drums(accompaniment.Style.draw(rng), 110, size, rate, rng)
        for _ in range(_SOUNDS)
    ]


def duet(songs, pair, root, overlapping, seed):
    """Two singers who take turns over one band, by their test songs' stems.

    Args:
        songs: Dict from artist to rows of the manifest.
        pair: Two artists.
        root: Folder of the corpus.
        overlapping: Whether each turn begins half a turn early, while the other one
            still sings.
        seed: Int, chooses the songs.

    Returns:
        Samples, and list of tuples of start, end (seconds) and artist.
    """
    import soundfile

    rng = np.random.default_rng(seed)
    chosen = [songs[name][int(rng.integers(len(songs[name])))] for name in pair]
    stems = []
    for row in chosen:
        read = [
            soundfile.read(root / row[f"{stem}_path"], dtype="float32")
            for stem in ("vocals", "accompaniment")
        ]
        rate = read[0][1]
        stems.append([samples for samples, _ in read])
    # Voices over one band, each as loud over it as over its own.
    band = stems[0][1]
    level = np.sqrt(np.mean(band**2) / np.mean(stems[1][1] ** 2))
    voices = [stems[0][0], stems[1][0] * level]
    size = min(map(len, (band, *voices)))
    band, voices = np.tile(band[:size], 2), [np.tile(v[:size], 2) for v in voices]
    turn = int(_TURN_SECONDS * rate)
    samples, turns = band.copy(), []
    early = turn // 2 if overlapping else 0
    for number, start in enumerate(range(0, len(band), turn)):
        begin, end = max(0, start - early), min(start + turn, len(band))
        samples[begin:end] += voices[number % 2][begin:end]
        turns.append((begin / rate, end / rate, pair[number % 2]))
    return 0.7 * samples / np.abs(samples).max(), turns


# === Scores ===


def compare(heard, unseen):
    """AUROC of ways to tell strangers, over songs and clips.

    Args:
        heard: Dict from (`"known"`, part) to
            `lca_keras.voices.strangers.DescribedClips`.
        unseen: List of `DescribedClips` of strangers.

    Returns:
        Dict from name to a dict with `songs` and `clips`.
    """
    from sklearn.metrics import roc_auc_score

    train, validation = heard["known", "train"], heard["known", "validation"]
    found = {}
    for name, score in candidates(train, validation).items():
        scores = {"songs": ([], []), "clips": ([], [])}
        for strange, each in enumerate([[heard["known", "test"]], unseen]):
            for one in each:
                of_clips, of_songs = score(one)
                scores["clips"][strange].extend(of_clips)
                scores["songs"][strange].extend(of_songs)
        found[name] = {
            level: float(
                roc_auc_score(
                    np.repeat([1, 0], [len(known), len(strange)]), known + strange
                )
            )
            for level, (known, strange) in scores.items()
        }
    return found


def candidates(train, validation):
    """Dict from name to a function of `DescribedClips`: scores of clips and songs.

    Higher ones are of known singers.
    """
    from scipy.special import logsumexp
    from sklearn.covariance import LedoitWolf
    from sklearn.neighbors import NearestNeighbors

    labels = train.predictions.labels

    def songs_of(one):
        return list(one.predictions.songs.values())

    def probability(one):
        values = one.predictions.decide().probabilities
        means = [values[clips].mean(axis=0).max() for clips in songs_of(one)]
        return values.max(axis=1), means

    def votes(one):
        values = one.predictions.decide().probabilities
        shares = []
        for clips in songs_of(one):
            counts = np.bincount(values[clips].argmax(axis=1))
            shares.append(counts.max() / len(clips))
        return values.max(axis=1), shares

    def energy(one):
        values = logsumexp(one.predictions.outputs["logits"], axis=1)
        return values, [values[clips].mean() for clips in songs_of(one)]

    found = {
        "maximum probability": probability,
        "share of the votes": votes,
        "energy": energy,
    }
    layers = {"embedding": "embedding", "voiceprint": "voiceprint"}
    for layer, output in layers.items():

        def values_of(one, output=output):
            return one.predictions.outputs[output]

        own = values_of(train)
        center, spread = own.mean(axis=0), own.std(axis=0).clip(1e-6)
        means = np.stack([own[labels == n].mean(axis=0) for n in np.unique(labels)])
        precision = LedoitWolf().fit((own - means[labels]) / spread).precision_
        index = NearestNeighbors(n_neighbors=_NEIGHBOURS).fit((own - center) / spread)

        def both(one, measure, values_of=values_of):
            values = values_of(one)
            songs = np.stack([values[c].mean(axis=0) for c in songs_of(one)])
            return measure(values), measure(songs)

        def cosine(values, center=center, means=means):
            return (_unit(values - center) @ _unit(means - center).T).max(axis=1)

        def mahalanobis(values, means=means, precision=precision, spread=spread):
            apart = (values[:, None] - means) / spread
            return -np.einsum("nci,ij,ncj->nc", apart, precision, apart).min(axis=1)

        def nearest(values, index=index, center=center, spread=spread):
            return -index.kneighbors((values - center) / spread)[0].mean(axis=1)

        false_alarm = 0.05
        gallery, _ = fit_gallery(
            (own, labels),
            (values_of(validation), validation.predictions.labels),
            validation.songs,
            false_alarm,
        )

        def whitened(values, gallery=gallery):
            return gallery.similarities(values).max(axis=1)

        for name, measure in (
            ("cosine to the nearest mean", cosine),
            ("Mahalanobis distance", mahalanobis),
            (f"{_NEIGHBOURS} nearest clips", nearest),
            ("cosine, songs whitened", whitened),
        ):
            found[f"{layer}: {name}"] = lambda one, m=measure, b=both: b(one, m)
    return found


def _unit(values):
    length = np.linalg.norm(values, axis=-1, keepdims=True)
    return values / np.maximum(length, TINY)


# === Enrolled ===


def enrolled(gallery, heard, temperature, strange, trained, everyone, artists):
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
        for place in rng.permutation(len(own))[:_ENROLLED_BY]:
            clips = songs.predictions.songs[own[place]]
            voiced = clips[songs.voice[clips] >= VOICED]
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


# === Tables ===


def table(found, seeds):
    """The `Table` of all trainings.

    Args:
        found: Dict from (confounding, variant, seed) to the results of
            `Listening.cell`.
        seeds: List of ints.
    """
    columns = ["confounding", "training", "AUROC songs", "clips"]
    columns += ["known songs rejected", "strangers' songs rejected"]
    columns += ["not named, least of five kinds of sound"]
    columns += ["enrolled: F1", "trained: F1", "others, before / after"]
    columns += ["duets, error: alternating / overlapping"]
    rows, records = [], []
    for value, variant in dict.fromkeys(name[:2] for name in found):
        results = [found[value, variant, seed] for seed in seeds]
        scores = [each["scores"][_CHOSEN] for each in results]
        numbers = {
            "auroc_songs": [each["songs"] for each in scores],
            "auroc_clips": [each["clips"] for each in scores],
            "known_rejected": [each["known"]["unknown"] for each in results],
            "strange_rejected": [each["strange"]["unknown"] for each in results],
            "sounds": [min(each["sounds"].values()) for each in results],
            "enrolled": [each["enrolled"]["new"] for each in results],
            "trained": [each["enrolled"]["trained"] for each in results],
            "before": [each["enrolled"]["before"] for each in results],
            "after": [each["enrolled"]["after"] for each in results],
            "alternating": [each["duets"]["alternating"] for each in results],
            "overlapping": [each["duets"]["overlapping"] for each in results],
        }
        for kind in results[0]["sounds"]:
            numbers[f"not named: {kind}"] = [each["sounds"][kind] for each in results]
        plain = {name: tables.Plain(values) for name, values in numbers.items()}
        said = {name: _values(each.values) for name, each in plain.items()}
        rows.append(
            [
                f"{value:g}",
                variant,
                *(said[name] for name in list(numbers)[:7]),
                f"{said['before']} / {said['after']}",
                f"{said['alternating']} / {said['overlapping']}",
            ]
        )
        record = {"confounding": value, "variant": variant}
        for name, each in plain.items():
            record |= each.record(name)
        records.append(record)
    note = (
        f"Mean, least and most over {len(seeds)} draws ({', '.join(map(str, seeds))}). "
        f"Enrolled by {_ENROLLED_BY} songs, without training; F1 of the strangers' "
        "test songs, macro; trained: by a training of the first kind that knows them."
    )
    return Table("openset", "Nobody of these", columns, rows, records, note)


def table_of_scores(found, seeds):
    """The `Table` of the ways to tell strangers."""
    groups = list(dict.fromkeys(name[:2] for name in found))
    columns = ["score"]
    for value, variant in groups:
        columns.append(f"{variant}, confounding {value:g}: AUROC songs / clips")
    first = next(iter(found.values()))["scores"]
    rows, records = [], []
    for name in first:
        row, record = [name], {"score": name}
        for value, variant in groups:
            cell = []
            for level in ("songs", "clips"):
                values = [
                    found[value, variant, seed]["scores"][name][level] for seed in seeds
                ]
                cell.append(_values(values))
                key = f"{variant}_{value:g}_{level}"
                record |= tables.Plain(values).record(key)
            row.append(" / ".join(cell))
        rows.append(row)
        records.append(record)
    note = f"Mean, least and most over {len(seeds)} draws."
    return Table(
        "openset_scores", "Ways to tell strangers", columns, rows, records, note
    )


def _values(values):
    """Mean, least and most for people."""
    return f"{np.mean(values):.3f} [{min(values):.3f}, {max(values):.3f}]"
