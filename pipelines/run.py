"""From songs to a pushed model: all stages, each done only if something has changed."""

import argparse
import importlib.util
import itertools
import pathlib
import sys

from lca_keras.base import console
from lca_keras.base.config import get_preset
from lca_keras.base.errors import UserError
from lca_keras.terminal import arguments, resolving, screen
from pipelines.settings import Settings, load

# As TFX names them, in their order.
STAGES = ("ExampleGen", "StatisticsGen", "ExampleValidator", "Tuner", "Trainer")
STAGES += ("Evaluator", "InfraValidator", "Pusher")


def main(argv=None):
    """Command line of the pipeline."""
    parser = argparse.ArgumentParser(
        prog="python -m pipelines.run", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--name", required=True, help="name of the pushed model")
    arguments.add_data_options(parser.add_argument_group("data"))
    what = parser.add_argument_group("what is done")
    told = "YAML of the training; its section `pipeline` has thresholds and limits"
    what.add_argument("--config", metavar="FILE", help=told)
    arguments.add_preset_option(what)
    arguments.add_strategy_option(what)
    arguments.add_fields(what, "train.seed")
    told = f"do this stage anew, what comes before is there: {', '.join(STAGES)}"
    named = {"type": stage, "metavar": "STAGE"}
    what.add_argument("--from", dest="first", help=told, **named)
    what.add_argument("--to", dest="last", help="stop after this stage", **named)
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
    # What is wrong with it is said before anything slow begins.
    config, settings = load(args.config) if args.config else (None, Settings())
    for path in filter(None, (args.data, args.store)):
        if not pathlib.Path(path).exists():
            raise UserError(f"{path}: no such folder or manifest")
    console.quiet_tensorflow()
    from lca_keras.models import distribution
    from pipelines.artefacts import Pipeline

    strategy = distribution.start(args.strategy)
    config = config or get_preset(args.preset or "paper")
    config, source = resolving.resolve_data(
        args, config, **arguments.sections(args, "train.seed")
    )
    root = pathlib.Path(args.artefacts, args.name)
    root.mkdir(parents=True, exist_ok=True)
    pipeline = Pipeline(
        root=root,
        config=config,
        anew=frozenset([args.first] if args.first else []),
        fixed=frozenset(STAGES[: STAGES.index(first)]),
        name=args.name,
        settings=settings,
        source=source.absolute(),
        model=pathlib.Path(args.exports, args.name),
        observer=_Screen(),
        workers=args.workers,
    )
    again = ["python", "-m", "pipelines.run", *sys.argv[1:]]
    if not distribution.is_chief(strategy):
        return _assist(pipeline, strategy, again)
    try:
        with console.resumable(again):
            steps = _stages(pipeline, strategy, again)
            for _ in itertools.islice(steps, STAGES.index(last) + 1):
                pass
    finally:
        if pipeline.made:
            print_table(pipeline.made)


def _assist(pipeline, strategy, again):
    """Takes part in the training of the first process, which does all the rest."""
    from pipelines import stages

    songs = stages.example_gen(pipeline)
    job, _ = stages.training_run(pipeline, songs, stages.tuner(pipeline, songs))
    screen.wait_for_first(job.folder)
    screen.train_along(job, songs.corpus, strategy, again)


def _stages(pipeline, strategy, again):
    """Runs the stages in their order, and tells of each; yields after every one."""
    from pipelines import blessing, stages

    songs = stages.example_gen(pipeline)
    for note in songs.corpus.notes[1:]:  # The first says where the features are.
        print(note)
    screen.print_reasons("left out", songs.unusable)
    screen.print_reasons("note", songs.corpus.doubtful)
    if unknown := songs.division.unknown:
        print(
            f"note: {len(unknown)} lines of {songs.division.file} name no usable "
            f"song of the corpus, the first is {unknown[0]}"
        )
    yield
    measured = stages.statistics_gen(pipeline, songs)
    yield
    validated = stages.example_validator(pipeline, songs, measured).outcome
    if not validated["passed"]:
        for anomaly in validated["anomalies"]:
            print(f"  anomaly {anomaly}")
        kinds = {each.partition(":")[0] for each in validated["anomalies"]}
        raise UserError(
            "these songs are not as the schema wants them. Mend them, or change the "
            "schema in --config: pipeline.schema, where "
            f"`accepted: [{', '.join(sorted(kinds))}]` lets this pass"
        )
    yield
    tuned = stages.tuner(pipeline, songs)
    yield
    with screen.restarting(again):
        trained = stages.trainer(pipeline, songs, tuned, strategy)
    yield
    evaluated = stages.evaluator(pipeline, songs, trained)
    print(f"results  {evaluated.folder / blessing.PAGE}")
    known, version = (evaluated.outcome[n] for n in ("known_to_baseline", "baseline"))
    if known:
        print(
            f"note: version {version} knows {known} of the test songs from its own "
            "training, so beside it the candidate looks worse than it is. Another "
            "--seed divides the songs anew; --split-file keeps them"
        )
    elif known is None:
        print(f"note: version {version} may know test songs: its run is not there")
    yield
    tried = stages.infra_validator(pipeline, songs, trained)
    yield
    stages.pusher(pipeline, measured, trained, evaluated, tried)
    yield


def print_table(made):
    """Prints what became of each stage, of a list of `pipelines.artefacts.Artefact`."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

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
