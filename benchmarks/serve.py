"""Times a served model over gRPC on this machine: throughput and latency.

Run `python -m benchmarks.serve`. A PredictionService of tensorflow-serving-api in a
process of its own loads an export, as TF Serving would, without batching. What a call
costs beside the computation is measured by asking the model in the server's process.
"""

import concurrent.futures
import functools
import tempfile
import timeit

from benchmarks import common
from lca_keras.base import console

_BATCHES = (1, 8, 32)


def serve(export, config, rounds, pipe):
    """Sends what calls of an export cost without transport, and a port; serves it."""
    console.quiet_tensorflow()
    import grpc
    import numpy as np
    import tensorflow as tf
    from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

    model = tf.saved_model.load(export)
    inside = {}
    for name, batch, arrays in _requests(config):
        inputs = {k: tf.constant(v) for k, v in arrays.items()}
        times = _seconds(rounds, functools.partial(model.signatures[name], **inputs))
        inside[name, batch] = np.median(times)

    class Servicer(prediction_service_pb2_grpc.PredictionServiceServicer):
        def Predict(self, request, context):
            """Answers."""
            given = request.inputs.items()
            inputs = {k: tf.constant(tf.make_ndarray(v)) for k, v in given}
            outputs = model.signatures[request.model_spec.signature_name](**inputs)
            response = predict_pb2.PredictResponse()
            for name, value in outputs.items():
                response.outputs[name].CopyFrom(tf.make_tensor_proto(value.numpy()))
            return response

    limits = [("grpc.max_receive_message_length", -1)]
    server = grpc.server(concurrent.futures.ThreadPoolExecutor(2), options=limits)
    add = prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server
    add(Servicer(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    pipe.send((inside, port))
    server.wait_for_termination()


def _seconds(rounds, call):
    """What each of so many calls takes, after one that does not count."""
    return timeit.repeat(call, number=1, repeat=rounds + 1)[1:]


def _requests(config):
    """Yields signature, batch and inputs: clips, as waveforms and spectrograms."""
    import numpy as np

    rng = np.random.default_rng(0)
    for batch in _BATCHES:
        samples = config.clip_frames * config.front_end.main.hop
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
    args = parser.parse_args(argv)

    import grpc
    import numpy as np
    import tensorflow as tf
    from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

    with tempfile.TemporaryDirectory() as folder:
        export, config = common.export_network(args.preset, folder)
        pipe, its_end = common.SPAWN.Pipe()
        given = (str(export), config, args.rounds, its_end)
        common.SPAWN.Process(target=serve, args=given, daemon=True).start()
        its_end.close()  # Or its death would not be seen.
        inside, port = pipe.recv()
    limits = [("grpc.max_send_message_length", -1)]
    channel = grpc.insecure_channel(f"127.0.0.1:{port}", limits)
    stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
    seconds = config.clip_frames / config.front_end.frame_rate
    print(f"{args.preset} network, clips of {seconds:.1f} s, {args.rounds} calls")
    print("signature        batch  clips/s    p50    p95    p99 ms   transport")
    for name, batch, arrays in _requests(config):
        spec = {"name": args.preset, "signature_name": name}
        inputs = {k: tf.make_tensor_proto(v) for k, v in arrays.items()}
        request = predict_pb2.PredictRequest(model_spec=spec, inputs=inputs)
        times = _seconds(args.rounds, functools.partial(stub.Predict, request))
        middle, high, highest = 1000 * np.percentile(times, (50, 95, 99))
        transport = max(0.0, 1 - 1000 * inside[name, batch] / middle)
        print(
            f"{name:<16} {batch:5d} {batch / np.mean(times):8.1f} {middle:6.0f} "
            f"{high:6.0f} {highest:6.0f}      {transport:6.0%}"
        )
    for batch in _BATCHES:
        share = 1 - inside["mel", batch] / inside["serving_default", batch]
        print(f"front end, batch {batch}: {max(0.0, share):.0%} of the computation")


if __name__ == "__main__":
    main()
