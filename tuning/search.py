"""Searches the loss weights of LCA against validation F1, with KerasTuner.

`python -m tuning.search --data PATH --name NAME` can be stopped at any moment and
started again. Started in more processes, on this machine or on others that see the
folder, with the same options, they share the work. `tuning.report` shows what came out.
"""

import argparse
import pathlib
import re
import sys
import warnings

from lca_keras.base import console
from lca_keras.base.errors import UserError
from lca_keras.terminal import arguments, resolving
from tuning import space as spaces

# Fields of the configuration that options change.
_FIELDS = ("train.epochs", "train.objective", "train.seed", *arguments.AUGMENT)


def main(argv=None):
    """Command line of the search."""
    parser = argparse.ArgumentParser(
        prog="python -m tuning.search", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--name", required=True, help="name of the search")
    arguments.add_data_options(parser.add_argument_group("data"))
    what = parser.add_argument_group("search")
    told = "default: bayesian; grid takes three values of every range"
    how = {"choices": spaces.ALGORITHMS, "default": "bayesian"}
    what.add_argument("--algorithm", help=told, **how)
    told = "default: 20; grid: all; more of them lengthen a search"
    what.add_argument("--trials", help=told, **arguments.WHOLE)
    told = "trainings a trial; default: 1"
    what.add_argument("--seeds", default=1, help=told, **arguments.WHOLE)
    what.add_argument("--base-config", help="YAML of what is not searched")
    arguments.add_preset_option(what)
    arguments.add_fields(what, *_FIELDS)
    what.add_argument("--space", help="YAML that changes the search space")
    where = parser.add_argument_group("where")
    where.add_argument("--searches", default="searches", help="folder of searches")
    told = "name of this process among others; default: machine and number"
    where.add_argument("--worker", metavar="NAME", help=told)
    console.add_debug_flag(parser)
    return arguments.command(parser.parse_args, search, argv)


def search(args):
    """Does what the arguments say."""
    arguments.check_name(args.name)
    if args.worker is not None and not re.fullmatch(r"\w[\w-]*", args.worker):
        raise UserError(f"--worker {args.worker!r}: use letters, digits, - and _")
    space = spaces.load_space(args.space)
    if args.data is None and args.store is None:
        raise UserError("give either --data or --store")
    given = (args.base_config, args.preset, "paper", "--base-config")
    base, changes = resolving.base_config(*given), arguments.sections(args, *_FIELDS)
    config, source = resolving.resolve_data(args, base, **changes)
    if config.model.name != "crnn_fgnl" or config.train.method != "lca":
        raise UserError(
            f"the search is for the loss weights of method lca on crnn_fgnl, not for "
            f"{config.train.method} on {config.model.name}"
        )
    spaces.check(space, config)
    for name in ("remix_share", "remix_gain_db"):
        if name in space and getattr(args, name) is not None:
            option = "--" + name.replace("_", "-")
            raise UserError(f"{option}: {name} is searched; fix it in --space")
    longest = spaces.longest_warmup(space, config)
    if config.train.epochs <= longest:
        raise UserError(
            f"{config.train.epochs} epochs leave nothing after a warm-up of "
            f"{longest}: the weights would never act. Raise --epochs."
        )
    if args.algorithm == "hyperband" and args.trials is not None:
        raise UserError("hyperband decides by itself how many trials it runs")
    console.quiet_tensorflow()
    import tensorflow as tf

    from lca_keras.data import corpus
    from lca_keras.models.distribution import has_gpu
    from lca_keras.terminal import screen as terminal
    from tuning import screen, study, trials

    # The Gaussian process of few trials warns of its fit.
    warnings.filterwarnings("ignore", module="sklearn")
    # A new model for every trial is what it warns of.
    tf.get_logger().setLevel("ERROR")
    # The same trial has the same score whenever it runs. On a CPU that is so anyway, to
    # the bit, and asking for it costs a third of the time.
    if has_gpu():
        tf.config.experimental.enable_op_determinism()
    folder = pathlib.Path(args.searches, args.name)
    wanted = study.Search(
        args.algorithm, args.trials, args.seeds, spaces.to_json(space), config.to_dict()
    )
    study.open_folder(folder, wanted)
    with (
        study.worker_name(folder, args.worker) as worker,
        console.resumable(["python", "-m", "tuning.search", *sys.argv[1:]]),
    ):
        songs = terminal.prepare_corpus(source, config)
        division = study.divide(folder, wanted, songs)
        sources = corpus.clip_sources(
            songs, division.part_of, division.artists, config, ("train", "validation")
        )
        terminal.print_parts(division, sources)
        for part, found in sources.items():
            if not found.num_clips:
                raise UserError(f"no {part} songs: a search cannot go without")
        study.keep_source(folder, wanted, source)
        table = screen.Table(study.Search.load(folder))
        part = study.Study(folder, worker, table.add)
        table.begin(worker)
        trials.run_trials(part, sources, len(division.artists), screen.stopwatch)
        screen.show("")
    screen.print_best(folder)


if __name__ == "__main__":
    sys.exit(main())
