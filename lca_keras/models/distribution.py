"""The devices to train on: one, several of a machine, or several machines.

Every replica takes its share of each batch: the batch size of a configuration is that
of all together, and the loss, and what a batch's statistics normalise, are those of one
process with that batch.
"""

import json
import os
import socket

import keras
from keras import ops

from lca_keras.base.errors import UserError


def has_gpu():
    """Whether the backend sees a GPU."""
    if keras.backend.backend() != "tensorflow":
        return any("gpu" in name for name in keras.distribution.list_devices())
    import tensorflow as tf

    return bool(tf.config.list_physical_devices("GPU"))


def start(kind):
    """The `tf.distribute.Strategy` of a kind of `sections.STRATEGIES`, or `None`.

    To be called before anything else of TensorFlow. Of `multiworker` every process is
    started by itself, with the environment variable `TF_CONFIG` that says which it is;
    it waits for the others. Without such a `TF_CONFIG` that is a `UserError`.
    """
    if kind is None:
        return None
    import tensorflow as tf

    if kind == "mirrored":
        return tf.distribute.MirroredStrategy()
    try:
        config = json.loads(os.environ["TF_CONFIG"])
        config["cluster"]["worker"][config["task"]["index"]]
        if config["task"]["type"] != "worker":
            raise ValueError(f"task type {config['task']['type']!r}")
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise UserError(
            "--strategy multiworker: the environment variable TF_CONFIG has to say "
            f"which of the processes this is ({error!r}), for example "
            'TF_CONFIG=\'{"cluster": {"worker": ["host1:2222", "host2:2222"]}, "task": '
            '{"type": "worker", "index": 0}}\''
        ) from error
    return tf.distribute.MultiWorkerMirroredStrategy()


def is_chief(strategy):
    """Whether this process is the one that writes."""
    task = getattr(strategy, "cluster_resolver", None)
    return task is None or not task.task_id


def reaches_first():
    """Whether the first of several processes listens where `TF_CONFIG` says."""
    first = json.loads(os.environ["TF_CONFIG"])["cluster"]["worker"][0]
    host, _, port = first.rpartition(":")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=5):
            return True
    except OSError:
        return False


# === Arithmetic inside of a replica's step ===


def _over_replicas(value):
    """Sum of a scalar over the replicas of a step."""
    if keras.backend.backend() != "tensorflow":
        return value
    import tensorflow as tf

    context = tf.distribute.get_replica_context()
    if context is None or context.num_replicas_in_sync == 1:
        return value
    return context.all_reduce(tf.distribute.ReduceOp.SUM, value)


def present(sample_weight):
    """1 for each example, 0 for those of weight zero: they fill up a batch."""
    return ops.cast(ops.convert_to_tensor(sample_weight) > 0, "float32")


def share(sample_weight):
    """Share of this replica's examples in those of all; 1 if it is alone."""
    if sample_weight is None:
        return 1.0
    count = ops.sum(present(sample_weight))
    return count / ops.maximum(_over_replicas(count), 1.0)


def mean(values, sample_weight):
    """Mean over examples, by their weights where there are any."""
    if sample_weight is None:
        return ops.mean(values)
    weight = ops.cast(sample_weight, values.dtype)
    # By the weights of all replicas; what follows weighs by their examples.
    whole = _over_replicas(ops.sum(weight)) * share(sample_weight)
    return ops.sum(values * weight) / ops.maximum(whole, 1e-7)


# === Training and predicting ===


def fit(strategy, model, batches, steps, first_epoch, epochs, class_weight, callbacks):
    """`keras.Model.fit` under a strategy, with this package's training step.

    Keras' own fails with several workers (3.15).

    Args:
        strategy: `tf.distribute.Strategy` in whose scope the model was built.
        model: Compiled `keras.Model` whose `train_step` weighs the replicas' losses.
        batches: `tf.data.Dataset` of clips and labels, the same in every process.
        steps: Int, batches an epoch.
        first_epoch, epochs: Ints, from and before which to train.
        class_weight: Dict from class to weight, or `None`.
        callbacks: Keras callbacks; their logs are those of all replicas.

    Raises:
        WorkerGoneError: One of several processes has ended.
    """
    import tensorflow as tf

    weights = class_weight or dict.fromkeys(range(model.backbone.num_classes), 1.0)
    weights = tf.constant([weights[number] for number in range(len(weights))])
    replicas = strategy.num_replicas_in_sync

    def shares(context):
        local = replicas // context.num_input_pipelines
        first = context.input_pipeline_id * local

        def of_batch(clips, labels):
            def of_replica(number):
                count = tf.shape(labels, tf.int64)[0]
                # Where a batch is too small for all, a clip without weight stands in.
                rows = tf.range(number, tf.maximum(count, number + 1), replicas)
                data = clips, labels, tf.gather(weights, labels)
                data = tf.nest.map_structure(lambda x: tf.gather(x, rows % count), data)
                return *data[:2], data[2] * tf.cast(rows < count, tf.float32)

            return tf.data.Dataset.range(first, first + local).map(of_replica)

        return batches.flat_map(of_batch)

    dataset = strategy.distribute_datasets_from_function(shares)

    @tf.function
    def step(iterator):
        strategy.run(model.train_step, args=(next(iterator),))

    called = keras.callbacks.CallbackList(
        callbacks, model=model, epochs=epochs, steps=steps, verbose=0
    )
    iterator, logs = iter(dataset), {"loss": 0.0}
    try:
        called.on_train_begin()
        for epoch in range(first_epoch, epochs):
            model.reset_metrics()
            called.on_epoch_begin(epoch)
            for batch in range(steps):
                called.on_train_batch_begin(batch)
                step(iterator)
                # To read them makes the replicas wait for each other.
                if batch % 10 == 9 or batch + 1 == steps:
                    found = model.get_metrics_result()
                    logs = {k: float(tf.convert_to_tensor(v)) for k, v in found.items()}
                called.on_train_batch_end(batch, logs)
            logs = dict(logs)
            called.on_epoch_end(epoch, logs)
            if model.stop_training:
                break
        called.on_train_end(logs)
    except (  # What TensorFlow says when a worker is gone.
        tf.errors.UnavailableError,
        tf.errors.AbortedError,
        tf.errors.CancelledError,
        tf.errors.DeadlineExceededError,
    ) as error:
        if not hasattr(strategy, "cluster_resolver"):
            raise
        raise WorkerGoneError(f"a worker is gone ({error.message})") from error


class WorkerGoneError(UserError):
    """Another process of a training on several has ended."""


def predict(model, batches):
    """`keras.Model.predict`; of a model on several replicas each process does all."""
    spread = keras.backend.backend() == "tensorflow"
    if not spread or model.distribute_strategy.num_replicas_in_sync == 1:
        return model.predict(batches, verbose=0)
    import tensorflow as tf

    @tf.function(reduce_retracing=True)
    def forward(inputs):
        return model(inputs, training=False)

    parts = [forward(inputs) for inputs in batches]
    return tf.nest.map_structure(
        lambda *pieces: tf.concat(pieces, axis=0).numpy(), *parts
    )
