"""One HTML page with all tables and pictures of a folder of experiments."""

import json
import pathlib

from lca_keras.base.errors import UserError
from lca_keras.drawing import pages
from lca_keras.studies.results import Result

_ORDER = ("table1", "table2", "table3", "table4", "figure1", "figure4", "confounding")


def write(folder, path=None):
    """Writes the page.

    Args:
        folder: Folder with the experiments' results.
        path: Of the HTML file; `report.html` in the folder by default.

    Returns:
        `pathlib.Path` of the page.

    Raises:
        UserError: There are no results, or one is damaged.
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
    results.sort(key=lambda each: (_place(each.name), each.name))
    links = " · ".join(
        f'<a href="#{each.name}">{pages.escape(each.name)}</a>' for each in results
    )
    sections = [f'<p class="soft">{links}</p>']
    sections += [_section(folder, each) for each in results]
    title = f"Singer identification: {folder.resolve().name}"
    return pages.write(path or folder / "report.html", title, "\n".join(sections))


def _place(name):
    return _ORDER.index(name) if name in _ORDER else len(_ORDER)


def _section(folder, result):
    parts = [f'<section id="{result.name}"><h2>{pages.escape(result.title)}</h2>']
    parts.append(f"<pre>{pages.escape(result.command)}</pre>")
    for table in result.tables:
        if len(result.tables) > 1:
            parts.append(f"<h3>{pages.escape(table.title)}</h3>")
        parts.append(pages.table(table.columns, table.rows))
        parts.append(f'<p class="soft">{pages.escape(table.note)}</p>')
        saved = [
            pages.link(
                _content(folder, f"{table.name}{suffix}"),
                kind,
                table.name + suffix,
                text,
            )
            for suffix, kind, text in (
                (".csv", "text/csv", "all numbers (CSV)"),
                (".tex", "application/x-tex", "LaTeX"),
            )
        ]
        parts.append(f'<p class="soft">{" · ".join(saved)}</p>')
    for picture in result.pictures:
        content = _content(folder, picture.file)
        caption = pages.escape(picture.caption)
        saved = [pages.link(content, "image/png", picture.file, "picture (PNG)")]
        if picture.data:
            data, suffix = _content(folder, picture.data), picture.data.rsplit(".")[-1]
            kind = {"csv": "text/csv"}.get(suffix, "application/octet-stream")
            text = f"data ({suffix.upper()})"
            saved.append(pages.link(data, kind, picture.data, text))
        parts.append(
            f'<figure><img alt="{caption}" '
            f'src="{pages.data_uri(content, "image/png")}">'
            f"<figcaption>{caption}. {' · '.join(saved)}</figcaption></figure>"
        )
    if result.notes:
        listed = "".join(f"<li>{pages.escape(note)}</li>" for note in result.notes)
        parts.append(f"<ul>{listed}</ul>")
    about = json.dumps(
        {"environment": result.environment, "runs": result.runs},
        indent=2,
        ensure_ascii=False,
    )
    parts.append(
        "<details><summary>versions, commit and the runs that the numbers come from "
        f"({len(result.runs)})</summary><pre>{pages.escape(about)}</pre></details>"
        "</section>"
    )
    return "\n".join(parts)


def _content(folder, name):
    try:
        return (folder / name).read_bytes()
    except OSError as error:
        raise UserError(
            f"{folder / name}: cannot be read ({error.strerror}). The experiment's own "
            "command writes it again; finished trainings are kept"
        ) from error
