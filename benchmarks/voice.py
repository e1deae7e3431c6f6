"""Which training hears the voice? Variants compared over seeds, with their spread.

`python -m benchmarks.voice --data CORPUS --out FOLDER --seeds 0 1 2 3 4 --variants none
lca remix remix+lca` trains each variant with each seed and prints a table: test clips
and songs with 95 % intervals over seeds, and paired differences from `--against`.
CORPUS is a built-in corpus with stems, whose own split keeps validation and test free
of the confounder. Finished trainings are kept in FOLDER; several processes share the
work.

A variant is words joined by +: a method (`none`, `cal`, `lca`), `remix`, `specaugment`,
a form of the effect (`probability`, `logit`, `product`), `detach`, and `no-TERM` for a
loss term that is switched off (`no-att`).
"""

import argparse
import dataclasses
import hashlib
import json
import pathlib
import sys

import numpy as np

from lca_keras import console, files, options
from lca_keras.config import (
    AUGMENTATIONS,
    EFFECTS,
    LEVELS,
    METHODS,
    PRESETS,
    SOURCES,
    LossWeights,
    get_preset,
)
from lca_keras.errors import UserError
from lca_keras.voice_report import FOLLOWED

_LEVELS = {"clips": "frame", "songs": "song"}


def configure(variant, config):
    """The `Config` of a variant, built on another one."""
    train, augment, loss = {"method": "none"}, {"kinds": []}, {}
    for word in variant.split("+"):
        if word in METHODS:
            train["method"] = word
        elif word in EFFECTS:
            train["effect"] = word
        elif word == "detach":
            train["detach_counterfactual"] = True
        elif word in AUGMENTATIONS:
            augment["kinds"].append(word)
        elif word.removeprefix("no-") in vars(LossWeights()) and word[:3] == "no-":
            loss[word[3:]] = 0.0
        else:
            raise UserError(f"--variants: {word!r} is no part of a variant")
    augment["kinds"] = tuple(augment["kinds"])
    return config.replace(train=train, augment=augment, loss=loss)


def score(config, corpus_, division, folder, warm_up):
    """Trains a `Config` in a folder; scores of validation and test as a dict.

    Those of the best epoch, as `fit` takes it. `warm_up` is the folder that variants
    with the same beginning share, or `None`.
    """
    from lca_keras import corpus, evaluation, training

    artists = division.artists
    sources = corpus.clip_sources(corpus_, division.part_of, artists, config)
    checkpoints = folder / "checkpoints"
    if warm_up is not None and not (checkpoints / "state.json").exists():
        # Variants that differ in counterfactual terms alone begin alike.
        beginning = config.replace(train={"epochs": config.train.warmup_epochs})
        warm_up.mkdir(parents=True, exist_ok=True)
        with files.lock(warm_up / ".lock"):
            training.train(beginning, sources, len(artists), warm_up)
        training.go_on_from(checkpoints, warm_up)
    state = training.train(config, sources, len(artists), checkpoints)
    model = training.best_model(config, len(artists), checkpoints)
    scores = {
        part: evaluation.evaluate(model, sources[part]).scores
        for part in ("validation", "test")
    }
    train_f1 = state.history[-1]["f1"]
    return {**scores, "train_f1": train_f1, "best_epoch": state.best_epoch}


def follows(config, corpus_, division, folder):
    """What the model that `score` left in a folder listens to, shares of test songs."""
    from lca_keras import corpus, training, voice_report

    artists = division.artists
    sources = corpus.clip_sources(corpus_, division.part_of, artists, config, ["test"])
    model = training.best_model(config, len(artists), folder / "checkpoints")
    return voice_report.listen(model, sources["test"], artists).to_dict()


def interval(values):
    """Half the width of the 95 % interval of a mean (Student's t)."""
    from scipy import stats

    if len(values) < 2:
        return float("nan")
    return float(stats.t.ppf(0.975, len(values) - 1) * stats.sem(values))


