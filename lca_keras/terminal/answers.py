"""Songs to be named, and what was said of them: printed, and kept in a table."""

import collections
import concurrent.futures
import concurrent.futures.process
import contextlib
import csv
import dataclasses
import importlib.util
import json
import multiprocessing
import os
import pathlib
import signal
import sys

from lca_keras.base import console, files, processes
from lca_keras.base.errors import UserError
from lca_keras.data import catalogue
from lca_keras.inference import identification, servers

_COLUMNS = {
    "song": str,
    "singer": str,
    "status": str,
    "nearest": str,
    "score": float,
    "votes": int,
    "clips": int,
    "probability": float,
    "notes": str,
    "error": str,
    "model": str,
    "file": str,
}
_DIED = "brings its process down: damaged, or too long for the memory"
# What tells numerical libraries how many threads to take.
_THREADS = (
    *("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"),
    *("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"),
)
# Singers that are counted on the screen.
_SHOWN = 10


# === Options ===


def add_options(parser):
    """Adds what `predict` and `client` both take."""
    parser.add_argument(
        "songs", nargs="+", metavar="SONG", help="audio files, or folders of them"
    )
    parser.add_argument("--top", type=int, help="artists to list; default: 5")
    parser.add_argument(
        "--min-confidence",
        type=float,
        default=0.0,
        metavar="P",
        help="name no singer whose mean probability is below; default: 0",
    )
    parser.add_argument(
        "--closed-set",
        action="store_true",
        help="one of the singers sings for certain: nobody is unknown, and clips "
        "without voice vote too",
    )
    parser.add_argument(
        "--overlap",
        type=float,
        metavar="SHARE",
        help="of clips, below 1: more of them vote; default: 0, as the export does",
    )
    add_vocals_options(parser)
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument(
        "--out",
        metavar="FILE",
        help="write a line for each song to a .csv or .parquet; songs that have one "
        "already are not heard again",
    )
    parser.add_argument("--plot", metavar="FILE.png", help="draw the vote over time")
    console.add_debug_flag(parser)


def add_vocals_options(parser):
    """Adds what a model that was trained on vocals needs to know."""
    parser.add_argument(
        "--separator", metavar="FOLDER", help="of a model that was trained on vocals"
    )
    parser.add_argument(
        "--vocals",
        action="store_true",
        help="the files are vocals already: nothing is separated",
    )


def check_options(args):
    """Raises a `UserError` for options that cannot be."""
    if args.top is not None and args.top < 1:
        raise UserError(f"--top must be at least 1, not {args.top}")
    if not 0 <= args.min_confidence <= 1:
        raise UserError(f"--min-confidence is in [0, 1], not {args.min_confidence}")
    if not 0 <= (args.overlap or 0) <= 0.95:
        raise UserError(f"--overlap is in [0, 0.95], not {args.overlap}")
    for option, path in (("--plot", args.plot), ("--out", args.out)):
        if path and not pathlib.Path(path).absolute().parent.is_dir():
            raise UserError(f"{option} {path}: no such folder")
    if args.out:
        ending = pathlib.Path(args.out).suffix
        if ending not in (".csv", ".parquet"):
            raise UserError(f"--out {args.out}: expected a .csv or a .parquet")
        if ending == ".parquet" and importlib.util.find_spec("pyarrow") is None:
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
            print(
                f"note: {path} has a manifest.csv; every audio file below is heard, "
                "stems too",
                file=sys.stderr,
            )
        if not found and path not in errors:
            errors[path] = "no audio files in it"
        songs += found
    return list(dict.fromkeys(songs)), errors


# === Asking ===


def answer(identify, model, args, songs, errors):
    """Names the singers of songs, and shows and keeps what was said.

    Args:
        identify: Function of a list of songs that yields, as they are done, pairs of a
            song and its `lca_keras.inference.identification.Identification` or, as a
            string, why there is none.
        model: String that tells models apart.
        args: Parsed arguments of `add_options`.
        songs: What `listed` gave.
        errors: The same.

    Returns:
        Exit code: 1 if a song could not be answered.
    """
    overlap, least = args.overlap or 0, args.min_confidence
    settings = f"overlap {overlap:g}, min-confidence {least:g}"
    settings += ", vocals" if args.vocals else ""
    settings += ", closed set" if args.closed_set else ""
    table = Table(args.out, f"{model} ({settings})") if args.out else None
    asked = [song for song in songs if not (table and table.has(song))]
    if len(asked) < len(songs):
        said = (
            f"{len(songs) - len(asked)} of {len(songs)} songs are in {args.out} already"
        )
        if args.json or args.plot:
            said += ", and neither in the JSON nor in the picture: a table has no clips"
        print(said, file=sys.stderr)
    for song, error in errors.items():
        print(f"error: {song}: {error}", file=sys.stderr)
    results, failed = {}, dict(errors)
    with contextlib.ExitStack() as stack:
        progress = None
        if table:
            stack.enter_context(table)
            progress = stack.enter_context(console.progress("Songs"))
        # Closed, whatever happens: nobody waits for what is not asked any more.
        found = stack.enter_context(contextlib.closing(identify(asked)))
        for done, (song, result) in enumerate(found, 1):
            if progress is not None:
                progress(done, len(asked))
            if isinstance(result, str):
                failed[song] = result
                if not table:
                    print(f"error: {song}: {result}", file=sys.stderr)
            else:
                if not table or args.json or args.plot:  # Of many, clips take memory.
                    results[song] = result
                if not args.json and not table:
                    print(describe(song, result, args.top or 5), flush=True)
            if table:
                table.add(song, result)
    if table:
        table.finish(songs, errors)
        _summarise(table, songs)
    if args.json:
        said = {song: dataclasses.asdict(result) for song, result in results.items()}
        said |= {song: {"error": reason} for song, reason in failed.items()}
        everything = [{"song": song, **result} for song, result in said.items()]
        print(json.dumps(everything, indent=2, ensure_ascii=False))
    if args.plot and results:
        identification.plot(results, args.plot)
        print(f"drawn to {args.plot}", file=sys.stderr)
    return 1 if failed else 0


