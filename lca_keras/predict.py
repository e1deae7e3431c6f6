"""Names the singer of songs, with an exported model.

`python -m lca_keras.predict --model saved_models/NAME SONG…` prints the singer with
probabilities. LiteRT computes it, where it is installed, without TensorFlow; vocals are
separated and melodies tracked before, if the model was trained on these.
"""

import functools
import pathlib
import sys

from lca_keras.base.errors import UserError
from lca_keras.inference import runtimes
from lca_keras.terminal import answers, arguments


def main(argv=None):
    """Command line of prediction."""
    parser = arguments.parser_of("lca_keras.predict", __doc__)
    answers.add_model_options(parser, ", or a .tflite file of it")
    parser.add_argument(
        "--runtime",
        choices=runtimes.RUNTIMES,
        help="what computes; default: litert where it is installed",
    )
    parser.add_argument(
        "--precision",
        choices=runtimes.PRECISIONS,
        default="float32",
        help="bfloat16: half the network's time where the processor multiplies it, by "
        "TensorFlow; the same votes but for close ones, other probabilities",
    )
    told = "processes for many songs; default: one for each core, with litert"
    parser.add_argument("--workers", help=told, **arguments.WHOLE)
    parser.add_argument(
        "--timeline",
        nargs="*",
        metavar="FILE",
        help="who sings when: printed, or written to .json, .csv, .txt (labels for "
        "Audacity, of one song) or .png; clips overlap by 0.8 unless --overlap says",
    )
    answers.add_options(parser)
    return arguments.command(parser.parse_args, predict, argv)


def predict(args):
    """Runs the job that the parsed arguments describe; returns an exit code."""
    from lca_keras.exports.versions import find_version
    from lca_keras.inference import identification

    answers.check_options(args)
    if args.timeline is not None:
        check_timeline(args)
    songs, errors = answers.listed(args.songs)
    model = pathlib.Path(args.model)
    if not model.is_file():
        model = find_version(model, args.version)
    elif args.version is not None:
        raise UserError(f"{model} is one version: leave out --version")
    opened = functools.partial(
        identification.Identifier,
        model,
        args.separator,
        args.runtime,
        precision=args.precision,
    )
    identifier = opened()
    identifier.check(answers.vocals_of(args, songs))
    if args.timeline is not None:
        labels = [path for path in args.timeline if path.endswith(".txt")]
        if labels and len(songs) != 1:
            raise UserError(f"--timeline {labels[0]}: labels are those of one song")
        return show_timelines(identifier, args, songs, errors)
    return answers.answer(identifier, args, songs, errors, opened, args.workers)


def check_timeline(args):
    """Raises a `UserError` for options that do not go with a timeline."""
    from lca_keras.voices import timeline_files

    for path in args.timeline:
        arguments.check_output("--timeline", path, *timeline_files.ENDINGS)
    others = {"--out": args.out, "--plot": args.plot, "--closed-set": args.closed_set}
    others |= {"--min-confidence": args.min_confidence, "--top": args.top}
    others["--workers"] = args.workers
    for option, value in others.items():
        if value:
            raise UserError(f"{option} does not go with --timeline")


def show_timelines(identifier, args, songs, errors):
    """Says who sings when in each song; returns an exit code."""
    from lca_keras.inference import identification
    from lca_keras.voices import timeline, timeline_files

    overlap = timeline.OVERLAP if args.overlap is None else args.overlap
    failed, found = dict(errors), {}
    for song, vocals in zip(songs, answers.vocals_of(args, songs), strict=True):
        try:
            found[song] = timeline.timeline(identifier, song, vocals, overlap)
        except identification.AudioError as error:
            failed[song] = str(error)
            continue
        if not args.json and not args.timeline:
            print(answers.describe_timeline(song, found[song]), flush=True)
    answers.print_errors(failed)
    if args.json:
        answers.print_json(timeline_files.to_json(found))
    for path in args.timeline if found else []:
        timeline_files.write(found, pathlib.Path(path))
        print(f"written to {path}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
