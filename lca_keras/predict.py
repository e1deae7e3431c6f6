"""Names the singer of songs, with an exported model.

`python -m lca_keras.predict --model saved_models/NAME SONG…` prints the singer with
probabilities. Everything but decoding happens inside the SavedModel; vocals are
separated and melodies tracked before it, if the model was trained on these.
"""

import argparse
import dataclasses
import json
import pathlib
import sys

from lca_keras import console, files


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

        from lca_keras.config import Config
        from lca_keras.data.extraction import Extractor
        from lca_keras.export import METADATA

        folder = pathlib.Path(folder)
        try:
            self.metadata = files.read_json(folder / METADATA)
            config = Config.from_dict(self.metadata["config"])
            self._model = tf.saved_model.load(str(folder))
        except (OSError, ValueError) as error:
            raise console.UserError(
                f"{folder}: not a whole export ({error})"
            ) from error
        self.artists = self.metadata["artists"]
        self._serve = self._model.signatures["serving_default"]
        self._features = config.features
        features = config.features
        if not self.takes_melody:
            features = dataclasses.replace(features, melody="none")
        self._extractor = Extractor(features, separator, threads=None)
        # The first call optimises the graph and takes memory: part of starting up,
        # not of a song. Nine clips pass in two pieces, as those of a song do.
        count = 9 * self.metadata["clip_frames"] * config.features.hop_length
        noise = tf.random.stateless_normal((count,), (0, 0))
        self._identify(noise, self._contour([-1] * (1 + count // self._hop)))

    @property
    def _hop(self):
        return self._features.hop_length

    def _contour(self, bands):
        """The melody as the network takes it."""
        from lca_keras.audio.melody import contour

        return contour(bands, self._features.mel_bins)

    def _identify(self, samples, melody):
        """Runs the model on one song; `melody` is left out if it takes none."""
        inputs = {"waveform": samples[None]}
        if self.takes_melody:
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
        from lca_keras.data.catalogue import Song

        self._extractor.check([Song("", "", "", "", path) for path in vocals])

    def identify(self, path, vocals_path=None):
        """Identifies the singer of an audio file.

        Args:
            path: Audio file of any format, rate and channel count.
            vocals_path: Optional file of the voice alone, for a model that was trained
                on vocals; without one the vocals are separated.

        Returns:
            Dict: `singer`, `probabilities` (artist to float, highest first),
            `votes` (artist to number of clips), `clip_seconds`, and `clips`, a list
            with `start` (seconds), `singer` and `probabilities` (artist to float) of
            every clip.

        Raises:
            AudioError: The file cannot be decoded, is silent or too short.
            UserError: The vocals have to be separated and cannot be.
        """
        import tensorflow as tf

        from lca_keras.audio.decode import AudioError

        _, samples = self._extractor.waveform(path, vocals_path)
        seconds = self.metadata["clip_seconds"]
        if 1 + samples.size // self._hop < self.metadata["clip_frames"]:
            length = samples.size / self.metadata["sample_rate"]
            raise AudioError(f"too short: {length:.1f} s, a clip takes {seconds:.1f} s")
        melody = None
        if self.takes_melody:
            melody = self._contour(self._extractor.melody(samples))
        outputs = self._identify(tf.constant(samples), melody)
        means = outputs["probabilities"][0].numpy()
        clips = outputs["frame_probabilities"][0].numpy()
        winners = [self.artists[index] for index in clips.argmax(axis=1)]
        ranked = sorted(
            zip(self.artists, means.tolist(), strict=True), key=lambda pair: -pair[1]
        )
        return {
            "singer": outputs["singer"][0].numpy().decode(),
            "probabilities": dict(ranked),
            "votes": {name: winners.count(name) for name, _ in ranked},
            "clip_seconds": seconds,
            "clips": [
                {
                    "start": round(number * seconds, 3),
                    "singer": winner,
                    "probabilities": dict(zip(self.artists, row.tolist(), strict=True)),
                }
                for number, (winner, row) in enumerate(zip(winners, clips, strict=True))
            ],
        }


def format_result(path, result, top):
    """The result of one song as lines of text.

    Args:
        path: Audio file.
        result: What `Identifier.identify` returned.
        top: Int, number of artists to list.

    Returns:
        String.
    """
    clips = len(result["clips"])
    lines = [f"{path}: {result['singer']}"]
    names = list(result["probabilities"])
    # The vote decides; usually its winner has the highest mean probability too.
    names.sort(key=lambda name: name != result["singer"])
    for name in names[:top]:
        share = f"{result['votes'][name]} of {clips} clips"
        lines.append(f"  {result['probabilities'][name]:6.1%}  {name:<24} {share}")
    return "\n".join(lines)


def plot(results, path):
    """Draws the vote of songs over time: probabilities clip by clip.

    Args:
        results: Dict from audio file to what `Identifier.identify` returned.
        path: PNG to write.
    """
    import numpy as np

    from lca_keras import plots

    artists = sorted(next(iter(results.values()))["probabilities"])
    figure = plots.new_figure(10, len(results) * (1.2 + 0.22 * len(artists)))
    with plots.style():
        rows = np.atleast_1d(figure.subplots(len(results), 1))
        for axes, (name, result) in zip(rows, results.items(), strict=True):
            clips = [clip["probabilities"] for clip in result["clips"]]
            grid = np.array([[clip[name] for clip in clips] for name in artists])
            edges = np.arange(grid.shape[1] + 1) * result["clip_seconds"]
            image = axes.pcolormesh(
                edges, np.arange(len(artists) + 1), grid, vmin=0, vmax=1, cmap="Blues"
            )
            axes.plot(
                edges[:-1] + result["clip_seconds"] / 2,
                grid.argmax(axis=0) + 0.5,
                "k.",
                markersize=4,
            )
            axes.set_yticks(np.arange(len(artists)) + 0.5, artists)
            axes.invert_yaxis()
            axes.set_xlabel("seconds")
            axes.set_title(f"{pathlib.Path(name).name}: {result['singer']}")
            figure.colorbar(image, ax=axes, label="probability")
    plots.save_figure(figure, path)


def main(argv=None):
    """Command line of prediction."""
    parser = argparse.ArgumentParser(
        prog="python -m lca_keras.predict", description=__doc__.splitlines()[0]
    )
    parser.add_argument("songs", nargs="+", metavar="SONG", help="audio files")
    parser.add_argument("--model", required=True, help="saved_models/NAME")
    parser.add_argument("--version", type=int, help="default: the newest")
    parser.add_argument("--top", type=int, default=5, help="artists to list")
    parser.add_argument(
        "--separator", metavar="FOLDER", help="of a model that was trained on vocals"
    )
    parser.add_argument(
        "--vocals",
        action="store_true",
        help="the files are vocals already: nothing is separated",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--plot", metavar="FILE.png", help="draw the vote over time")
    console.add_debug_flag(parser)
    args = parser.parse_args(argv)
    return console.guard(lambda: run(args), args.debug)


def run(args):
    """Runs the job that the parsed arguments describe; returns an exit code."""
    from lca_keras.export import find_version

    if args.top < 1:
        raise console.UserError(f"--top must be at least 1, not {args.top}")
    if args.plot and not pathlib.Path(args.plot).absolute().parent.is_dir():
        raise console.UserError(f"--plot {args.plot}: no such folder")
    folder = find_version(args.model, args.version)
    vocals = {song: song for song in args.songs} if args.vocals else None
    results = run_songs(
        folder, args.songs, args.top, not args.json, args.separator, vocals
    )
    if args.json:
        listed = [{"song": song, **result} for song, result in results.items()]
        print(json.dumps(listed, indent=2, ensure_ascii=False))
    if args.plot and results:
        plot(results, args.plot)
    return 0 if len(results) == len(set(args.songs)) else 1


def run_songs(folder, songs, top, print_text=True, separator=None, vocals=None):
    """Identifies songs; those that cannot be used are reported on standard error.

    Args:
        folder: Folder of an exported version.
        songs: Audio files.
        top: Int, number of artists to list.
        print_text: Whether to print each result as it comes.
        separator: Optional folder of the model's separator.
        vocals: Optional dict from audio file to the file of its vocals.

    Returns:
        Dict from audio file to what `Identifier.identify` returned.
    """
    from lca_keras.audio.decode import AudioError

    console.quiet_tensorflow()
    identifier = Identifier(folder, separator)
    vocals = vocals or {}
    identifier.check([vocals.get(song) for song in songs])
    results = {}
    for song in songs:
        try:
            results[song] = identifier.identify(song, vocals.get(song))
        except AudioError as error:
            print(f"error: {song}: {error}", file=sys.stderr)
            continue
        if print_text:
            print(format_result(song, results[song], top))
    return results


if __name__ == "__main__":
    sys.exit(main())
