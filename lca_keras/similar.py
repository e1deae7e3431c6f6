"""Finds songs whose voices are like a song's.

`python -m lca_keras.similar --model saved_models/NAME SONG --among FOLDER` hears all
songs of a folder; with `--index FILE` it keeps what it heard, and hears what is new.
"""

import contextlib
import dataclasses
import functools
import os
import pathlib
import sys

from lca_keras.base import console
from lca_keras.base.errors import UserError
from lca_keras.terminal import answers, arguments, screen


def main(argv=None):
    """Command line of similar songs."""
    parser = arguments.parser_of("lca_keras.similar", __doc__)
    answers.add_model_options(parser)
    add, told = parser.add_argument, "audio file; without, the index is kept"
    add("song", metavar="SONG", nargs="?", help=told)
    add("--among", nargs="+", metavar="PATH", help="folders or files to look among")
    written = {"metavar": "FILE.npz", "action": arguments.Output, "ending": ".npz"}
    add("--index", help="keep what was heard, and look there too", **written)
    add("--top", default=10, help="songs to list; default: 10", **arguments.WHOLE)
    add("--workers", help="processes; default: one a core", **arguments.WHOLE)
    answers.add_vocals_options(parser)
    add("--json", action="store_true", help="print JSON")
    return arguments.finish(parser, _similar, argv)


def _similar(args):
    from lca_keras.exports.versions import find_version
    from lca_keras.inference import identification, many
    from lca_keras.voices import index

    if not args.among and not args.index:
        raise UserError("say where to look: --among FOLDER, or --index FILE.npz")
    if not args.among and not os.path.exists(args.index):
        raise UserError(f"{args.index} is not there: --among FOLDER makes it")
    if args.song is None and not (args.among and args.index):
        raise UserError("give a song, or --among and --index to make an index")
    place = find_version(args.model, args.version), args.separator
    opened = functools.partial(identification.Identifier, *place)
    identifier = opened()
    path = None if args.index is None else pathlib.Path(args.index)
    kept = index.VoiceIndex(index.model_of(identifier), path)
    songs, failed = answers.listed(args.among or [])
    # An index is asked from any folder.
    songs = [os.path.abspath(song) for song in songs]
    everything = songs if args.song is None else [*songs, args.song]
    identifier.check(answers.vocals_of(args, everything))
    # What is asked about is heard first: if it cannot be, nothing else need be.
    voice = None
    if args.song is not None:
        voice = many.voice_of(identifier, args.song, args.vocals)
        if isinstance(voice, str):
            raise UserError(f"{args.song}: {voice}")
    missing = [song for song in songs if not kept.has(song)]
    try:
        failed |= _extend(kept, missing, identifier, opened, args)
    finally:
        if path is not None and kept.voices and missing:
            kept.save()
    screen.print_reasons("error", failed, sys.stderr)
    if path is not None:
        print(f"{len(kept.voices)} songs in {path}", file=sys.stderr)
    if voice is not None:
        _show(kept.like(voice, args.top, (args.song,)), args)
    return 1 if failed else 0


def _extend(kept, songs, identifier, opened, args):
    """Takes songs into an index; returns a dict of why some are not."""
    from lca_keras.inference import many

    if not songs:
        return {}
    ask = functools.partial(many.voice_of, vocals=args.vocals)
    found = many.ask_each(ask, songs, identifier, opened, args.workers)
    failed = {}
    with console.progress("Listening") as progress, contextlib.closing(found):
        for done, (song, voice) in enumerate(found, 1):
            progress(done, len(songs))
            if isinstance(voice, str):
                failed[song] = voice
                kept.drop(song)
            else:
                kept.add(song, voice)
    return failed


def _show(found, args):
    if args.json:
        answers.print_json([dataclasses.asdict(each) for each in found])
        return
    if not found:
        print("no other songs to compare it with")
    for each in found:
        ends = [(p["start"], p["other_start"]) for p in each.passages]
        why = ", ".join(" and ".join(map(answers.clock, pair)) for pair in ends)
        print(f"{each.similarity:6.3f}  {each.song}\n        most alike at {why}")


if __name__ == "__main__":
    sys.exit(main())
