"""Turns a corpus of any size into a feature store, here or on a cluster.

`python -m pipelines.extract --data PATH --out STORE` runs in this process, with
`--workers N` in N processes, and with Apache Beam's options (`--runner=FlinkRunner …`)
on a cluster. It may be stopped at any moment and started again.
"""

import argparse
import collections
import contextlib
import functools
import importlib.util
import logging
import pathlib
import sys

from lca_keras.base import console, files
from lca_keras.base.errors import UserError
from lca_keras.base.sections import FeatureConfig
from lca_keras.data.extraction import Extractor
from lca_keras.terminal import arguments, resolving, screen
from pipelines import extraction

# None of Beam's runners: processes of this machine.
_LOCAL = "local"
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
    arguments.add_corpus_options(parser, required=True)
    parser.add_argument("--out", required=True, metavar="STORE", help="feature store")
    arguments.add_feature_options(parser)
    told = "keep separated vocals as FLAC files"
    parser.add_argument("--keep-vocals", metavar="FOLDER", help=told)
    told = "local processes; default: 1"
    parser.add_argument("--workers", help=told, **arguments.WHOLE)
    parser.add_argument("--runner", default=_LOCAL, help="of Beam")
    told = "status of every song; default: STORE-report.csv"
    parser.add_argument("--report", metavar="FILE", help=told)
    told = "unusable or doubtful songs give exit code 1"
    parser.add_argument("--strict", action="store_true", help=told)
    console.add_debug_flag(parser)

    def parse(argv):
        args, args.beam_options = parser.parse_known_args(argv)
        return args

    return arguments.command(parse, run, argv)


def run(args):
    """Runs the job that the parsed arguments describe; returns an exit code."""
    config, separator = resolving.resolve_features(args, FeatureConfig())
    beam_options = _beam_options(args)
    from lca_keras.data.corpus import DataSource

    if args.keep_vocals and config.source == "mixture":
        raise UserError("--keep-vocals is for --source vocals or stems")
    folder = pathlib.Path(args.out).absolute()
    report = pathlib.Path(args.report or f"{folder}-report.csv")
    _check_report(report)
    left_out = {}
    songs = DataSource(**arguments.corpus_source(args)).songs(left_out)
    separator = separator and pathlib.Path(separator).absolute()
    keep = args.keep_vocals and pathlib.Path(args.keep_vocals).absolute()
    extractor = Extractor(config, separator, keep)
    shown = functools.partial(console.progress, "Features")
    how = {"workers": args.workers, "beam_options": beam_options, "shown": shown}
    statuses = extraction.extract(songs, folder, extractor, **how)
    rows = [[*song.names, song.path, *statuses[song.key]] for song in songs]
    rows += [["", "", "", path, "left out", why] for path, why in left_out.items()]
    files.write_csv(report, _REPORT_COLUMNS, rows)
    counts = collections.Counter(row[4] for row in rows)
    print(
        f"{len(songs)} songs: {counts['done']} done, {counts['reused']} reused, "
        f"{counts['failed']} failed, {counts['left out']} other audio files left out"
    )
    names = {"left out": "left out", "failed": "failed", "done": "note"}
    for status, name in {**names, "reused": "note"}.items():
        reasons = {row[3]: row[5] for row in rows if row[4] == status and row[5]}
        screen.print_reasons(name, reasons)
    print(f"store    {args.out}\nreport   {report}")
    if counts["failed"] == len(songs):
        raise UserError(f"{args.data}: none of {len(songs)} songs can be used")
    return 1 if args.strict and any(row[5] for row in rows) else 0


def _check_report(path):
    """Raises if the report would take the place of another file, a manifest say."""
    if path.is_dir():
        raise UserError(f"--report {path}: that is a folder")
    if not path.exists():
        return
    with open(path, encoding="utf-8", errors="replace") as file:
        if file.readline().strip() != ",".join(_REPORT_COLUMNS):
            raise UserError(
                f"{path} exists and is no report of an extraction: choose another "
                "place with --report"
            )


def _beam_options(args):
    """Beam's options, checked before anything long is begun; `None` without Beam."""
    local, others = args.runner == _LOCAL, args.beam_options
    if local and not others:
        return None
    if importlib.util.find_spec("apache_beam") is None:
        raise UserError(
            "this pipeline needs Apache Beam: pip install 'lca-keras[pipelines]'"
        )
    if not local and args.workers is not None:
        raise UserError(
            f"--workers is for local processes; {args.runner} has options of its own "
            "for that"
        )
    logging.getLogger().setLevel(logging.ERROR)
    from apache_beam.options.pipeline_options import PipelineOptions

    # Beam itself would pass over what it does not know.
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
    return None if local else [f"--runner={args.runner}", *others]


if __name__ == "__main__":
    sys.exit(main())
