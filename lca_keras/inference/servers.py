"""Models that a TF Serving server computes, asked over gRPC or REST.

Features are computed here, by the configuration that the server tells, and travel as
clips: a quarter of what the samples would be, and a song of hours goes in pieces.
"""

import contextlib
import http.client
import json
import time
import urllib.error
import urllib.parse
import urllib.request

import numpy as np

from lca_keras.base import console
from lca_keras.base.errors import UserError
from lca_keras.inference.runtimes import TOLD, AnswerError, Runtime, joined

# Bytes of a message; gRPC's own limit is 4 MiB, which few raise.
_MESSAGE = 3 << 20
# Messages of one song that are under way together.
_AT_ONCE = 4
_ATTEMPTS = 5
_BACKOFF_SECONDS = 0.2


class GrpcServer(Runtime):
    """A model of a server, over gRPC.

    Args:
        address: `HOST:PORT`.
        model: Name of the model.
        version: Optional int, its version; default is the server's choice.
        label: Optional string, a version's label, such as `stable`.
        timeout: Seconds that an answer may take.

    `metadata` is what it says about the model. No server, or no such model, is a
    `UserError`.
    """

    name = "grpc"

    def __init__(self, address, model, version=None, label=None, timeout=30.0):
        if "/" in address or ":" not in address:
            raise UserError(f"--grpc {address}: expected HOST:PORT")
        console.quiet_tensorflow()
        import grpc
        from tensorflow_serving.apis import (
            model_service_pb2_grpc,
            prediction_service_pb2_grpc,
        )

        # The channel itself tries again, and only if the server cannot be reached.
        policy = {
            "maxAttempts": _ATTEMPTS,
            "initialBackoff": f"{_BACKOFF_SECONDS}s",
            "maxBackoff": "5s",
            "backoffMultiplier": 2,
            "retryableStatusCodes": ["UNAVAILABLE"],
        }
        service = {"methodConfig": [{"name": [{}], "retryPolicy": policy}]}
        options = [("grpc.service_config", json.dumps(service))]
        self._channel = grpc.insecure_channel(address, options)
        self._stub = prediction_service_pb2_grpc.PredictionServiceStub(self._channel)
        self._models = model_service_pb2_grpc.ModelServiceStub(self._channel)
        self._address, self._timeout = address, timeout
        self._model, self._version, self._label = model, version, label
        [about] = self._ask("about", [{"request": np.array([b""], object)}])
        self.metadata = _metadata(about["metadata"][0], address)

    def answers(self, inputs):
        """See `lca_keras.inference.runtimes.Runtime`."""
        answers = self._ask("clips", list(_messages(inputs, _MESSAGE)))
        return joined([{n: a[n] for n in TOLD if n in a} for a in answers])

    def _ask(self, signature, messages):
        """The answers to messages, dicts of arrays."""
        import grpc
        import tensorflow as tf
        from tensorflow_serving.apis import model_pb2, predict_pb2

        spec = model_pb2.ModelSpec(name=self._model, signature_name=signature)
        if self._version is not None:
            spec.version.value = self._version
        if self._label is not None:
            spec.version_label = self._label
        found = []
        for start in range(0, len(messages), _AT_ONCE):
            calls = []
            for inputs in messages[start : start + _AT_ONCE]:
                protos = {k: tf.make_tensor_proto(v) for k, v in inputs.items()}
                request = predict_pb2.PredictRequest(model_spec=spec, inputs=protos)
                calls.append(self._stub.Predict.future(request, self._timeout))
            try:
                answers = [call.result() for call in calls]
            except grpc.RpcError as error:
                code, said = error.code().name, error.details()
                raise _error(self, self._address, code, said) from error
            found += [
                {k: tf.make_ndarray(v) for k, v in answer.outputs.items()}
                for answer in answers
            ]
        return found

    def _versions(self):
        """Versions of the model that are served, or `None` if there is no such one."""
        import grpc
        from tensorflow_serving.apis import get_model_status_pb2

        request = get_model_status_pb2.GetModelStatusRequest()
        request.model_spec.name = self._model
        try:
            status = self._models.GetModelStatus(request, self._timeout)
        except grpc.RpcError:
            return None
        available = get_model_status_pb2.ModelVersionStatus.AVAILABLE
        found = [v.version for v in status.model_version_status if v.state == available]
        return sorted(found)


