"""Candidates in a process of their own: what passes, and what is blocked."""

import re
import shutil

import numpy as np
import pytest
import tensorflow as tf

from lca_keras.base.config import get_preset
from lca_keras.data import catalogue
from lca_keras.data.update import WritableStore
from lca_keras.exports import integrity
from lca_keras.exports.export import export_model
from lca_keras.models import CRNNFGNL
from pipelines import infra
from pipelines.settings import Infra
from tests.models.test_networks import randomize

pytestmark = pytest.mark.slow

ARTISTS = ["Ada Quill", "Björn Talvik", "Chiara d'Onda"]


@pytest.fixture(scope="module")
def network():
    model = CRNNFGNL(3, 94, filters=(4, 8, 8, 8), reduction=4)
    randomize(model, seed=2)
    return model


@pytest.fixture(scope="module")
def store(tiny_corpus, tmp_path_factory):
    songs = catalogue.load(tiny_corpus)[:3]
    store = WritableStore(
        tmp_path_factory.mktemp("store") / "s", get_preset("demo").features
    )
    store.update(songs)
    return store


@pytest.fixture(scope="module")
def exported(network, tmp_path_factory):
    config = get_preset("demo").replace(
        model={"filters": network.filters, "reduction": network.reduction}
    )
    return export_model(
        network, ARTISTS, config, tmp_path_factory.mktemp("root"), "m", {}
    )


@pytest.fixture(scope="module")
def expected(network, store):
    """The network's own answers, of clips cut by slicing."""
    answers = {}
    for key in store.records:
        mel = store.read(key).arrays["mel_spectrogram"].astype("float32")
        clips = [mel[:, 94 * n : 94 * n + 94] for n in range(mel.shape[1] // 94)]
        answers[key] = network.predict(np.stack(clips), verbose=0).mean(axis=0)
    return answers


@pytest.fixture
def copy(exported, tmp_path):
    """A copy of the export to be harmed."""
    return shutil.copytree(exported, tmp_path / "copy")


def failed(checks):
    return {check.what: check.said for check in checks if not check.passed}


def test_a_good_candidate_passes_every_check(exported, store, expected):
    checks = infra.validate(exported, store, expected, Infra())
    assert failed(checks) == {}
    named = [check.what for check in checks]
    for name in ("serving_default", "mel", "clips", "embed", "examples"):
        assert f"signature {name}" in named
    assert {"memory", "an hour of song", "the trainer's answers"} <= set(named)


def test_other_answers_than_the_trainers(exported, store, expected):
    other = {key: values[::-1] for key, values in expected.items()}
    found = failed(infra.validate(exported, store, other, Infra()))
    assert list(found) == ["the trainer's answers"]
    assert (
        "3 songs differ from the trainer's by up to" in found["the trainer's answers"]
    )


def test_what_needs_too_much(exported, store, expected):
    limits = Infra(memory_mb=100, seconds_per_hour=0.01)
    found = failed(infra.validate(exported, store, expected, limits))
    assert set(found) == {"memory", "an hour of song"}
    assert re.search(r"\d+ MB, 100 MB are allowed", found["memory"])
    limits = Infra(first_answer_seconds=0.1, seconds_per_hour=0.1)
    found = failed(infra.validate(exported, store, expected, limits))
    assert found == {"answers": "no answers within 0.3 s"}


def test_truncated_variables(copy, store, expected):
    path = next((copy / "variables").glob("variables.data*"))
    path.write_bytes(path.read_bytes()[:1000])
    found = failed(infra.validate(copy, store, expected, Infra()))
    assert "was changed" in found["sums"]
    integrity.write_sums(copy)  # Whoever harmed it has written the sums as well.
    found = failed(infra.validate(copy, store, expected, Infra()))
    assert list(found) == ["answers"]
    (copy / integrity.SUMS).unlink()
    found = failed(infra.validate(copy, store, expected, Infra()))
    assert found == {"sums": f"{copy}: not a whole export, it has no SHA256SUMS"}


def _saved_again(copy, module, **signatures):
    """Another SavedModel in the place of an export's."""
    shutil.rmtree(copy / "variables")
    extra = copy / "assets.extra"
    kept = extra.rename(copy.with_name("extra"))
    tf.saved_model.save(module, copy, signatures=signatures)
    kept.rename(extra)
    integrity.write_sums(copy)


def test_a_missing_signature(copy, store, expected):
    loaded = tf.saved_model.load(str(copy))
    signatures = dict(loaded.signatures)
    del signatures["embed"]
    _saved_again(copy, loaded, **signatures)
    found = failed(infra.validate(copy, store, expected, Infra()))
    assert "no signature embed" in found["answers"]


def test_a_model_that_needs_this_package(copy, store, expected):
    def ours(mel):
        import lca_keras

        return mel + len(lca_keras.__version__)

    loaded = tf.saved_model.load(str(copy))
    mel = loaded.signatures["mel"]
    module = tf.Module()
    module.inner = loaded
    shape = tf.TensorSpec((None, 128, None, 1), tf.float32, "mel_spectrogram")

    @tf.function(input_signature=[shape])
    def serve(mel_spectrogram):
        changed = tf.numpy_function(ours, [mel_spectrogram], tf.float32)
        changed.set_shape(shape.shape)
        return mel(mel_spectrogram=changed)

    module.serve = serve
    _saved_again(copy, module, **{**loaded.signatures, "mel": serve})
    found = failed(infra.validate(copy, store, expected, Infra()))
    assert list(found) == ["answers"]
