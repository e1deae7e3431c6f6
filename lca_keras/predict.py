"""Names the singer of songs, with an exported model.

`python -m lca_keras.predict --model saved_models/NAME SONG…` prints the singer with
probabilities. Everything but decoding happens inside the SavedModel; vocals are
separated and melodies tracked before it, if the model was trained on these.
"""

import argparse
import dataclasses
import json
import os
import pathlib
import sys

from lca_keras import console, files
from lca_keras.data import catalogue
from lca_keras.errors import UserError


def main(argv=None):
    """Command line of prediction."""
    parser = argparse.ArgumentParser(
        prog="python -m lca_keras.predict", description=__doc__.splitlines()[0]
    )
    parser.add_argument(
        "songs", nargs="+", metavar="SONG", help="audio files, or folders of them"
    )
    parser.add_argument("--model", required=True, help="saved_models/NAME")
    parser.add_argument("--version", type=int, help="default: the newest")
    parser.add_argument("--top", type=int, default=5, help="artists to list")
    parser.add_argument(
        "--min-confidence",
        type=float,
        default=0.0,
        metavar="P",
        help="name no singer whose mean probability is below; default: 0",
    )
    parser.add_argument(
        "--overlap",
        type=float,
        default=0.0,
        metavar="SHARE",
        help="of clips, below 1: more of them vote; default: 0, as the export does",
    )
    parser.add_argument(
        "--separator", metavar="FOLDER", help="of a model that was trained on vocals"
    )
    parser.add_argument(
        "--vocals",
        action="store_true",
        help="the files are vocals already: nothing is separated",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--csv", metavar="FILE.csv", help="write a line for each song")
    parser.add_argument("--plot", metavar="FILE.png", help="draw the vote over time")
    console.add_debug_flag(parser)
    args = parser.parse_args(argv)
    return console.guard(lambda: predict(args), args.debug)


def predict(args):
    """Runs the job that the parsed arguments describe; returns an exit code."""
    from lca_keras.export.versions import find_version

    if args.top < 1:
        raise UserError(f"--top must be at least 1, not {args.top}")
    if not 0 <= args.min_confidence <= 1:
        raise UserError(f"--min-confidence is in [0, 1], not {args.min_confidence}")
    if not 0 <= args.overlap <= 0.95:
        raise UserError(f"--overlap is in [0, 0.95], not {args.overlap}")
    for option, path in (("--plot", args.plot), ("--csv", args.csv)):
        if path and not pathlib.Path(path).absolute().parent.is_dir():
            raise UserError(f"{option} {path}: no such folder")
    songs, errors = listed(args.songs)
    folder = find_version(args.model, args.version)
    console.quiet_tensorflow()
    from lca_keras import inference

    identifier = inference.Identifier(folder, args.separator)
    if not identifier.has_sums:
        print(
            f"note: {folder} has no SHA256SUMS: that it is whole is not checked",
            file=sys.stderr,
        )
    identifier.check([song if args.vocals else None for song in songs])
    for song, error in errors.items():
        print(f"error: {song}: {error}", file=sys.stderr)
    results = {}
    for song in songs:
        try:
            vocals = song if args.vocals else None
            results[song] = identifier.identify(
                song, vocals, args.overlap, args.min_confidence
            )
        except inference.AudioError as error:
            errors[song] = str(error)
            print(f"error: {song}: {error}", file=sys.stderr)
            continue
        if not args.json:
            print(inference.describe(song, results[song], args.top))
    if args.json:
        said = {song: dataclasses.asdict(result) for song, result in results.items()}
        said |= {song: {"error": reason} for song, reason in errors.items()}
        everything = [{"song": song, **result} for song, result in said.items()]
        print(json.dumps(everything, indent=2, ensure_ascii=False))
    if args.csv:
        write_csv(args.csv, results, errors, songs)
    if args.plot and results:
        inference.plot(results, args.plot)
        print(f"drawn to {args.plot}", file=sys.stderr)
    return 1 if errors else 0


def listed(paths):
    """Songs, those of folders in their order; and a dict of folders' errors."""
    songs, errors = [], {}
    for path in paths:
        if not os.path.isdir(path):
            songs.append(path)
            continue
        found = [os.fspath(song) for song in catalogue.audio_files(path, errors)]
        if not found and path not in errors:
            errors[path] = "no audio files in it"
        songs += found
    return list(dict.fromkeys(songs)), errors


def write_csv(path, results, errors, songs):
    """Writes what came of every song: its singer, or none, or the error.

    Votes and probability are those of the best one, also where it is not named.
    """
    columns = ["song", "singer", "votes", "clips", "probability", "notes", "error"]
    # Folders without songs first, then as they were given.
    given = dict.fromkeys(songs)
    rows = {song: None for song in errors if song not in given} | given
    for song, result in results.items():
        singer, clips = result.singer or "", sum(result.votes.values())
        best = next(iter(result.votes))
        votes, probability = result.votes[best], result.probabilities[best]
        unsure = [] if result.singer else [f"not sure, the likeliest is {best}"]
        notes = "; ".join([*unsure, *result.notes])
        rows[song] = [song, singer, votes, clips, f"{probability:.6f}", notes, ""]
    for song, error in errors.items():
        rows[song] = [song, "", "", "", "", "", error]
    files.write_csv(path, columns, rows.values())
    print(f"written to {path}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
