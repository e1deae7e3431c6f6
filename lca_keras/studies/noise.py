"""A cue that has nothing to do with singing: noise on one of five artists' recordings.

As in figure 1 of the LCA paper: a network may take the noise for the artist. Test
songs of the other artists that carry it show whether it did.
"""

import dataclasses
import pathlib

import numpy as np

from lca_keras.base import files
from lca_keras.base.errors import UserError
from lca_keras.corpora import bias, synthesis
from lca_keras.data import catalogue, split
from lca_keras.evaluation import scoring
from lca_keras.explanation import saliency
from lca_keras.studies import pictures, tables
from lca_keras.studies.laboratory import contents, load_predictions, save_predictions
from lca_keras.studies.results import Picture, Table

CORPUS = synthesis.SynthesisConfig(
    artists=5, albums=4, songs=8, seconds=12.1, confounding=0.0
)
VARIANTS = ("none", "lca", "remix", "remix+lca")
BAND = (3000.0, 5000.0)  # Hz.
SNR_DB = 10.0
# Test songs as a model may hear them.
HEARINGS = {
    "as in training": "noise on the one artist's songs",
    "clean": "no noise",
    "noised": "noise on the songs of all the others",
}
_MAPS = "maps.npz"


def built_in(out, settings=CORPUS, progress=None):
    """Writes five invented singers with stems; returns the manifest."""
    folder = pathlib.Path(out, "corpora", "clean")
    synthesis.write_corpus(settings, folder, stems=True, progress=progress)
    return folder / "manifest.csv"


def corpora(out, songs, root, parts_file, artist, band, snr_db, progress=None):
    """Writes two noisy copies of a corpus; those that are there are kept.

    Args:
        out: Folder of the experiment.
        songs: List of `lca_keras.data.catalogue.Song`.
        root: Folder that they are in.
        parts_file: CSV of the split.
        artist: Name of the artist whose recordings get noise.
        band: Pair of floats, Hz.
        snr_db: Float, decibels, the recording over the noise.
        progress: As for `lca_keras.corpora.bias.write_biased`.

    Returns:
        Dict from name to manifest: `"biased"`, with noise in all songs of the artist;
        and `"noised"`, test songs with noise in those of all the others.

    Raises:
        UserError: No such artist, songs that cannot be read, or copies of other
            settings.
    """
    part_of = split.read_split(parts_file, songs)
    tested = [song for song in songs if part_of[song.key] == "test"]
    others = sorted({song.artist for song in songs} - {artist})
    made = {}
    for name, chosen, artists in (
        ("biased", songs, [artist]),
        ("noised", tested, others),
    ):
        folder = pathlib.Path(out, "corpora", name)
        wanted = {
            "band": list(band),
            "snr_db": snr_db,
            "seed": 0,
            "artists": artists,
            "corpus": str(root),
        }
        made[name] = folder / "manifest.csv"
        about = folder / "bias.json"
        if about.exists():
            copied = {song.key for song in catalogue.load(made[name])}
            same = copied == {song.key for song in chosen}
            same &= "clipped" in files.read_json(about)  # Or of an earlier version.
            kept = files.read_json(about)
            if {name: kept.get(name) for name in wanted} != wanted or not same:
                raise UserError(
                    f"{folder} holds noise of other settings or songs ({about.name}): "
                    "choose another --out, or delete the folder"
                )
            continue
        # Half a copy is none: it is written aside.
        with files.atomic_path(folder) as temporary:
            settings = (artists, band, snr_db)
            left_out, _ = bias.write_biased(
                chosen, root, temporary, *settings, progress=progress
            )
            if left_out:
                path, reason = next(iter(left_out.items()))
                raise UserError(f"{path}: {reason}")
    return made


def clipping(made):
    """What noise took beyond full scale in the copies of `corpora`: sentences."""
    notes = []
    for name, manifest in made.items():
        clipped = files.read_json(manifest.with_name("bias.json"))["clipped"]
        if clipped["songs"]:
            notes.append(
                f"Noise took {clipped['songs']} songs ({name}) beyond full scale, up "
                f"to {clipped['most']:.3%} of the samples of one; these are clipped."
            )
    return notes


