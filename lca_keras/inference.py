"""Names the singer of songs, with an exported model."""

import dataclasses
import pathlib

from lca_keras import files, plots
from lca_keras.audio.decode import AudioError
from lca_keras.audio.melody import UNVOICED, contour
from lca_keras.config import Config
from lca_keras.data.catalogue import Song
from lca_keras.data.extraction import Extractor
from lca_keras.errors import UserError
from lca_keras.export.versions import METADATA


@dataclasses.dataclass(frozen=True)
class Identification:
    """Who sings a song.

    Attributes:
        singer: Artist, by the vote of the clips.
        probabilities: Dict from artist to mean probability, highest first.
        votes: Dict from artist to number of clips, in the same order.
        clip_seconds: Length of a clip.
        clips: List of dicts with `start` (seconds), `singer` and `probabilities`
            (artist to float) of every clip.
        notes: Sentences about sound that the file announces and does not have.
    """

    singer: str
    probabilities: dict[str, float]
    votes: dict[str, int]
    clip_seconds: float
    clips: list[dict]
    notes: list[str]


class Identifier:
    """An exported model, ready to identify singers.

    Args:
        folder: Folder of an exported version.
        separator: Optional folder of the separator that the model was trained with.

    Attributes:
        artists: List of class names.
        metadata: Dict; what `lca_keras.json` beside the model says.
    """

    def __init__(self, folder, separator=None):
        import soundfile  # noqa: F401  Loaded now, not with the first song.
        import soxr  # noqa: F401
        import tensorflow as tf

        folder = pathlib.Path(folder)
        try:
            self.metadata = files.read_json(folder / METADATA)
            config = Config.from_dict(self.metadata["config"])
            self._model = tf.saved_model.load(str(folder))
        except (OSError, ValueError) as error:
            raise UserError(f"{folder}: not a whole export ({error})") from error
        self.artists = self.metadata["artists"]
        self._serve = self._model.signatures["serving_default"]
        features = config.served_features
        self._features = features
        self._extractor = Extractor(features, separator, threads=None)
        # The first call optimises the graph and takes memory: part of starting up,
        # not of a song. Nine clips pass in two pieces, as those of a song do.
        count = 9 * self.metadata["clip_frames"] * features.hop_length
        noise = tf.random.stateless_normal((count,), (0, 0))
        self._identify(noise, [UNVOICED] * (1 + count // features.hop_length))

    def _identify(self, samples, bands):
        """Runs the model on one song; the melody's bands only if it takes them."""
        inputs = {"waveform": samples[None]}
        if self.takes_melody:
            melody = contour(bands, self._features.mel_bins)
            inputs["melody"] = melody[None, ..., None]
        return self._serve(**inputs)

    @property
    def takes_melody(self):
        """Whether the model takes the melody beside the waveform."""
        return "melody" in self._serve.structured_input_signature[1]

    def check(self, vocals):
        """Raises early if vocals have to be separated and cannot be.

        Args:
            vocals: Iterable with the vocals' path of every song, or `None`.

        Raises:
            UserError: The separator is missing, or not the model's own.
        """
        self._extractor.check([Song("", "", "", "", path) for path in vocals])

    def identify(self, path, vocals_path=None):
        """Identifies the singer of an audio file.

        Args:
            path: Audio file of any format, rate and channel count.
            vocals_path: Optional file of the voice alone, for a model that was trained
                on vocals; without one the vocals are separated.

        Returns:
            `Identification`.

        Raises:
            AudioError: The file cannot be decoded, is silent or too short.
            UserError: The vocals have to be separated and cannot be.
        """
        import tensorflow as tf

        song = Song("", "", "", path, vocals_path)
        sounds = self._extractor.sounds(song)
        samples = self._extractor.heard(sounds).samples
        seconds = self.metadata["clip_seconds"]
        frames = 1 + samples.size // self._features.hop_length
        if frames < self.metadata["clip_frames"]:
            length = samples.size / self.metadata["sample_rate"]
            raise AudioError(f"too short: {length:.1f} s, a clip takes {seconds:.1f} s")
        melody = self._extractor.melody(sounds)
        outputs = self._identify(tf.constant(samples), melody)
        means = outputs["probabilities"][0].numpy()
        clips = outputs["frame_probabilities"][0].numpy()
        winners = [self.artists[index] for index in clips.argmax(axis=1)]
        ranked = sorted(
            zip(self.artists, means.tolist(), strict=True), key=lambda pair: -pair[1]
        )
        return Identification(
            singer=outputs["singer"][0].numpy().decode(),
            probabilities=dict(ranked),
            votes={name: winners.count(name) for name, _ in ranked},
            clip_seconds=seconds,
            clips=[
                {
                    "start": round(number * seconds, 3),
                    "singer": winner,
                    "probabilities": dict(zip(self.artists, row.tolist(), strict=True)),
                }
                for number, (winner, row) in enumerate(zip(winners, clips, strict=True))
            ],
            notes=sounds["mixture"].notes,
        )


def describe(path, result, top):
    """The `Identification` of a song as lines of text, `top` artists of it."""
    clips = len(result.clips)
    lines = [f"{path}: {result.singer}"]
    names = list(result.probabilities)
    # The vote decides; usually its winner has the highest mean probability too.
    names.sort(key=lambda name: name != result.singer)
    for name in names[:top]:
        share = f"{result.votes[name]} of {clips} clips"
        lines.append(f"  {result.probabilities[name]:6.1%}  {name:<24} {share}")
    lines += [f"  note: {note}" for note in result.notes]
    return "\n".join(lines)


def plot(results, path):
    """Draws the vote over time, clip by clip, of `Identification`s by audio file."""
    import numpy as np

    artists = sorted(next(iter(results.values())).probabilities)
    figure = plots.new_figure(10, len(results) * (1.2 + 0.22 * len(artists)))
    with plots.style():
        rows = np.atleast_1d(figure.subplots(len(results), 1))
        for axes, (name, result) in zip(rows, results.items(), strict=True):
            clips = [clip["probabilities"] for clip in result.clips]
            grid = np.array([[clip[name] for clip in clips] for name in artists])
            edges = np.arange(grid.shape[1] + 1) * result.clip_seconds
            image = axes.pcolormesh(
                edges, np.arange(len(artists) + 1), grid, vmin=0, vmax=1, cmap="Blues"
            )
            axes.plot(
                edges[:-1] + result.clip_seconds / 2,
                grid.argmax(axis=0) + 0.5,
                "k.",
                markersize=4,
            )
            axes.set_yticks(np.arange(len(artists)) + 0.5, artists)
            axes.invert_yaxis()
            axes.set_xlabel("seconds")
            axes.set_title(f"{pathlib.Path(name).name}: {result.singer}")
            figure.colorbar(image, ax=axes, label="probability")
    plots.save_figure(figure, path)
