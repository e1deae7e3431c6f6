"""Reruns the paper's tables and figures on any corpus.

`python -m lca_keras.experiments table3 --data PATH` trains what the table compares,
with every seed, and writes Markdown, CSV and LaTeX. Without `--data` it takes the
built-in corpus. Trainings are kept in `--out`, and shared by all experiments and
processes that have the same folder.
"""

import pathlib
import shlex
import sys

from lca_keras.base import console
from lca_keras.base.config import PRESETS
from lca_keras.base.errors import UserError
from lca_keras.base.sections import CLIP_SECONDS
from lca_keras.terminal import arguments, screen

_EXPERIMENTS = {
    "table1": "random and learned counterfactual attention, by terms of the loss",
    "table2": "training in two steps and in one",
    "table3": "four models, lengths of clips, songs with and without their bands",
    "table4": "the counterfactual beside the main branch",
    "variants": "any ways to train, and what they listen to",
    "figure1": "noise on one artist's recordings: do maps and scores fall for it?",
    "figure4": "test clips in the plane (t-SNE), without and with LCA",
    "confounding": "bands that tell the singer, more or less: who hears the voice?",
    "strangers": "singers who are not known: rejected, enrolled, told in duets",
}
# Experiments that make their own corpora.
_OWN_CORPUS = ("confounding", "strangers")


def main(argv=None):
    """Command line of the experiments."""
    parser = arguments.parser_of("lca_keras.experiments", __doc__)
    commands = parser.add_subparsers(dest="name", required=True, metavar="EXPERIMENT")
    for name, about in _EXPERIMENTS.items():
        command = commands.add_parser(name, help=about, description=f"{name}: {about}")
        _add_options(command, name)
        console.add_debug_flag(command)
    told = "one HTML page with all tables and pictures of a folder"
    report = commands.add_parser("report", help=told)
    report.add_argument("folder", metavar="DIR", help="the experiments' --out")
    file = {"metavar": "FILE.html", "action": arguments.Output}
    report.add_argument("--to", help="default: DIR/report.html", **file)
    console.add_debug_flag(report)
    argv = sys.argv[1:] if argv is None else argv
    parser.set_defaults(command=shlex.join([*parser.prog.split(), *argv]))
    return arguments.command(parser.parse_args, _start, argv)


def _add_options(command, name):
    add, is_table = command.add_argument, name.startswith("table")
    if name not in _OWN_CORPUS:
        arguments.add_corpus_options(command)
        arguments.add_fields(command, "split.file")
    add("--seeds", nargs="+", type=int, help="default: 0 21 42, as published")
    told = "default: paper for your own songs, demo for the built-in ones"
    add("--preset", choices=PRESETS, help=told)
    arguments.add_fields(command, "train.epochs", "train.warmup_epochs")
    add(
        "--clip-seconds",
        type=int,
        choices=CLIP_SECONDS,
        nargs="+" if is_table else None,
        help="default: the preset's; for table3 3 5 10",
    )
    arguments.add_fields(command, "features.level")
    told = "processes, each with a share of the cores; default: 1"
    add("--jobs", default=1, help=told, **arguments.WHOLE)
    add("--out", default="experiments", help="folder; default: experiments")
    add("--features", default="features", help="folder of feature stores")
    if name == "table3":
        add(
            "--vocals",
            metavar="PATH",
            help="the voices alone, a corpus with the same names; default: the "
            "manifest's vocals_path, or --separator",
        )
    if name in ("table3", "variants", "figure1", *_OWN_CORPUS):
        add("--separator", help="Open-Unmix model that makes missing stems")
    if is_table:
        told = "columns with the values published for artist20"
        add("--published", action="store_true", help=told)
    if name in ("variants", "figure1", *_OWN_CORPUS):
        add(
            "--variants",
            nargs="+",
            required=name == "variants",
            help="ways to train, words joined by +: none, cal, lca, crnn, remix, "
            "a form of the effect, supcon, aam, detach, no-TERM, one-step, vocals",
        )
    if name == "variants":
        add("--against", help="variant; default: the first")
    if name == "figure1":
        add(
            "--artists",
            nargs="+",
            metavar="NAME",
            help="five, or others; default: the "
            "five with the most songs. The first gets the noise",
        )
        band = {"default": (3000.0, 5000.0), "metavar": ("LOW", "HIGH")}
        told = "of the noise, Hz; default: 3000 5000"
        add("--band", nargs=2, type=float, help=told, **band)
        told = "recording over noise; default: 10"
        add("--snr-db", type=float, default=10.0, help=told)
    if name in _OWN_CORPUS:
        told = "probabilities that the own band plays in training"
        add("--values", nargs="+", type=float, help=told)
        for option in ("--artists", "--albums", "--songs"):
            add(option, type=int, help="of the built-in corpus")
        for option in ("--seconds", "--voice-db"):
            add(option, type=float, help="of the built-in corpus")


def _start(args):
    if args.name == "report":
        from lca_keras.studies import results

        print(f"written to {results.write_page(args.folder, args.to)}")
        return
    args.seeds = args.seeds or [0, 21, 42]
    if len(set(args.seeds)) < len(args.seeds):
        raise UserError(f"--seeds: {args.seeds} has a seed twice")
    names = getattr(args, "variants", None) or []
    if len(set(names)) < len(names):
        raise UserError(f"--variants: {' '.join(names)} has a variant twice")
    out = pathlib.Path(args.out)
    arguments.check_folder("--out", out)
    with console.resumable(shlex.split(args.command)):
        console.quiet_tensorflow()
        from lca_keras.studies import registry

        result = registry.study(args, screen.Screen())
        result.write(out)
    print(f"\n{result.markdown()}")
    print(f"written to {out / args.name}.md, .csv, .tex and .json")


if __name__ == "__main__":
    sys.exit(main())
