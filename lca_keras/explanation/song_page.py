"""A page that plays a song and shows what a model attends to meanwhile."""

import io
import json
import pathlib

import numpy as np

from lca_keras.audio.decode import decode
from lca_keras.drawing import pages, plots

_RATE = 32000  # Hz, of the song to listen to.
_CHUNK = 4096  # Frames of one image: browsers refuse very wide ones.
_BAR = 132  # Pixels of the close-up for each second.
_TICKS_HZ = {"close": (250, 500, 1000, 2000, 4000, 8000), "whole": (500, 2000, 8000)}


def write(found, path):
    """Writes the page of an `lca_keras.explanation.explainer.Explanation`."""
    import soundfile

    layers, mono = _images(found), io.BytesIO()
    samples = decode(found.song, _RATE).samples
    soundfile.write(mono, samples, _RATE, format="MP3")
    sound = pages.data_uri(mono.getvalue(), "audio/mpeg")
    chosen = [
        f'<label><input type="radio" name="map" value="{number}"'
        f"{' checked' if number == 0 else ''}> {pages.escape(title)}</label>"
        for number, title in enumerate(layers["maps"])
    ]
    body = [
        _summary(found),
        f'<audio controls preload="auto" src="{sound}"></audio>',
        '<p class="now" id="now" aria-live="off"></p>',
        f"<p>{''.join(chosen)}</p>",
        _strip("close", layers, found),
        _strip("whole", layers, found),
        f'<div class="row"><div class="axis"></div>{_clips(found)}</div>',
        f'<div class="row"><div class="axis"></div>{_ticks(found)}</div>',
        '<p class="soft">Grey: the level of the song (dB, darker is louder) over '
        "frequency (Hz) and time (s). Colours: class activation (Grad-CAM, "
        f"{pages.escape(found.layer)}), from nothing (clear) to {found.top:.1f} times "
        "its clip's mean (yellow), the same scale for all maps. Click to hear a place. "
        "Bars: the vote of each clip, as high as its probability; orange ones name "
        "somebody else.</p>",
    ]
    about = {
        "seconds": found.seconds,
        "bar": _BAR,
        "clips": [
            {
                "start": float(start),
                "end": float(start + found.clip_seconds),
                "singer": found.artists[row.argmax()],
                "probability": float(row.max()),
            }
            for start, row in zip(found.starts, found.probabilities, strict=True)
        ],
    }
    # In a script element a closing tag would end it, whatever its name holds.
    text = json.dumps(about, ensure_ascii=True).replace("<", "\\u003c")
    body.append(f'<script type="application/json" id="song">{text}</script>')
    title = f"{pathlib.Path(found.song).name}: {found.singer}"
    return pages.write(path, title, "\n".join(body), "song")


def _summary(found):
    """The vote as a table."""
    winners = found.probabilities.argmax(axis=1)
    means = found.probabilities.mean(axis=0)
    counts = np.bincount(winners, minlength=len(found.artists))
    order = sorted(range(len(means)), key=lambda i: (-counts[i], -means[i]))[:5]
    columns = ["artist", "clips", "mean probability"]
    rows = [
        [found.artists[i], f"{counts[i]} of {len(winners)}", f"{means[i]:.1%}"]
        for i in order
    ]
    if found.voice_shares:
        columns.append("share of its map on cells that the voice dominates")
        for row in rows:
            shares = found.voice_shares.get(row[0])
            even = f"{found.voice_cells:.0%} if spread evenly"
            row.append("" if shares is None else f"{np.nanmean(shares):.0%} ({even})")
    notes = "".join(f"<p>note: {pages.escape(note)}</p>" for note in found.notes)
    return pages.table(columns, rows) + notes


def _images(found):
    """Dict with the spectrogram and, by title, the maps: lists of PNGs as addresses."""
    loudest = np.nanmax(found.mel)
    levels = np.clip((loudest - found.mel) / 80, 0, 1)
    grey = np.repeat(np.nan_to_num(levels, nan=1.0)[..., None], 4, axis=2)
    grey[..., 3] = 1
    maps = {f"what speaks for {name}": cam for name, cam in found.maps.items()}
    if found.counterfactual is not None:
        title = f"for {found.singer} in the counterfactual branch"
        maps[title] = found.counterfactual
    maps = {title: _chunks(plots.heat(cam, found.top)) for title, cam in maps.items()}
    return {"mel": _chunks(grey), "maps": maps}


def _chunks(pixels):
    """An image `(rows, frames, 4)`, row 0 at the bottom, as (width, address) pairs."""
    from matplotlib import image

    pieces = []
    for start in range(0, pixels.shape[1], _CHUNK):
        piece = np.ascontiguousarray(pixels[::-1, start : start + _CHUNK])
        buffer = io.BytesIO()
        image.imsave(buffer, piece, format="png")
        pieces.append((piece.shape[1], pages.data_uri(buffer.getvalue(), "image/png")))
    return pieces


def _strip(name, layers, found):
    """Spectrogram and maps beside a frequency axis, with a playhead."""
    frames = found.mel.shape[1]

    def layer(pieces, attributes=""):
        pictures = "".join(
            f'<img alt="" style="width:{100 * width / frames:.6f}%" src="{address}">'
            for width, address in pieces
        )
        return f'<div class="layer"{attributes}>{pictures}</div>'

    film = layer(layers["mel"])
    for number, pieces in enumerate(layers["maps"].values()):
        hidden = "" if number == 0 else ' hidden style="display:none"'
        film += layer(pieces, f' data-map="{number}"{hidden}')
    heights = np.linspace(0, 100, len(found.centres))
    hertz = "".join(
        f'<span style="bottom:{np.interp(value, found.centres, heights):.2f}%">'
        f"{value} Hz</span>"
        for value in _TICKS_HZ[name]
        if value <= found.centres[-1] * 1.05
    )
    return (
        f'<div class="row"><div class="axis">{hertz}</div>'
        f'<div class="strip" id="{name}"><div class="film">{film}</div>'
        '<div class="head"></div></div></div>'
    )


def _clips(found):
    """A bar for each clip, as high as the probability of its singer."""
    bars = []
    for start, row in zip(found.starts, found.probabilities, strict=True):
        singer = found.artists[row.argmax()]
        kind = "" if singer == found.singer else ' class="other"'
        left = 100 * start / found.seconds
        width = 100 * found.clip_seconds / found.seconds
        bars.append(
            f'<div{kind} style="left:{left:.3f}%;width:{width:.3f}%;'
            f'top:{100 * (1 - row.max()):.1f}%" title="{pages.escape(singer)}, '
            f'{row.max():.0%}"></div>'
        )
    return f'<div id="clips">{"".join(bars)}</div>'


def _ticks(found):
    """Seconds below the strips."""
    steps = (1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1800)
    step = next((s for s in steps if found.seconds / s <= 14), steps[-1])
    marks = [
        f'<span style="left:{100 * time / found.seconds:.3f}%">{time} s</span>'
        for time in range(0, int(found.seconds) + 1, step)
    ]
    return f'<div class="ticks">{"".join(marks)}</div>'
