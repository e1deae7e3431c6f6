"""What was said of many songs, in a file that goes on where it was left."""

import contextlib
import csv
import pathlib

from lca_keras.base import files
from lca_keras.base.errors import UserError

_COLUMNS = {
    "song": str,
    "singer": str,
    "status": str,
    "nearest": str,
    "score": float,
    "votes": int,
    "clips": int,
    "probability": float,
    "notes": str,
    "error": str,
    "model": str,
    "file": str,
}


class Table:
    """Answers in a CSV or Parquet file, and beside it while they come in.

    `rows` is a dict from song to its row, a dict. `model` says what they depend on: of
    a file of another one a `UserError` says so.
    """

    def __init__(self, path, model):
        self.path, self.model = pathlib.Path(path), model
        self.rows = {}
        self._part = self.path.with_name(self.path.name + ".part")
        # A line that its writer was killed in is taken away.
        with contextlib.suppress(FileNotFoundError), open(self._part, "r+b") as file:
            file.truncate(file.read().rfind(b"\n") + 1)
        for each in (self.path, self._part):
            if each.exists():
                self.rows |= {row["song"]: row for row in _read(each)}
        others = {row["model"] for row in self.rows.values()} - {model}
        if others:
            raise UserError(
                f"{path} has answers of {sorted(others)[0]}, not of {model}: take "
                "another file, or delete it"
            )

    def has(self, song):
        """Whether a song was answered, and its file is still the same."""
        row = self.rows.get(song)
        return bool(row) and not row["error"] and row["file"] == files.stamp(song)

    def add(self, song, result):
        """Keeps an `Identification` of a song, or a string, why there is none."""
        row = self._row(song, file=files.stamp(song))
        if isinstance(result, str):
            row["error"] = result
        else:
            best, unsure = result.singer, []
            if best is None:
                best = next(iter(result.votes))
                unsure = [f"the likeliest is {best}"] if result.votes[best] else []
            row |= {
                # Votes and probability are those of the best one, named or not.
                "singer": result.singer or "",
                "status": result.status,
                "nearest": result.nearest or "",
                "score": "" if result.score is None else round(result.score, 6),
                "votes": result.votes[best],
                "clips": sum(result.votes.values()),
                "probability": round(result.probabilities[best], 6),
                "notes": "; ".join([*unsure, *result.notes]),
            }
        self.rows[song] = row
        with _open(self._part, "a") as file:
            writer = csv.DictWriter(file, list(_COLUMNS))
            if not file.tell():
                writer.writeheader()
            writer.writerow(row)

    def finish(self, songs, errors):
        """Writes the table: folders without songs, then the songs, in their order."""
        self.rows |= {path: self._row(path, error=errors[path]) for path in errors}
        # What earlier calls were asked for stays, behind.
        order = dict.fromkeys([*errors, *songs, *self.rows])
        rows = [self.rows[song] for song in order]
        if self.path.suffix.lower() == ".csv":
            files.write_csv(self.path, list(_COLUMNS), rows)
        else:
            _write_parquet(self.path, rows)
        self._part.unlink(missing_ok=True)

    def _row(self, song, **values):
        row = dict.fromkeys(_COLUMNS, "")
        return row | {"song": song, "model": self.model, **values}


def _open(path, mode="r"):
    return open(path, mode, encoding="utf-8", errors="surrogateescape", newline="")


def _read(path):
    if path.suffix.lower() == ".parquet":
        import pyarrow.parquet

        table = pyarrow.parquet.read_table(path)
        columns, rows = table.column_names, table.to_pylist()
        rows = [{k: "" if v is None else v for k, v in row.items()} for row in rows]
    else:
        with _open(path) as file:
            reader = csv.DictReader(file)
            rows, columns = list(reader), reader.fieldnames or _COLUMNS
    lacking = sorted(set(_COLUMNS) - set(columns))
    if lacking:
        raise UserError(
            f"{path} is no table of answers, or one of an earlier version: it has no "
            f"{', '.join(lacking)}. Take another file"
        )
    return rows


def _write_parquet(path, rows):
    import pyarrow
    import pyarrow.parquet

    kinds = {str: pyarrow.string(), int: pyarrow.int64(), float: pyarrow.float64()}
    schema = pyarrow.schema([(name, kinds[kind]) for name, kind in _COLUMNS.items()])
    typed = [
        {
            name: None if row[name] == "" and kind is not str else kind(row[name])
            for name, kind in _COLUMNS.items()
        }
        for row in rows
    ]
    with files.atomic_path(path) as temporary:
        table = pyarrow.Table.from_pylist(typed, schema)
        pyarrow.parquet.write_table(table, temporary)
