"""Text in Markdown."""


def table(columns, rows):
    """A table with these headings; cells are turned into text."""
    lines = [columns, ["---"] * len(columns), *rows]
    escaped = [[str(cell).replace("|", "\\|") for cell in line] for line in lines]
    return "\n".join(f"| {' | '.join(line)} |" for line in escaped)
