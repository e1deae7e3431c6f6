"""What experiments leave: tables, pictures, a record; and one page with all of them."""

import dataclasses
import json
import pathlib

from lca_keras.base import files
from lca_keras.base.errors import UserError
from lca_keras.drawing import markdown, pages


def _describe(value):
    """A value of a table for people: a score says it itself."""
    return value.describe() if hasattr(value, "describe") else str(value)


class Column:
    """A column of a table: where its values are in a row, and how they read.

    An empty title is for programs alone. `keys` are the names of the values in a row,
    and of their numbers in the CSV; those that a row lacks are left out. `read` makes a
    value a string for people, `between` stands between several.
    """

    def __init__(self, title, *keys, read=_describe, between=" / "):
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
    """A table, as people read it and as programs do."""

    name: str  # Of its files, `NAME.csv` say.
    title: str
    columns: list[str]
    rows: list[list[str]]
    records: list[dict]  # What the CSV holds: every number by itself.
    note: str  # How to read it.

    @classmethod
    def of(cls, name, title, columns, rows, note):
        """The table of rows, dicts from keys of `Column`s to values."""
        shown = [column for column in columns if column.title]
        cells = [[column.cell(row) for column in shown] for row in rows]
        records = [
            {key: v for column in columns for key, v in column.record(row).items()}
            for row in rows
        ]
        return cls(name, title, [c.title for c in shown], cells, records, note)

    def latex(self):
        """The table in LaTeX, for the package booktabs."""
        lines = [self.columns, *self.rows]
        head, *body = [" & ".join(map(_latex, line)) + r" \\" for line in lines]
        lines = [
            r"\begin{table}",
            r"\centering",
            rf"\caption{{{_latex(self.title)}. {_latex(self.note)}}}",
            rf"\label{{tab:{self.name}}}",
            rf"\begin{{tabular}}{{{'l' * len(self.columns)}}}",
            *(r"\toprule", head, r"\midrule", *body, r"\bottomrule"),
            r"\end{tabular}",
            r"\end{table}",
        ]
        return "\n".join(lines)


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
    """A figure: its PNG, and the file with what is drawn, CSV or NPZ."""

    file: str
    caption: str
    data: str


@dataclasses.dataclass(frozen=True)
class Result:
    """What came of an experiment; `NAME.json` in its folder."""

    name: str  # "table1" say.
    title: str
    command: str  # What was typed.
    settings: dict  # All that decides the result.
    tables: list[Table]
    pictures: list[Picture]
    notes: list[str]
    runs: list[str]  # Run folders that the numbers come from, below the folder.
    environment: dict  # Versions and commit: `lca_keras.workflow.records.environment`.

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
            shown = markdown.table(table.columns, table.rows)
            parts += [f"**{table.title}**", shown, table.note]
        parts += [f"![{each.caption}]({each.file})" for each in self.pictures]
        parts += ["\n".join(f"- {note}" for note in self.notes)]
        return "\n\n".join(part for part in parts if part) + "\n"

    @classmethod
    def load(cls, path):
        """Reads `NAME.json`; a `UserError` if it holds something else."""
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


# === The page ===

_ORDER = ("table1", "table2", "table3", "table4", "figure1", "figure4", "confounding")
_KINDS = {".csv": "text/csv", ".tex": "application/x-tex", ".png": "image/png"}


def write_page(folder, path=None):
    """Writes one HTML page with all results of a folder; returns its path.

    By default it is `report.html` there. A folder without results is a `UserError`.
    """
    folder = pathlib.Path(folder)
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder")
    results = [Result.load(each) for each in sorted(folder.glob("*.json"))]
    if not results:
        raise UserError(
            f"{folder}: no results. `python -m lca_keras.experiments table1 --out "
            f"{folder}` makes one"
        )
    places = {name: number for number, name in enumerate(_ORDER)}
    results.sort(key=lambda each: (places.get(each.name, len(places)), each.name))
    links = " · ".join(
        f'<a href="#{each.name}">{pages.escape(each.name)}</a>' for each in results
    )
    sections = [f'<p class="soft">{links}</p>']
    sections += [_section(folder, each) for each in results]
    title = f"Singer identification: {folder.resolve().name}"
    return pages.write(path or folder / "report.html", title, "\n".join(sections))


def _section(folder, result):
    parts = [f'<section id="{result.name}"><h2>{pages.escape(result.title)}</h2>']
    parts.append(f"<pre>{pages.escape(result.command)}</pre>")
    for table in result.tables:
        if len(result.tables) > 1:
            parts.append(f"<h3>{pages.escape(table.title)}</h3>")
        parts.append(pages.table(table.columns, table.rows))
        parts.append(f'<p class="soft">{pages.escape(table.note)}</p>')
        saved = [
            _link(folder, f"{table.name}.csv", "all numbers (CSV)"),
            _link(folder, f"{table.name}.tex", "LaTeX"),
        ]
        parts.append(f'<p class="soft">{" · ".join(saved)}</p>')
    for picture in result.pictures:
        content = _content(folder, picture.file)
        caption = pages.escape(picture.caption)
        kind = picture.data.rsplit(".")[-1].upper()
        saved = [
            _link(folder, picture.file, "picture (PNG)"),
            _link(folder, picture.data, f"data ({kind})"),
        ]
        parts.append(
            f'<figure><img alt="{caption}" '
            f'src="{pages.data_uri(content, "image/png")}">'
            f"<figcaption>{caption}. {' · '.join(saved)}</figcaption></figure>"
        )
    if result.notes:
        listed = "".join(f"<li>{pages.escape(note)}</li>" for note in result.notes)
        parts.append(f"<ul>{listed}</ul>")
    about = {"environment": result.environment, "runs": result.runs}
    about = json.dumps(about, indent=2, ensure_ascii=False)
    parts.append(
        "<details><summary>versions, commit and the runs that the numbers come from "
        f"({len(result.runs)})</summary><pre>{pages.escape(about)}</pre></details>"
        "</section>"
    )
    return "\n".join(parts)


def _link(folder, name, text):
    kind = _KINDS.get(pathlib.PurePath(name).suffix, "application/octet-stream")
    return pages.link(_content(folder, name), kind, name, text)


def _content(folder, name):
    try:
        return (folder / name).read_bytes()
    except OSError as error:
        raise UserError(
            f"{folder / name}: cannot be read ({error.strerror}). The experiment's own "
            "command writes it again; finished trainings are kept"
        ) from error
