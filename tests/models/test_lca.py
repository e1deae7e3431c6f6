import dataclasses
import os
import subprocess
import sys
import textwrap

import keras
import numpy as np
import pytest

from lca_keras.base.sections import LossWeights
from lca_keras.models import CRNN, CRNNFGNL, LCAModel, lca, losses
from lca_keras.models.callbacks import EpochSeed, WarmUp
from tests.layer_checks import check_saving
from tests.models.test_networks import clips, randomize

WEIGHTS = LossWeights(main=0.9, effect=1.0, cf=0.4, ent_cf=0.7, att=1.3, ent_main=0.2)


def backbone(dropout=0.0, **kwargs):
    return CRNNFGNL(
        num_classes=4,
        clip_frames=94,
        filters=(4, 8, 8, 8),
        reduction=4,
        block_dropout=dropout,
        head_dropout=dropout,
        **kwargs,
    )


def compiled(method="lca", dropout=0.0, seed=0, **kwargs):
    keras.utils.set_random_seed(seed)
    model = LCAModel(
        backbone(dropout),
        method=method,
        loss_weights=WEIGHTS,
        cf_dropout=dropout,
        seed=1,
        **kwargs,
    )
    model.compile(keras.optimizers.Adam(1e-2))
    return model


def data(count=6):
    return clips(count, 94), np.arange(count) % 4


def test_training_adds_49_parameters():
    network = CRNNFGNL(20, 157)
    model = LCAModel(network)
    assert model.count_params() == 584_141 + 49
    assert model.main_branch().count_params() == 584_141


def test_loss_equals_the_equation():
    model = compiled()
    randomize(model, seed=3)
    model.gate.update_state(1)
    x, y = data()
    outputs = {k: np.array(v, "float64") for k, v in model(x).items()}

    def softmax(logits):
        e = np.exp(logits - logits.max(axis=1, keepdims=True))
        return e / e.sum(axis=1, keepdims=True)

    def ce(probabilities):
        return -np.log(probabilities[np.arange(len(y)), y]).mean()

    def entropy(probabilities):
        return -(probabilities * np.log(probabilities)).sum(axis=1).mean()

    main, cf = softmax(outputs["logits"]), softmax(outputs["cf_logits"])
    distance = np.abs(outputs["attention"] - outputs["cf_attention"]).mean()
    expected = (
        0.9 * ce(main)
        + 1.0 * ce(softmax(main - cf))
        + 0.4 * ce(cf)
        - 0.7 * entropy(cf)
        - 1.3 * distance
        - 0.2 * entropy(main)
    )
    penalties = sum(float(loss) for loss in model.losses)
    loss = model.compute_loss(x, y, model(x))
    np.testing.assert_allclose(loss, expected + penalties, rtol=1e-5)
    model.gate.update_state(0)
    loss = model.compute_loss(x, y, model(x))
    np.testing.assert_allclose(loss, ce(main) + penalties, rtol=1e-5)


def test_sample_weights_of_zero_leave_examples_out():
    model = compiled()
    model.gate.update_state(1)
    x, y = data()
    outputs = model(x)
    weight = np.array([1, 1, 1, 0, 0, 0], "float32")
    some = model.compute_loss(x, y, outputs, weight)
    first = {k: v[:3] for k, v in outputs.items()}
    np.testing.assert_allclose(some, model.compute_loss(x, y[:3], first), rtol=1e-5)


def test_counterfactual_equals_main_with_equal_attention():
    """Same weights in both MoSE layers: the branches must not differ."""
    model = compiled()
    randomize(model, seed=3)
    model.cf_attention.set_weights(
        model.backbone.encoder.get_layer("fgnl").mose.get_weights()
    )
    outputs = model(clips(3, 94))
    np.testing.assert_allclose(outputs["cf_logits"], outputs["logits"], atol=1e-5)
    np.testing.assert_array_equal(outputs["cf_attention"], outputs["attention"])


def test_a_detached_counterfactual_trains_its_own_attention_only():
    import tensorflow as tf

    x, y = data()
    gradients, outputs = {}, {}
    for detach in (False, True):
        model = compiled(detach_counterfactual=detach)
        randomize(model, seed=3)
        with tf.GradientTape(persistent=True) as tape:
            outputs[detach] = model(x, training=True)
            cf = tf.reduce_sum(losses.cross_entropy(y, outputs[detach]["cf_logits"]))
            main = tf.reduce_sum(losses.cross_entropy(y, outputs[detach]["logits"]))
        shared = model.backbone.trainable_weights
        gradients[detach] = {
            "cf": tape.gradient(cf, model.cf_attention.trainable_weights),
            "shared by cf": [g for g in tape.gradient(cf, shared) if g is not None],
            "shared by main": tape.gradient(main, shared),
        }
    # The forward pass is the same, in both branches.
    for name, value in outputs[False].items():
        np.testing.assert_allclose(outputs[True][name], value, atol=1e-5)
    assert gradients[False]["shared by cf"]
    assert not any(np.any(g) for g in gradients[True]["shared by cf"])
    assert any(np.any(g) for g in gradients[True]["cf"])
    for name in ("cf", "shared by main"):
        for mine, theirs in zip(
            gradients[True][name], gradients[False][name], strict=True
        ):
            np.testing.assert_allclose(mine, theirs, atol=1e-4)


