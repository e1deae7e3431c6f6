"""Fields that know their choices and limits, and the sections that check them."""

import dataclasses
import re

import pytest

from lca_keras.base.fields import ConfigError, Section, build, field

KNOWN = {"mel": 1}


@dataclasses.dataclass(frozen=True)
class Part(Section, name="part"):
    """Something with one field of every kind."""

    size: int = field(3, "how many", least=1)
    share: float = field(0.5, "of all", least=0, below=1)
    rate: float | None = field(None, "if known", above=0)
    mode: str = field("on", "whether", choices=("on", "off"))
    front: str = field("mel", "of those that are known", choices=KNOWN)
    late: str = field("mel", "the same", choices=lambda: KNOWN)
    sizes: tuple[int, ...] = field((1, 2), "of both", count=2, least=0)
    names: tuple[str, ...] = field((), "some", choices=("a", "b"), distinct=True)
    quick: bool = field(False, "or not")
    free: float = field(0.0, "anything")


@dataclasses.dataclass(frozen=True)
class Whole(Section, name="whole"):
    """A section with others in it."""

    name: str = field(help="has to be given")
    part: Part = Part()
    parts: tuple[Part, ...] = ()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"size": 0}, "part.size: expected int, at least 1, received 0"),
        ({"size": True}, "part.size: expected int, at least 1, received True"),
        ({"size": 1.0}, "part.size: expected int, at least 1, received 1.0"),
        ({"size": None}, "part.size: expected int, at least 1, received None"),
        ({"share": 1}, "finite float, at least 0 and below 1, received 1"),
        ({"share": float("nan")}, "part.share: expected finite float, at least 0 and"),
        ({"free": float("inf")}, "part.free: expected finite float, received inf"),
        ({"rate": 0.0}, "part.rate: expected finite float, above 0, or null, received"),
        ({"mode": "of"}, "part.mode: expected one of on, off, received 'of'"),
        ({"mode": ["on"]}, "part.mode: expected one of on, off, received ['on']"),
        ({"front": "raw"}, "part.front: expected one of mel, received 'raw'"),
        ({"sizes": [1]}, "part.sizes: expected a list of 2 ints, each at least 0"),
        ({"sizes": [1, -1]}, "a list of 2 ints, each at least 0, received [1, -1]"),
        ({"sizes": 7}, "part.sizes: expected a list of 2 ints"),
        ({"names": "a"}, "part.names: expected a list of strs, each one of a, b, none"),
        ({"names": ["a", "a"]}, "none of them twice, received ['a', 'a']"),
        ({"names": [[]]}, "received [[]]"),
        ({"quick": 1}, "part.quick: expected bool, received 1"),
    ],
)
def test_what_a_field_refuses(given, message):
    """Whether it is made here or read."""
    with pytest.raises(ConfigError, match=re.escape(message)):
        Part(**given)
    with pytest.raises(ConfigError, match=re.escape(message)):
        build("part", Part, given)


def test_what_a_field_takes():
    found = Part(share=0, sizes=[4, 5], names=["b", "a"])
    assert (type(found.share), found.sizes, found.names) == (float, (4, 5), ("b", "a"))
    assert Part(rate=2).rate == 2.0
    assert hash(found) != hash(Part())


def test_choices_that_are_registered_later(monkeypatch):
    monkeypatch.setitem(KNOWN, "raw", 2)
    assert Part(front="raw", late="raw").late == "raw"
    monkeypatch.delitem(KNOWN, "raw")
    for name in ("front", "late"):
        with pytest.raises(ConfigError, match=f"{name}: expected one of mel, received"):
            Part(**{name: "raw"})


def test_sections_within_sections_are_named():
    raw = {"name": "x", "part": {"size": 9}, "parts": [{"size": 8}, {}]}
    found = build("whole", Whole, raw)
    assert found == Whole("x", Part(size=9), (Part(size=8), Part()))
    for raw, message in (
        ({}, "whole: name is needed"),
        ({"name": "x", "part": 3}, "whole.part: expected a mapping, received 3"),
        ({"name": "x", "part": {"size": 0}}, "whole.part.size: expected int, at"),
        ({"name": "x", "parts": 3}, "whole.parts: expected a list of Parts, received"),
        ({"name": "x", "parts": [{}, {"a": 1}]}, r"whole.parts\[1\]: unknown fields"),
        ({"name": "x", 3: 1}, r"whole: unknown fields \[3\]; known: \['name', 'part'"),
    ):
        with pytest.raises(ConfigError, match=message):
            build("whole", Whole, raw)