class RestServer(Runtime):
    """The same over REST; TensorFlow is not needed.

    `url` is `http://HOST:PORT`, with a path where the server has one.
    """

    name = "rest"

    def __init__(self, url, model, version=None, label=None, timeout=30.0):
        if not url.startswith(("http://", "https://")):
            raise UserError(f"--rest {url}: expected http://HOST:PORT")
        place = f"/v1/models/{urllib.parse.quote(model)}"
        self._model, self._status = model, f"{url.rstrip('/')}{place}"
        if version is not None:
            place += f"/versions/{version}"
        if label is not None:
            place += f"/labels/{urllib.parse.quote(label)}"
        self._url = f"{url.rstrip('/')}{place}:predict"
        self._timeout = timeout
        about = self._ask("about", {"request": [""]})
        if isinstance(about, dict):  # Of several outputs.
            about = about["metadata"]
        self.metadata = _metadata(about[0], url)

    def answers(self, inputs):
        """See `lca_keras.inference.runtimes.Runtime`."""
        answers = []
        for few in _messages(inputs, _MESSAGE):
            # A ten-thousandth of a decibel is less than float16 in stores rounds.
            lists = {n: v.astype("float64").round(4).tolist() for n, v in few.items()}
            told = self._ask("clips", lists)
            answers.append({n: np.array(told[n], "f") for n in TOLD if n in told})
        return joined(answers)

    def _ask(self, signature, inputs):
        body = json.dumps({"signature_name": signature, "inputs": inputs}).encode()
        request = urllib.request.Request(
            self._url, body, {"Content-Type": "application/json"}
        )
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                with urllib.request.urlopen(request, timeout=self._timeout) as answer:
                    return json.load(answer)["outputs"]
            except urllib.error.HTTPError as error:
                said = error.read().decode("utf-8", "replace")
                with contextlib.suppress(ValueError, KeyError, TypeError):
                    said = json.loads(said)["error"]
                code = {404: "NOT_FOUND", 503: "UNAVAILABLE"}.get(
                    error.code, f"status {error.code}"
                )
            except TimeoutError:
                code, said = "DEADLINE_EXCEEDED", "no answer in time"
            except urllib.error.URLError as error:
                code, said = "UNAVAILABLE", str(error.reason)
                if isinstance(error.reason, TimeoutError):
                    code = "DEADLINE_EXCEEDED"
            except (ValueError, KeyError, OSError, http.client.HTTPException) as error:
                code = "no answer of a REST server (or is it the gRPC port?)"
                said = type(error).__name__
            if code != "UNAVAILABLE" or attempt == _ATTEMPTS:
                raise _error(self, self._url, code, said)
            time.sleep(_BACKOFF_SECONDS * 2 ** (attempt - 1))

    def _versions(self):
        try:
            with urllib.request.urlopen(self._status, timeout=self._timeout) as answer:
                told = json.load(answer)["model_version_status"]
            return sorted(int(v["version"]) for v in told if v["state"] == "AVAILABLE")
        except (OSError, http.client.HTTPException, ValueError, KeyError, TypeError):
            return None


def _messages(inputs, most):
    """Yields inputs of some clips that have at most so many bytes."""
    size = sum(value[:1].nbytes for value in inputs.values())
    few = max(1, most // size)
    for start in range(0, len(next(iter(inputs.values()))), few):
        yield {name: value[start : start + few] for name, value in inputs.items()}


def _metadata(told, address):
    try:
        return json.loads(told)
    except ValueError as error:
        raise UserError(
            f"{address}: what the model tells about itself cannot be read ({error})"
        ) from error


def _error(server, address, code, said):
    """An error of a server in words, with what to do."""
    if code == "NOT_FOUND":
        model, versions = server._model, server._versions()
        served = f"the server knows of no model {model}: --model"
        if versions:
            listed = ", ".join(map(str, versions))
            served = f"of {model} it serves {listed}: --version or --label"
        elif versions is not None:
            served = f"no version of {model} is ready: it is loading, or has failed to"
        said = f"{said}; {served}"
    hint = {
        "UNAVAILABLE": f"no server answers there, {_ATTEMPTS} times asked",
        "DEADLINE_EXCEEDED": "give it more time: --timeout SECONDS",
        "RESOURCE_EXHAUSTED": "the server takes only smaller messages, or is too busy",
    }.get(code, "")
    message = f"{address}: {code}: {said}" + (f" ({hint})" if hint else "")
    return UserError(message) if code == "UNAVAILABLE" else AnswerError(message)
