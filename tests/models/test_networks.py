import keras
import numpy as np
import pytest

from benchmarks.train_step import plain_keras_network
from lca_keras.models import CRNN, CRNNFGNL, CRNNM
from tests.layer_checks import check_saving


def clips(count=2, frames=157, seed=0):
    rng = np.random.default_rng(seed)
    return rng.uniform(-60, 20, (count, 128, frames, 1)).astype("float32")


def randomize(model, seed=0):
    """Weights in the range of trained ones; fixed kernels stay."""
    rng = np.random.default_rng(seed)
    for weight in model.weights:
        if "gaussian" in weight.path:
            continue
        noise = rng.normal(0, 0.05, weight.shape)
        if "variance" in weight.path:
            weight.assign(rng.uniform(0.5, 1.5, weight.shape))
        elif "mel_norm/moving_mean" in weight.path:
            weight.assign(noise - 20)
        else:
            weight.assign(weight + noise)


@pytest.mark.parametrize(
    ("network", "parameters"),
    [(CRNN, 394_516), (CRNNM, 778_772), (CRNNFGNL, 584_141)],
)
def test_published_parameter_counts(network, parameters):
    assert network(num_classes=20, clip_frames=157).count_params() == parameters


@pytest.mark.parametrize("normalize", ["keys", "queries"])
def test_equals_the_straightforward_form(normalize):
    """Layer by layer from the library, weights carried over by name."""
    ours = CRNNFGNL(num_classes=5, normalize=normalize)
    randomize(ours)
    plain = plain_keras_network(num_classes=5, clip_frames=157, normalize=normalize)
    values = {weight.path: weight for weight in ours.weights}
    prefixes = {f"block{n}/": f"block{n}_" for n in range(1, 5)}
    prefixes |= {"fgnl/mose/": "mose_", "fgnl/output_conv": "output_conv"}
    for name in ("theta", "phi_deep", "phi_shallow", "g_deep", "g_shallow"):
        prefixes[f"fgnl/{name}/"] = f"{name}_"
    renamed = {}
    for path, weight in values.items():
        for ours_prefix, plain_prefix in prefixes.items():
            path = path.replace(ours_prefix, plain_prefix)
        renamed[path] = weight
    for weight in plain.weights:
        weight.assign(renamed.pop(weight.path))
    assert not renamed
    x = clips()
    np.testing.assert_allclose(
        ours.predict(x, verbose=0), plain.predict(x, verbose=0), atol=1e-4
    )


@pytest.mark.parametrize("frames", [94, 157, 313])
def test_all_clip_lengths_and_saving(frames, tmp_path):
    model = CRNNFGNL(4, frames, filters=(4, 8, 8, 8), reduction=4, temperature=2.0)
    randomize(model)
    x = clips(3, frames)
    loaded = check_saving(model, x, tmp_path)
    assert loaded.get_config() == model.get_config()
    probabilities = model.predict(x, verbose=0)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-5)


def test_results_do_not_depend_on_the_batch():
    model = CRNNFGNL(4, 94, filters=(4, 8, 8, 8), reduction=4)
    randomize(model)
    x = clips(5, 94)
    alone = np.concatenate([model(x[i : i + 1]) for i in range(5)])
    np.testing.assert_allclose(model(x), alone, atol=1e-5)


def test_for_inference_is_float32_with_a_temperature():
    model = CRNNFGNL(4, 94, filters=(4, 8, 8, 8), reduction=4, dtype="mixed_bfloat16")
    assert model.encoder.get_layer("block1").compute_dtype == "bfloat16"
    randomize(model)
    exported = model.for_inference(3.0)
    assert exported.encoder.get_layer("block1").compute_dtype == "float32"
    x = clips(2, 94)
    embedding = exported.embedder(exported.encoder(x)["maps"])
    logits = np.array(exported.classifier(embedding), "float64")
    expected = np.exp(logits / 3) / np.exp(logits / 3).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(exported(x), expected, atol=1e-6)
    for mine, theirs in zip(model.weights, exported.weights, strict=True):
        np.testing.assert_array_equal(mine, theirs)