@dataclasses.dataclass(frozen=True)
class Listening:
    """What a training makes of test songs with the noise and without.

    Attributes:
        laboratories: Dict from the names in `HEARINGS` to a
            `lca_keras.studies.laboratory.Laboratory` whose test songs are heard so.
        artist: Name of the artist whose recordings have noise in training.
        band: Pair of floats, Hz.
    """

    laboratories: dict
    artist: str
    band: tuple[float, float]

    def cell(self, trained):
        """The arguments of `lca_keras.workflow.cells.cell` of a `Trained`."""
        folder = trained.folder / "noise"
        songs = {name: contents(self._source(name, trained)) for name in HEARINGS}
        about = {"artist": self.artist, "band": self.band, "songs": songs}
        settings = {"training": trained.result, **about}
        return folder, settings, lambda: self._listen(trained, folder)

    def _source(self, name, trained):
        return self.laboratories[name].tested(trained.config, trained.artists)

    def _listen(self, trained, folder):
        model = trained.model()
        network = model.backbone
        own = trained.artists.index(self.artist)
        silhouettes = {}
        for name in HEARINGS:
            predictions = scoring.Predictor(self._source(name, trained))(model)
            save_predictions(folder / f"{name}.npz", predictions)
            silhouettes[name] = silhouette(predictions)
        source = self._source("as in training", trained)
        clips = np.concatenate([mel for mel, _ in source.ordered(64)])
        clips = clips[source.clip_labels == own]
        cells = saliency.band_cells(source.front_end.frequencies, self.band)
        activations = ActivationShares(network, clips, np.full(len(clips), own), cells)
        maps = {"mel": clips[:1]}
        maps |= {layer: cams[:1] for layer, cams in activations.maps.items()}
        other = self._source("noised", trained)
        foreign = np.concatenate([mel for mel, _ in other.ordered(64)])[:1]
        maps["foreign_mel"] = foreign
        for layer in layers_of(network):
            cams = saliency.ClassActivation(network, layer)(foreign, [own])
            maps[f"foreign_{layer}"] = saliency.upsample(cams, *foreign.shape[1:3])
        with files.atomic_path(folder / _MAPS) as temporary:
            np.savez_compressed(temporary, **maps)
        votes = self.decisions(trained, "noised")
        foreign_songs = votes.song_labels != own
        taken = float(np.mean(votes.votes[foreign_songs] == own))
        return {
            "silhouette": silhouettes,
            "cam_in_band": activations.means,
            "without_map": activations.without_map,
            "band_of_all_cells": float(np.mean(cells)),
            "taken_for_the_artist": taken,
        }

    def decisions(self, trained, name):
        """The `Decisions` of songs heard in one of `HEARINGS`."""
        return load_predictions(trained.folder / "noise" / f"{name}.npz").decide()


def layers_of(network):
    """Layers that have maps, the last one last."""
    return list(network.map_layers())


class ActivationShares:
    """How much of a network's class activation lies on some cells.

    Args:
        network: `keras.Model` from `lca_keras.models.build_network`.
        clips: Array `(clips, mel_bins, frames, channels)`.
        classes: Int array `(clips,)`, whose activation is asked for.
        cells: Bool array `(clips, mel_bins, frames)`, or one that broadcasts to it.

    Attributes:
        maps: Dict from layer to array `(clips, mel_bins, frames)`.
        means: Dict from layer to the mean share over the clips that have a map.
        without_map: Dict from layer to the share of clips whose map is zero everywhere.
    """

    def __init__(self, network, clips, classes, cells):
        self.maps, self.means, self.without_map = {}, {}, {}
        for layer in layers_of(network):
            cams = saliency.ClassActivation(network, layer)(clips, classes)
            self.maps[layer] = cams = saliency.upsample(cams, *clips.shape[1:3])
            shares = saliency.share(cams, cells)
            empty = np.isnan(shares)
            self.means[layer] = float(
                np.mean(shares[~empty]) if any(~empty) else np.nan
            )
            self.without_map[layer] = float(empty.mean())


def without_map(found):
    """A sentence about the clips that results `found` leave out of a CAM's mean."""
    most = max((max(each["without_map"].values()) for each in found), default=0.0)
    if not most:
        return "Every clip has a map."
    return (
        "Clips whose map is zero everywhere (nothing in them speaks for the artist) "
        f"are left out of a CAM's mean: at most {most:.1%} of those of a seed."
    )


def silhouette(predictions):
    """How well artists' clips keep apart in the embedding, in [-1, 1].

    References:
        - Rousseeuw, 1987, Silhouettes
    """
    from sklearn.metrics import silhouette_score

    embeddings, labels = predictions.outputs["embedding"], predictions.labels
    return float(silhouette_score(embeddings, labels))


# === What comes of it ===


