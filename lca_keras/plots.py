"""Pictures for files and TensorBoard."""

import logging
import warnings

from lca_keras import files


def style():
    """Context in which figures are drawn: fonts for as many scripts as there are."""
    import matplotlib

    # Names come in any script; Matplotlib falls back along this list, and says so
    # for each font that is not installed.
    logging.getLogger("matplotlib.font_manager").setLevel(logging.ERROR)
    fonts = ["DejaVu Sans", "Noto Sans CJK JP", "Noto Sans CJK SC", "Arial Unicode MS"]
    # And a name with dollars, `A$AP` and `Ke$ha`, is no mathematics.
    return matplotlib.rc_context({"font.family": fonts, "text.parse_math": False})


def new_figure(width, height):
    """A Matplotlib figure that needs no screen.

    Args:
        width: Float, inches.
        height: Float, inches.

    Returns:
        `matplotlib.figure.Figure`.
    """
    from matplotlib.figure import Figure

    return Figure((width, height), layout="constrained")


def save_figure(figure, path):
    """Writes a figure as PNG, atomically; missing glyphs become boxes, quietly."""
    # What is written at an axis is made only now.
    with files.atomic_path(path) as temporary, style(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")
        figure.savefig(temporary, dpi=120)
