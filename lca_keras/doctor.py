"""Finds what would spoil an experiment in a corpus, before anybody trains on it.

Prints what a careful colleague would find, and writes it as JSON. The exit code is 1 if
there are errors.
"""

import argparse
import collections
import dataclasses
import sys

from lca_keras.base import console, files
from lca_keras.base.config import Config
from lca_keras.base.sections import CLIP_SECONDS
from lca_keras.corpora.doctor import ERROR, run
from lca_keras.data.corpus import DataSource
from lca_keras.terminal import arguments

# Findings of a kind that are shown.
_SHOWN = 20


def _few(findings):
    """Findings to be shown: of many of a kind a few, and how many more there are."""
    count = collections.Counter(f.kind for f in findings)
    seen = collections.Counter()
    for finding in findings:
        seen[finding.kind] += 1
        if count[finding.kind] <= _SHOWN or seen[finding.kind] < _SHOWN:
            yield finding
        elif seen[finding.kind] == _SHOWN:
            more = count[finding.kind] - _SHOWN + 1
            yield dataclasses.replace(
                finding, where="...", message=f"{more} more; all are in the JSON"
            )


def print_report(summary, findings):
    """Prints the artists and the findings, from `run`, as tables."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    out = Console()
    # Not to a terminal's width of 80 where there is none: a file has no edge.
    if not out.is_terminal:
        out = Console(width=200)
    artists = Table("artist", "albums", "songs", "hours", box=box.SIMPLE)
    for name, entry in summary["artists"].items():
        row = (str(entry["albums"]), str(entry["songs"]), f"{entry['hours']:.2f}")
        artists.add_row(Text(name), *row)
    out.print(artists)
    if findings:
        table = Table("", "kind", "where", "what", box=box.SIMPLE)
        for finding in _few(findings):
            color = "red" if finding.severity == ERROR else "yellow"
            table.add_row(
                Text(finding.severity, style=color),
                Text(finding.kind),
                Text(finding.where),
                Text(finding.message),
            )
        out.print(table)
    rates = ", ".join(f"{rate} Hz ({n})" for rate, n in summary["rates"].items())
    print(
        f"{len(summary['artists'])} artists, {summary['songs']} songs, "
        f"{summary['hours']:.2f} h, {rates or 'nothing readable'}: "
        f"{summary['errors']} errors, {summary['warnings']} warnings"
    )


def main(argv=None):
    """Command line of the examination; returns 1 if there are errors."""
    parser = argparse.ArgumentParser(
        prog="python -m lca_keras.doctor", description=__doc__.splitlines()[0]
    )
    arguments.add_corpus_options(parser, "data")
    parser.add_argument(
        "--json", metavar="FILE", default="doctor.json", help="default: doctor.json"
    )
    parser.add_argument(
        "--clip-seconds",
        type=int,
        choices=CLIP_SECONDS,
        default=min(CLIP_SECONDS),
        help="shorter songs cannot be used; default: 3",
    )
    told = "processes; default: all cores"
    parser.add_argument("--jobs", help=told, **arguments.WHOLE)

    def job(args):
        arguments.check_output("--json", args.json)
        with console.progress("Examining songs") as progress:
            source = DataSource(**arguments.corpus_source(args))
            clip = Config().replace(train={"clip_seconds": args.clip_seconds})
            least = clip.least_seconds
            summary, findings = run(source, least, args.jobs, progress)
        print_report(summary, findings)
        files.write_json(
            args.json,
            {**summary, "findings": [dataclasses.asdict(f) for f in findings]},
        )
        print(f"details in {args.json}")
        return 1 if summary["errors"] else 0

    console.add_debug_flag(parser)
    return arguments.command(parser.parse_args, job, argv)


if __name__ == "__main__":
    sys.exit(main())
