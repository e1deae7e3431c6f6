"""What computes an exported network on clips: TensorFlow, or LiteRT.

A runtime, and a server of `lca_keras.inference.servers`, is a `Runtime`.
"""

import contextlib
import importlib.util
import os
import pathlib
import typing

import numpy as np

from lca_keras.base import console, hardware
from lca_keras.base.errors import UserError
from lca_keras.exports import tflite_file

RUNTIMES = ("litert", "tensorflow")
PRECISIONS = ("float32", "bfloat16")
# What is told of clips, if a model tells it.
TOLD = ("probabilities", "voiceprint", "voice")
# Clips in one call of a SavedModel; bounds memory for long songs.
_CLIPS_AT_ONCE = 64


class AnswerError(UserError):
    """What computes is there and does not answer about a song."""


class Runtime(typing.Protocol):
    """What is asked of whatever computes an exported network.

    Attributes:
        name: String, for people and for choices by speed.
    """

    name: str

    def warm_up(self, inputs):
        """Makes the first call, on inputs as for `answers`, if that one is slow."""

    def answers(self, inputs):
        """What the network tells of clips.

        Args:
            inputs: Dict from stream to a float32 array `(clips, …)`.

        Returns:
            Dict of float32 arrays, some of `TOLD`: `probabilities` `(clips, classes)`,
            `voiceprint` `(clips, units)` and, with a detector, `voice` `(clips,)`.

        Raises:
            AnswerError: It does not answer about these clips.
        """


class SavedModelRuntime:
    """The signature `clips` of a SavedModel, in this process.

    Args:
        folder: Folder of a version.
        precision: One of `PRECISIONS`. With `"bfloat16"` TensorFlow multiplies and
            convolves in it, on processors that do so natively, in about half the time.
            Singers are those of float32 but for close ones; probabilities are not.

    Raises:
        OSError: It is not there.
        UserError: It is not to be had in that precision on this machine.
        ValueError: It is no SavedModel.
    """

    name = "tensorflow"

    def __init__(self, folder, precision="float32"):
        console.quiet_tensorflow()
        import tensorflow as tf

        self._computing = contextlib.nullcontext
        if precision == "bfloat16":
            _check_bfloat16()
            self._computing = _in_bfloat16
        self._model = tf.saved_model.load(os.fspath(folder))
        self._serve = self._model.signatures["clips"]

    def warm_up(self, inputs):
        """The first call optimises the graph and takes memory: not of a song's time."""
        for count in (1, 9):
            clips = {k: np.repeat(v[:1], count, axis=0) for k, v in inputs.items()}
            self.answers(clips)

    def answers(self, inputs):
        """See `Runtime`."""
        import tensorflow as tf

        found, count = [], len(next(iter(inputs.values())))
        for start in range(0, count, _CLIPS_AT_ONCE):
            few = {n: v[start : start + _CLIPS_AT_ONCE] for n, v in inputs.items()}
            batch = {name: tf.constant(array) for name, array in few.items()}
            with self._computing():
                answer = self._serve(**batch)
            found.append({n: answer[n].numpy() for n in TOLD if n in answer})
        return joined(found)


def _check_bfloat16():
    """Raises where bfloat16 would change answers and save no time."""
    import tensorflow as tf

    if tf.config.list_physical_devices("GPU"):
        raise UserError(
            "--precision bfloat16 is for processors, and here a GPU computes: leave it "
            "out"
        )
    if not hardware.multiplies_bfloat16():
        raise UserError(
            "this processor does not multiply bfloat16 (it has neither avx512_bf16 nor "
            "amx_bf16): leave out --precision"
        )


@contextlib.contextmanager
def _in_bfloat16():
    """TensorFlow's graphs are called in bfloat16, in this context alone.

    Its options are those of a call, not of a graph; so other models in the same process
    stay as they are.
    """
    import tensorflow as tf

    option = "auto_mixed_precision_onednn_bfloat16"
    before = tf.config.optimizer.get_experimental_options().get(option, False)
    tf.config.optimizer.set_experimental_options({option: True})
    try:
        yield
    finally:
        tf.config.optimizer.set_experimental_options({option: before})


