"""Why a model names a singer: where in a song it found what speaks for an artist."""

import dataclasses
import functools
import os
import pathlib

import numpy as np

from lca_keras.base import files, metrics
from lca_keras.base.config import Config
from lca_keras.base.errors import UserError
from lca_keras.data.catalogue import Song
from lca_keras.data.extraction import Extractor, has_stem, hear
from lca_keras.explanation import saliency
from lca_keras.exports import versions
from lca_keras.features.front_end import STEMS, network_input

_CLIPS_AT_ONCE = 32


@dataclasses.dataclass(frozen=True)
class Explanation:
    """A song, the vote of its clips, and what speaks for whom in it.

    Attributes:
        singer: Artist, by the vote of the clips.
        probabilities: Float array `(clips, classes)`, calibrated.
        starts: Float array `(clips,)`, seconds at which they begin.
        frame_rate: Float, frames a second.
        mel: Float32 array `(bands, frames)` of the whole song, NaN in silence that is
            left out.
        maps: Dict from artist to the class activation in the song over its mean in each
            clip, an array like `mel`, NaN outside of clips.
        counterfactual: The same of the counterfactual branch for the named singer.
        attention, cf_attention: Float arrays `(clips, weights)` of the two branches.
        voice_shares: Dict from artist to the share of the clips' map that lies on cells
            which the voice dominates, an array `(clips,)`; empty without stems.
        voice_cells: Share of all the clips' cells that the voice dominates.
        centres: Float array `(mel_bins,)`, Hz.
        layer: Where maps are taken, one of the network's `map_layers`.
        notes: Sentences about sound that is missing, and silence.
    """

    song: str
    artists: list[str]
    singer: str
    probabilities: np.ndarray
    starts: np.ndarray
    clip_seconds: float
    frame_rate: float
    mel: np.ndarray
    maps: dict[str, np.ndarray]
    counterfactual: np.ndarray | None
    attention: np.ndarray | None
    cf_attention: np.ndarray | None
    voice_shares: dict[str, np.ndarray]
    voice_cells: float | None
    centres: np.ndarray
    layer: str
    notes: list[str]

    @property
    def seconds(self):
        """Length of the song."""
        return self.mel.shape[1] / self.frame_rate

    @functools.cached_property
    def top(self):
        """The highest value that is shown of maps: one scale for all of them."""
        maps = [*self.maps.values()]
        if self.counterfactual is not None:
            maps.append(self.counterfactual)
        return max(1.0, *(float(np.nanquantile(cam, 0.99)) for cam in maps))

    def empty_clips(self, cam):
        """Number of clips in which one of the maps is zero: nothing speaks for it."""
        first = np.round(self.starts * self.frame_rate).astype(int)
        frames = round(self.clip_seconds * self.frame_rate)
        return sum(not np.nansum(cam[:, start : start + frames]) for start in first)


