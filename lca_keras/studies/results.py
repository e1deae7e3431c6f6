"""What an experiment leaves: tables in Markdown, CSV and LaTeX, pictures, a record."""

import dataclasses
import pathlib

from lca_keras.base import files
from lca_keras.base.errors import UserError
from lca_keras.drawing import markdown


def describe(value):
    """A value of a table for people: a score says it itself."""
    return value.describe() if hasattr(value, "describe") else str(value)


class Column:
    """A column of a table: where its values are in a row, and how they read.

    Args:
        title: Heading; an empty one is for programs alone.
        keys: Names of the values in a row, and of their numbers in the CSV. Those that
            a row lacks are left out.
        read: Function from a value to a string for people.
        between: String, stands between several values.
    """

    def __init__(self, title, *keys, read=describe, between=" / "):
        self.title, self.keys, self.read, self.between = title, keys, read, between

    def cell(self, row):
        """The values of a row for people."""
        there = [row[key] for key in self.keys if key in row]
        return self.between.join(map(self.read, there))

    def record(self, row):
        """The values of a row for programs, by name; a score is several numbers."""
        record = {}
        for key in self.keys:
            if key in row:
                value = row[key]
                has_more = hasattr(value, "record")
                record |= value.record(key) if has_more else {key: value}
        return record


@dataclasses.dataclass(frozen=True)
class Table:
    """A table, as people read it and as programs do.

    Attributes:
        name: Of its files, `NAME.csv` say.
        title: String.
        columns: List of headings.
        rows: List of lists of strings, as long as `columns`.
        records: List of dicts, what the CSV holds: every number by itself.
        note: String, how to read it.
    """

    name: str
    title: str
    columns: list[str]
    rows: list[list[str]]
    records: list[dict]
    note: str = ""

    @classmethod
    def of(cls, name, title, columns, rows, note=""):
        """The table of rows, dicts from keys of `Column`s to values."""
        shown = [column for column in columns if column.title]
        cells = [[column.cell(row) for column in shown] for row in rows]
        records = [
            {key: v for column in columns for key, v in column.record(row).items()}
            for row in rows
        ]
        return cls(name, title, [c.title for c in shown], cells, records, note)

    def markdown(self):
        """The table in Markdown."""
        return markdown.table(self.columns, self.rows)

    def latex(self):
        """The table in LaTeX, for the package booktabs."""
        body = [" & ".join(map(_latex, row)) + r" \\" for row in self.rows]
        return "\n".join(
            [
                r"\begin{table}",
                r"\centering",
                rf"\caption{{{_latex(self.title)}. {_latex(self.note)}}}",
                rf"\label{{tab:{self.name}}}",
                rf"\begin{{tabular}}{{{'l' * len(self.columns)}}}",
                r"\toprule",
                " & ".join(map(_latex, self.columns)) + r" \\",
                r"\midrule",
                *body,
                r"\bottomrule",
                r"\end{tabular}",
                r"\end{table}",
            ]
        )


_LATEX = {
    **{char: f"\\{char}" for char in "&%$#_{}"},
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "\\": r"\textbackslash{}",
    "±": r"$\pm$",
    "−": r"$-$",
    "–": "--",
    "×": r"$\times$",
    "|": r"$|$",
    "<": r"$<$",
    ">": r"$>$",
}


def _latex(text):
    return "".join(_LATEX.get(char, char) for char in text)


@dataclasses.dataclass(frozen=True)
class Picture:
    """A figure.

    Attributes:
        file: Name of the PNG.
        caption: String.
        data: Name of the file with what is drawn, CSV or NPZ, or `None`.
    """

    file: str
    caption: str
    data: str | None = None


@dataclasses.dataclass(frozen=True)
class Result:
    """What came of an experiment; `NAME.json` in its folder.

    Attributes:
        name: `"table1"` say.
        title: String.
        command: String, what was typed.
        settings: Dict for JSON, all that decides the result.
        tables: List of `Table`.
        pictures: List of `Picture`.
        notes: List of sentences.
        runs: List of the run folders that the numbers come from, below the folder.
        environment: Dict with versions and commit, as
            `lca_keras.workflow.records.environment`.
    """

    name: str
    title: str
    command: str
    settings: dict
    tables: list[Table]
    pictures: list[Picture]
    notes: list[str]
    runs: list[str]
    environment: dict

    def write(self, folder):
        """Writes `NAME.md`, a CSV and a TEX for each table, and at last `NAME.json`."""
        folder = pathlib.Path(folder)
        for table in self.tables:
            columns = list(dict.fromkeys(key for r in table.records for key in r))
            files.write_csv(folder / f"{table.name}.csv", columns, table.records)
            _write(folder / f"{table.name}.tex", table.latex() + "\n")
        _write(folder / f"{self.name}.md", self.markdown())
        files.write_json(folder / f"{self.name}.json", dataclasses.asdict(self))

    def markdown(self):
        """The whole result in Markdown."""
        parts = [f"# {self.title}", f"    {self.command}"]
        for table in self.tables:
            parts += [f"**{table.title}**", table.markdown(), table.note]
        parts += [f"![{each.caption}]({each.file})" for each in self.pictures]
        parts += ["\n".join(f"- {note}" for note in self.notes)]
        return "\n\n".join(part for part in parts if part) + "\n"

    @classmethod
    def load(cls, path):
        """Reads `NAME.json`.

        Raises:
            UserError: It holds something else.
        """
        try:
            stored = files.read_json(path)
            stored["tables"] = [Table(**table) for table in stored["tables"]]
            stored["pictures"] = [Picture(**each) for each in stored["pictures"]]
            return cls(**stored)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(f"{path}: not an experiment's result ({error})") from error


def _write(path, text):
    with files.atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="surrogateescape")


def check_settings(folder, name, settings):
    """Raises if a folder has a result of this name and other settings.

    What it was computed from stays whatever is computed next, but its tables would be
    overwritten. Lists, seeds say, may grow.

    Raises:
        UserError: It names what differs.
    """
    path = pathlib.Path(folder, f"{name}.json")
    if not path.exists():
        return
    kept, wanted = _flat(Result.load(path).settings), _flat(files.as_json(settings))
    differ = []
    for key in sorted(kept.keys() | wanted):
        old, new = kept.get(key), wanted.get(key)
        lists = isinstance(old, list) and isinstance(new, list)
        grown = lists and all(value in new for value in old)
        if old != new and not grown:
            differ.append(f"{key}: {old}, not {new}")
    if differ:
        raise UserError(
            f"{path} is of other settings ({'; '.join(differ)}). Choose another --out, "
            f"or delete {path} (finished trainings are kept). Seeds and variants can "
            "be added, not taken away"
        )


def _flat(settings, prefix=""):
    """Nested dicts as one, with names like `config.train.epochs`."""
    flat = {}
    for name, value in settings.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = value
    return flat
