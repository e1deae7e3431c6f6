"""Shows what a search found: pictures, importance, and the best weights compared.

`python -m tuning.report NAME` draws every weight against the score, ranks the weights
by importance, and writes `best.yaml` for `python -m lca_keras.fit --config`. The seeds
of `--compare` are fresh ones, and its trainings as long as those of the search.
"""

import argparse
import functools
import pathlib
import sys

import numpy as np

from lca_keras.base import console, files
from lca_keras.base.config import Config
from lca_keras.base.errors import UserError
from lca_keras.base.sections import LOSS_WEIGHTS
from lca_keras.drawing import markdown, plots
from lca_keras.terminal import arguments
from lca_keras.workflow import cells
from tuning.space import BUDGET, shown

COMPARED = ("best", "default", "published", "plain")


def searched(rows):
    """Names of the values that differ between trials, Hyperband's own left out."""
    names = [name for name in rows[0].values if not name.startswith("tuner/")]
    return [name for name in names if len({row.values[name] for row in rows}) > 1]


def numbers(rows, name):
    """Values of trials as floats and `None`; or places among names, and the names."""
    values = [row.values[name] for row in rows]
    if not any(isinstance(value, str) for value in values):
        return np.array(values, float), None
    places = sorted(set(values))
    return np.array([places.index(value) for value in values], float), places


def importance(rows, names):
    """Permutation importance of each weight, largest first, and a forest's R^2.

    That is on trials that a tree has not seen: below about zero the ranking is chance.
    """
    from sklearn.ensemble import RandomForestRegressor
    from sklearn.inspection import permutation_importance

    inputs = np.stack([numbers(rows, name)[0] for name in names], axis=1)
    scores = np.array([row.score for row in rows])
    forest = RandomForestRegressor(300, oob_score=True, random_state=0)
    forest.fit(inputs, scores)
    how = {"n_repeats": 20, "random_state": 0}
    found = permutation_importance(forest, inputs, scores, **how).importances_mean
    ranked = sorted(zip(names, found.tolist(), strict=True), key=lambda pair: -pair[1])
    return dict(ranked), float(forest.oob_score_)


