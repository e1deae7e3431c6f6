"""Separation of the singing voice with Open-Unmix.

The pretrained models `umxl` and `umxhq` are fetched by openunmix's own loader. A
folder in its format does as well; `python -m lca_keras.separator train` writes one.

References:
    - Stöter et al., 2019, https://joss.theoj.org/papers/10.21105/joss.01667
"""

import contextlib
import hashlib
import importlib.util
import os
import pathlib

import numpy as np

from lca_keras.audio.decode import AudioError, check_sound, read_blocks, resampled
from lca_keras.base import files
from lca_keras.base.errors import UserError

PRETRAINED = ("umxl", "umxhq")
DEFAULT = "umxl"
# Seconds that pass through the network together. Neighbouring chunks are faded into
# each other over the overlap, so that no seam is heard and memory stays bounded.
CHUNK_SECONDS, OVERLAP_SECONDS = 30.0, 2.0


class SeparatorError(UserError):
    """A separator that cannot be used; the message says what to do."""


def separator_id(separator):
    """Names a separator: its own name, or `local-` and a hash of a folder's files."""
    if separator in PRETRAINED:
        return separator
    digest = hashlib.sha256()
    for path in _model_files(separator):
        digest.update(path.read_bytes())
    return f"local-{digest.hexdigest()[:12]}"


def check_same(separator, wanted):
    """Raises unless a separator is the one that features were made with, by its id."""
    found = separator_id(separator)
    if found != wanted:
        raise SeparatorError(
            f"--separator {separator} is {found}; these features need {wanted}"
        )


def _model_files(folder):
    """The settings and the weights of a folder in openunmix's format."""
    folder = pathlib.Path(folder)
    if not folder.is_dir():
        raise SeparatorError(
            f"separator {str(folder)!r}: no such folder, and none of the pretrained "
            f"models {', '.join(PRETRAINED)}"
        )
    weights = list(folder.glob("vocals*.pth")) or [folder / "vocals.pth"]
    if len(weights) > 1:  # openunmix takes any.
        names = ", ".join(sorted(path.name for path in weights))
        raise SeparatorError(f"separator {folder}: {names}: keep one of these")
    paths = [folder / "separator.json", folder / "vocals.json", *weights]
    missing = [path.name for path in paths if not path.is_file()]
    if missing:
        raise SeparatorError(
            f"separator {folder}: {', '.join(missing)} missing. Expected the files "
            "separator.json, vocals.json and vocals.pth of an Open-Unmix model."
        )
    return paths


