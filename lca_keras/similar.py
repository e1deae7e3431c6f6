"""Finds songs whose voices are like a song's.

`python -m lca_keras.similar --model saved_models/NAME SONG --among FOLDER` hears all
songs of a folder; with `--index FILE` it keeps what it heard, and hears what is new.
"""

import argparse
import contextlib
import dataclasses
import functools
import json
import os
import pathlib
import sys

from lca_keras.base import console
from lca_keras.base.errors import UserError
from lca_keras.terminal import answers, screen

# Songs from which on several processes are worth their start.
_MANY = 8


def main(argv=None):
    """Command line of similar voices."""
    parser = argparse.ArgumentParser(
        prog="python -m lca_keras.similar", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--model", required=True, help="saved_models/NAME")
    parser.add_argument("--version", type=int, help="default: the newest")
    parser.add_argument(
        "song", metavar="SONG", nargs="?", help="audio file; without, the index is kept"
    )
    parser.add_argument(
        "--among", nargs="+", metavar="PATH", help="folders or files to look among"
    )
    parser.add_argument(
        "--index", metavar="FILE.npz", help="keep what was heard, and look there too"
    )
    parser.add_argument("--top", type=int, default=10, help="songs to list")
    parser.add_argument(
        "--workers", type=int, metavar="N", help="processes; default: one a core"
    )
    answers.add_vocals_options(parser)
    parser.add_argument("--json", action="store_true", help="print JSON")
    console.add_debug_flag(parser)
    args = parser.parse_args(argv)
    return console.guard(lambda: similar(args), args.debug)


def similar(args):
    """Runs the job that the parsed arguments describe; returns an exit code."""
    from lca_keras.exports.versions import find_version
    from lca_keras.inference import identification
    from lca_keras.voices import index

    check_options(args)
    opened = functools.partial(
        identification.Identifier,
        find_version(args.model, args.version),
        args.separator,
    )
    identifier = opened()
    path = None if args.index is None else pathlib.Path(args.index)
    voices = index.VoiceIndex(index.model_of(identifier), path)
    songs, failed = answers.listed(args.among or [])
    # An index is asked from any folder.
    songs = [os.path.abspath(song) for song in songs]
    everything = songs if args.song is None else [*songs, args.song]
    identifier.check([song if args.vocals else None for song in everything])
    # What is asked about is heard first: if it cannot be, nothing else need be.
    voice = None
    if args.song is not None:
        vocals = args.song if args.vocals else None
        try:
            voice = index.listen(identifier, args.song, vocals)
        except identification.AudioError as error:
            raise UserError(f"{args.song}: {error}") from error
    missing = [song for song in songs if not voices.has(song)]
    try:
        failed |= extend(voices, missing, identifier, opened, args)
    finally:
        if path is not None and voices.voices and missing:
            voices.save()
    screen.print_reasons("error", failed, sys.stderr)
    if path is not None:
        print(f"{len(voices.voices)} songs in {path}", file=sys.stderr)
    if voice is not None:
        show(voices.like(voice, args.top, (args.song,)), args)
    return 1 if failed else 0


def check_options(args):
    """Raises a `UserError` for options that cannot be."""
    if args.top < 1:
        raise UserError(f"--top must be at least 1, not {args.top}")
    if args.workers is not None and args.workers < 1:
        raise UserError(f"--workers must be at least 1, not {args.workers}")
    if not args.among and not args.index:
        raise UserError("say where to look: --among FOLDER, or --index FILE.npz")
    if not args.among and not os.path.exists(args.index):
        raise UserError(f"{args.index} is not there: --among FOLDER makes it")
    if args.song is None and not (args.among and args.index):
        raise UserError("give a song, or --among and --index to make an index")
    if args.index:
        path = pathlib.Path(args.index)
        if path.suffix != ".npz":
            raise UserError(f"--index {path}: expected a .npz")
        if not path.absolute().parent.is_dir():
            raise UserError(f"--index {path}: no such folder")


def extend(voices, songs, identifier, opened, args):
    """Hears songs and takes them into an index; returns a dict of why some are not."""
    if not songs:
        return {}
    workers = args.workers or (os.cpu_count() if len(songs) >= _MANY else 1)
    if workers == 1:
        identify = answers.one_by_one(functools.partial(voice_of, identifier, args))
    else:
        opened = functools.partial(opened, threads=1)
        identify = answers.side_by_side(
            lambda: answers.process_pool(workers, opened, args),
            voice_here,
            lambda: answers.process_pool(1, opened, args),
        )
    failed = {}
    with (
        console.progress("Listening") as progress,
        contextlib.closing(identify(songs)) as found,
    ):
        for done, (song, voice) in enumerate(found, 1):
            progress(done, len(songs))
            if isinstance(voice, str):
                failed[song] = voice
                voices.drop(song)
            else:
                voices.add(song, voice)
    return failed


def voice_of(identifier, args, song):
    """The voice of a song, or as a string why there is none."""
    from lca_keras.inference import identification
    from lca_keras.voices import index

    try:
        return index.listen(identifier, song, song if args.vocals else None)
    except identification.AudioError as error:
        return str(error)


def voice_here(song):
    """`voice_of` in a process of `lca_keras.terminal.answers.process_pool`."""
    return voice_of(*answers.here(), song)


def show(found, args):
    """Prints the most similar songs, and why."""
    if args.json:
        said = [dataclasses.asdict(each) for each in found]
        print(json.dumps(said, indent=2, ensure_ascii=False))
        return
    if not found:
        print("no other songs to compare it with")
    for each in found:
        why = ", ".join(
            f"{_clock(p['start'])} and {_clock(p['other_start'])}"
            for p in each.passages
        )
        print(f"{each.similarity:6.3f}  {each.song}\n        most alike at {why}")


def _clock(seconds):
    return f"{int(seconds // 60)}:{int(seconds % 60):02d}"


if __name__ == "__main__":
    sys.exit(main())