def describe(path, result, top):
    """The `lca_keras.inference.identification.Identification` of a song, in lines.

    Args:
        path: The song, as it is shown.
        result: The `Identification`.
        top: Int, number of artists that are listed.
    """
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


def _summarise(table, songs):
    rows = [table.rows[song] for song in songs]
    failed = [row for row in rows if row["error"]]
    statuses = collections.Counter(row["status"] for row in rows if not row["error"])
    statuses = {name: n for name, n in statuses.items() if name != "ok"}
    nobody = "".join(f", {count} {name}" for name, count in sorted(statuses.items()))
    named = collections.Counter(row["singer"] for row in rows if row["singer"])
    out = sys.stderr
    print(f"{len(songs)} songs{nobody}, {len(failed)} failed", file=out)
    for singer, count in named.most_common(_SHOWN):
        print(f"  {count:6d}  {singer}", file=out)
    if len(named) > _SHOWN:
        print(f"  {len(named) - _SHOWN} more singers", file=out)
    for row in failed:
        print(f"error: {row['song']}: {row['error']}", file=out)
    print(f"written to {table.path}", file=out)


def one_by_one(ask):
    """What `answer` takes: each song by a call of `ask`, in this process."""

    def identify(songs):
        for song in songs:
            yield song, ask(song)

    return identify


def side_by_side(pool, ask, again=None):
    """What `answer` takes: each song by a call of `ask` in a pool of workers.

    Args:
        pool: Function that gives an executor.
        ask: Function of a song, to be called there.
        again: Optional function that gives an executor of one process, for the songs of
            a pool of which a process has died.
    """

    def identify(songs):
        left = dict.fromkeys(songs)
        with pool() as workers:
            calls = {workers.submit(ask, song): song for song in songs}
            try:
                for call in concurrent.futures.as_completed(calls):
                    result = call.result()
                    del left[calls[call]]
                    yield calls[call], result
            except concurrent.futures.process.BrokenProcessPool:
                if again is None:
                    raise
            except BaseException:  # Ctrl-C, or its like.
                workers.shutdown(wait=False, cancel_futures=True)
                for child in multiprocessing.active_children():
                    child.terminate()
                raise
        # Each alone: the one that brings its process down is one song less.
        while left:
            with again() as worker:
                for song in list(left):
                    died = False
                    try:
                        result = worker.submit(ask, song).result()
                    except concurrent.futures.process.BrokenProcessPool:
                        died, result = True, _DIED
                    del left[song]
                    yield song, result
                    if died:
                        break

    return identify


def process_pool(workers, opened, args):
    """A pool of processes with an `Identifier` each, that `opened` makes."""
    # As many processes as cores, each with threads for all of these, would take twice
    # the time. The libraries read this when they are loaded.
    for variable in _THREADS:
        os.environ.setdefault(variable, "1")
    return concurrent.futures.ProcessPoolExecutor(
        workers,
        # Whatever threads this process has, they have none of them.
        multiprocessing.get_context("spawn"),
        _open,
        (opened, args, os.getpid()),
    )


_here = {}


def here():
    """The `Identifier` and the arguments in a process of `process_pool`."""
    return _here["identifier"], _here["args"]


def _open(opened, args, parent):
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Whoever asks ends it.
    processes.end_with(parent)
    _here["identifier"], _here["args"] = opened(), args


def identify_here(song):
    """Identifies a song in a process of `process_pool`."""
    identifier, args = here()
    return identified(identifier, song, args)


def identified(identifier, song, args):
    """The `Identification` of a song, or as a string why there is none."""
    vocals = song if args.vocals else None
    try:
        return identifier.identify(
            song, vocals, args.overlap or 0.0, args.min_confidence, args.closed_set
        )
    except (identification.AudioError, servers.AnswerError) as error:
        return str(error)