@pytest.mark.parametrize("effect", ["logit", "product"])
def test_the_form_of_the_effect_reaches_the_loss(effect):
    x, y = data()
    model = compiled(effect=effect)
    randomize(model, seed=3)
    outputs = model(x)
    signed = {"logit": -1, "product": 1}[effect] * np.array(outputs["cf_logits"])
    combined = np.array(outputs["logits"]) + signed
    expected = np.mean(losses.cross_entropy(y, combined))
    np.testing.assert_allclose(model.loss_terms(y, outputs)["effect"], expected, 1e-5)
    with pytest.raises(ValueError, match="effect='odds'"):
        compiled(effect="odds")


def test_warm_up_trains_exactly_the_plain_network():
    x, y = data()
    models = [compiled(method, dropout=0.2) for method in ("none", "lca")]
    for epoch in range(2):
        for model in models:
            # Adam would blow rounding up where gradients are nearly zero; a larger step
            # what a pooled maximum does where two values are equal but for rounding.
            model.compile(keras.optimizers.SGD(1e-3))
            course = {"initial_epoch": epoch, "epochs": epoch + 1, "shuffle": False}
            model.fit(x, y, 3, verbose=0, callbacks=[EpochSeed(5)], **course)
        plain, warm = (model.backbone.get_weights() for model in models)
        for one, other in zip(plain, warm, strict=True):
            np.testing.assert_allclose(other, one, atol=1e-6)
        # The penalty on outputs changes its sign at zero, where rounding decides.
        models[1].backbone.set_weights(plain)


