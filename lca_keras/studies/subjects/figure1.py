"""A cue that has nothing to do with singing: noise on one of five artists' recordings.

As in figure 1 of the LCA paper: a network may take the noise for the artist. Test
songs of the other artists that carry it show whether it did.
"""

import collections
import dataclasses
import os
import pathlib

import numpy as np

from lca_keras.base import files
from lca_keras.base.config import get_preset
from lca_keras.base.errors import UserError
from lca_keras.corpora import bias, synthesis
from lca_keras.data import catalogue, split
from lca_keras.data.corpus import DataSource
from lca_keras.explanation import saliency
from lca_keras.studies import hearings, pictures, scores
from lca_keras.studies.results import Column, Picture, Table
from lca_keras.studies.study import Study, check_variants, has_vocals, list_songs

CORPUS = synthesis.SynthesisConfig(
    artists=5, albums=4, songs=8, seconds=12.1, confounding=0.0
)
VARIANTS = ("none", "lca", "remix", "remix+lca")
# Test songs as a model may hear them: with noise on the one artist's songs, without,
# with noise on the songs of all the others.
HEARINGS = ("as in training", "clean", "noised")
_MAPS = "maps.npz"


class Figure1(Study):
    """Noise on one artist's recordings."""

    title = "Noise on one artist's recordings"

    def __init__(self, args, crew):
        super().__init__(args, crew)
        check_variants(args.name, args.variants)
        self.songs, source, self.split_file = self._five_artists()
        self.artist = args.artists[0] if args.artists else self.songs[0].artist
        self.band = tuple(args.band)
        stems = bool(args.separator) or has_vocals(self.songs)
        self.variants, self.notes = args.variants, []
        if self.variants is None:
            self.variants = [v for v in VARIANTS if stems or "remix" not in v]
            if not stems:
                self.notes.append(
                    "Remixing is left out: the songs have no vocals_path. Give "
                    "--separator."
                )
        self.config = self.configuration(self.split_file, stems)
        self.source = dataclasses.replace(source, separator=self.separator_folder)
        noise = {"artist": self.artist, "band": list(self.band), "snr_db": args.snr_db}
        self.settings = self.settings_of(source, variants=self.variants, **noise)

    def _five_artists(self):
        """Songs of five artists, the `DataSource` that lists them, the split file."""
        folder, wanted = self.made(), self.args.artists
        if self.args.data is None:
            clean = folder / "clean"
            with (
                files.lock(folder / ".clean.lock"),
                self.crew.observer.progress("Synthesising songs") as progress,
            ):
                synthesis.write_corpus(CORPUS, clean, stems=True, progress=progress)
            manifest = str(clean / "manifest.csv")
            source = DataSource(data=manifest, features=self.args.features).absolute()
            songs = source.songs()
            known = sorted({song.artist for song in songs})
            if wanted and set(wanted) != set(known):
                raise UserError(f"--artists: the built-in five are {', '.join(known)}")
            return songs, source, str(clean / "split.csv")
        source, split_file = self.data()
        songs = source.songs()
        count = collections.Counter(song.artist for song in songs)
        names = wanted or [name for name, _ in count.most_common(5)]
        if unknown := sorted(set(names) - set(count)):
            raise UserError(f"--artists: no songs of {', '.join(unknown)}")
        if len(set(names)) < 2:
            raise UserError("figure 1 needs at least two artists, five as published")
        songs = sorted(
            (song for song in songs if song.artist in names),
            key=lambda song: (names.index(song.artist), song),
        )
        with files.lock(folder / ".clean.lock"):
            with_vocals = [(song, song.vocals_path or "") for song in songs]
            changes = list_songs(folder / "clean.csv", with_vocals)
            if split_file is None:
                split_file, how = folder / "split.csv", get_preset("paper").split
                parts = split.split_songs(songs, how, self.seeds[0])
                split.write_split(split_file, songs, parts)
        source = dataclasses.replace(source, **changes).absolute()
        return songs, source, os.path.abspath(split_file)

    def trainings(self):
        """Each variant with each seed, on songs with the noise."""
        root = os.path.commonpath([song.path.parent for song in self.songs])
        about = (self.out, self.songs, pathlib.Path(root), self.split_file)
        about += (self.artist, self.band, self.args.snr_db)
        with (
            files.lock(self.made() / ".noise.lock"),
            self.crew.observer.progress("Adding noise") as progress,
        ):
            made = noisy_copies(*about, progress)
        self.notes += clipping(made)

        def copy(name):
            there = {"data": str(made[name]), "data_root": None, "tags": False}
            return dataclasses.replace(self.source, **there).absolute()

        sources = (copy("biased"), self.source, copy("noised"))
        laboratories = dict(zip(HEARINGS, map(self.laboratory, sources), strict=True))
        self.hearings = Hearings(laboratories, self.artist, self.band)
        return self.by_seed(laboratories["as in training"], self.variants)

    def show(self, trained, found):
        """The table, and two figures of the first seed."""
        return {
            "tables": [self._table(trained, found)],
            "pictures": [self._draw_maps(trained), self._draw_planes(trained)],
            "notes": [*self.notes, *claims(found, self.variants, self.seeds)],
        }

    def _table(self, trained, found):
        title = "CAM in the band, convolution / FGNL"
        columns = [Column("training", "variant")]
        for name in HEARINGS:
            key = name.replace(" ", "_")
            columns.append(Column("", f"{key}_clips"))
            columns.append(Column(f"F1 songs, {name}", f"{key}_songs"))
        columns += [
            Column("noised songs: minus the first row", "noised_songs_minus_first"),
            Column("taken for the noisy artist", "taken_for_the_artist"),
            Column(title, *(f"cam_in_band_{name}" for name in hearings.LAYERS)),
            Column(
                "silhouette, clean / noised", "silhouette_clean", "silhouette_noised"
            ),
        ]
        rows = []
        for variant in self.variants:
            row = {"variant": variant}
            scored = self.hearings.scores(self.of_seeds(trained, variant))
            for name, levels in scored.items():
                row |= scores.prefixed(name.replace(" ", "_"), levels)
            if rows:
                pair = (row["noised_songs"], rows[0]["noised_songs"])
                row["noised_songs_minus_first"] = scores.Lead.of(*pair)
            for key in ("taken_for_the_artist", "cam_in_band", "silhouette"):
                told = scores.over_seeds(self.of_seeds(found, variant), key)
                several = isinstance(told, dict)
                row |= scores.prefixed(key, told) if several else {key: told}
            rows.append(row)
        low, high = self.band
        even = found[self.variants[0], self.seeds[0]]["band_of_all_cells"]
        note = (
            f"Noise between {low:g} and {high:g} Hz on the songs of {self.artist}. "
            f"{scores.number_of(self.seeds)}. {scores.READING} Other columns: "
            f"{scores.READING_PLAIN} CAM: share of the class activation that lies in "
            f"the band; spread evenly, {even:.3f}. "
            f"{hearings.without_map(found.values())}"
        )
        return Table.of("figure1", "Noise as a cue", columns, rows, note)

    def _draw_maps(self, trained):
        """Writes the maps of the first seed; the `Picture`."""
        seed, shown, stored = self.seeds[0], [], {}
        for variant in self.variants:
            folder = trained[variant, seed].folder / self.hearings.place
            stored[variant] = dict(np.load(folder / _MAPS))
        for kind, title in (("", self.artist), ("foreign_", "another artist")):
            for layer in hearings.LAYERS:
                maps = {
                    f"{variant}, {layer}": arrays[f"{kind}{layer}"][0]
                    for variant, arrays in stored.items()
                    if f"{kind}{layer}" in arrays
                }
                mel = stored[self.variants[0]][f"{kind}mel"][0, ..., 0]
                shown.append((f"{title}, with noise", mel, maps))
        centres = self.config.front_end.frequencies
        arrays = {
            f"{name} {kind}": array.astype("float32")
            for name, kinds in stored.items()
            for kind, array in kinds.items()
        }
        arrays["centre_frequencies"] = centres
        about = (self.config.least_seconds, centres, self.band)
        figure = pictures.activation_maps(shown, *about)
        picture = Picture(
            "figure1.png",
            "Class activation for the artist whose recordings have noise between the "
            "dashed lines, on a test clip of that artist and of another one; seed "
            f"{seed}",
            "figure1.npz",
        )
        return self.save(picture, figure, arrays)

    def _draw_planes(self, trained):
        """Writes the embeddings of the first seed; the `Picture`."""
        seed, planes = self.seeds[0], {}
        artists = trained[self.variants[0], seed].artists
        for variant in self.variants:
            heard = self.hearings.predictions(trained[variant, seed], "noised")
            noisy = heard.labels != artists.index(self.artist)
            planes[variant] = pictures.plane_of(heard, noisy)
        caption = (
            "Embeddings of test clips in the plane (t-SNE), noise on all artists but "
            f"{self.artist}; seed {seed}"
        )
        name = "figure1_embeddings"
        picture = Picture(f"{name}.png", caption, f"{name}.csv")
        return self.save(picture, *pictures.planes(planes, artists, "with noise"))


