"""Pictures for files and TensorBoard."""

import logging
import warnings

from lca_keras.base import files

# Okabe and Ito's colours, which people with any colour vision tell apart.
COLORS = (
    *("#0072b2", "#d55e00", "#009e73", "#cc79a7"),
    *("#e69f00", "#56b4e9", "#000000", "#f0e442"),
)
MARKERS = ("o", "^", "s", "D", "v", "P", "X", "*")
_HERTZ = (250, 500, 1000, 2000, 4000, 8000)


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
    """A Matplotlib figure of some inches that needs no screen."""
    from matplotlib.figure import Figure

    return Figure((width, height), layout="constrained")


def look_of(number):
    """Colour and marker of the class with this index; 64 differ."""
    color = COLORS[number % len(COLORS)]
    marker = MARKERS[(number + number // len(COLORS)) % len(MARKERS)]
    return {"color": color, "marker": marker}


def draw_clips(figure, axes, starts, clip_seconds, values, label, top):
    """Draws values of a song's clips over time, as blue as they are high.

    Args:
        figure, axes: Matplotlib's.
        starts: Float array `(clips,)`, seconds. Clips may overlap; then each is drawn
            until the next one starts.
        clip_seconds: Float.
        values: Float array `(clips, rows)`, not negative.
        label: String, what they are.
        top: Float, what is the darkest blue.

    Returns:
        Float array `(clips,)`, the middle of each clip as it is drawn, seconds.
    """
    import numpy as np

    ends = np.minimum(np.add(starts, clip_seconds), [*starts[1:], np.inf])
    # Between two clips there may be silence: a stretch of its own, without a value.
    columns = np.full((2 * len(values) - 1, np.shape(values)[1]), np.nan)
    columns[::2] = values
    edges, rows = np.ravel([starts, ends], "F"), np.arange(columns.shape[1] + 1)
    how = {"vmin": 0, "vmax": top, "cmap": "Blues"}
    figure.colorbar(
        axes.pcolormesh(edges, rows, columns.T, **how), ax=axes, label=label
    )
    return np.mean([starts, ends], axis=0)


def draw_vote(figure, axes, starts, clip_seconds, artists, probabilities, votes):
    """Draws what clips say of their artist, and a dot for each one's vote.

    As `draw_clips`; `votes` are the clips' artists, ints, or `None` without a vote.
    """
    import numpy as np

    times = draw_clips(
        figure, axes, starts, clip_seconds, probabilities, "probability", 1
    )
    places = np.array([np.nan if vote is None else vote for vote in votes]) + 0.5
    axes.plot(times, places, "k.", markersize=4)
    axes.set_yticks(np.arange(len(artists)) + 0.5, artists)
    axes.invert_yaxis()


def mel_axis(axes, centres):
    """Labels a vertical axis of mel bins, counted from 0, by their centres in Hz."""
    import numpy as np

    shown = [hertz for hertz in _HERTZ if centres[0] <= hertz <= centres[-1] * 1.05]
    places = np.interp(shown, centres, np.arange(len(centres)))
    axes.set_yticks(places, [f"{hertz:g}" for hertz in shown])
    axes.set_ylabel("frequency (Hz)")


def heat(cam, top):
    """A map in colours to lay over a spectrogram: clear where it is zero or NaN.

    The map is `(mel_bins, frames)`, not negative, `top` the value that gets the
    brightest colour; returns floats `(mel_bins, frames, 4)` in [0, 1].
    """
    import matplotlib
    import numpy as np

    strength = np.clip(np.nan_to_num(cam) / top, 0, 1)
    colors = matplotlib.colormaps["viridis"](strength)
    colors[..., 3] = 0.8 * np.clip(2 * strength, 0, 1)
    return colors


def heat_bar(figure, axes, top, label):
    """A colour bar for `heat`, beside axes."""
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    scale = ScalarMappable(Normalize(0, top), "viridis")
    figure.colorbar(scale, ax=axes, label=label)


def blend(mel, cam):
    """A spectrogram (dB) in grey under a map in colours, low frequencies at the bottom.

    Both are `(mel_bins, frames)`; returns floats `(mel_bins, frames, 3)` in [0, 1].
    """
    import numpy as np

    grey = np.clip((mel.max() - mel) / 80, 0, 1)[..., None]
    colors = heat(cam, max(float(cam.max()), 1e-12))
    cover = colors[..., 3:]
    return ((1 - cover) * grey + cover * colors[..., :3])[::-1]


def save_figure(figure, path):
    """Writes a figure as PNG, atomically; missing glyphs become boxes, quietly."""
    # What is written at an axis is made only now.
    with files.atomic_path(path) as temporary, style(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")
        figure.savefig(temporary, dpi=120)