def table(listening, trained, found, seeds):
    """The `Table` of figure 1's numbers.

    Args:
        listening: `Listening`.
        trained: Dict from (variant, seed) to `Trained`.
        found: Dict from (variant, seed) to the results of `Listening.cell`.
        seeds: List of ints.
    """
    variants = list(dict.fromkeys(variant for variant, _ in trained))
    columns = ["training", *(f"F1 songs, {name}" for name in HEARINGS)]
    columns += ["noised songs: minus the first row", "taken for the noisy artist"]
    columns += ["CAM in the band, convolution / FGNL", "silhouette, clean / noised"]
    rows, records, baseline = [], [], None
    for variant in variants:
        runs = [trained[variant, seed] for seed in seeds]
        results = [found[variant, seed] for seed in seeds]
        row, record = [variant], {"variant": variant}
        for name in HEARINGS:
            decisions = [listening.decisions(run, name) for run in runs]
            scores = tables.scores_of(decisions)
            row.append(scores["songs"].describe())
            for level in ("clips", "songs"):
                record |= scores[level].record(f"{name}_{level}".replace(" ", "_"))
        lead = ""
        if baseline is None:
            baseline = scores["songs"]
        else:
            ahead = tables.Lead.of(scores["songs"], baseline)
            lead = ahead.describe()
            record |= ahead.record("noised_songs_minus_first")
        taken = tables.Plain([each["taken_for_the_artist"] for each in results])
        cams = {
            layer: tables.Plain([each["cam_in_band"][layer] for each in results])
            for layer in results[0]["cam_in_band"]
        }
        apart = {
            name: tables.Plain([each["silhouette"][name] for each in results])
            for name in ("clean", "noised")
        }
        row += [lead, taken.describe()]
        row.append(" / ".join(each.describe() for each in cams.values()))
        row.append(" / ".join(each.describe() for each in apart.values()))
        record |= taken.record("taken_for_the_artist")
        for layer, each in cams.items():
            record |= each.record(f"cam_in_band_{layer}")
        for name, each in apart.items():
            record |= each.record(f"silhouette_{name}")
        rows.append(row)
        records.append(record)
    low, high = listening.band
    even = found[variants[0], seeds[0]]["band_of_all_cells"]
    note = (
        f"Noise between {low:g} and {high:g} Hz on the songs of {listening.artist}. "
        f"{len(seeds)} seeds ({', '.join(map(str, seeds))}). {tables.READING} Other "
        "columns: mean ± half of the 95 % interval over seeds (Student's t). CAM: "
        "share of the class activation that lies in the band; spread evenly, "
        f"{even:.3f}. {without_map(found.values())}"
    )
    return Table("figure1", "Noise as a cue", columns, rows, records, note)


def claims(found, seeds):
    """What the paper's claim comes to here: sentences."""
    notes = []
    variants = list(dict.fromkeys(variant for variant, _ in found))
    for plain, ours in (("none", "lca"), ("remix", "remix+lca")):
        if not {plain, ours} <= set(variants):
            continue
        for layer in found[plain, seeds[0]]["cam_in_band"]:
            values = {
                name: np.array([found[name, s]["cam_in_band"][layer] for s in seeds])
                for name in (plain, ours)
            }
            ratios = values[ours] / values[plain]
            said = (
                "is halved"
                if np.mean(values[ours]) <= np.mean(values[plain]) / 2
                else ("is not halved")
            )
            notes.append(
                f"CAM in the band ({layer}), {ours} beside {plain}: "
                f"{values[ours].mean():.3f} and {values[plain].mean():.3f}, ratio by "
                f"seed {', '.join(f'{ratio:.2f}' for ratio in ratios)}: it {said}."
            )
    return notes


def draw(listening, trained, centres, clip_seconds, seed):
    """Two figures of one seed: the maps, and the embeddings in the plane.

    Returns:
        Dict from file name to figure, list of `Picture`, and dict from file name to its
        data: columns and rows of a CSV, or the arrays of an NPZ.
    """
    variants = list(dict.fromkeys(variant for variant, _ in trained))
    shown, panels, data = [], {}, []
    stored = {
        variant: dict(np.load(trained[variant, seed].folder / "noise" / _MAPS))
        for variant in variants
    }
    for kind, title in (
        ("", listening.artist),
        ("foreign_", "another artist"),
    ):
        for layer in ("convolution", "fgnl"):
            maps = {
                f"{variant}, {layer}": arrays[f"{kind}{layer}"][0]
                for variant, arrays in stored.items()
                if f"{kind}{layer}" in arrays
            }
            mel = stored[variants[0]][f"{kind}mel"][0, ..., 0]
            shown.append((f"{title}, with noise", mel, maps))
    artists = trained[variants[0], seed].artists
    own = artists.index(listening.artist)
    for variant in variants:
        path = trained[variant, seed].folder / "noise" / "noised.npz"
        predictions = load_predictions(path)
        plane = pictures.embed_in_plane(predictions.outputs["embedding"])
        noisy = predictions.labels != own
        panels[variant] = (plane, predictions.labels, noisy)
        data += [
            [variant, artists[label], int(ringed), f"{x:.4f}", f"{y:.4f}"]
            for label, ringed, (x, y) in zip(
                predictions.labels, noisy, plane, strict=True
            )
        ]
    figures = {
        "figure1.png": pictures.activation_maps(
            shown, clip_seconds, centres, listening.band
        ),
        "figure1_embeddings.png": pictures.planes(panels, artists, "with noise"),
    }
    listed = [
        Picture(
            "figure1.png",
            "Class activation for the artist whose recordings have noise between the "
            "dashed lines, on a test clip of that artist and of another one; seed "
            f"{seed}",
            "figure1.npz",
        ),
        Picture(
            "figure1_embeddings.png",
            "Embeddings of test clips in the plane (t-SNE), noise on all artists but "
            f"{listening.artist}; seed {seed}",
            "figure1_embeddings.csv",
        ),
    ]
    columns = ["training", "artist", "with_noise", "x", "y"]
    arrays = {
        f"{name} {kind}": array.astype("float32")
        for name, kinds in stored.items()
        for kind, array in kinds.items()
    }
    arrays["centre_frequencies"] = centres
    return (
        figures,
        listed,
        {"figure1_embeddings.csv": (columns, data), "figure1.npz": arrays},
    )
