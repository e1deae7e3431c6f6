"""Text in Markdown."""


def table(columns, rows):
    """A table.

    Args:
        columns: List of headings.
        rows: Iterable of lists as long; cells are turned into text.
    """
    lines = [columns, ["---"] * len(columns), *rows]
    escaped = [[str(cell).replace("|", "\\|") for cell in line] for line in lines]
    return "\n".join(f"| {' | '.join(line)} |" for line in escaped)