def test_bfloat16_agrees_with_float32():
    settings = {"num_classes": 4, "clip_frames": 94}
    half = CRNNFGNL(**settings, dtype="mixed_bfloat16")
    full = CRNNFGNL(**settings, dtype="float32")
    full.set_weights(half.get_weights())
    x = clips(2, 94)
    np.testing.assert_allclose(half(x), full(x), atol=0.02)


def test_crnn_has_no_penalties_and_crnn_fgnl_has_two():
    x = clips(2, 94)
    crnn = CRNN(4, 94, filters=(4, 8, 8, 8))
    crnn(x)
    assert crnn.losses == []
    model = CRNNFGNL(4, 94, filters=(4, 8, 8, 8), reduction=4)
    model(x)
    embedding = model.embedder(model.encoder(x)["maps"])
    logits = np.array(embedding @ model.classifier.kernel + model.classifier.bias)
    activity = 0.01 * np.abs(logits).sum() / 2  # Divided by the batch.
    kernel = 0.01 * np.square(model.classifier.kernel).sum()
    np.testing.assert_allclose(
        sorted(float(loss) for loss in model.losses), sorted([activity, kernel]), 1e-4
    )


@pytest.mark.parametrize("network", [CRNN, CRNNM, CRNNFGNL])
def test_every_argument_is_an_attribute_and_in_the_config(network):
    given = {
        "num_classes": 3,
        "clip_frames": 94,
        "mel_bins": 128,
        "filters": (4, 8, 8, 12),
        "gru_units": 5,
        "block_dropout": 0.2,
        "head_dropout": 0.4,
        "temperature": 1.5,
        "dtype": "mixed_bfloat16",
        "name": "mine",
    }
    if network is CRNNFGNL:
        given |= {"reduction": 4, "normalize": "queries"}
    model = network(**given)
    config = model.get_config()
    assert config == {**given, "trainable": True}
    for name in set(given) - {"dtype"}:
        assert getattr(model, name) == given[name], name
    again = network.from_config(config)
    assert again.get_config() == config
    assert [w.shape for w in again.weights] == [w.shape for w in model.weights]


def test_one_class_is_an_error():
    with pytest.raises(ValueError, match="num_classes=1"):
        CRNN(1)


def test_weight_paths_do_not_depend_on_other_models():
    paths = [[w.path for w in CRNNFGNL(3, 94).weights] for _ in range(2)]
    assert paths[0] == paths[1]
    assert len(set(paths[0])) == len(paths[0])
    assert "fgnl/theta/conv/kernel" in paths[0]
    keras.backend.clear_session()


def test_crnnm_is_two_crnn_trunks_side_by_side():
    """Each trunk as CRNN computes it; melody channels after the spectrogram's."""
    ours = CRNNM(num_classes=5)
    randomize(ours)
    mel, melody = clips(seed=1), (clips(seed=2) > 15).astype("float32")
    maps = []
    for prefix, x in (("", mel), ("melody_", melody)):
        trunk = CRNN(num_classes=5)
        values = {w.path: w for w in ours.encoder.weights}
        for weight in trunk.encoder.weights:
            weight.assign(values[prefix + weight.path])
        maps.append(trunk.encoder.predict(x, verbose=0)["maps"])
    inputs = {"mel_spectrogram": mel, "melody": melody}
    expected = ours.embedder.predict(np.concatenate(maps, axis=-1), verbose=0)
    expected = ours.classifier(expected).numpy()
    expected = np.exp(expected) / np.exp(expected).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(ours.predict(inputs, verbose=0), expected, atol=1e-5)


def test_crnnm_saves_and_loads(tmp_path):
    model = CRNNM(3, clip_frames=94, filters=(4, 8, 8, 8), gru_units=4)
    randomize(model)
    rng = np.random.default_rng(0)
    inputs = {name: rng.normal(size=(2, 128, 94, 1)) for name in model.input}
    expected = model.predict(inputs, verbose=0)
    model.save(tmp_path / "m.keras")
    loaded = keras.saving.load_model(tmp_path / "m.keras")
    np.testing.assert_array_equal(loaded.predict(inputs, verbose=0), expected)
    calm = model.for_inference(temperature=2.0).predict(inputs, verbose=0)
    sharp = np.sqrt(expected)
    expected = sharp / sharp.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(calm, expected, atol=1e-6)