class LiteRTRuntime:
    """A TFLite file of one clip; neither TensorFlow nor Keras is needed.

    Args:
        path: The file.
        threads: Number of threads; default is that of cores.

    Raises:
        OSError: It is not there.
        ValueError: It is no TFLite file, or one of waveforms.
    """

    name = "litert"

    def __init__(self, path, threads=None):
        content = pathlib.Path(path).read_bytes()
        self._runner = tflite_file.runner(content, threads or os.cpu_count())
        if "waveform" in self._runner.get_input_details():
            raise ValueError("it takes waveforms, not what the front end makes of them")

    def warm_up(self, inputs):
        """Nothing: its first call is as fast as the others."""

    def answers(self, inputs):
        """See `Runtime`."""
        rows = []
        for number in range(len(next(iter(inputs.values())))):
            clip = {name: v[number : number + 1] for name, v in inputs.items()}
            answer = self._runner(**clip)
            rows.append({n: answer[n].copy() for n in TOLD if n in answer})
        return joined(rows)


def joined(answers):
    """Answers about clips, a list of dicts of arrays, as one dict."""
    found = {n: np.concatenate([a[n] for a in answers]) for n in answers[0]}
    if "voice" in found:
        found["voice"] = found["voice"].reshape(-1)
    return found


def open_runtime(folder, runtime=None, threads=None, precision="float32"):
    """What computes an export: LiteRT where it is installed, or TensorFlow.

    Args:
        folder: Folder of a version.
        runtime: Optional, one of `RUNTIMES`.
        threads: Optional int, threads of LiteRT.
        precision: One of `PRECISIONS`; bfloat16 is computed by TensorFlow.

    Raises:
        UserError: The runtime or the precision is none of these, or is not installed,
            or the export has no file for it.
        OSError: The export is not whole.
        ValueError: The same.
    """
    if runtime not in (None, *RUNTIMES):
        raise UserError(f"no runtime {runtime!r}: take one of {', '.join(RUNTIMES)}")
    if precision not in PRECISIONS:
        raise UserError(
            f"no precision {precision!r}: take one of {', '.join(PRECISIONS)}"
        )
    if precision == "bfloat16":
        if runtime == "litert":
            raise UserError("--precision bfloat16 needs --runtime tensorflow")
        runtime = "tensorflow"
    path = pathlib.Path(folder, tflite_file.DEFAULT)
    if runtime is None:
        there = installed("litert") and path.exists()
        runtime = "litert" if there else "tensorflow"
    if not installed(runtime):
        extra = {"litert": "runtime", "tensorflow": "train"}[runtime]
        raise UserError(
            f"the runtime {runtime} is not installed: pip install 'lca-keras[{extra}]'"
        )
    if runtime == "tensorflow":
        return SavedModelRuntime(folder, precision)
    if not path.exists():
        raise UserError(f"{path} is not there: take --runtime tensorflow")
    return LiteRTRuntime(path, threads)


def open_file(path, runtime=None, threads=None, precision="float32"):
    """What computes a TFLite file.

    Raises:
        UserError: LiteRT is not installed, or another runtime or precision was asked
            for.
        ValueError: It is no such file.
    """
    if precision != "float32":
        raise UserError(f"{path} is computed as it is: leave out --precision")
    if runtime not in (None, "litert"):
        raise UserError(f"{path} is for the runtime litert, not for {runtime}")
    if not installed("litert"):
        raise UserError(
            f"{path} needs the runtime litert: pip install 'lca-keras[runtime]'"
        )
    return LiteRTRuntime(path, threads)


def installed(runtime):
    """Whether a runtime's package can be imported."""
    package = {"litert": "ai_edge_litert", "tensorflow": "tensorflow"}[runtime]
    return importlib.util.find_spec(package) is not None
