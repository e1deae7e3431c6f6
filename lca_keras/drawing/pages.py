"""HTML pages of one file each: light and dark, tables that sort, nothing to load."""

import base64
import html
import importlib.resources
import pathlib

from lca_keras.base import files


def escape(text):
    """Text as HTML shows it."""
    return html.escape(str(text))


def data_uri(content, kind):
    """Bytes as an address that holds them; `kind` is their MIME type."""
    return f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}"


def table(columns, rows):
    """A table whose columns sort with a click on their heading."""
    head = "".join(
        f'<th scope="col"><button type="button">{escape(name)}</button></th>'
        for name in columns
    )
    body = "".join(
        f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>"
        for row in rows
    )
    return (
        f'<div class="wide"><table><thead><tr>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def link(content, kind, name, text):
    """A link that saves bytes as a file of this name."""
    uri = data_uri(content, kind)
    return f'<a download="{escape(name)}" href="{uri}">{escape(text)}</a>'


def write(path, title, body, own=None):
    """Writes a page and returns its path; `body` is HTML that comes below the title.

    `own` names the assets that this page alone has, `NAME.css` and `NAME.js`.
    """
    folder = importlib.resources.files("lca_keras.drawing") / "assets"
    names = ["page", *([own] if own else [])]
    style = "".join((folder / f"{name}.css").read_text("utf-8") for name in names)
    scripts = [(folder / f"{name}.js").read_text("utf-8") for name in names]
    # Modules don't see each other's names.
    scripts = "\n".join(f'<script type="module">{each}</script>' for each in scripts)
    text = f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(title)}</title>
<style>{style}</style>
</head>
<body>
<button id="theme" type="button" title="Change between light and dark">Dark</button>
<h1>{escape(title)}</h1>
{body}
{scripts}
</body>
</html>
"""
    path = pathlib.Path(path)
    with files.atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")
    return path
