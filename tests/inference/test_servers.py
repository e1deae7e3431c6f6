"""The client against servers that speak TF Serving's protocol."""

import base64
import concurrent.futures
import json
import pathlib
import urllib.request

import grpc
import numpy as np
import pytest
import soundfile
import tensorflow as tf
from tensorflow_serving.apis import (
    model_pb2,
    predict_pb2,
    prediction_service_pb2_grpc,
)

from lca_keras import client
from lca_keras.base.errors import UserError
from lca_keras.inference import servers
from lca_keras.inference.identification import Identifier
from tests import prediction_service
from tests.exports.material import song


@pytest.fixture(scope="module")
def model(loaded):
    return prediction_service.Model(loaded, versions=(1, 7), labels={"stable": 7})


@pytest.fixture(scope="module")
def grpc_address(model):
    with prediction_service.grpc_server({"my model": model}) as address:
        yield address


@pytest.fixture(scope="module")
def rest_url(model):
    with prediction_service.rest_server({"my%20model": model}) as url:
        yield url


@pytest.fixture(params=["grpc", "rest"])
def server(request):
    """What `serving` has for it, and its address."""
    kind = {"grpc": servers.GrpcServer, "rest": servers.RestServer}[request.param]
    name = {"grpc": "grpc_address", "rest": "rest_url"}[request.param]
    return kind, request.getfixturevalue(name)


@pytest.fixture
def songs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = ["a.wav", "b 'x'.wav", "日本.wav"]
    for seed, name in enumerate(names):
        soundfile.write(name, song(8.0 + 3 * seed, seed), 16000)
    return names


def test_a_server_answers_as_python_does(server, exported, songs):
    kind, address = server
    remote = Identifier.of_server(kind(address, "my model"))
    local = Identifier(exported)
    for path in songs:
        for overlap in (0, 0.5):
            expected = local.identify(path, overlap=overlap)
            found = remote.identify(path, overlap=overlap)
            assert found.singer == expected.singer
            assert found.votes == expected.votes
            assert found.probabilities == pytest.approx(
                expected.probabilities, abs=1e-5
            )
            assert [c["start"] for c in found.clips] == [
                c["start"] for c in expected.clips
            ]


def test_long_songs_go_in_messages_below_the_limit(server, songs, monkeypatch):
    """Eight minutes, in clips of 48 kB, where a message may have 4 MiB."""
    kind, address = server
    remote = kind(address, "my model")
    clips = np.random.default_rng(0).normal(-20, 9, (160, 128, 94, 1))
    inputs = {"mel_spectrogram": clips.astype("float32").round(4)}
    found = remote.answers(inputs)
    assert found["probabilities"].shape == (160, 4)
    few = {"mel_spectrogram": inputs["mel_spectrogram"][150:153]}
    for name, values in remote.answers(few).items():
        np.testing.assert_allclose(values, found[name][150:153], atol=1e-5)
    for message in servers._messages(inputs, servers._MESSAGE):
        assert message["mel_spectrogram"].nbytes < 4 << 20


def test_versions_and_labels(server):
    kind, address = server
    if kind is servers.RestServer:
        asked = servers.RestServer.__new__(servers.RestServer)
        for given, place in (
            ({"version": 7}, "/v1/models/my%20model/versions/7:predict"),
            ({"label": "stable"}, "/v1/models/my%20model/labels/stable:predict"),
        ):
            asked.__init__(address, "my model", **given)
            assert asked._url == address + place
    kind(address, "my model", version=7)
    kind(address, "my model", label="stable")
    for wrong in ({"version": 3}, {"label": "canary"}):
        with pytest.raises(UserError, match="NOT_FOUND.*it serves 1, 7: --version"):
            kind(address, "my model", **wrong)


def test_only_a_server_that_is_down_is_asked_again(server, model):
    kind, address = server
    model.down = 3
    assert kind(address, "my model").metadata["artists"]
    assert model.down == 0
    model.down = 100
    with pytest.raises(UserError, match="UNAVAILABLE: not yet .*5 times asked"):
        kind(address, "my model")
    assert model.down == 95
    model.down = 0
    with pytest.raises(UserError, match="NOT_FOUND: Servable.* no model other"):
        kind(address, "other")


