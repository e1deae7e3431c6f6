"""TF Serving's protocol, spoken by a SavedModel in this process.

The servicer of tensorflow-serving-api over gRPC, and its REST form, both in front of
models. As the real server's batching does, requests of one signature whose inputs agree
in all but the first dimension are put together, whoever sent them; one whose answer is
an error takes the others of its batch with it.
"""

import base64
import concurrent.futures
import contextlib
import http.server
import json
import queue
import threading

import grpc
import numpy as np
import tensorflow as tf
from tensorflow_serving.apis import (
    get_model_status_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
)

# How long a request waits for others.
_WAIT_SECONDS = 0.01


class Model:
    """A SavedModel behind dynamic batching.

    Attributes:
        batches: List of the numbers of requests that were put together.
        down: Number of the next requests that find no server.
        slow: Seconds that every answer takes longer.
    """

    def __init__(self, loaded, versions=(1,), labels=None):
        self.signatures = loaded.signatures
        self.versions, self.labels = versions, labels or {}
        self.batches, self.down, self.slow = [], 0, 0.0
        self._waiting = queue.Queue()
        threading.Thread(target=self._work, daemon=True).start()

    def answer(self, signature, inputs):
        """Outputs of a request, both dicts of arrays."""
        future = concurrent.futures.Future()
        shapes = tuple(sorted((k, v.shape[1:]) for k, v in inputs.items()))
        self._waiting.put(((signature, shapes), inputs, future))
        return future.result()

    def _work(self):
        while True:
            together = [self._waiting.get()]
            threading.Event().wait(_WAIT_SECONDS + self.slow)
            with contextlib.suppress(queue.Empty):
                while True:
                    together.append(self._waiting.get_nowait())
            alike = {}
            for key, inputs, future in together:
                alike.setdefault(key, []).append((inputs, future))
            for (signature, _), requests in alike.items():
                self.batches.append(len(requests))
                self._run(signature, requests)

    def _run(self, signature, requests):
        try:
            names = requests[0][0]
            whole = {
                n: tf.constant(np.concatenate([i[n] for i, _ in requests]))
                for n in names
            }
            outputs = self.signatures[signature](**whole)
            outputs = {name: value.numpy() for name, value in outputs.items()}
        except Exception as error:
            for _, future in requests:
                future.set_exception(error)
            return
        start = 0
        for inputs, future in requests:
            count = len(next(iter(inputs.values())))
            future.set_result(
                {n: value[start : start + count] for n, value in outputs.items()}
            )
            start += count


class Servicer(prediction_service_pb2_grpc.PredictionServiceServicer):
    """`Predict` of models by name."""

    def __init__(self, models):
        self._models = models

    def Predict(self, request, context):
        """Answers, or says why not with gRPC's codes, as TF Serving does."""
        spec = request.model_spec
        model = self._models.get(spec.name)
        if model is None:
            context.abort(grpc.StatusCode.NOT_FOUND, f"Servable not found: {spec.name}")
        if model.down > 0:
            model.down -= 1
            context.abort(grpc.StatusCode.UNAVAILABLE, "not yet")
        version = spec.version.value
        if spec.version_label and spec.version_label not in model.labels:
            context.abort(grpc.StatusCode.NOT_FOUND, f"label {spec.version_label}")
        if spec.HasField("version") and version not in model.versions:
            context.abort(grpc.StatusCode.NOT_FOUND, f"version {version}")
        try:
            inputs = {k: tf.make_ndarray(v) for k, v in request.inputs.items()}
            outputs = model.answer(spec.signature_name or "serving_default", inputs)
        except Exception as error:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error)[:500])
        response = predict_pb2.PredictResponse()
        for name, value in outputs.items():
            response.outputs[name].CopyFrom(tf.make_tensor_proto(value))
        return response


class StatusServicer(model_service_pb2_grpc.ModelServiceServicer):
    """`GetModelStatus` of models by name."""

    def __init__(self, models):
        self._models = models

    def GetModelStatus(self, request, context):
        """Versions; one that was unloaded among them, as TF Serving tells it."""
        model = self._models.get(request.model_spec.name)
        if model is None:
            context.abort(grpc.StatusCode.NOT_FOUND, "Could not find any versions")
        response = get_model_status_pb2.GetModelStatusResponse()
        states = get_model_status_pb2.ModelVersionStatus
        for version in model.versions:
            response.model_version_status.add(version=version, state=states.AVAILABLE)
        response.model_version_status.add(version=99, state=states.END)
        return response


@contextlib.contextmanager
def grpc_server(models):
    """Yields the address of a gRPC server of models, with gRPC's own message limit."""
    server = grpc.server(concurrent.futures.ThreadPoolExecutor(16))
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(
        Servicer(models), server
    )
    model_service_pb2_grpc.add_ModelServiceServicer_to_server(
        StatusServicer(models), server
    )
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        server.stop(None)


@contextlib.contextmanager
def rest_server(models):
    """Yields the URL of a REST server of models: the columnar form of TF Serving's."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def log_message(self, *args):
            """Nothing."""

        def do_GET(self):
            model = models.get(self.path.strip("/").split("/")[2])
            if model is None:
                return self._send(404, {"error": "Could not find any versions"})
            states = [(version, "AVAILABLE") for version in model.versions]
            told = [{"version": str(v), "state": s} for v, s in [*states, (99, "END")]]
            return self._send(200, {"model_version_status": told})

        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            place, _, verb = self.path.rpartition(":")
            parts = place.strip("/").split("/")
            model = models.get(parts[2])
            if verb != "predict" or model is None:
                return self._send(404, {"error": f"Servable not found: {place}"})
            asked = dict([parts[3:5]] if parts[3:] else [])
            known = {"versions": map(str, model.versions), "labels": model.labels}
            if any(asked[kind] not in known[kind] for kind in asked):
                return self._send(404, {"error": f"Servable not found: {place}"})
            if model.down > 0:
                model.down -= 1
                return self._send(503, {"error": "not yet"})
            signature = body.get("signature_name", "serving_default")
            try:
                specs = model.signatures[signature].structured_input_signature[1]
                inputs = {
                    name: np.array(_decoded(value), specs[name].dtype.as_numpy_dtype)
                    for name, value in body["inputs"].items()
                }
                outputs = model.answer(signature, inputs)
            except Exception as error:
                return self._send(400, {"error": str(error)[:500]})
            said = {name: _plain(value.tolist()) for name, value in outputs.items()}
            # An only output goes without its name.
            [*names] = said
            return self._send(
                200, {"outputs": said if len(names) > 1 else said[names[0]]}
            )

        def _send(self, code, content):
            data = json.dumps(content).encode()
            self.send_response(code)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()


def _decoded(value):
    """A value of JSON, with bytes for `{"b64": …}`."""
    if isinstance(value, list):
        return [_decoded(each) for each in value]
    return base64.b64decode(value["b64"]) if isinstance(value, dict) else value


def _plain(value):
    if isinstance(value, list):
        return [_plain(each) for each in value]
    return value.decode() if isinstance(value, bytes) else value
