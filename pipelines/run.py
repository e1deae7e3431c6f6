"""From songs to a pushed model: all stages, each done only if something has changed."""

import argparse
import importlib.util
import pathlib
import sys
import time

from lca_keras.base import console
from lca_keras.base.config import get_preset
from lca_keras.base.errors import UserError
from lca_keras.terminal import arguments, resolving, screen
from pipelines import STAGES


def main(argv=None):
    """Command line of the pipeline."""
    parser = argparse.ArgumentParser(
        prog="python -m pipelines.run", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--name", required=True, help="name of the pushed model")
    arguments.add_data_options(parser.add_argument_group("data"))
    what = parser.add_argument_group("what is done")
    what.add_argument(
        "--config",
        metavar="FILE",
        help="YAML of the training; its section `pipeline` has thresholds and limits",
    )
    arguments.add_preset_option(what)
    arguments.add_strategy_option(what)
    arguments.add_fields(what, "train.seed")
    what.add_argument(
        "--from",
        dest="first",
        type=stage,
        metavar="STAGE",
        help=f"do this stage anew, what comes before is there: {', '.join(STAGES)}",
    )
    what.add_argument(
        "--to", dest="last", type=stage, metavar="STAGE", help="stop after this stage"
    )
    where = parser.add_argument_group("where")
    where.add_argument(
        "--artefacts", default="artefacts", help="folder of all pipelines' artefacts"
    )
    where.add_argument("--exports", default="saved_models", help="folder of exports")
    told = "processes of the extraction; default: 1"
    where.add_argument("--workers", help=told, **arguments.WHOLE)
    console.add_debug_flag(parser)
    return arguments.command(parser.parse_args, run, argv)


def stage(name):
    """The stage of a name in any case; for argparse."""
    known = {each.lower(): each for each in STAGES}
    if name.lower() not in known:
        raise argparse.ArgumentTypeError(f"{name!r} is none of {', '.join(STAGES)}")
    return known[name.lower()]


class _Screen(screen.Screen):
    """Leaves the scores of a training to the results of the stages."""

    def told(self, what, values):
        """Prints what the gallery is worth."""
        if what == "gallery":
            super().told(what, values)


def run(args):
    """Runs the stages; returns an exit code."""
    first, last = args.first or STAGES[0], args.last or STAGES[-1]
    if STAGES.index(first) > STAGES.index(last):
        raise UserError(f"--from {first} comes after --to {last}")
    arguments.check_name(args.name)
    if args.data is None and args.store is None:
        raise UserError("give either --data or --store")
    if importlib.util.find_spec("tensorflow_model_analysis") is None:
        raise UserError(
            "this pipeline needs Apache Beam and TensorFlow Model Analysis: pip "
            "install 'lca-keras[pipelines]'"
        )
    if args.config and args.preset:
        raise UserError("--config and --preset exclude each other")
    if args.config:  # What is wrong with it is said before anything slow begins.
        from pipelines import settings

        settings.load(args.config)
    for path in filter(None, (args.data, args.store)):
        if not pathlib.Path(path).exists():
            raise UserError(f"{path}: no such folder or manifest")
    console.quiet_tensorflow()
    from lca_keras.models import distribution

    strategy = distribution.start(args.strategy)
    pipeline, ends = _pipeline(args, first), STAGES.index(last)
    again = ["python", "-m", "pipelines.run", *sys.argv[1:]]

    if not distribution.is_chief(strategy):
        return _assist(pipeline, strategy, again)
    try:
        with console.resumable(again):
            return _sequence(pipeline, ends, strategy, again)
    finally:
        print_table(pipeline.workshop.made)


def _pipeline(args, first):
    """The `pipelines.stages.Pipeline` that the arguments describe."""
    from pipelines import artefacts, extraction, stages
    from pipelines.settings import Settings, load

    if args.config:
        config, settings = load(args.config)
    else:
        config, settings = get_preset(args.preset or "paper"), Settings()
    config, source = resolving.resolve_data(
        args, config, **arguments.sections(args, "train.seed")
    )
    root = pathlib.Path(args.artefacts, args.name)
    root.mkdir(parents=True, exist_ok=True)
    workshop = artefacts.Workshop(
        root,
        config,
        anew=frozenset([args.first] if args.first else []),
        fixed=frozenset(STAGES[: STAGES.index(first)]),
    )
    return stages.Pipeline(
        name=args.name,
        workshop=workshop,
        config=config,
        settings=settings,
        source=source.absolute(),
        exports=pathlib.Path(args.exports),
        beam_options=tuple(extraction.local_options(args.workers)),
        observer=_Screen(),
    )


def _assist(pipeline, strategy, again):
    """Takes part in the training of the first process, which does all the rest."""
    from pipelines import stages

    examples = stages.example_gen(pipeline)
    tuned = stages.tuner(pipeline, examples)
    job = stages.training_run(pipeline, examples, tuned)
    print(f"waiting for the first process to begin {job.folder}", flush=True)
    while not (job.folder / "split.csv").exists():
        time.sleep(1)
    screen.train_along(job, examples.corpus, strategy, again)
    return 0


def _sequence(pipeline, ends, strategy, again):
    """Runs the stages up to that of a number; returns an exit code."""
    from pipelines import page, stages

    examples = stages.example_gen(pipeline)
    for note in examples.corpus.notes[1:]:  # The first says where the features are.
        print(note)
    screen.print_reasons("left out", examples.unusable)
    screen.print_reasons("note", examples.corpus.doubtful)
    unknown = examples.division.unknown
    if unknown:
        print(
            f"note: {len(unknown)} lines of {examples.division.file} name no usable "
            f"song of the corpus, the first is {unknown[0]}"
        )
    if ends < STAGES.index("StatisticsGen"):
        return 0
    measured = stages.statistics_gen(pipeline, examples)
    if ends < STAGES.index("ExampleValidator"):
        return 0
    validated = stages.example_validator(pipeline, examples, measured)
    if not validated.outcome["passed"]:
        for anomaly in validated.outcome["anomalies"]:
            print(f"  anomaly {anomaly}")
        kinds = {each.partition(":")[0] for each in validated.outcome["anomalies"]}
        print(
            "error: these songs are not as the schema wants them. Mend them, or change "
            "the schema in --config: pipeline.schema, where "
            f"`accepted: [{', '.join(sorted(kinds))}]` lets this pass",
            file=sys.stderr,
        )
        return 1
    if ends < STAGES.index("Tuner"):
        return 0
    tuned = stages.tuner(pipeline, examples)
    if ends < STAGES.index("Trainer"):
        return 0
    with screen.restarting(again):
        trained = stages.trainer(pipeline, examples, tuned, strategy)
    if ends < STAGES.index("Evaluator"):
        return 0
    evaluated = stages.evaluator(pipeline, examples, trained)
    print(f"results  {evaluated.folder / page.PAGE}")
    known = evaluated.outcome.get("known_to_baseline", 0)
    if known:
        print(
            f"note: version {evaluated.outcome['baseline']} knows {known} of the test "
            "songs from its own training, so beside it the candidate looks worse than "
            "it is. Another --seed divides the songs anew; --split-file keeps them"
        )
    if ends < STAGES.index("InfraValidator"):
        return 0
    tried = stages.infra_validator(pipeline, examples, trained)
    if ends < STAGES.index("Pusher"):
        return 0
    stages.pusher(pipeline, examples, measured, trained, evaluated, tried)
    return 0


def print_table(made):
    """Prints what became of each stage, of a list of `pipelines.artefacts.Artefact`."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    if not made:
        return
    out = Console()
    if not out.is_terminal:
        out = Console(width=200)
    table = Table("stage", "", "seconds", "verdict", box=box.SIMPLE)
    table.add_column("artefact", overflow="fold")
    for each in made:
        table.add_row(
            each.stage,
            "reused" if each.reused else "run",
            f"{each.seconds:.1f}",
            Text(each.outcome["verdict"]),
            Text(str(each.folder)),
        )
    out.print(table)


if __name__ == "__main__":
    sys.exit(main())