def test_nobody_there_and_nobody_in_time(server, model):
    kind, address = server
    free = "127.0.0.1:9"
    nowhere = free if kind is servers.GrpcServer else f"http://{free}"
    with pytest.raises(UserError, match=r"127.0.0.1:9.*UNAVAILABLE"):
        kind(nowhere, "my model")
    model.slow = 1.0
    try:
        with pytest.raises(UserError, match="DEADLINE_EXCEEDED.*--timeout"):
            kind(address, "my model", timeout=0.2)
    finally:
        model.slow = 0.0
    with pytest.raises(UserError, match="expected http://HOST:PORT"):
        servers.RestServer("localhost:8501", "my model")
    with pytest.raises(UserError, match="expected HOST:PORT"):
        servers.GrpcServer("http://localhost:8500", "my model")


def test_the_port_of_the_other_protocol(grpc_address):
    with pytest.raises(UserError, match="is it the gRPC port"):
        servers.RestServer(f"http://{grpc_address}", "my model")


def test_the_body_of_the_readme(rest_url, stub, songs):
    content = pathlib.Path(songs[0]).read_bytes()
    encoded = base64.b64encode(content).decode()
    body = {"signature_name": "audio_bytes"}
    body["inputs"] = {"audio_bytes": [{"b64": encoded}]}
    request = urllib.request.Request(
        f"{rest_url}/v1/models/my%20model:predict", json.dumps(body).encode()
    )
    with urllib.request.urlopen(request) as answer:
        outputs = json.load(answer)["outputs"]
    array = np.array([content], object)
    expected = ask(stub, "audio_bytes", audio_bytes=array)
    assert outputs["status"] == ["ok"]
    assert outputs["singer"] == [expected["singer"][0].decode()]
    np.testing.assert_allclose(
        outputs["probabilities"], expected["probabilities"], atol=1e-5
    )


# === The command ===


def test_the_command_over_both(grpc_address, rest_url, songs, capsys):
    said = {}
    for option, address in (("--grpc", grpc_address), ("--rest", rest_url)):
        command = [option, address, "--model", "my model", "--json", *songs]
        assert client.main(command) == 0
        answers = json.loads(capsys.readouterr().out)
        said[option] = {answer.pop("song"): answer for answer in answers}
    assert set(said["--grpc"]) == set(songs)
    for name, answer in said["--grpc"].items():
        other = said["--rest"][name]
        assert answer["singer"] == other["singer"]
        assert answer["probabilities"] == pytest.approx(
            other["probabilities"], abs=1e-5
        )


def test_the_command_keeps_a_table(grpc_address, songs, capsys):
    command = ["--grpc", grpc_address, "--model", "my model", *songs, "no.mp3"]
    assert client.main([*command, "--out", "o.csv"]) == 1
    said = capsys.readouterr().err
    assert "4 songs, 1 failed" in said
    assert "error: no.mp3: cannot be read" in said
    assert client.main(["--grpc", grpc_address, "--model", "none", *songs]) == 1
    assert "NOT_FOUND" in capsys.readouterr().err
    assert client.main([*command, "--parallel", "0"]) == 1
    assert "--parallel must be at least 1" in capsys.readouterr().err


def test_an_answer_that_is_late_costs_its_song_alone(
    grpc_address, songs, monkeypatch, capsys
):
    ask, calls = servers.GrpcServer._ask, []

    def late(self, signature, messages):
        calls.append(signature)
        if calls.count("clips") == 2:  # The second song's.
            self._timeout = 1e-6
        try:
            return ask(self, signature, messages)
        finally:
            self._timeout = 30.0

    monkeypatch.setattr(servers.GrpcServer, "_ask", late)
    command = ["--grpc", grpc_address, "--model", "my model", "--parallel", "1"]
    assert client.main([*command, *songs, "--json"]) == 1
    out, err = capsys.readouterr()
    answers = {answer["song"]: answer for answer in json.loads(out)}
    assert "DEADLINE_EXCEEDED" in answers[songs[1]]["error"]
    assert [bool(answers[name].get("singer")) for name in songs] == [True, False, True]
    assert f"Asking {grpc_address} for my model" in err


# === The protocol, without our client ===


