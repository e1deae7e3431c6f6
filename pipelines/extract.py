"""Turns a corpus of any size into a feature store, with Apache Beam.

`python -m pipelines.extract --data PATH --out STORE` runs in this process, with
`--workers N` in N processes, and with Beam's own options (`--runner=FlinkRunner …`) on
a cluster. It may be stopped at any moment and started again.
"""

import argparse
import collections
import contextlib
import importlib.util
import logging
import os
import pathlib
import shlex
import sys
import threading

from lca_keras import console, files, options
from lca_keras.config import FeatureConfig
from lca_keras.errors import UserError

# Beam's default runner tries to download a program first; this one needs nothing.
LOCAL_RUNNER = "FnApiRunner"
_POLL_SECONDS = 0.5
_REPORT_COLUMNS = ["artist", "album", "song", "path", "status", "reason"]


def main(argv=None):
    """Command line of extraction."""
    parser = argparse.ArgumentParser(
        prog="python -m pipelines.extract",
        description=__doc__.splitlines()[0],
        epilog="All other options go to Beam, such as --runner=FlinkRunner "
        "--flink_master=HOST:PORT.",
        # Beam has options of its own that begin like these.
        allow_abbrev=False,
    )
    options.add_corpus_options(parser, required=True)
    parser.add_argument("--out", required=True, metavar="STORE", help="feature store")
    options.add_feature_options(parser)
    parser.add_argument(
        "--keep-vocals", metavar="FOLDER", help="keep separated vocals as FLAC files"
    )
    parser.add_argument("--workers", type=int, help="local processes; default: 1")
    parser.add_argument("--runner", default=LOCAL_RUNNER, help="of Beam")
    parser.add_argument(
        "--report",
        metavar="FILE",
        help="status of every song; default: STORE-report.csv",
    )
    parser.add_argument(
        "--strict",
        action="store_true",
        help="unusable or doubtful songs give exit code 1",
    )
    console.add_debug_flag(parser)
    args, beam_options = parser.parse_known_args(argv)
    return console.guard(lambda: run(args, beam_options), args.debug)


def run(args, beam_options):
    """Runs the job that the parsed arguments describe; returns an exit code."""
    config, separator = options.resolve_features(args, FeatureConfig())
    beam_options = _beam_options(args, beam_options)
    from lca_keras.corpus import DataSource
    from lca_keras.data.extraction import Extractor

    if args.keep_vocals and config.source == "mixture":
        raise UserError("--keep-vocals is for --source vocals or stems")
    folder = pathlib.Path(args.out).absolute()
    report = pathlib.Path(args.report or f"{folder}-report.csv")
    _check_report(report)
    left_out = {}
    songs = DataSource(**options.corpus_source(args)).songs(left_out)
    separator = separator and pathlib.Path(separator).absolute()
    keep = args.keep_vocals and pathlib.Path(args.keep_vocals).absolute()
    extractor = Extractor(config, separator, keep)
    statuses = extract(songs, folder, extractor, beam_options)
    rows = [
        [song.artist, song.album, song.song, song.path, *statuses[song.key]]
        for song in songs
    ]
    rows += [["", "", "", path, "left out", why] for path, why in left_out.items()]
    files.write_csv(report, _REPORT_COLUMNS, rows)
    counts = collections.Counter(row[4] for row in rows)
    print(
        f"{len(songs)} songs: {counts['done']} done, {counts['reused']} reused, "
        f"{counts['failed']} failed, {counts['left out']} other audio files left out"
    )
    for status, name in (
        ("left out", "left out"),
        ("failed", "failed"),
        ("done", "note"),
        ("reused", "note"),
    ):
        reasons = {row[3]: row[5] for row in rows if row[4] == status and row[5]}
        options.print_reasons(name, reasons)
    print(f"store    {args.out}\nreport   {report}")
    if counts["failed"] == len(songs):
        raise UserError(f"{args.data}: none of {len(songs)} songs can be used")
    return 1 if args.strict and any(row[5] for row in rows) else 0


def _check_report(path):
    """Raises if the report would take the place of another file, a manifest say."""
    if path.is_dir():
        raise UserError(f"--report {path}: that is a folder")
    if path.exists():
        with open(path, encoding="utf-8", errors="replace") as file:
            if file.readline().strip() != ",".join(_REPORT_COLUMNS):
                raise UserError(
                    f"{path} exists and is no report of an extraction: choose another "
                    "place with --report"
                )


def _beam_options(args, others):
    """Beam's options from ours, checked before anything long is begun."""
    if importlib.util.find_spec("apache_beam") is None:
        raise UserError(
            "this pipeline needs Apache Beam: pip install 'lca-keras[pipelines]'"
        )
    _check_beam_options(others)
    result = [f"--runner={args.runner}", *others]
    if args.workers is not None:
        if args.workers < 1:
            raise UserError(f"--workers must be at least 1, not {args.workers}")
        if args.runner != LOCAL_RUNNER:
            raise UserError(
                f"--workers is for local processes; {args.runner} has options of its "
                "own for that"
            )
        if args.workers > 1:
            result += [
                "--direct_running_mode=multi_processing",
                f"--direct_num_workers={args.workers}",
            ]
    return result


