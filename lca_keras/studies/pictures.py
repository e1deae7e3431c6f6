"""Pictures of experiments, drawn with Matplotlib."""

import numpy as np

from lca_keras.drawing import plots


def plane_of(predictions, marked):
    """Coordinates of clips by their embeddings (t-SNE), their labels, which are marked.

    Of `ClipPredictions`: arrays `(clips, 2)`, `(clips,)` and `(clips,)`. See van der
    Maaten & Hinton, 2008, Visualizing data using t-SNE.
    """
    from sklearn.manifold import TSNE

    embeddings = np.asarray(predictions.outputs["embedding"], "float64")
    perplexity = min(30, max(2, (len(embeddings) - 1) / 3))
    tsne = TSNE(random_state=0, init="pca", perplexity=perplexity)
    return tsne.fit_transform(embeddings), predictions.labels, marked


def planes(panels, artists, marked, titles=None):
    """Clips in the plane, a panel for each model: what `plane_of` returned, by name.

    `marked` is what the legend says of marked clips. Comes with the columns and rows
    of a CSV.
    """
    rows = [
        [name, artists[label], int(ringed), f"{x:.4f}", f"{y:.4f}"]
        for name, panel in panels.items()
        for (x, y), label, ringed in zip(*panel, strict=True)
    ]
    columns = ["training", "artist", marked.replace(" ", "_"), "x", "y"]
    with plots.style():
        figure = plots.new_figure(5.2 * len(panels), 5.6)
        row = np.atleast_1d(figure.subplots(1, len(panels)))
        for axes, (name, panel) in zip(row, panels.items(), strict=True):
            plane, labels, ringed = panel
            for label, artist in enumerate(artists):
                at = plane[labels == label]
                look = plots.look_of(label)
                axes.scatter(*at.T, s=22, alpha=0.8, lw=0, label=artist, **look)
            at = plane[ringed]
            ring = {"s": 60, "facecolors": "none", "edgecolors": "0.2", "lw": 0.7}
            if len(at):
                axes.scatter(*at.T, label=marked, **ring)
            axes.set_title(titles[name] if titles else name)
            axes.set(xlabel="t-SNE, first axis (no unit)", xticks=[])
            axes.set(ylabel="t-SNE, second axis (no unit)", yticks=[])
        handles, names = row[0].get_legend_handles_labels()
        ncols = min(len(names), 3 * len(panels))
        figure.legend(handles, names, loc="outside lower center", ncols=ncols)
    return figure, (columns, rows)


def activation_maps(clips, seconds, centres, band):
    """Spectrograms of clips beside the maps of several models, on one scale.

    `clips` are tuples of a clip's title, its spectrogram `(mel_bins, frames)` in
    decibels, and a dict from title to a map of that shape, not negative. `centres` of
    mel bins and the `band`, whose edges are drawn, are in Hz.
    """
    columns = max(len(maps) for *_, maps in clips)
    # A map says where, not how much: 1 is what it would be if spread evenly.
    shown = [
        {name: cam / max(cam.mean(), 1e-12) for name, cam in maps.items()}
        for *_, maps in clips
    ]
    top = max(np.quantile(cam, 0.99) for maps in shown for cam in maps.values())
    extent = (0, seconds, -0.5, len(centres) - 0.5)
    how = {"aspect": "auto", "origin": "lower", "extent": extent}
    with plots.style():
        figure = plots.new_figure(2.9 * (1 + columns), 2.6 * len(clips))
        shared = {"squeeze": False, "sharex": True, "sharey": True}
        grid = figure.subplots(len(clips), 1 + columns, **shared)
        loudest = max(mel.max() for _, mel, _ in clips)
        levels = {"vmin": loudest - 80, "vmax": loudest, "cmap": "gray_r"}
        for row, (title, mel, _), maps in zip(grid, clips, shown, strict=True):
            spectrum = row[0].imshow(mel, **levels, **how)
            row[0].set_title(title)
            plots.mel_axis(row[0], centres)
            for axes in row[1 + len(maps) :]:
                axes.set_axis_off()
            for axes, (name, cam) in zip(row[1:], maps.items(), strict=False):
                axes.imshow(mel, **levels, **how)
                axes.imshow(plots.heat(cam, top), **how)
                axes.set_title(name)
            for axes in row[: 1 + len(maps)]:
                for edge in np.interp(band, centres, np.arange(len(centres))):
                    axes.axhline(edge, c="#d55e00", ls="--", lw=1)
        for axes in grid[-1]:
            axes.set_xlabel("time (s)")
        figure.colorbar(spectrum, ax=grid[:, 0].tolist(), label="level (dB)")
        right, label = grid[:, -1].tolist(), "class activation over its mean"
        plots.heat_bar(figure, right, top, label)
    return figure


def curves(panels, label):
    """Scores against a setting in [0, 1], a panel for each condition, with intervals.

    `panels` is a dict from title to a dict from method to a list of (x, mean, low,
    high); `label` is that of the horizontal axis.
    """
    methods = list(dict.fromkeys(name for lines in panels.values() for name in lines))
    with plots.style():
        figure = plots.new_figure(4.0 * len(panels), 4.4)
        row = np.atleast_1d(figure.subplots(1, len(panels), sharey=True))
        for axes, (title, lines) in zip(row, panels.items(), strict=True):
            for name, points in lines.items():
                number = methods.index(name)
                x, mean, low, high = np.array(points, "float64").T
                # A little apart, so that intervals don't hide each other.
                x = x + 0.012 * (number - (len(methods) - 1) / 2)
                spread = [mean - low, high - mean]
                look = {**plots.look_of(number), "ms": 5, "lw": 1.4, "capsize": 2}
                axes.errorbar(x, mean, spread, label=name, **look)
            ticks = sorted({x for points in lines.values() for x, *_ in points})
            axes.set(title=title, xlabel=label, xticks=ticks)
            axes.set(xlim=(-0.1, 1.1), ylim=(0, 1.02))
            axes.grid(axis="y", c="0.9")
        row[0].set_ylabel("weighted F1, songs")
        handles, names = row[0].get_legend_handles_labels()
        columns = min(8, len(names))
        figure.legend(handles, names, loc="outside lower center", ncols=columns)
    return figure
