"""Searches the loss weights of LCA against validation F1, with KerasTuner.

`python -m tuning.search --data PATH --name NAME` can be stopped at any moment and
started again. With `--chief HOST:PORT` it hands trials to other machines that run the
same command with `--worker NAME` too. `python -m tuning.report NAME` shows what came
out, and writes a configuration for `python -m lca_keras.fit --config`.
"""

import argparse
import dataclasses
import json
import os
import pathlib
import re
import shutil
import sys
import time
import warnings

from lca_keras import console, feature_options, files
from lca_keras.config import PRESETS, Config, get_preset
from lca_keras.console import UserError
from tuning.space import ALGORITHMS

_DEFAULT_TRIALS = 20


@dataclasses.dataclass(frozen=True)
class Search:
    """What decides a search; `search.json` in its folder.

    Attributes:
        algorithm: One of KerasTuner's.
        trials: Most trials, or `None` for as many as the algorithm wants.
        seeds: Trainings a trial, of different seeds.
        objective: `"frame_f1"` or `"song_f1"`, on validation songs.
        space: Dict of the search space, as JSON.
        config: Dict of the configuration that all trials share.
    """

    algorithm: str
    trials: int | None
    seeds: int
    objective: str
    space: dict
    config: dict


def parse_args(argv=None):
    """Parses the command line.

    Args:
        argv: Optional list of strings.

    Returns:
        `argparse.Namespace`.
    """
    parser = argparse.ArgumentParser(
        prog="python -m tuning.search", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--name", required=True, help="name of the search")
    data = parser.add_argument_group("data")
    data.add_argument("--data", help="artist/album/song.ext folder, or a CSV manifest")
    data.add_argument("--store", help="feature store, instead")
    data.add_argument("--split", choices=["album", "song"], help="default: album")
    data.add_argument("--split-file", help="CSV: artist, album, song, part")
    data.add_argument("--features", default="features", help="folder of feature stores")
    feature_options.add_feature_options(data)
    what = parser.add_argument_group("search")
    what.add_argument(
        "--algorithm",
        choices=ALGORITHMS,
        default="bayesian",
        help="default: bayesian; grid takes three values of every range",
    )
    what.add_argument(
        "--trials",
        type=int,
        help="default: 20; grid: all; more of them lengthen a search",
    )
    what.add_argument(
        "--seeds", type=int, default=1, help="trainings a trial; default: 1"
    )
    what.add_argument(
        "--epochs", type=int, help="of a trial, warm-up included; default: the preset's"
    )
    what.add_argument("--base-config", help="YAML of what is not searched")
    what.add_argument("--preset", choices=PRESETS, help="default: paper")
    what.add_argument("--space", help="YAML that changes the search space")
    what.add_argument(
        "--objective", choices=["frame_f1", "song_f1"], default="frame_f1"
    )
    what.add_argument("--seed", type=int, help="first seed; default: 0")
    where = parser.add_argument_group("where")
    where.add_argument("--searches", default="searches", help="folder of searches")
    where.add_argument("--chief", metavar="HOST:PORT", help="hand trials to workers")
    where.add_argument("--worker", metavar="NAME", help="work for that chief")
    console.add_debug_flag(parser)
    return parser.parse_args(argv)


def main(argv=None):
    """Command line of the search."""
    args = parse_args(argv)
    return console.guard(lambda: run(args), args.debug)


def run(args):
    """Runs the job that the parsed arguments describe."""
    from lca_keras.fit import check_name
    from tuning import space as spaces

    check_name(args.name)
    space = spaces.load_space(args.space)
    config, separator = _config_from(args)
    search = _search_from(args, space, config)
    if args.worker is not None and args.chief is None:
        raise UserError("--worker needs --chief HOST:PORT, where its chief is")
    if args.chief is not None:
        address = re.fullmatch(r"[^:/ ]+:(\d+)", args.chief)
        if not address or not 0 < int(address[1]) < 2**16:
            raise UserError(
                f"--chief {args.chief}: expected HOST:PORT, the port from 1 to 65535"
            )
    # What goes wrong comes back as an exception, and is said in our words.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    console.quiet_tensorflow()
    import tensorflow as tf

    from lca_keras import training
    from lca_keras.models.factory import has_gpu
    from tuning import runner

    # The Gaussian process of few trials warns of its fit.
    warnings.filterwarnings("ignore", module="sklearn")
    # A new model for every trial is what it warns of.
    tf.get_logger().setLevel("ERROR")
    # The same trial has the same score whenever it runs. On a CPU that is so anyway, to
    # the bit, and asking for it costs a third of the time.
    if has_gpu():
        tf.config.experimental.enable_op_determinism()
    folder = pathlib.Path(args.searches, args.name)
    search = _open_folder(folder, search, args.trials, worker=args.worker is not None)
    job = training.Job(
        args.data and str(args.data),
        args.name,
        features=args.features,
        store=args.store,
        separator=separator,
    )
    with console.resumable(["python", "-m", "tuning.search", *sys.argv[1:]]):
        if args.worker is not None:
            runner.work(folder, search, space, job, args.chief, args.worker)
        elif args.chief is not None:
            runner.serve(folder, search, space, job, args.chief)
        else:
            runner.search(folder, search, space, job)
    if args.worker is None:
        runner.print_best(folder, search)


def _config_from(args):
    """What all trials share, and the separator's folder."""
    if (args.data is None) == (args.store is None):
        raise UserError("give either --data or --store")
    if args.base_config and args.preset:
        raise UserError("--base-config and --preset exclude each other")
    if args.base_config:
        config = Config.load(args.base_config)
    else:
        config = get_preset(args.preset or "paper")
    if args.store:
        from lca_keras.data.store import FeatureStore

        features = dataclasses.asdict(FeatureStore.open(args.store).config)
        separator = args.separator
    else:
        features, separator = feature_options.resolve(args, config.features)
    config = config.replace(
        features=features,
        split={"kind": args.split, "file": args.split_file},
        train={"epochs": args.epochs, "seed": args.seed},
    )
    if config.model.name != "crnn_fgnl" or config.train.method != "lca":
        raise UserError(
            f"the search is for the loss weights of method lca on crnn_fgnl, not for "
            f"{config.train.method} on {config.model.name}"
        )
    return config, separator


def _search_from(args, space, config):
    """Checks the numbers; returns the `Search`."""
    from tuning import space as spaces

    for option in ("trials", "seeds"):
        value = getattr(args, option)
        if value is not None and value < 1:
            raise UserError(f"--{option} must be at least 1, not {value}")
    longest = spaces.longest_warmup(space, config)
    if config.train.epochs <= longest:
        raise UserError(
            f"{config.train.epochs} epochs leave nothing after a warm-up of "
            f"{longest}: the weights would never act. Raise --epochs."
        )
    trials = args.trials
    if trials is None and args.algorithm != "grid":
        trials = _DEFAULT_TRIALS
    if args.algorithm == "hyperband":
        if args.trials is not None:
            raise UserError("hyperband decides by itself how many trials it runs")
        trials = None
    return Search(
        args.algorithm,
        trials,
        args.seeds,
        args.objective,
        spaces.to_json(space),
        config.to_dict(),
    )


def _open_folder(folder, search, trials, worker):
    """Makes the folder of a search, or checks that it is the folder of this one.

    Returns:
        The `Search`; unless `trials` says otherwise with as many as it was begun with.
    """
    from tuning.oracle import EventLog

    path = folder / "search.json"
    # As JSON has it, which knows no tuples.
    wanted = json.loads(json.dumps(dataclasses.asdict(search)))
    if worker:
        _wait_for(path)
    if path.exists():
        known = files.read_json(path)
        wanted["trials"] = known.get("trials")
        changed = _differences(known, wanted)
        events = EventLog(folder / "events.jsonl").read()
        if changed and not events and not worker:
            # Nothing has come of it yet, for lack of data perhaps.
            _begin_anew(folder)
        elif trials is None or worker:
            search = dataclasses.replace(search, trials=known.get("trials"))
        if changed and path.exists():
            raise UserError(
                f"{folder} holds another search: {'; '.join(changed)}. Choose another "
                "--name, or repeat the options of that search."
            )
        begun = len({e["trial"] for e in events if e["event"] == "start"})
        if search.trials is not None and search.trials < begun:
            raise UserError(
                f"--trials {search.trials}: the search in {folder} has begun {begun} "
                "already; give as many, more, or leave the option out"
            )
    elif folder.exists() and any(folder.iterdir()):
        raise UserError(f"{folder} is not empty and holds no search: choose a new name")
    folder.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        files.write_json(path, dataclasses.asdict(search))
    return search


def _wait_for(path):
    """Waits until a chief has begun its search."""
    for tenths in range(600):
        if path.exists():
            return
        if tenths == 20:
            print(f"waiting for a chief to begin {path.parent}", flush=True)
        time.sleep(0.1)
    raise UserError(f"{path.parent}: no search there. Start the chief first.")


def _differences(known, wanted, where=""):
    """Which entries of two nested dicts differ, in words."""
    found = []
    for name in sorted(set(known) | set(wanted)):
        before, now = known.get(name), wanted.get(name)
        if isinstance(before, dict) and isinstance(now, dict):
            found += _differences(before, now, f"{where}{name}.")
        elif before != now:
            found.append(f"{where}{name} was {before!r}, now {now!r}")
    return found


def _begin_anew(folder):
    """Forgets a search that has begun no trial."""
    with files.lock(folder / ".lock", wait=False):
        for name in ("search.json", "corpus.json", "split.csv", "job.json"):
            (folder / name).unlink(missing_ok=True)
        shutil.rmtree(folder / "warmup", ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
