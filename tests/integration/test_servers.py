"""The SavedModel where neither Python's TensorFlow nor this package computes it."""

import json
import pathlib
import socket
import subprocess
import sys
import sysconfig
import time
import urllib.error
import urllib.request

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2

from tests.exports.material import clips_of, song

pytestmark = pytest.mark.slow

# === TensorFlow's C API ===

_BY_C = """
import ctypes, os, sys
import numpy as np

library, export, feed, fetch, given, found = sys.argv[1:]
ctypes.CDLL(os.path.join(library, "libtensorflow_framework.so.2"), ctypes.RTLD_GLOBAL)
tf = ctypes.CDLL(os.path.join(library, "libtensorflow_cc.so.2"))
pointer, size, text = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_char_p
int64 = ctypes.c_int64


def function(name, result, *arguments):
    found = getattr(tf, name)
    found.restype, found.argtypes = result, arguments
    return found


class Output(ctypes.Structure):
    _fields_ = [("operation", pointer), ("index", ctypes.c_int)]


status = function("TF_NewStatus", pointer)()
graph = function("TF_NewGraph", pointer)()
options = function("TF_NewSessionOptions", pointer)()
load = function(
    "TF_LoadSessionFromSavedModel", pointer, pointer, pointer, text,
    ctypes.POINTER(text), ctypes.c_int, pointer, pointer, pointer,
)
code = function("TF_GetCode", ctypes.c_int, pointer)
message = function("TF_Message", text, pointer)
tags = (text * 1)(b"serve")
session = load(options, None, export.encode(), tags, 1, graph, None, status)
assert code(status) == 0, message(status)
operation = function("TF_GraphOperationByName", pointer, pointer, text)


def output(name):
    name, index = name.rsplit(":", 1)
    return Output(operation(graph, name.encode()), int(index))


array = np.load(given)
allocate = function(
    "TF_AllocateTensor", pointer, ctypes.c_int, ctypes.POINTER(int64), ctypes.c_int,
    size,
)
data = function("TF_TensorData", pointer, pointer)
shape = (int64 * array.ndim)(*array.shape)
tensor = allocate(1, shape, array.ndim, array.nbytes)  # 1: float.
ctypes.memmove(data(tensor), array.ctypes.data, array.nbytes)
run = function(
    "TF_SessionRun", None, pointer, pointer, ctypes.POINTER(Output),
    ctypes.POINTER(pointer), ctypes.c_int, ctypes.POINTER(Output),
    ctypes.POINTER(pointer), ctypes.c_int, pointer, ctypes.c_int, pointer, pointer,
)
answers = (pointer * 1)()
run(
    session, None, (Output * 1)(output(feed)), (pointer * 1)(tensor), 1,
    (Output * 1)(output(fetch)), answers, 1, None, 0, None, status,
)
assert code(status) == 0, message(status)
dims = function("TF_NumDims", ctypes.c_int, pointer)(answers[0])
dim = function("TF_Dim", int64, pointer, ctypes.c_int)
shape = tuple(dim(answers[0], axis) for axis in range(dims))
values = (ctypes.c_float * int(np.prod(shape))).from_address(data(answers[0]))
np.save(found, np.array(values, "float32").reshape(shape))
"""


def names_of(export, signature, feed, fetch):
    """Names of a signature's tensors in the SavedModel's graph."""
    content = pathlib.Path(export, "saved_model.pb").read_bytes()
    [graph] = saved_model_pb2.SavedModel.FromString(content).meta_graphs
    found = graph.signature_def[signature]
    return found.inputs[feed].name, found.outputs[fetch].name


