"""What the commands that name singers take, and what they show."""

import collections
import contextlib
import dataclasses
import functools
import importlib.util
import json
import os
import sys

from lca_keras.base import console
from lca_keras.base.errors import UserError
from lca_keras.base.observer import Observer
from lca_keras.data import catalogue
from lca_keras.drawing import plots
from lca_keras.inference import pictures
from lca_keras.inference.table import Table
from lca_keras.terminal import arguments

# Singers that are counted on the screen.
_SHOWN = 10


def add_options(parser):
    """Adds what `predict` and `client` both take."""
    add, output = parser.add_argument, arguments.Output
    add("songs", nargs="+", metavar="SONG", help="audio files, or folders of them")
    add("--top", help="artists to list; default: 5", **arguments.WHOLE)
    told = "name no singer whose mean probability is below; default: 0"
    add("--min-confidence", type=float, default=0.0, metavar="P", help=told)
    told = (
        "one of the singers sings for certain: nobody is unknown, and clips without "
        "voice vote too"
    )
    add("--closed-set", action="store_true", help=told)
    told = "of clips, below 1: more of them vote; default: 0, as the export does"
    add("--overlap", type=float, metavar="SHARE", help=told)
    add_vocals_options(parser)
    add("--json", action="store_true", help="print JSON")
    told = (
        "write a line for each song to a .csv or .parquet; songs that have one already "
        "are not heard again"
    )
    endings = (".csv", ".parquet")
    add("--out", metavar="FILE", action=output, ending=endings, help=told)
    add("--plot", metavar="FILE.png", action=output, help="draw the vote over time")
    console.add_debug_flag(parser)


def add_model_options(parser, or_file=""):
    """Adds what says which export is taken."""
    parser.add_argument("--model", required=True, help=f"saved_models/NAME{or_file}")
    parser.add_argument("--version", type=int, help="default: the newest")


def add_vocals_options(parser):
    """Adds what a model that was trained on vocals needs to know."""
    add, told = parser.add_argument, "of a model that was trained on vocals"
    add("--separator", metavar="FOLDER", help=told)
    told = "the files are vocals already: nothing is separated"
    add("--vocals", action="store_true", help=told)


def check_options(args):
    """Raises a `UserError` for options that cannot be."""
    if not 0 <= args.min_confidence <= 1:
        raise UserError(f"--min-confidence is in [0, 1], not {args.min_confidence}")
    if not 0 <= (args.overlap or 0) <= 0.95:
        raise UserError(f"--overlap is in [0, 0.95], not {args.overlap}")
    needs_pyarrow = args.out and args.out.lower().endswith(".parquet")
    if needs_pyarrow and importlib.util.find_spec("pyarrow") is None:
        raise UserError(f"--out {args.out} needs pyarrow: pip install pyarrow")


def listed(paths):
    """Songs, those of folders in their order; and a dict of folders' errors."""
    songs, errors = [], {}
    for path in paths:
        if not os.path.isdir(path):
            songs.append(path)
            continue
        found = [os.fspath(song) for song in catalogue.audio_files(path, errors)]
        if os.path.exists(os.path.join(path, "manifest.csv")):
            said = "every audio file below is heard, stems too"
            print(f"note: {path} has a manifest.csv; {said}", file=sys.stderr)
        if not found and path not in errors:
            errors[path] = "no audio files in it"
        songs += found
    return list(dict.fromkeys(songs)), errors


def vocals_of(args, songs):
    """For each song the file of its vocals, itself with `--vocals`, or `None`."""
    return [song if args.vocals else None for song in songs]