class Hearings(hearings.Hearings):
    """What a training makes of test songs heard as `HEARINGS` say.

    In training `artist` has noise in a `band`, Hz.
    """

    def __init__(self, laboratories, artist, band):
        super().__init__("noise", laboratories, artist=artist, band=band)
        self.artist, self.band = artist, band

    def measure(self, trained):
        """Silhouettes, maps, and how many songs of others are taken for the artist."""
        model = trained.model()
        heard = self.predict(model, trained)
        own = trained.artists.index(self.artist)
        source = self.source("as in training", trained)
        clips = self.clips("as in training", trained)[source.clip_labels == own]
        cells = saliency.band_cells(source.front_end.frequencies, self.band)
        cams = hearings.activations(model.backbone, clips, np.full(len(clips), own))
        means, empty = hearings.shares_on(cams, cells)
        foreign = self.clips("noised", trained)[:1]
        foreign_cams = hearings.activations(model.backbone, foreign, [own])
        maps = {"mel": clips[:1], **{name: each[:1] for name, each in cams.items()}}
        maps |= {"foreign_mel": foreign, **scores.prefixed("foreign", foreign_cams)}
        with files.atomic_path(trained.folder / self.place / _MAPS) as temporary:
            np.savez_compressed(temporary, **maps)
        votes = heard["noised"].decide()
        others = votes.song_labels != own
        return {
            "silhouette": {k: hearings.silhouette(each) for k, each in heard.items()},
            "cam_in_band": means,
            "without_map": empty,
            "band_of_all_cells": float(np.mean(cells)),
            "taken_for_the_artist": float(np.mean(votes.votes[others] == own)),
        }