class Explainer:
    """A model, ready to explain its decisions.

    Args:
        network: `SingerNetwork` for inference.
        artists: List of class names.
        config: `lca_keras.base.config.Config` of its training.
        layer: Where maps are taken, one of the network's `map_layers`; others are a
            UserError. Default is the last.
        separator: Name or folder of an Open-Unmix model; makes the stems of songs that
            have none, and vocals for a model that hears these alone.
        own_separator: Folder of the one that the model was trained with.
        model: `lca_keras.models.LCAModel` of the network, for what its counterfactual
            attends to.
        listed: Dict from path to the `lca_keras.data.catalogue.Song`s that are known,
            with their stems.
        part_of: Dict from artist, album and song to the part of a song.
        moved: Sentence, why the songs of the model's run are not listed.
    """

    def __init__(
        self,
        network,
        artists,
        config,
        layer=None,
        separator=None,
        own_separator=None,
        model=None,
        listed=None,
        part_of=None,
        moved=None,
    ):
        self._network, self.artists, self._config = network, artists, config
        self._model, self._moved = model, moved
        self._listed, self._part_of = listed or {}, part_of or {}
        config.front_end.require_frequencies("a picture of what speaks for an artist")
        self._activation = saliency.ClassActivation(network, layer)
        self._counterfactual = None
        self._learned = model is not None and model.method == "lca"
        if self._learned and self._activation.layer == "fgnl":
            self._counterfactual = saliency.ClassActivation(
                model.backbone, "fgnl", model.cf_attention
            )
        # A run's own separator makes what its network hears; to separate for the share
        # of the voice alone takes minutes, and has to be asked for.
        self._separates = separator is not None
        self._extractor, self._stems = _extractors(config, separator or own_separator)

    @classmethod
    def of_export(cls, path, layer=None, separator=None):
        """The same for an export, the folder of a model or of a version."""
        from lca_keras.exports.savedmodel import read_network

        path = pathlib.Path(path)
        if not versions.versions(path) and not (path / "saved_model.pb").exists():
            raise UserError(
                f"{path}: neither a run nor an export. Expected runs/NAME, or "
                "saved_models/NAME"
            )
        folder = versions.find_version(path)
        about = files.read_json(folder / versions.METADATA)
        config = Config.from_dict(about["config"])
        return cls(read_network(folder), about["artists"], config, layer, separator)

    def explain(self, path, artists=(), vocals=None, accompaniment=None):
        """The `Explanation` of the decision about an audio file.

        Args:
            path: Audio file.
            artists: Names of artists whose maps are wanted beside that of the singer.
            vocals, accompaniment: Optional files of the voice alone, and of the rest.

        Raises:
            lca_keras.audio.decode.AudioError: The song cannot be used.
            UserError: An unknown artist.
        """
        unknown = [name for name in artists if name not in self.artists]
        if unknown:
            raise UserError(
                f"the model does not know {', '.join(map(repr, unknown))}; it knows "
                f"{', '.join(self.artists)}"
            )
        song = self._song(path, vocals, accompaniment)
        config = self._config
        heard = hear(self._extractor, config, song)
        clips = network_input(config.streams, heard.clips())
        probabilities = self._network.predict(clips, _CLIPS_AT_ONCE, verbose=0)
        singer = self.artists[metrics.vote(probabilities)]
        centres = heard.front_end.frequencies

        def maps_of(activation, name):
            classes = np.full(len(heard.starts), self.artists.index(name))
            maps = activation(clips, classes)
            return saliency.upsample(maps, len(centres), config.clip_frames)

        names = dict.fromkeys([singer, *artists])
        clip_maps = {name: maps_of(self._activation, name) for name in names}
        counterfactual, attention = None, {}
        if self._counterfactual is not None:
            counterfactual = _in_song(heard, maps_of(self._counterfactual, singer))
        if self._learned:
            attention = self._model.predict(clips, _CLIPS_AT_ONCE, verbose=0)
        shares, voice_cells = self._voice(song, heard, clip_maps)
        whole = heard.arrays[heard.front_end.main.name]
        return Explanation(
            song=os.fspath(path),
            artists=self.artists,
            singer=singer,
            probabilities=probabilities,
            starts=heard.times,
            clip_seconds=config.clip_frames / heard.front_end.frame_rate,
            frame_rate=heard.front_end.frame_rate,
            mel=heard.in_song(whole)[..., 0],
            maps={name: _in_song(heard, maps) for name, maps in clip_maps.items()},
            counterfactual=counterfactual,
            attention=attention.get("attention"),
            cf_attention=attention.get("cf_attention"),
            voice_shares=shares,
            voice_cells=voice_cells,
            centres=centres,
            layer=self._activation.layer,
            notes=[*heard.notes, *self._remarks(song)],
        )

    def _remarks(self, song):
        """What of the song a reader of its explanation should know."""
        told = {
            "train": ["the model was trained on this song"],
            "validation": ["the model's best epoch was chosen by this song"],
        }
        part = self._part_of.get((song.artist, song.album, song.song))
        notes = told.get(part, [])
        if self._moved and not has_stem(song):
            notes.append(
                "stems of the run's songs are not found, so no share of the voice "
                f"({self._moved}); name them with --vocals or --accompaniment"
            )
        return notes

    def _song(self, path, vocals, accompaniment):
        """The song with its stems: those given, or those of the run's manifest."""
        path = pathlib.Path(path).absolute()
        song = self._listed.get(path, Song("", "", "", path))
        if vocals or accompaniment:
            return dataclasses.replace(
                song,
                vocals_path=vocals and pathlib.Path(vocals),
                accompaniment_path=accompaniment and pathlib.Path(accompaniment),
            )
        return song

    def _voice(self, song, heard, clip_maps):
        """Share of the voice in each clip's maps, and of all cells."""
        if self._stems is None or not (has_stem(song) or self._separates):
            return {}, None
        arrays = self._stems.extract(song).arrays
        stems = {name: arrays[name] for name in STEMS}
        clips = heard.front_end.cut(stems, heard.starts, heard.clip_frames)
        cells = saliency.voice_cells(*(clips[name][..., 0] for name in STEMS))
        shares = {name: saliency.share(maps, cells) for name, maps in clip_maps.items()}
        return shares, float(np.mean(cells))


def _in_song(heard, maps):
    """Maps of clips `(clips, bands, frames)` at their places in a song.

    Each over its mean: how strongly a clip speaks for an artist says its vote, and
    gradients of one clip are not to be compared with those of another.
    """
    means = maps.mean(axis=(1, 2), keepdims=True)
    maps = np.divide(maps, means, out=np.zeros_like(maps), where=means > 0)
    whole = heard.arrays[heard.front_end.main.name]
    placed = np.full(whole.shape, np.nan, "float32")
    starts = np.round(heard.starts * heard.front_end.frame_rate).astype(int)
    for start, clip in zip(starts, maps, strict=True):
        placed[:, start : start + clip.shape[1], 0] = clip
    return heard.in_song(placed)[..., 0]


def _extractors(config, separator):
    """The extractors of what the network is served, and of stems if it has a band."""
    from lca_keras.audio import separation

    served = config.served_features
    if served.source == "vocals":
        # It hears the voice alone: no band whose share could be asked for.
        return Extractor(served, separator, threads=None), None
    wanted = config.features.separator or separation.DEFAULT
    if separator is not None:
        wanted = separation.separator_id(separator)
    stems = dataclasses.replace(served, source="stems", separator=wanted, melody="none")
    folder = separator if separator not in separation.PRETRAINED else None
    return Extractor(served, threads=None), Extractor(stems, folder, threads=None)
