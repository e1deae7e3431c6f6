"""The picture of a song's `lca_keras.explanation.explainer.Explanation`."""

import functools
import pathlib

import numpy as np

from lca_keras.drawing import plots


def figure(found):
    """Draws the vote, maps over the spectrogram, attention and the voice's share."""
    panels = [(1.0 + 0.16 * len(found.artists), _draw_vote)]
    maps = {}
    for name, cam in found.maps.items():
        if name in found.voice_shares:
            share = np.nanmean(found.voice_shares[name])
            name += f" ({share:.0%} on cells that the voice dominates; "
            name += f"{found.voice_cells:.0%} if spread evenly)"
        maps[name] = cam
    if found.counterfactual is not None:
        maps[f"{found.singer} in the counterfactual branch"] = found.counterfactual
    for whom, cam in maps.items():
        panels.append((1.9, functools.partial(_draw_map, whom=whom, cam=cam)))
    if found.attention is not None:
        panels.append((1.0, functools.partial(_draw_attention, main=True)))
        panels.append((1.0, functools.partial(_draw_attention, main=False)))
    if found.voice_shares:
        panels.append((1.4, _draw_voice))
    heights = [height for height, _ in panels]
    with plots.style():
        drawn = plots.new_figure(12, 0.7 + sum(heights) * 1.15)
        column = drawn.subplots(len(panels), 1, sharex=True, height_ratios=heights)
        for axes, (_, draw) in zip(np.atleast_1d(column), panels, strict=True):
            draw(drawn, axes, found)
        axes.set_xlim(0, found.seconds)
        axes.set_xlabel("time (s)")
        name = pathlib.Path(found.song).name
        how = f"class activation (Grad-CAM, {found.layer})"
        drawn.suptitle(f"{name}: {found.singer}. Maps: {how}")
    return drawn


def _draw_vote(drawn, axes, found):
    spans, votes = (found.starts, found.clip_seconds), found.probabilities.argmax(1)
    plots.draw_vote(drawn, axes, *spans, found.artists, found.probabilities, votes)
    axes.set_title("the vote of each clip (dot) and its probabilities", loc="left")


def _draw_attention(drawn, axes, found, main):
    values = found.attention if main else found.cf_attention
    top = float(max(found.attention.max(), found.cf_attention.max()))
    spans = found.starts, found.clip_seconds
    plots.draw_clips(drawn, axes, *spans, values, "weight", top)
    axes.set_yticks(np.arange(values.shape[1]) + 0.5, range(values.shape[1]))
    axes.set_ylabel("shift")
    which = "main branch" if main else "counterfactual"
    axes.set_title(f"attention over shifts, {which}", loc="left")


def _draw_map(drawn, axes, found, whom, cam):
    title = f"what speaks for {whom}"
    if empty := found.empty_clips(cam):
        title += f": nothing in {empty} of {len(found.starts)} clips"
    loudest = np.nanmax(found.mel)
    extent = (0, found.seconds, -0.5, len(found.centres) - 0.5)
    how = {"aspect": "auto", "origin": "lower", "extent": extent}
    levels = {"vmin": loudest - 80, "vmax": loudest, "cmap": "gray_r"}
    spectrum = axes.imshow(found.mel, **levels, **how)
    axes.imshow(plots.heat(cam, found.top), **how)
    plots.mel_axis(axes, found.centres)
    axes.set_title(title, loc="left")
    drawn.colorbar(spectrum, ax=axes, label="level (dB)")
    plots.heat_bar(drawn, axes, found.top, "activation over\nits clip's mean")


def _draw_voice(_, axes, found):
    middles = found.starts + found.clip_seconds / 2
    for number, (name, shares) in enumerate(found.voice_shares.items()):
        axes.plot(middles, shares, label=name, ms=4, lw=1, **plots.look_of(number))
    axes.axhline(found.voice_cells, c="0.5", ls="--", lw=1, label="if spread evenly")
    axes.set_ylim(0, 1)
    axes.set_ylabel("share")
    axes.legend(fontsize="small", ncols=4)
    axes.set_title("share of the map on cells that the voice dominates", loc="left")