def ask(stub, signature, **inputs):
    request = predict_pb2.PredictRequest(
        model_spec=model_pb2.ModelSpec(name="my model", signature_name=signature),
        inputs={k: tf.make_tensor_proto(v) for k, v in inputs.items()},
    )
    answer = stub.Predict(request, timeout=60)
    return {k: tf.make_ndarray(v) for k, v in answer.outputs.items()}


@pytest.fixture(scope="module")
def stub(grpc_address):
    limit = [("grpc.max_send_message_length", -1)]
    channel = grpc.insecure_channel(grpc_address, limit)
    return prediction_service_pb2_grpc.PredictionServiceStub(channel)


def test_files_of_many_clients_share_batches_and_nothing_else(stub, model, songs):
    """Among them a picture, at the same time as the others."""
    contents = [pathlib.Path(path).read_bytes() for path in songs]
    contents[1] = b"\x89PNG\r\n\x1a\n" + bytes(5000)
    arrays = [np.array([content], object) for content in contents]
    expected = [ask(stub, "audio_bytes", audio_bytes=array) for array in arrays]
    model.batches.clear()
    with concurrent.futures.ThreadPoolExecutor(12) as pool:
        futures = [
            pool.submit(
                ask,
                stub,
                "audio_bytes",
                audio_bytes=np.array([contents[n % 3]], object),
            )
            for n in range(12)
        ]
        found = [future.result() for future in futures]
    assert max(model.batches) > 1
    for n, answer in enumerate(found):
        np.testing.assert_allclose(
            answer["probabilities"], expected[n % 3]["probabilities"], atol=1e-5
        )
        assert answer["status"][0] == expected[n % 3]["status"][0]
    assert found[1]["status"][0] == b"no WAV file of 16-bit samples"
    assert found[0]["status"][0] == b"ok"


def test_what_is_wrong_is_said_and_the_server_stays(stub):
    samples = song(6.0)[None]
    expected = ask(stub, "serving_default", waveform=samples)
    for signature, inputs in (
        ("serving_default", {"waveform": samples[0]}),
        ("serving_default", {"waveform": samples.astype("float64")}),
        ("serving_default", {"wave": samples}),
        ("no such", {"waveform": samples}),
        ("songs", {"waveform": samples, "lengths": np.array([1, 2], "int32")}),
    ):
        with pytest.raises(grpc.RpcError) as error:
            ask(stub, signature, **inputs)
        assert error.value.code() == grpc.StatusCode.INVALID_ARGUMENT
        assert error.value.details()
    again = ask(stub, "serving_default", waveform=samples)
    np.testing.assert_array_equal(again["probabilities"], expected["probabilities"])


# === Nobody of these ===


@pytest.mark.parametrize("kind", ["grpc", "rest"])
def test_a_server_says_who_is_unknown_as_predict_does(
    exported_with_gallery, tmp_path, kind
):
    open_model = prediction_service.Model(tf.saved_model.load(exported_with_gallery))
    rng = np.random.default_rng(0)
    sounds = {
        "known.wav": song(8.0, 11),
        "strange.wav": np.sin(np.cumsum(rng.uniform(0.5, 2, 16000 * 8))) / 5,
        "noise.wav": rng.normal(0, 0.1, 16000 * 8),
    }
    for name, samples in sounds.items():
        soundfile.write(tmp_path / name, samples, 16000, subtype="FLOAT")
    here = Identifier(exported_with_gallery, runtime="tensorflow")
    kinds = {
        "grpc": (prediction_service.grpc_server, servers.GrpcServer),
        "rest": (prediction_service.rest_server, servers.RestServer),
    }
    serve, ask_by = kinds[kind]
    with serve({"open": open_model}) as address:
        there = Identifier.of_server(ask_by(address, "open"))
        assert there.gallery.threshold == here.gallery.threshold
        statuses = set()
        for name in sounds:
            answers = [each.identify(tmp_path / name) for each in (here, there)]
            one, other = answers
            assert (one.status, one.singer) == (other.status, other.singer)
            assert one.nearest == other.nearest
            assert one.score == pytest.approx(other.score, abs=1e-4)
            statuses.add(one.status)
    assert "no voice" in statuses
    assert len(statuses) >= 2