def answer(identifier, args, songs, errors, opened=None, workers=None):
    """Names the singers of songs, and shows and keeps what was said; an exit code.

    `args` are those of `add_options`, songs and errors what `listed` gave, and `opened`
    and `workers` as for `lca_keras.inference.many.ask_each`.
    """
    from lca_keras.inference import many

    overlap, least = args.overlap or 0.0, args.min_confidence
    how = {"overlap": overlap, "min_confidence": least, "closed_set": args.closed_set}
    ask = functools.partial(many.identified, vocals=args.vocals, **how)
    settings = f"overlap {overlap:g}, min-confidence {least:g}"
    settings += ", vocals" if args.vocals else ""
    settings += ", closed set" if args.closed_set else ""
    table = Table(args.out, f"{identifier.digest} ({settings})") if args.out else None
    asked = [song for song in songs if not (table and table.has(song))]
    if already := len(songs) - len(asked):
        said = f"{already} of {len(songs)} songs are in {args.out} already"
        if args.json or args.plot:
            said += ", and neither in the JSON nor in the picture: a table has no clips"
        print(said, file=sys.stderr)
    print_errors(errors)
    results, failed = {}, dict(errors)
    # In lines that are printed as they come, a bar would stand in the way.
    bar = (console if table else Observer()).progress("Songs")
    found = many.ask_each(ask, asked, identifier, opened, workers)
    # Closed, whatever happens: nobody waits for what is not asked any more.
    with bar as progress, contextlib.closing(found):
        for done, (song, result) in enumerate(found, 1):
            progress(done, len(asked))
            if isinstance(result, str):
                failed[song] = result
            elif not table or args.json or args.plot:  # Of many, clips take memory.
                results[song] = result
            if table:
                table.add(song, result)
            elif song in failed:
                print_errors({song: result})
            elif not args.json:
                print(describe(song, result, args.top or 5), flush=True)
    if table:
        table.finish(songs, errors)
        _summarise(table, songs)
    if args.json:
        said = {song: dataclasses.asdict(result) for song, result in results.items()}
        said |= {song: {"error": reason} for song, reason in failed.items()}
        print_json([{"song": song, **result} for song, result in said.items()])
    if args.plot and results:
        plots.save_figure(pictures.votes(results), args.plot)
        print(f"drawn to {args.plot}", file=sys.stderr)
    return 1 if failed else 0


def _summarise(table, songs):
    rows = [table.rows[song] for song in songs]
    failed = {row["song"]: row["error"] for row in rows if row["error"]}
    statuses = collections.Counter(row["status"] for row in rows if not row["error"])
    del statuses["ok"]
    nobody = "".join(f", {count} {name}" for name, count in sorted(statuses.items()))
    named = collections.Counter(row["singer"] for row in rows if row["singer"])
    print(f"{len(songs)} songs{nobody}, {len(failed)} failed", file=sys.stderr)
    for singer, count in named.most_common(_SHOWN):
        print(f"  {count:6d}  {singer}", file=sys.stderr)
    if len(named) > _SHOWN:
        print(f"  {len(named) - _SHOWN} more singers", file=sys.stderr)
    print_errors(failed)
    print(f"written to {table.path}", file=sys.stderr)


def print_errors(reasons):
    """Prints why songs are not answered, a dict by song, to standard error."""
    for song, reason in reasons.items():
        print(f"error: {song}: {reason}", file=sys.stderr)


def print_json(values):
    """Prints values as JSON, names as they are written."""
    print(json.dumps(values, indent=2, ensure_ascii=False))


def describe(path, result, top):
    """A song's `lca_keras.inference.identification.Identification`, in lines."""
    clips = sum(result.votes.values())
    lines = [f"{path}: {result.headline}"]
    for name in list(result.votes)[:top] if clips else []:
        lines.append(
            f"  {result.votes[name]:3d} of {clips} clips, mean probability "
            f"{result.probabilities[name]:6.1%}  {name}"
        )
    if 0 < clips < len(result.clips):
        lines.append(f"  {len(result.clips) - clips:3d} more clips without voice")
    lines += [f"  note: {note}" for note in result.notes]
    return "\n".join(lines)


def describe_timeline(song, segments):
    """A song's list of `lca_keras.voices.timeline.Segment`, in lines."""
    lines = [
        f"  {clock(each.start):>8} - {clock(each.end):>8}  {each.confidence:4.0%}  "
        f"{each.label}"
        for each in segments
    ]
    return "\n".join([f"{song}:", *lines])


def clock(seconds):
    """Seconds as minutes and seconds, `1:02.5`."""
    minutes, rest = divmod(round(seconds, 1), 60)
    return f"{minutes:.0f}:{rest:04.1f}"
