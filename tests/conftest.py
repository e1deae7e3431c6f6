"""Fixtures that several test modules share."""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
if "PYTEST_XDIST_WORKER" in os.environ:  # As many workers as cores: one for each.
    for _variable in ("TF_NUM_INTRAOP_THREADS", "OMP_NUM_THREADS"):
        os.environ.setdefault(_variable, "1")

import pytest

from lca_keras.base.config import get_preset
from lca_keras.corpora import synthesis

TINY = synthesis.SynthesisConfig(artists=3, albums=3, songs=2, seconds=7.0, seed=1)


@pytest.fixture(autouse=True)
def _seed():
    # Not above: pytest-xdist's own process, which runs no test, needs no TensorFlow.
    import keras

    keras.utils.set_random_seed(0)


@pytest.fixture(scope="session")
def tiny_corpus(tmp_path_factory):
    """Folder of a built-in corpus with 3 artists, 18 songs of 7 s (2 clips of 3 s)."""
    folder = tmp_path_factory.mktemp("corpus") / "tiny corpus"
    synthesis.write_corpus(TINY, folder, stems=True)
    return folder


@pytest.fixture(scope="session")
def tiny_config():
    """A configuration that trains in seconds."""
    return get_preset("demo").replace(
        model={"filters": (4, 8, 8, 8), "reduction": 4, "gru_units": 8},
        train={"epochs": 2, "warmup_epochs": 1, "precision": "float32"},
        gallery={"left_out": 0.0},
    )


@pytest.fixture(scope="session")
def network():
    """Small, of random weights; clips of 94 frames, four artists."""
    import keras

    from lca_keras.models import CRNNFGNL
    from tests.models.test_networks import randomize

    # Whichever test comes first: this is made before that one's own seed is set.
    keras.utils.set_random_seed(0)
    model = CRNNFGNL(4, 94, filters=(4, 8, 8, 8), reduction=4, temperature=0.5)
    randomize(model, seed=2)
    return model


@pytest.fixture(scope="session")
def exported(network, tmp_path_factory):
    """Its export, `…/my model/1`."""
    from lca_keras.base.config import get_preset
    from lca_keras.exports.export import export_model
    from tests.exports.material import ARTISTS

    own = {"filters": network.filters, "reduction": network.reduction}
    config = get_preset("demo").replace(model=own)
    return export_model(
        network, ARTISTS, config, tmp_path_factory.mktemp("root"), "my model", {}
    )


@pytest.fixture(scope="session")
def gallery(network):
    """What it knows its artists by: some songs of each."""
    from tests.exports.material import gallery_of

    return gallery_of(network)


@pytest.fixture(scope="session")
def exported_with_gallery(network, gallery, tmp_path_factory):
    """Its export with that, `…/open/1`; whoever writes versions copies it."""
    from lca_keras.exports.export import export_model
    from tests.exports.material import ARTISTS

    own = {"filters": network.filters, "reduction": network.reduction}
    config = get_preset("demo").replace(model=own)
    root = tmp_path_factory.mktemp("root")
    return export_model(network, ARTISTS, config, root, "open", {}, None, gallery)


@pytest.fixture(scope="session")
def loaded(exported):
    """The SavedModel of it."""
    import tensorflow as tf

    return tf.saved_model.load(str(exported))