def table(found, reports, seeds, variants, against):
    """Markdown lines: each variant's scores, and its differences from another one."""
    from scipy import stats

    lines = [
        "| variant | seeds | train clips | validation clips / songs | test clips | "
        f"test songs | songs minus {against} | p, paired | follows voice / band |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]

    def scores(variant, part, level):
        results = [found[variant, s] for s in seeds if (variant, s) in found]
        return np.array([r[part][_LEVELS[level]]["f1"] for r in results])

    for variant in variants:
        done = [s for s in seeds if (variant, s) in found]
        if not done:
            continue
        cells = [variant, str(len(done))]
        cells.append(f"{np.mean([found[variant, s]['train_f1'] for s in done]):.3f}")
        means = [scores(variant, "validation", level).mean() for level in _LEVELS]
        cells.append(" / ".join(f"{mean:.3f}" for mean in means))
        for level in _LEVELS:
            values = scores(variant, "test", level)
            cells.append(f"{values.mean():.3f} ± {interval(values):.3f}")
        shared = [s for s in done if (against, s) in found]
        if variant != against and len(shared) > 1:
            pairs = [
                [found[name, s]["test"]["song"]["f1"] for s in shared]
                for name in (variant, against)
            ]
            gain = np.subtract(*pairs)
            p = stats.ttest_rel(*pairs).pvalue
            cells += [f"{gain.mean():+.3f} ± {interval(gain):.3f}", f"{p:.3f}"]
        else:
            cells += ["", ""]
        shares = [
            reports[variant, s]["shares"] for s in done if (variant, s) in reports
        ]
        means = [
            f"{np.mean([share[name] for share in shares]):.2f}"
            for name in FOLLOWED[:2]
            if shares
        ]
        cells.append(" / ".join(means))
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def main(argv=None):
    """Command line of the comparison."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.voice", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--data", required=True, help="built-in corpus with stems")
    parser.add_argument("--out", required=True, help="folder for what is computed")
    parser.add_argument("--variants", nargs="+", required=True)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2, 3, 4])
    parser.add_argument("--against", help="variant; default: the first")
    parser.add_argument("--preset", choices=PRESETS, default="demo")
    parser.add_argument("--source", choices=SOURCES, default="stems")
    parser.add_argument("--level", choices=LEVELS, help="default: song")
    parser.add_argument(
        "--separator", help="makes the stems, in the place of those of the corpus"
    )
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--warmup-epochs", type=int)
    console.add_debug_flag(parser)
    args = parser.parse_args(argv)
    return console.guard(lambda: compare(args), args.debug)


def compare(args):
    """Runs the job that the parsed arguments describe."""
    console.quiet_tensorflow()
    from lca_keras import corpus, run
    from lca_keras.corpus import DataSource

    out, data = pathlib.Path(args.out), pathlib.Path(args.data)
    args.melody = None
    base = get_preset(args.preset)
    features, separator = options.resolve_features(args, base.features)
    base = base.replace(
        features=vars(features),
        split={"file": str(data / "split.csv")},
        train={"epochs": args.epochs, "warmup_epochs": args.warmup_epochs},
    )
    source = DataSource(
        # The folder alone says nothing of the stems in it.
        data=str(data if args.separator else data / "manifest.csv"),
        features=str(out / "features"),
        separator=separator,
    )
    songs = options.prepare_corpus(source, base)
    division = corpus.divide(base, songs)
    wanted_scores, against = {}, args.against or args.variants[0]
    # Seeds before variants: a comparison that is cut short has all of them.
    for seed in args.seeds:
        for variant in args.variants:
            config = configure(variant, base).replace(train={"seed": seed})
            folder = out / "cells" / variant / f"seed-{seed}"
            warm_up = None
            if config.train.method != "none" and config.train.warmup_epochs:
                # All that the warm-up depends on.
                same = {"effect": "logit", "detach_counterfactual": False, "epochs": 1}
                kind = dataclasses.replace(config, loss=LossWeights())
                kind = [kind.replace(train=same).to_dict(), str(source)]
                digest = hashlib.sha256(json.dumps(kind).encode()).hexdigest()[:12]
                warm_up = out / "warm-up" / digest

            def compute(config=config, folder=folder, warm_up=warm_up):
                return score(config, songs, division, folder, warm_up)

            wanted_scores[variant, seed] = (folder, config.to_dict(), compute)
    found = {}
    for (variant, seed), result in run.cells(wanted_scores):
        found[variant, seed] = result
        print(
            f"{variant}, seed {seed}: validation songs "
            f"{result['validation']['song']['f1']:.3f}, test clips "
            f"{result['test']['frame']['f1']:.3f}, songs "
            f"{result['test']['song']['f1']:.3f}",
            flush=True,
        )
    wanted = {}
    # Those of other stems, and of a folder that does not say whose bands play, would
    # be no measure.
    heard = found if args.source == "stems" and not args.separator else {}
    for variant, seed in heard:
        folder, settings, _ = wanted_scores[variant, seed]
        config = configure(variant, base).replace(train={"seed": seed})

        def compute(config=config, folder=folder):
            return follows(config, songs, division, folder)

        # The scores belong to it: another training makes another model.
        settings = {"config": settings, "scores": found[variant, seed]}
        place = out / "reports" / variant / f"seed-{seed}"
        wanted[variant, seed] = (place, settings, compute)
    reports = dict(run.cells(wanted))
    print("\n".join(table(found, reports, args.seeds, args.variants, against)))


if __name__ == "__main__":
    sys.exit(main())