def _check_beam_options(others):
    """Raises for options that Beam does not know either; it would pass them over."""
    if not others:
        return
    logging.getLogger().setLevel(logging.ERROR)
    from apache_beam.options.pipeline_options import PipelineOptions

    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    for group in PipelineOptions.__subclasses__():
        with contextlib.suppress(argparse.ArgumentError):
            group._add_argparse_args(parser)
    _, unknown = parser.parse_known_args(others)
    if unknown:
        raise UserError(
            f"unknown options: {' '.join(unknown)}. --help lists ours; Beam's are "
            "those of its runners"
        )


def extract(songs, folder, extractor, beam_options):
    """Brings a feature store up to date with a Beam pipeline.

    `folder` is the absolute path of the store, which all workers see;
    `beam_options` are those of Beam's command line.

    Returns:
        Dict from song key to status, `"done"`, `"reused"` or `"failed"`, and why it
        failed or what is doubtful about it.

    Raises:
        UserError: A worker failed, a store of other features, a full disk.
    """
    from lca_keras.data.update import WritableStore

    feature_store = WritableStore(folder, extractor.config)
    with feature_store.locked():
        plan = feature_store.plan(songs, extractor)
        extractor.check(plan.pending)
        new = {song.key for song in plan.pending}
        if plan.pending:
            _run_pipeline(feature_store, plan, extractor, beam_options)
            plan = feature_store.plan(songs, extractor, again=False)
        if plan.pending:
            raise UserError(
                f"{len(plan.pending)} songs are still to be done, the first is "
                f"{plan.pending[0].label}: they changed meanwhile, or workers do not "
                "see the same folders. Run the same command again."
            )
        feature_store.commit(plan)
    statuses = {
        key: ("done" if key in new else "reused", "; ".join(record.notes))
        for key, record in plan.records.items()
    }
    failed = {key: ("failed", failure.reason) for key, failure in plan.failed.items()}
    return {**statuses, **failed}


def _run_pipeline(feature_store, plan, extractor, beam_options):
    """Runs the pipeline to its end, with a progress bar."""
    # Its reports of each step are of use to those who ask for them.
    logging.getLogger().setLevel(logging.ERROR)
    import apache_beam as beam
    from apache_beam.options.pipeline_options import PipelineOptions, StandardOptions

    from pipelines import steps

    parts = feature_store.folder / "parts"
    parts.mkdir(exist_ok=True)
    steps.write_plan(parts / steps.PLAN, plan)
    pipeline = beam.Pipeline(options=PipelineOptions(beam_options))
    # On one machine this process writes the shards: the workers, who would have to load
    # TensorFlow for it, are gone before it is needed.
    local = pipeline.options.view_as(StandardOptions).runner == LOCAL_RUNNER
    steps.build(
        pipeline,
        parts / steps.PLAN,
        feature_store,
        plan.num_shards,
        extractor,
        write_shards=not local,
    )
    log = parts / "workers.log"
    try:
        with (
            _quoted_executable(),
            console.stderr_to(log) as screen,
            _progress(feature_store.folder, plan, screen),
        ):
            if local:
                # Takes seconds; needed once the songs are done.
                loading = threading.Thread(target=_load_tensorflow, daemon=True)
                loading.start()
            pipeline.run().wait_until_finish()
            if local:
                loading.join()
    except Exception as error:
        with open(log, "a", encoding="utf-8") as file:
            file.write(f"{error}\n")
        raise UserError(
            f"extraction stopped: {_cause(error)}. Finished songs are kept: mend this "
            f"and run the same command again. The workers' log is {log}"
        ) from error


@contextlib.contextmanager
def _quoted_executable():
    """Beam gives Python's path to a shell as it is; with a space in it that hangs."""
    before, sys.executable = sys.executable, shlex.quote(sys.executable)
    try:
        yield
    finally:
        sys.executable = before


def _load_tensorflow():
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    importlib.import_module("tensorflow")


def _cause(error):
    """The line that tells what happened on a worker, out of Beam's long report."""
    if "Channel closed" in str(error):
        return "a worker process died (killed, or out of memory)"
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    causes = [line for line in lines if "Error" in line.split(":")[0]]
    return (causes or lines or [type(error).__name__])[-1]


@contextlib.contextmanager
def _progress(folder, plan, screen):
    """Shows how many songs are done, counting the files that workers finish."""
    from lca_keras.data.update import finished_parts

    before = len(plan.songs) - len(plan.pending)
    begun, stop = finished_parts(folder), threading.Event()
    with console.progress("Features", screen) as show:

        def watch():
            while not stop.wait(_POLL_SECONDS):
                show(before + finished_parts(folder) - begun, len(plan.songs))

        thread = threading.Thread(target=watch, daemon=True)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()
            show(before + finished_parts(folder) - begun, len(plan.songs))


if __name__ == "__main__":
    sys.exit(main())