def noisy_copies(out, songs, root, parts_file, artist, band, snr_db, progress=None):
    """Writes two noisy copies of a corpus; those that are there are kept.

    Songs, their root and the noise are as for `lca_keras.corpora.bias.write_biased`.
    Returns manifests: of `"biased"`, with noise in all songs of the artist; and of
    `"noised"`, test songs with noise in those of all the others.

    Raises:
        UserError: Songs that cannot be read, or copies of other settings.
    """
    part_of = split.read_split(parts_file, songs)
    tested = [song for song in songs if part_of[song.key] == "test"]
    others = sorted({song.artist for song in songs} - {artist})
    made = {}
    both = (("biased", songs, [artist]), ("noised", tested, others))
    for name, chosen, artists in both:
        folder = pathlib.Path(out, "corpora", name)
        made[name] = folder / "manifest.csv"
        if (folder / "bias.json").exists():
            kept = files.read_json(folder / "bias.json")
            wanted = {"band": list(band), "snr_db": snr_db, "seed": 0}
            wanted |= {"artists": artists, "corpus": str(root)}
            copied = {song.key for song in catalogue.load(made[name])}
            same_songs = copied == {song.key for song in chosen}
            if not same_songs or not wanted.items() <= kept.items():
                raise UserError(
                    f"{folder} holds noise of other settings or songs (bias.json): "
                    "choose another --out, or delete the folder"
                )
            continue
        # Half a copy is none: it is written aside.
        with files.atomic_path(folder) as temporary:
            about = (chosen, root, temporary, artists, band, snr_db)
            left_out, _ = bias.write_biased(*about, progress=progress)
            if left_out:
                path, reason = next(iter(left_out.items()))
                raise UserError(f"{path}: {reason}")
    return made


def clipping(made):
    """What noise took beyond full scale in the copies of `noisy_copies`: sentences."""
    notes = []
    for name, manifest in made.items():
        clipped = files.read_json(manifest.with_name("bias.json"))["clipped"]
        if clipped["songs"]:
            notes.append(
                f"Noise took {clipped['songs']} songs ({name}) beyond full scale, up "
                f"to {clipped['most']:.3%} of the samples of one; these are clipped."
            )
    return notes


def claims(found, variants, seeds):
    """What the paper's claim comes to here: sentences."""
    notes = []
    for plain, ours in (("none", "lca"), ("remix", "remix+lca")):
        if not {plain, ours} <= set(variants):
            continue
        for layer in found[plain, seeds[0]]["cam_in_band"]:
            before, after = (
                np.array([found[name, seed]["cam_in_band"][layer] for seed in seeds])
                for name in (plain, ours)
            )
            halved = np.mean(after) <= np.mean(before) / 2
            by_seed = ", ".join(f"{ratio:.2f}" for ratio in after / before)
            notes.append(
                f"CAM in the band ({layer}), {ours} beside {plain}: {after.mean():.3f} "
                f"and {before.mean():.3f}, ratio by seed {by_seed}: it "
                f"{'is' if halved else 'is not'} halved."
            )
    return notes
