"""Times a served model over gRPC on this machine: throughput and latency.

Run `python -m benchmarks.serve`. A PredictionService of tensorflow-serving-api in a
process of its own loads an export, as TF Serving would, without batching; a client asks
with batches of clips, as waveforms and as spectrograms. What a call costs beside the
computation is measured by asking the model in the server's process.
"""

import argparse
import concurrent.futures
import subprocess
import sys
import tempfile
import time

from benchmarks import common


def serve(export, rounds):
    """Serves an export; before it, prints what its calls cost without transport."""
    import grpc
    import numpy as np
    import tensorflow as tf
    from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

    model = tf.saved_model.load(export)
    for name, batch, array in _requests(export):
        inputs = {k: tf.constant(v) for k, v in array.items()}
        call = model.signatures[name]
        call(**inputs)
        times = []
        for _ in range(rounds):
            start = time.perf_counter()
            call(**inputs)
            times.append(time.perf_counter() - start)
        print(f"inside {name} {batch} {np.median(times)}", flush=True)

    class Servicer(prediction_service_pb2_grpc.PredictionServiceServicer):
        def Predict(self, request, context):
            """Answers."""
            arrays = {k: tf.make_ndarray(v) for k, v in request.inputs.items()}
            outputs = model.signatures[request.model_spec.signature_name](
                **{k: tf.constant(v) for k, v in arrays.items()}
            )
            response = predict_pb2.PredictResponse()
            for name, value in outputs.items():
                response.outputs[name].CopyFrom(tf.make_tensor_proto(value.numpy()))
            return response

    limits = [("grpc.max_receive_message_length", -1)]
    server = grpc.server(concurrent.futures.ThreadPoolExecutor(2), options=limits)
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(
        Servicer(), server
    )
    print(f"port {server.add_insecure_port('127.0.0.1:0')}", flush=True)
    server.start()
    sys.stdin.read()


def _requests(export):
    """Yields signature, batch and inputs: clips, as waveforms and spectrograms."""
    import pathlib

    import numpy as np

    from lca_keras.base import files
    from lca_keras.base.config import Config

    about = files.read_json(pathlib.Path(export, "lca_keras.json"))
    config = Config.from_dict(about["config"])
    rng = np.random.default_rng(0)
    frames = config.clip_frames
    for batch in (1, 8, 32):
        samples = frames * config.front_end.main.hop
        waveform = rng.normal(0, 0.1, (batch, samples)).astype("float32")
        yield "serving_default", batch, {"waveform": waveform}
        clips = {
            name: rng.normal(0, 20, (batch, *shape)).astype("float32")
            for name, shape in config.clip_shapes.items()
        }
        yield config.front_end.signature, batch, clips


def main(argv=None):
    """Starts the server, asks it, prints the table."""
    parser = common.parser(__doc__)
    parser.add_argument("--preset", default="paper", help="whose network is served")
    parser.add_argument("--rounds", type=int, default=20, help="calls of each kind")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.worker:
        serve(args.worker, args.rounds)
        return

    import grpc
    import numpy as np
    import tensorflow as tf
    from tensorflow_serving.apis import (
        model_pb2,
        predict_pb2,
        prediction_service_pb2_grpc,
    )

    with tempfile.TemporaryDirectory() as folder:
        export, config = common.export_network(args.preset, folder)
        command = [sys.executable, "-m", "benchmarks.serve", "--worker", str(export)]
        process = subprocess.Popen(
            [*command, "--rounds", str(args.rounds)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        inside = {}
        for line in process.stdout:
            kind, *rest = line.split()
            if kind == "port":
                port = rest[0]
                break
            inside[rest[0], int(rest[1])] = float(rest[2])
        channel = grpc.insecure_channel(
            f"127.0.0.1:{port}", [("grpc.max_send_message_length", -1)]
        )
        stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        seconds = config.clip_frames / config.front_end.frame_rate
        print(f"{args.preset} network, clips of {seconds:.1f} s, {args.rounds} calls")
        print("signature        batch  clips/s    p50    p95    p99 ms   transport")
        for name, batch, arrays in _requests(export):
            request = predict_pb2.PredictRequest(
                model_spec=model_pb2.ModelSpec(name=args.preset, signature_name=name),
                inputs={k: tf.make_tensor_proto(v) for k, v in arrays.items()},
            )
            stub.Predict(request)
            times = []
            for _ in range(args.rounds):
                start = time.perf_counter()
                stub.Predict(request)
                times.append(time.perf_counter() - start)
            middle, high, highest = 1000 * np.percentile(times, (50, 95, 99))
            transport = max(0.0, 1 - 1000 * inside[name, batch] / middle)
            print(
                f"{name:<16} {batch:5d} {batch / np.mean(times):8.1f} {middle:6.0f} "
                f"{high:6.0f} {highest:6.0f}      {transport:6.0%}"
            )
        for batch in (1, 8, 32):
            both = inside["serving_default", batch]
            share = 1 - inside["mel", batch] / both
            print(f"front end, batch {batch}: {max(0.0, share):.0%} of the computation")
        process.stdin.close()
        process.wait()


if __name__ == "__main__":
    main()