@pytest.mark.parametrize(
    ("signature", "feed"),
    [
        ("serving_default", "waveform"),
        ("clips", "mel_spectrogram"),
        ("mel", "mel_spectrogram"),
    ],
)
def test_the_c_api_answers_as_python_does(exported, loaded, tmp_path, signature, feed):
    library = pathlib.Path(tf.sysconfig.get_lib())
    if not (library / "libtensorflow_cc.so.2").exists():
        pytest.skip("this TensorFlow has no C library of its own")
    array = clips_of(song(13.0))
    if feed == "waveform":
        array = np.stack([song(9.0, 1), song(9.0, 2)]).astype("float32")
    expected = loaded.signatures[signature](**{feed: tf.constant(array)})
    np.save(tmp_path / "given.npy", array)
    names = names_of(exported, signature, feed, "probabilities")
    files = [str(tmp_path / name) for name in ("given.npy", "found.npy")]
    done = subprocess.run(
        [sys.executable, "-c", _BY_C, library, str(exported), *names, *files],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found = np.load(tmp_path / "found.npy")
    np.testing.assert_allclose(found, expected["probabilities"], atol=1e-5)


# === MLServer, which speaks KServe's protocol ===

_IMPLEMENTATION = """
import tensorflow as tf
from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceResponse


class SavedModel(MLModel):
    async def load(self):
        self._model = tf.saved_model.load(self.settings.parameters.uri)
        return True

    async def predict(self, payload):
        signature = self._model.signatures[payload.parameters.signature]
        inputs = {i.name: NumpyCodec.decode_input(i) for i in payload.inputs}
        outputs = signature(**{k: tf.constant(v) for k, v in inputs.items()})
        numbers = {k: v.numpy() for k, v in outputs.items() if v.dtype != tf.string}
        found = [NumpyCodec.encode_output(k, v) for k, v in numbers.items()]
        return InferenceResponse(model_name=self.name, outputs=found)
"""


def free_ports(count):
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


@pytest.fixture
def mlserver(exported, tmp_path):
    """URL of an MLServer in an environment of its own; needs the package registry."""
    place = tmp_path / "environment"
    uv = [sys.executable, "-m", "uv"]
    subprocess.run([*uv, "venv", "-q", "--python", sys.executable, place], check=True)
    python = place / "bin" / "python"
    subprocess.run(
        [*uv, "pip", "install", "-q", "--python", python, "mlserver==1.7.1"], check=True
    )
    # TensorFlow is this environment's: what MLServer brings goes before.
    [packages] = place.glob("lib/*/site-packages")
    (packages / "zz.pth").write_text(sysconfig.get_path("purelib") + "\n")
    folder = tmp_path / "models"
    folder.mkdir()
    (folder / "served.py").write_text(_IMPLEMENTATION)
    parameters = {"uri": str(exported)}
    model = {"name": "m", "implementation": "served.SavedModel"}
    settings = json.dumps({**model, "parameters": parameters})
    (folder / "model-settings.json").write_text(settings)
    http, grpc, metrics = free_ports(3)
    ports = {"http_port": http, "grpc_port": grpc, "metrics_port": metrics}
    settings = json.dumps({**ports, "parallel_workers": 0, "host": "127.0.0.1"})
    (folder / "settings.json").write_text(settings)
    with open(tmp_path / "log", "w") as log:
        process = subprocess.Popen(
            [place / "bin" / "mlserver", "start", "."],
            cwd=folder,
            stdout=log,
            stderr=log,
        )
    try:
        url = f"http://127.0.0.1:{http}"
        for _ in range(240):
            assert process.poll() is None, (tmp_path / "log").read_text()[-2000:]
            try:
                urllib.request.urlopen(f"{url}/v2/models/m/ready", timeout=5)
                break
            except (urllib.error.URLError, OSError):
                time.sleep(0.5)
        yield url
    finally:
        process.terminate()
        process.wait(30)


def test_mlserver_answers_as_python_does(mlserver, loaded):
    for signature, name, array in (
        ("clips", "mel_spectrogram", clips_of(song(13.0))),
        ("serving_default", "waveform", np.stack([song(9.0, 1), song(9.0, 2)])),
    ):
        array = array.astype("float32")
        expected = loaded.signatures[signature](**{name: tf.constant(array)})
        given = {
            "name": name,
            "shape": array.shape,
            "datatype": "FP32",
            "data": array.ravel().tolist(),
        }
        body = {"parameters": {"signature": signature}, "inputs": [given]}
        request = urllib.request.Request(
            f"{mlserver}/v2/models/m/infer",
            json.dumps(body).encode(),
            {"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=120) as answer:
            outputs = {each["name"]: each for each in json.load(answer)["outputs"]}
        found = np.reshape(
            outputs["probabilities"]["data"], outputs["probabilities"]["shape"]
        )
        np.testing.assert_allclose(found, expected["probabilities"], atol=1e-5)