# === Kept ===


class Table:
    """Answers in a CSV or Parquet file, and beside it while they come in.

    Args:
        path: Where it is to be.
        model: What the answers depend on; those of another are not taken over.

    Attributes:
        path: `pathlib.Path`.
        rows: Dict from song to its row, a dict.

    Raises:
        UserError: There is such a file of another model.
    """

    def __init__(self, path, model):
        self.path, self.model = pathlib.Path(path), model
        self.rows = {}
        self._part = self.path.with_name(self.path.name + ".part")
        self._file = None
        _cut_to_lines(self._part)
        for source, read in ((self.path, self._read), (self._part, _read_csv)):
            if source.exists():
                self.rows |= {row["song"]: row for row in read(source)}
        others = {row["model"] for row in self.rows.values()} - {model}
        if others:
            raise UserError(
                f"{path} has answers of {sorted(others)[0]}, not of {model}: take "
                "another file, or delete it"
            )

    def has(self, song):
        """Whether a song was answered, and its file is still the same."""
        row = self.rows.get(song)
        return bool(row) and not row["error"] and row["file"] == files.stamp(song)

    def __enter__(self):
        self._file = open(
            self._part, "a", encoding="utf-8", errors="surrogateescape", newline=""
        )
        self._writer = csv.DictWriter(self._file, list(_COLUMNS))
        if not self._file.tell():
            self._writer.writeheader()
        return self

    def __exit__(self, *error):
        self._file.close()

    def add(self, song, result):
        """Keeps an `Identification` of a song, or a string, why there is none."""
        row = dict.fromkeys(_COLUMNS, "")
        row |= {"song": song, "model": self.model, "file": files.stamp(song)}
        if isinstance(result, str):
            row["error"] = result
        else:
            best, unsure = result.singer, []
            if best is None:
                best = next(iter(result.votes))
                unsure = [f"the likeliest is {best}"] if result.votes[best] else []
            row |= {
                # Votes and probability are those of the best one, named or not.
                "singer": result.singer or "",
                "status": result.status,
                "nearest": result.nearest or "",
                "score": "" if result.score is None else round(result.score, 6),
                "votes": result.votes[best],
                "clips": sum(result.votes.values()),
                "probability": round(result.probabilities[best], 6),
                "notes": "; ".join([*unsure, *result.notes]),
            }
        self.rows[song] = row
        self._writer.writerow(row)
        self._file.flush()

    def finish(self, songs, errors):
        """Writes the table: folders without songs, then the songs, in their order."""
        for path, error in errors.items():
            row = {"song": path, "error": error, "model": self.model}
            self.rows[path] = dict.fromkeys(_COLUMNS, "") | row
        # What earlier calls were asked for stays, behind.
        order = dict.fromkeys([*errors, *songs, *self.rows])
        rows = [self.rows[song] for song in order]
        if self.path.suffix == ".csv":
            files.write_csv(self.path, list(_COLUMNS), rows)
        else:
            self._write_parquet(rows)
        self._part.unlink(missing_ok=True)

    def _read(self, path):
        if self.path.suffix == ".csv":
            return _read_csv(path)
        import pyarrow.parquet

        table = pyarrow.parquet.read_table(path)
        _check_columns(path, table.column_names)
        rows = table.to_pylist()
        return [{k: "" if v is None else v for k, v in row.items()} for row in rows]

    def _write_parquet(self, rows):
        import pyarrow
        import pyarrow.parquet

        kinds = {str: pyarrow.string(), int: pyarrow.int64(), float: pyarrow.float64()}
        schema = pyarrow.schema(
            [(name, kinds[kind]) for name, kind in _COLUMNS.items()]
        )
        typed = [
            {
                name: None if row[name] == "" and kind is not str else kind(row[name])
                for name, kind in _COLUMNS.items()
            }
            for row in rows
        ]
        with files.atomic_path(self.path) as temporary:
            table = pyarrow.Table.from_pylist(typed, schema)
            pyarrow.parquet.write_table(table, temporary)


def _read_csv(path):
    with open(path, encoding="utf-8", errors="surrogateescape", newline="") as file:
        header = next(csv.reader(file), [])
    if not header:
        return []
    _check_columns(path, header)
    return files.read_csv(path)


def _check_columns(path, columns):
    lacking = sorted(set(_COLUMNS) - set(columns))
    if lacking:
        raise UserError(
            f"{path} is no table of answers, or one of an earlier version: it has no "
            f"{', '.join(lacking)}. Take another file"
        )


def _cut_to_lines(path):
    """Takes away the line that its writer was killed in, if it was."""
    with contextlib.suppress(FileNotFoundError), open(path, "r+b") as file:
        file.truncate(file.read().rfind(b"\n") + 1)
