"""Finds what would spoil an experiment in a corpus, before anybody trains on it.

Prints what a careful colleague would find, and writes it as JSON. The exit code is 1 if
there are errors.
"""

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
        more = count[finding.kind] - _SHOWN
        if more <= 0 or seen[finding.kind] < _SHOWN:
            yield finding
        elif seen[finding.kind] == _SHOWN:
            said = f"{more + 1} more; all are in the JSON"
            yield dataclasses.replace(finding, where="...", message=said)


def _print_report(summary, findings):
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
            row = map(Text, (finding.kind, finding.where, finding.message))
            table.add_row(Text(finding.severity, style=color), *row)
        out.print(table)
    rates = ", ".join(f"{rate} Hz ({n})" for rate, n in summary["rates"].items())
    print(
        f"{len(summary['artists'])} artists, {summary['songs']} songs, "
        f"{summary['hours']:.2f} h, {rates or 'nothing readable'}: "
        f"{summary['errors']} errors, {summary['warnings']} warnings"
    )


def main(argv=None):
    """Command line of the examination; returns 1 if there are errors."""
    parser = arguments.parser_of("lca_keras.doctor", __doc__)
    arguments.add_corpus_options(parser, "data")
    told = {"metavar": "FILE", "help": "default: doctor.json"}
    parser.add_argument("--json", default="doctor.json", **told)
    lengths = {"type": int, "choices": CLIP_SECONDS, "default": min(CLIP_SECONDS)}
    told = "shorter songs cannot be used; default: 3"
    parser.add_argument("--clip-seconds", help=told, **lengths)
    parser.add_argument("--jobs", **arguments.JOBS)

    def job(args):
        arguments.check_output("--json", args.json)
        with console.progress("Examining songs") as progress:
            source = DataSource(**arguments.corpus_source(args))
            clip = Config().replace(train={"clip_seconds": args.clip_seconds})
            summary, findings = run(source, clip.least_seconds, args.jobs, progress)
        _print_report(summary, findings)
        told = [dataclasses.asdict(each) for each in findings]
        files.write_json(args.json, {**summary, "findings": told})
        print(f"details in {args.json}")
        return 1 if summary["errors"] else 0

    return arguments.finish(parser, job, argv)


if __name__ == "__main__":
    sys.exit(main())