class Separator:
    """Takes the vocals out of songs; `sample_rate` and `channels` are the network's.

    `separator` is `"umxl"`, `"umxhq"`, or a folder in openunmix's format; `threads` are
    those of torch. Sums differ in their last bits with the number of threads, so
    extraction always takes one. Raises a `SeparatorError`: openunmix is not installed,
    the weights cannot be had, or they do not fit the settings beside them.
    """

    def __init__(self, separator, threads=None):
        if importlib.util.find_spec("openunmix") is None:
            raise SeparatorError(
                "separating vocals needs openunmix: pip install 'lca-keras[vocals]'"
            )
        import torch
        from openunmix import utils

        if threads is not None:
            torch.set_num_threads(threads)
        # Wiener filtering, one step, between the vocals and all the rest.
        settings = {"targets": ["vocals"], "niter": 1, "residual": True}
        if separator in PRETRAINED:
            try:
                # torch.hub then loads tensors only, never code.
                os.environ["TORCH_FORCE_WEIGHTS_ONLY_LOAD"] = "1"
                self._model = utils.load_separator(separator, **settings)
            except (OSError, RuntimeError) as error:
                raise SeparatorError(
                    f"the weights of {separator!r} cannot be downloaded ({error}). "
                    "Give a folder that holds them in Open-Unmix's format, or train "
                    "one with `python -m lca_keras.separator train`."
                ) from error
        else:
            _check_weights(separator)
            self._model = utils.load_separator(str(separator), **settings)
        self._model.freeze()
        self.sample_rate = int(self._model.sample_rate)
        model = self._model.target_models["vocals"]
        self.channels = model.fc1.in_features // model.nb_bins

    def separate(self, path, sample_rate, keep=None):
        """Separates the vocals of a song; float32 `(samples,)` at `sample_rate`, mono.

        They are aligned with `decode(path)` but for the last samples of its end. `keep`
        is an optional FLAC file to write them to, at the network's own rate and
        channels. Raises an `AudioError`: the file cannot be decoded, or holds no voice.
        """
        import soundfile

        rate, file = self.sample_rate, contextlib.nullcontext()
        if keep is not None:
            form = (rate, self.channels, "PCM_16")
            file = soundfile.SoundFile(keep, "w", *form, format="FLAC")

        def mono():
            for block in self._estimates(resampled(self._blocks(path), rate)):
                if keep is not None:
                    file.write(np.clip(block, -1, 1))
                yield rate, block.mean(axis=1)

        with file:
            vocals = np.concatenate([*resampled(mono(), sample_rate)])
        try:
            check_sound(vocals)
        except AudioError as error:
            raise AudioError("no voice in it: the vocals are silent") from error
        return vocals

    def _blocks(self, path):
        """Yields rates and blocks `(samples, channels)`, as many as the network's."""
        for rate, block in read_blocks(path):
            if block.shape[1] != self.channels:
                mono = block.mean(axis=1, keepdims=True)
                block = np.repeat(mono, self.channels, axis=1)
            yield rate, np.ascontiguousarray(block)

    def _estimates(self, blocks):
        """Yields the vocals of a stream of blocks, each sample once."""
        chunk = int(CHUNK_SECONDS * self.sample_rate)
        overlap = int(OVERLAP_SECONDS * self.sample_rate)
        fade_in = np.linspace(0, 1, overlap, dtype="float32")[:, None]
        waiting, tail = np.zeros((0, self.channels), "float32"), None
        for block in blocks:
            waiting = np.concatenate([waiting, block])
            # More than a chunk, so that what is left at the end is never nothing.
            while len(waiting) > chunk:
                vocals = self._estimate(waiting[:chunk])
                vocals, tail = _joined(tail, vocals, fade_in), vocals[-overlap:]
                yield vocals[:-overlap]
                waiting = waiting[chunk - overlap :]
        if len(waiting):
            yield _joined(tail, self._estimate(waiting), fade_in)

    def _estimate(self, samples):
        """The vocals of an array `(samples, channels)`, same shape."""
        import torch

        # A transform needs a whole window; shorter ends are filled up.
        count, least = len(samples), self.sample_rate
        padded = np.pad(samples, ((0, max(0, least - count)), (0, 0)))
        with torch.no_grad():
            audio = torch.from_numpy(np.ascontiguousarray(padded.T))[None]
            estimate = self._model(audio)[0, 0].numpy()
        return estimate.T[:count]


def _joined(tail, vocals, fade_in):
    """Fades the end of the chunk before into the beginning of this one."""
    if tail is None:
        return vocals
    vocals = vocals.copy()
    length = min(len(tail), len(vocals))
    fade = fade_in[:length]
    vocals[:length] = tail[:length] * (1 - fade) + vocals[:length] * fade
    return vocals


def _check_weights(folder):
    """Raises unless weights fit their settings: openunmix takes a part in silence."""
    import pickle  # For the name of torch's error; nothing is unpickled with it.

    import torch
    from openunmix.model import OpenUnmix

    settings_path, model_path, weights_path = _model_files(folder)
    try:
        settings = files.read_json(settings_path)
        args = files.read_json(model_path)["args"]
        bins, channels = args["nfft"] // 2 + 1, args["nb_channels"]
        hidden = args["hidden_size"]
        for name in ("nfft", "nb_channels"):
            if settings[name] != args[name]:
                raise ValueError(
                    f"{name} is {settings[name]} in {settings_path.name} and "
                    f"{args[name]} in {model_path.name}"
                )
        settings["sample_rate"], settings["nhop"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SeparatorError(
            f"separator {folder}: its settings cannot be used "
            f"({type(error).__name__}: {error})"
        ) from error
    errors = (OSError, RuntimeError, EOFError, AttributeError, ValueError)
    try:
        weights = torch.load(weights_path, map_location="cpu", weights_only=True)
        found = {name: tuple(value.shape) for name, value in weights.items()}
    except (*errors, pickle.UnpicklingError) as error:
        raise SeparatorError(
            f"{weights_path} is damaged or holds no weights ({type(error).__name__})"
        ) from error
    max_bin = found.get("input_mean", (bins,))[0]
    model = OpenUnmix(bins, channels, hidden, max_bin=max_bin)
    wanted = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    # openunmix's own files carry the settings of the transforms along.
    missing = sorted(set(wanted) - set(found))
    if missing:
        raise SeparatorError(
            f"{weights_path}: {len(missing)} weights are missing, among them "
            f"{missing[0]}; a model of {hidden} hidden units and three layers has "
            f"{len(wanted)}"
        )
    for name, shape in wanted.items():
        if found[name] != shape:
            raise SeparatorError(
                f"{weights_path}: {name} has the shape {found[name]}, but "
                f"{model_path.name} asks for {shape}"
            )
