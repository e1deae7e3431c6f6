"""Times one training step: this project's networks against the plain Keras form.

Run `python -m benchmarks.train_step`. Every variant runs in a process of its own, so
that peak memory is its own; variants take turns over several rounds, so that a busy
moment of the machine does not favour one. The fastest round's median is reported.
"""

import resource
import timeit

from benchmarks import common
from lca_keras.base import console

VARIANTS = (
    ("plain Keras", "float32"),
    ("none", "float32"),
    ("cal", "float32"),
    ("lca", "float32"),
    ("none", "mixed_bfloat16"),
    ("lca", "mixed_bfloat16"),
)


def plain_keras_network(num_classes, clip_frames, normalize="keys"):
    """CRNN_FGNL written the straightforward way, the yardstick.

    Library layers as they come, and for every shift one softmax and two products.
    Its weights have the names of `CRNNFGNL`'s, with `_` for `/` between layers.
    """
    from keras import Input, Model, layers, ops, regularizers

    from lca_keras.layers import GaussianFilter2D

    x = inputs = Input((128, clip_frames, 1))
    x = layers.BatchNormalization(axis=1, name="mel_norm", dtype="float32")(x)
    blocks = []
    sizes = [(64, None), (128, 2), (128, 2), (128, 2)]
    for number, (filters, pool) in enumerate(sizes, start=1):
        x = layers.Conv2D(filters, 3, padding="same", name=f"block{number}_conv")(x)
        x = layers.ELU()(x)
        x = layers.BatchNormalization(name=f"block{number}_norm")(x)
        if pool:
            x = layers.MaxPooling2D(pool)(x)
        x = layers.Dropout(0.1)(x)
        blocks.append(x)
    shallow, deep = blocks[2], blocks[3]

    def project(maps, name):
        maps = layers.Conv2D(4, 1, name=f"{name}_conv")(maps)
        maps = GaussianFilter2D(name=f"{name}_gaussian")(maps)
        return layers.Reshape((-1, 4))(maps)

    def project_both(name):
        both = project(deep, f"{name}_deep"), project(shallow, f"{name}_shallow")
        return layers.Concatenate(axis=1)(both)

    theta, phi, g = project(deep, "theta"), project_both("phi"), project_both("g")
    attended = []
    for shift in range(4):
        scores = layers.Dot(axes=2)([theta, ops.roll(phi, shift, axis=-1)])
        softmax = layers.Softmax(axis=-1 if normalize == "keys" else 1)
        attended.append(layers.Dot(axes=(2, 1))([softmax(scores), g]))
    attended = ops.stack(attended, axis=1)
    squeezed = ops.mean(attended, axis=(2, 3))[..., None]
    excited = layers.Dense(16, activation="relu", name="mose_excite")(squeezed)
    attention = ops.softmax(layers.Dense(1, name="mose_score")(excited), axis=1)
    weighted = ops.transpose(attended * attention[..., None], (0, 2, 3, 1))
    weighted = ops.reshape(weighted, (-1, *deep.shape[1:3], 16))
    x = deep + layers.Conv2D(128, 1, name="output_conv")(weighted)
    x = layers.Permute((2, 1, 3))(x)
    x = layers.Reshape((x.shape[1], -1))(x)
    x = layers.GRU(32, return_sequences=True, name="gru1")(x)
    x = layers.GRU(32, name="gru2")(x)
    x = layers.Dropout(0.3)(x)
    x = layers.Dense(
        num_classes,
        kernel_regularizer=regularizers.L2(0.01),
        activity_regularizer=regularizers.L1(0.01),
        name="classifier",
    )(x)
    return Model(inputs, layers.Softmax()(x), name="plain_keras")


def measure(variant, precision, steps, batch_size, clip_frames):
    """Returns seconds a step (median) and peak memory of this process in MiB."""
    console.quiet_tensorflow()
    import keras
    import numpy as np

    from lca_keras.base.config import Config
    from lca_keras.base.sections import CLIP_SECONDS
    from lca_keras.models.factory import build_training_model

    keras.utils.set_random_seed(0)
    if variant == "plain Keras":
        model = plain_keras_network(20, clip_frames)
        loss = "sparse_categorical_crossentropy"
        model.compile(keras.optimizers.Adam(1e-4), loss, jit_compile=False)
    else:
        seconds = next(s for s in CLIP_SECONDS if 1 + s * 16000 // 512 == clip_frames)
        train = {"method": variant, "precision": precision, "clip_seconds": seconds}
        model = build_training_model(Config().replace(train=train), num_classes=20)
        model.gate.update_state(1)
    # Decibels of real features: with most energies far below the maximum.
    rng = np.random.default_rng(0)
    x = rng.uniform(-60, 20, (batch_size, 128, clip_frames, 1)).astype("float32")
    y = rng.integers(0, 20, batch_size)
    x, y = keras.ops.convert_to_tensor(x), keras.ops.convert_to_tensor(y, "int32")
    rounds = steps + 2  # The first two trace and warm up.
    took = timeit.repeat(lambda: model.train_on_batch(x, y), number=1, repeat=rounds)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return float(np.median(took[2:])), peak


def main(argv=None):
    """Runs all variants and prints the table."""
    parser = common.parser(__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=6, help="timed steps a round")
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--clip-frames", type=int, default=157)
    args = parser.parse_args(argv)
    sizes = (args.steps, args.batch_size, args.clip_frames)
    results = {variant: [] for variant in VARIANTS}
    for _ in range(args.rounds):
        for variant in VARIANTS:
            results[variant].append(common.apart(measure, *variant, *sizes))
    best = {v: min(rows)[0] for v, rows in results.items()}
    plain = best[VARIANTS[0]]
    print(f"batch {args.batch_size}, {args.clip_frames} frames, 20 artists")
    print(f"{'network':<12} {'precision':<15} {'s/step':>7} {'ratio':>6} {'MiB':>6}")
    for (name, precision), rows in results.items():
        took, peak = best[name, precision], max(mib for _, mib in rows)
        ratio = took / plain
        print(f"{name:<12} {precision:<15} {took:7.3f} {ratio:6.2f} {peak:6.0f}")
    for precision in ("float32", "mixed_bfloat16"):
        ratio = best["lca", precision] / best["none", precision]
        print(f"lca / none in {precision}: {ratio:.2f}")


if __name__ == "__main__":
    main()
