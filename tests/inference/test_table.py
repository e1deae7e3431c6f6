"""The table of many songs: what is kept of it, and what is not taken over."""

import pathlib

import pytest

from lca_keras.base import files
from lca_keras.base.errors import UserError
from lca_keras.inference import identification
from lca_keras.inference.table import Table


def said_of(note):
    told = {"A": 1.0}, {"A": 2}, 3.0, [], [note]
    return identification.Identification("ok", "A", None, None, *told)


def test_a_line_that_was_cut_off_is_asked_again(tmp_path):
    path = str(tmp_path / "o.csv")
    songs = [str(tmp_path / name) for name in ("a.wav", "b.wav")]
    for name in songs:
        pathlib.Path(name).write_bytes(b"x")
    said = said_of("a, 'note'")
    table = Table(path, "m")
    for name in songs:
        table.add(name, said)
    part = pathlib.Path(path + ".part")
    part.write_bytes(part.read_bytes()[:-25])
    table = Table(path, "m")
    assert table.has(songs[0])
    assert not table.has(songs[1])
    table.add(songs[1], said)
    table.finish(songs, {})
    rows = files.read_csv(path)
    assert [row["song"] for row in rows] == songs
    assert all(row["notes"] == "a, 'note'" for row in rows)


@pytest.mark.parametrize("kind", ["csv", "csv.part"])
def test_names_that_are_no_text_are_found_again(tmp_path, kind):
    path, song = tmp_path / "o.csv", str(tmp_path / "a\udcff.wav")
    pathlib.Path(song).write_bytes(b"x")
    table = Table(path, "m")
    table.add(song, said_of(""))
    if kind == "csv":
        table.finish([song], {})
    assert (tmp_path / f"o.{kind}").exists()
    assert Table(path, "m").has(song)


@pytest.mark.parametrize("name", ["o.csv", "o.csv.part", "o.parquet"])
def test_tables_of_earlier_versions_are_named(tmp_path, name):
    """Whole or begun, they are neither taken over nor written to."""
    row = {"song": "a.wav", "singer": "A", "error": "", "model": "m", "file": "x"}
    path = tmp_path / name
    if name.endswith("parquet"):
        import pyarrow
        import pyarrow.parquet

        pyarrow.parquet.write_table(pyarrow.Table.from_pylist([row]), path)
    else:
        files.write_csv(path, list(row), [list(row.values())])
    before = path.read_bytes()
    with pytest.raises(UserError, match="earlier version: it has no .*nearest"):
        Table(str(tmp_path / name.removesuffix(".part")), "m")
    assert path.read_bytes() == before