def scatter_figure(rows, names, space, objective):
    """Draws each weight against the score; bars reach over a trial's seeds."""
    from matplotlib import ticker

    columns, lines = min(3, len(names)), -(-len(names) // 3)
    figure = plots.new_figure(4 * columns, 3.2 * lines)
    scores = np.array([row.score for row in rows])
    seeds = np.array([[one[objective] for one in row.seeds] for row in rows])
    # A mean of equal numbers is rounded, so that it may be outside of them.
    spread = np.maximum([scores - seeds.min(axis=1), seeds.max(axis=1) - scores], 0)
    best = int(scores.argmax())
    with plots.style():
        grid = figure.subplots(lines, columns, squeeze=False).ravel()
        for axes, name in zip(grid, names, strict=False):
            values, places = numbers(rows, name)
            axes.errorbar(values, scores, spread, fmt="o", markersize=4, elinewidth=0.8)
            axes.plot(values[best], scores[best], "r*", markersize=12)
            axes.set(xlabel=name, ylabel=objective, xscale=space[name]["scale"])
            if space[name]["scale"] == "log":
                # 0.1, 0.2, 0.5 in plain figures; powers of ten would run together.
                axes.xaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
                axes.xaxis.set_major_formatter(ticker.StrMethodFormatter("{x:g}"))
                axes.xaxis.set_minor_locator(ticker.NullLocator())
            if places:
                axes.set_xticks(range(len(places)), places)
        for axes in grid[len(names) :]:
            axes.remove()
    return figure


def parallel_figure(rows, names, space, objective):
    """Parallel coordinates: a line for each trial, coloured by its score."""
    import matplotlib as mpl
    from sklearn.preprocessing import minmax_scale

    scores = np.array([row.score for row in rows])
    columns, labels = [], []
    for name in names:
        values, places = numbers(rows, name)
        ends = places or [f"{end:.3g}" for end in (values.min(), values.max())]
        labels.append(f"{name}\n{ends[0]} to {ends[-1]}")
        columns.append(np.log(values) if space[name]["scale"] == "log" else values)
    labels.append(f"{objective}\n{scores.min():.3f} to {scores.max():.3f}")
    scaled = minmax_scale(np.stack([*columns, scores], axis=1))
    ends = mpl.colors.Normalize(scores.min(), scores.max())
    shade = mpl.cm.ScalarMappable(ends, "viridis")
    figure = plots.new_figure(2 + 1.6 * len(labels), 4)
    with plots.style():
        axes = figure.subplots()
        for index in scores.argsort():  # The best ones on top.
            axes.plot(scaled[index], color=shade.to_rgba(scores[index]), alpha=0.8)
        axes.set_xticks(range(len(labels)), labels)
        axes.set_yticks([])
        figure.colorbar(shade, ax=axes, label=objective)
    return figure


def compare(folder, search, songs, seeds, test):
    """Trains the best, the default and the published weights, and the plain network.

    The `seeds` of each follow those of the search; finished trainings are kept. Yields
    (name, seed, scores) as they come, with those of test songs if `test` asks for them.
    """
    from lca_keras.data import corpus
    from lca_keras.evaluation import scoring
    from lca_keras.workflow import training
    from tuning import study, trials

    base = search.base
    configs = (
        Config.load(folder / "best.yaml"),
        base.replace(loss=vars(LOSS_WEIGHTS["default"])),
        base.replace(loss=vars(LOSS_WEIGHTS["genremert"])),
        base.replace(train={"method": "none"}),
    )
    division = study.divide(folder, search, songs)
    artists = division.artists
    sources = corpus.clip_sources(songs, division.part_of, artists, base)
    tested = sources.pop("test")
    trainer = trials.Trainer(folder, sources, len(artists))

    def score_test(config, checkpoints):
        model = training.best_model(config, len(artists), checkpoints)
        scores = scoring.evaluate(model, tested).scores
        return {f"test_{key}_f1": scores[key]["f1"] for key in ("frame", "song")}

    wanted = {}
    first = base.train.seed + search.seeds
    for name, config in zip(COMPARED, configs, strict=True):
        for seed in range(first, first + seeds):
            here = folder / "compare" / f"{name}-seed-{seed}"
            seeded = config.replace(train={"seed": seed})
            work = functools.partial(trainer.train, seeded, here / "checkpoints")
            wanted[name, seed] = here, seeded.to_dict(), work
    for (name, seed), row in cells.cells(wanted):
        if test:
            here, settings, work = wanted[name, seed]
            score = functools.partial(score_test, *work.args)
            row = {**row, **cells.cell(here / "test", settings, score)}
        yield name, seed, row


def text_of(name, search, rows, drawn, comparison):
    """The report as text, of all `Result`s and of those that were drawn."""
    scored = [row for row in rows if row.score is not None]
    best = max(scored, key=lambda row: row.score)
    train = search.base.train
    parts = [
        f"# Search {name}",
        f"{search.algorithm}, {len(rows)} trials ({len(rows) - len(scored)} failed), "
        f"{search.seeds} seed(s) each from {train.seed}, objective "
        f"{train.objective} on validation songs. {train.epochs} epochs, "
        f"{train.warmup_epochs} of them warm-up.",
        "`frame_f1` and `song_f1` are weighted F1 over clips and over songs at the "
        "best epoch after the warm-up; `cf_` is the counterfactual branch, `test_` the "
        "test songs, all else validation songs.",
        f"Best: trial {best.trial}, {train.objective} {best.score:.4f}. The "
        "best of many noisy trials looks better than it is: trust the comparison with "
        "fresh seeds.",
    ]
    if comparison:
        count = len(comparison["best"])
        parts.append(f"## Fresh seeds ({count} each{', mean and range' * (count > 1)})")
        parts.append(_comparison(comparison))
        for title, weights in (("default", "default"), ("published", "genremert")):
            listed = (f"{key} {v:g}" for key, v in vars(LOSS_WEIGHTS[weights]).items())
            parts.append(f"{title}: {', '.join(listed)}")
    if names := searched(drawn):
        parts += [
            "![each weight against the score](weights.png)",
            "![parallel coordinates](parallel.png)",
            "A star marks the best trial, bars reach over the seeds of a trial.",
            "## Importance",
            *_ranking(drawn, names),
        ]
    names = searched(scored) + [BUDGET] * (BUDGET in best.values)
    columns = ["trial", *names, train.objective, "over seeds", "reason"]
    table = [
        [
            *(row.trial, *(shown(row.values[key]) for key in names)),
            "failed" if row.score is None else f"{row.score:.4f}",
            ", ".join(f"{one[train.objective]:.4f}" for one in row.seeds),
            row.reason,
        ]
        for row in sorted(rows, key=lambda row: (row.score is None, -(row.score or 0)))
    ]
    heads = [column.replace(BUDGET, "lca_epochs") for column in columns]
    parts += ["## Trials, best first", markdown.table(heads, table)]
    return "\n\n".join(parts) + "\n"


def _comparison(comparison):
    """The table of scores with fresh seeds."""

    def cell(results, key):
        values = [result[key] for result in results if result.get(key) is not None]
        if not values:
            return "-"
        spread = f" ({min(values):.3f} to {max(values):.3f})" * (len(values) > 1)
        return f"{np.mean(values):.3f}{spread}"

    keys = ["frame_f1", "song_f1", "cf_frame_f1", "test_frame_f1", "test_song_f1"]
    keys = [key for key in keys if key in comparison["best"][0]]
    table = [[k, *(cell(rows, key) for key in keys)] for k, rows in comparison.items()]
    return markdown.table(["weights", *keys], table)


def _ranking(rows, names):
    """What is said of the weights' importance after these trials."""
    least = max(10, 2 * len(names))
    if len(rows) < least:
        return [
            f"Not ranked: {len(rows)} trials with all epochs; {len(names)} weights "
            f"need {least}, or chance ranks them."
        ]
    ranked, explained = importance(rows, names)
    trust = "a hint" if explained > 0 else "so chance has ranked them"
    table = [[name, f"{value:.3f}"] for name, value in ranked.items()]
    return [
        "By how much the R^2 of a random forest fitted to the trials falls when a "
        "weight's values are shuffled. On trials that it has not seen the forest has "
        f"an R^2 of {explained:.2f}: {trust}.",
        markdown.table(["weight", "importance"], table),
    ]


def main(argv=None):
    """Command line of the report."""
    parser = argparse.ArgumentParser(
        prog="python -m tuning.report", description=__doc__.splitlines()[0]
    )
    parser.add_argument("name", help="name of the search")
    parser.add_argument("--searches", default="searches", help="folder of searches")
    told = "train best, default, published weights and the plain network with so "
    told += "many fresh seeds"
    how = {**arguments.WHOLE, "metavar": "SEEDS"}
    parser.add_argument("--compare", help=told, **how)
    told = "score the compared ones on test songs too"
    parser.add_argument("--test", action="store_true", help=told)
    console.add_debug_flag(parser)
    return arguments.command(parser.parse_args, report, argv)


def report(args):
    """Does what the arguments say."""
    console.quiet_tensorflow()
    from lca_keras.terminal import screen as terminal
    from tuning import screen, study

    folder = pathlib.Path(args.searches, args.name)
    search = study.Search.load(folder)
    if args.test and not args.compare:
        raise UserError("--test goes with --compare SEEDS")
    rows = screen.print_best(folder)
    scored = [row for row in rows if row.score is not None]
    # Hyperband stops most trials before they have all epochs.
    longest = max(row.values.get(BUDGET, 0) for row in scored)
    drawn = [row for row in scored if row.values.get(BUDGET, 0) == longest]
    pictures = folder / "report"
    pictures.mkdir(exist_ok=True)
    if names := searched(drawn):
        for title, draw in (("weights", scatter_figure), ("parallel", parallel_figure)):
            figure = draw(drawn, names, search.space, search.base.train.objective)
            plots.save_figure(figure, pictures / f"{title}.png")
    comparison = {name: [] for name in COMPARED if args.compare}
    if args.compare:
        import tensorflow as tf

        tf.get_logger().setLevel("ERROR")
        with console.resumable(["python", "-m", "tuning.report", *sys.argv[1:]]):
            songs = terminal.prepare_corpus(study.load_source(folder), search.base)
            wanted = (folder, search, songs, args.compare, args.test)
            for name, seed, row in compare(*wanted):
                given = {k: v for k, v in row.items() if "_f1" in k and v is not None}
                scores = [f"{k} {v:.3f}" for k, v in given.items()]
                print(f"  {name:<9} seed {seed}  {'  '.join(scores)}", flush=True)
                comparison[name].append(row)
    text = text_of(args.name, search, rows, drawn, comparison)
    with files.atomic_path(pictures / "report.md") as temporary:
        temporary.write_text(text, encoding="utf-8")
    columns = ["trial", *rows[0].values, "score", "reason"]
    table = [{**row.values, **row._asdict()} for row in rows]
    files.write_csv(folder / "trials.csv", columns, table)
    print(f"\n{text}\nwritten to {pictures} and {folder / 'trials.csv'}")


if __name__ == "__main__":
    sys.exit(main())
