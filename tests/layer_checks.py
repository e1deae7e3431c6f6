"""One check of the contract that every layer has to keep."""

import inspect
import json

import keras
import numpy as np


def check_layer(
    layer_class,
    init_kwargs,
    input_shape,
    expected_shape,
    num_trainable=0,
    num_non_trainable=0,
    call_kwargs=None,
):
    """Checks configuration, weights, shapes, dtypes, training and saving of a layer.

    Args:
        layer_class: The layer's class.
        init_kwargs: Its arguments; every constructor argument must be named, so that
            none is forgotten in `get_config`.
        input_shape: Shape of the input with batch, or a list of shapes.
        expected_shape: Shape of the output, with batch.
        num_trainable: Number of trainable weights.
        num_non_trainable: Number of other weights.
        call_kwargs: Further arguments of the call.
    """
    call_kwargs = call_kwargs or {}
    keras.utils.set_random_seed(0)
    layer = layer_class(**init_kwargs)

    # === Config ===
    signature = inspect.signature(layer_class.__init__).parameters.values()
    arguments = {
        p.name
        for p in signature
        if p.kind is p.POSITIONAL_OR_KEYWORD and p.name != "self"
    }
    config = json.loads(json.dumps(layer.get_config()))
    assert arguments <= set(config), arguments - set(config)
    for name, value in init_kwargs.items():
        stored = config[name]
        same = list(value) == stored if isinstance(value, tuple) else stored == value
        assert same, (name, stored, value)
    revived = layer_class.from_config({**config, "trainable": True})
    assert json.loads(json.dumps(revived.get_config())) == config

    # === Shapes, weights, dtypes ===
    shapes = input_shape if isinstance(input_shape, list) else [input_shape]
    rng = np.random.default_rng(0)
    arrays = [rng.standard_normal(shape).astype("float32") for shape in shapes]
    inputs = arrays if isinstance(input_shape, list) else arrays[0]
    outputs = layer(inputs, **call_kwargs)
    assert tuple(outputs.shape) == expected_shape
    assert len(layer.trainable_weights) == num_trainable
    assert len(layer.non_trainable_weights) == num_non_trainable
    mixed = layer_class(**init_kwargs, dtype="mixed_bfloat16")
    half = mixed(inputs, **call_kwargs)
    assert {w.dtype for w in mixed.weights} <= {"float32"}
    assert keras.backend.standardize_dtype(half.dtype) in ("bfloat16", "float32")

    # === Symbolic use, one training step, saving ===
    symbols = [keras.Input(shape[1:]) for shape in shapes]
    symbolic = layer_class(**init_kwargs, name="checked")(
        symbols if isinstance(input_shape, list) else symbols[0], **call_kwargs
    )
    assert symbolic.shape[1:] == expected_shape[1:]
    pooled = keras.layers.Dense(1)(keras.layers.Flatten()(symbolic))
    model = keras.Model(symbols, pooled)
    model.compile("sgd", "mse", jit_compile=False)
    before = [w.numpy().copy() for w in model.trainable_weights]
    model.fit(arrays, np.ones((shapes[0][0], 1)), verbose=0)
    for weight, old in zip(model.trainable_weights, before, strict=True):
        # A softmax is blind to a shift of all scores: its last bias has no gradient.
        if not weight.path.endswith("score/bias"):
            assert not np.array_equal(weight.numpy(), old), weight.path
    return model


def check_saving(model, inputs, tmp_path):
    """Saves a model as `.keras`, loads it in safe mode and compares the outputs."""
    path = tmp_path / "model.keras"
    model.save(path)
    loaded = keras.saving.load_model(path)
    expected = model.predict(inputs, verbose=0)
    actual = loaded.predict(inputs, verbose=0)
    keras.tree.map_structure(np.testing.assert_array_equal, actual, expected)
    return loaded
