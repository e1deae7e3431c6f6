import pytest

from lca_keras.base.errors import UserError
from lca_keras.features.front_end import FrontEnd


class Half(FrontEnd):
    """Says that it mixes powers, and does not say how."""

    mixes_powers = True

    def frames(self, sound, stems=None, threads=None):
        return {}


class Neither(Half):
    mixes_powers = False


@pytest.mark.parametrize("name", ["mixed", "mixed_clips"])
def test_a_front_end_mixes_or_says_why_not(name):
    arguments = [None] * (1 if name == "mixed" else 2)
    with pytest.raises(NotImplementedError, match=f"^Half lacks `{name}`$"):
        getattr(Half(), name)(*arguments)
    with pytest.raises(UserError, match="Neither keeps none"):
        getattr(Neither(), name)(*arguments)