def test_warm_up_opens_the_gate_by_the_number_of_the_epoch():
    x, y = data()
    model = compiled()
    seen = []

    class Spy(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            seen.append(logs["gate"])

    model.fit(x, y, epochs=3, verbose=0, callbacks=[WarmUp(2), Spy()])
    assert seen == [0.0, 0.0, 1.0]
    model.fit(x, y, initial_epoch=1, epochs=2, verbose=0, callbacks=[WarmUp(2), Spy()])
    assert seen[-1] == 0.0


def test_a_compiled_step_follows_new_weights_without_a_new_trace():
    x, y = data()
    model = compiled()
    model.gate.update_state(1)
    traces = []
    original = model.compute_loss
    model.compute_loss = lambda *args, **kwargs: (
        traces.append(1) or original(*args, **kwargs)
    )
    logs = [model.test_on_batch(x, y, return_dict=True)]
    before = len(traces)
    model.loss_weights = LossWeights(main=2.0, effect=0, cf=0, ent_cf=0, att=3.0)
    model.reset_metrics()
    logs.append(model.test_on_batch(x, y, return_dict=True))
    assert len(traces) == before
    penalties = logs[0]["loss"] - sum(
        losses.SIGNS[term] * weight * logs[0][f"{term}_term"]
        for term, weight in dataclasses.asdict(WEIGHTS).items()
    )
    expected = 2.0 * logs[1]["main_term"] - 3.0 * logs[1]["att_term"] + penalties
    expected -= 0.05 * logs[1]["ent_main_term"]
    np.testing.assert_allclose(logs[1]["loss"], expected, rtol=1e-5)
    assert "weighing" not in logs[0]


@pytest.mark.slow
def test_the_counterfactual_attention_learns_once_the_gate_is_open():
    x, y = data()
    model = compiled()
    before = [w.numpy().copy() for w in model.cf_attention.weights]
    distance = model.test_on_batch(x, y, return_dict=True)["att_term"]
    model.train_on_batch(x, y)
    for weight, old in zip(model.cf_attention.weights, before, strict=True):
        np.testing.assert_array_equal(weight, old)
    model.gate.update_state(1)
    for _ in range(20):
        model.train_on_batch(x, y)
    # The last bias shifts all scores alike, which a softmax does not see.
    for weight, old in zip(model.cf_attention.weights[:-1], before[:-1], strict=True):
        assert not np.array_equal(weight, old)
    model.reset_metrics()
    logs = model.test_on_batch(x, y, return_dict=True)
    assert logs["att_term"] > 1.2 * distance  # The L1 term pulls attentions apart.


def test_cal_draws_a_new_attention_each_step_and_uses_two_terms():
    model = compiled("cal")
    x, _ = data()
    first, second = (np.array(model(x)["cf_attention"]) for _ in range(2))
    assert not np.array_equal(first, second)
    assert first.min() >= 0
    assert first.max() < 2
    assert set(model.active_weights()) == {"main", "effect"}
    assert model.count_params() == model.backbone.count_params()


def test_metrics_are_f1_of_both_branches():
    from sklearn.metrics import f1_score

    model = compiled()
    randomize(model, seed=4)
    x, y = data(12)
    logs = model.evaluate(x, y, batch_size=5, return_dict=True, verbose=0)
    outputs = model.predict(x, verbose=0)
    for name, key in (("f1", "logits"), ("cf_f1", "cf_logits")):
        expected = f1_score(y, outputs[key].argmax(axis=1), average="weighted")
        np.testing.assert_allclose(logs[name], expected, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["none", "lca"])
def test_saving_keeps_everything(method, tmp_path):
    model = compiled(
        method, temperature=1.7, effect="logit", detach_counterfactual=True
    )
    x, y = data()
    model.fit(x, y, verbose=0)
    loaded = check_saving(model, x, tmp_path)
    assert loaded.get_config() == model.get_config()
    assert loaded.loss_weights == WEIGHTS
    for mine, theirs in zip(
        model.optimizer.variables, loaded.optimizer.variables, strict=True
    ):
        np.testing.assert_array_equal(mine, theirs)


def test_main_branch_is_the_main_branch():
    model = compiled(temperature=2.0)
    randomize(model, seed=5)
    x, _ = data()
    logits = np.array(model(x)["logits"], "float64")
    expected = np.exp(logits / 2) / np.exp(logits / 2).sum(axis=1, keepdims=True)
    branch = model.main_branch()
    np.testing.assert_allclose(branch.predict(x, verbose=0), expected, atol=1e-5)
    assert not [w.path for w in branch.weights if "cf_" in w.path]


def test_rejects_backbones_without_attention():
    with pytest.raises(ValueError, match="CRNN without fuse, new_attention"):
        LCAModel(CRNN(4, 94), method="lca")
    with pytest.raises(ValueError, match="method='best'"):
        LCAModel(backbone(), method="best")
    LCAModel(CRNN(4, 94), method="none")


def test_default_weights_keep_the_principles():
    weights = dataclasses.asdict(LossWeights())
    assert weights["effect"] == 1
    assert weights["main"] > weights["cf"]
    assert weights["ent_cf"] > weights["ent_main"]


def test_compile_has_the_papers_optimizer_and_no_xla_on_a_cpu(monkeypatch):
    model = LCAModel(backbone())
    model.compile()
    assert isinstance(model.optimizer, keras.optimizers.Adam)
    assert float(model.optimizer.learning_rate) == pytest.approx(1e-4)
    assert model.jit_compile is False
    monkeypatch.setattr(lca, "has_gpu", lambda: True)
    model.compile()
    assert model.jit_compile is True
    model.compile(jit_compile=False)
    assert model.jit_compile is False


@pytest.mark.slow
def test_trains_on_jax():
    pytest.importorskip("jax")
    program = """
        import keras, numpy as np
        assert keras.backend.backend() == "jax"
        from tests.models.test_lca import compiled, data
        for detach in (False, True):
            model = compiled(dropout=0.1, detach_counterfactual=detach)
            x, y = data()
            logs = model.train_on_batch(x, y, return_dict=True)
            assert logs["loss"] >= logs["main_term"] > 0, "the loss is not told"
            closed = [w.numpy().copy() for w in model.cf_attention.weights]
            model.gate.update_state(1)
            logs = model.train_on_batch(x, y, return_dict=True)
            assert np.isfinite(logs["loss"]) and logs["gate"] == 1
            changed = [not np.array_equal(w, c)
                       for w, c in zip(model.cf_attention.weights, closed)]
            assert any(changed), "the open gate has no effect"
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        env={**os.environ, "KERAS_BACKEND": "jax"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("embedding_loss", ["supcon", "aam"])
def test_an_embedding_loss_adds_its_term_and_nothing_to_the_network(embedding_loss):
    x, y = data()
    plain = compiled()
    model = compiled(embedding_loss=embedding_loss, embedding_weight=0.3)
    model.backbone.set_weights(plain.backbone.get_weights())
    model.cf_attention.set_weights(plain.cf_attention.get_weights())
    outputs = model(x)
    if embedding_loss == "supcon":
        term = losses.supervised_contrastive(y, outputs["embedding"])
    else:
        term = losses.additive_angular_margin(
            y, outputs["embedding"], model.artist_vectors
        )
    for opened in (0, 1):  # In the warm-up too.
        for each in (plain, model):
            each.gate.update_state(opened)
        expected = plain.compute_loss(x, y, plain(x)) + 0.3 * np.mean(term)
        found = model.compute_loss(x, y, model(x))
        np.testing.assert_allclose(found, expected, rtol=1e-5)
    main = model.main_branch()
    assert main.count_params() == plain.main_branch().count_params()
    assert [w.path for w in main.weights] == [
        w.path for w in plain.main_branch().weights
    ]
    again = LCAModel.from_config(model.get_config())
    assert again.embedding_loss == embedding_loss
    assert again.embedding_weight == 0.3
    before = model.artist_vectors.numpy() if embedding_loss == "aam" else None
    logs = model.fit(x, y, epochs=3, verbose=0).history
    assert logs["embedding_term"][-1] < logs["embedding_term"][0]
    if before is not None:
        assert np.abs(model.artist_vectors.numpy() - before).max() > 1e-4


def test_an_embedding_loss_that_is_none():
    with pytest.raises(ValueError, match="embedding_loss='triplet'"):
        LCAModel(backbone(), embedding_loss="triplet")
