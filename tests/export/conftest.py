import pytest

from lca_keras.config import get_preset
from tests.export.material import ARTISTS


@pytest.fixture(scope="session")
def network():
    from lca_keras.models import CRNNFGNL
    from tests.models.test_networks import randomize

    model = CRNNFGNL(4, 94, filters=(4, 8, 8, 8), reduction=4, temperature=0.5)
    randomize(model, seed=2)
    return model


@pytest.fixture(scope="session")
def exported(network, tmp_path_factory):
    from lca_keras.export import export_model

    own = {"filters": network.filters, "reduction": network.reduction}
    config = get_preset("demo").replace(model=own)
    return export_model(
        network, ARTISTS, config, tmp_path_factory.mktemp("root"), "my model", {}
    )


@pytest.fixture(scope="session")
def loaded(exported):
    import tensorflow as tf

    return tf.saved_model.load(str(exported))
