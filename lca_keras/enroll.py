"""Adds a singer to an exported model without training, by three songs or more.

`python -m lca_keras.enroll --model saved_models/NAME --artist "New Singer" SONG…`
writes the model's next version; `--remove` and `--list` do what they say.
"""

import sys

from lca_keras.base import console
from lca_keras.base.errors import UserError
from lca_keras.data import catalogue
from lca_keras.terminal import answers, arguments, screen


def main(argv=None):
    """Command line of enrollment."""
    parser = arguments.parser_of("lca_keras.enroll", __doc__)
    answers.add_model_options(parser)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--artist", metavar="NAME", help="of who is to be added")
    what.add_argument("--remove", metavar="NAME", help="take away who was added")
    what.add_argument("--list", action="store_true", help="show who is known")
    songs = {"nargs": "*", "metavar": "SONG", "help": "audio files, or folders of them"}
    parser.add_argument("songs", **songs)
    answers.add_vocals_options(parser)
    return arguments.finish(parser, _enroll, argv)


def _enroll(args):
    from lca_keras.exports import labels
    from lca_keras.exports.versions import find_version
    from lca_keras.inference import enrollment, identification
    from lca_keras.voices.gallery import gallery_of

    if bool(args.songs) != bool(args.artist):
        raise UserError("--artist NAME goes with songs, and nothing else does")
    folder = find_version(args.model, args.version)
    identifier = identification.Identifier(folder, args.separator)
    if args.list:
        known = [] if identifier.gallery is None else identifier.gallery.enrolled
        for artist in identifier.artists:
            print(f"{artist} (enrolled)" if artist in known else artist)
        return
    gallery_of(identifier)
    console.quiet_tensorflow()
    if args.artist:
        exported = _add(args, identifier, folder)
    else:
        name = catalogue.readable(args.remove)
        with console.working("Writing the next version"):
            exported = enrollment.remove(identifier, folder, name)
        print(f"{name} is not known any more to {exported}")
    if assigned := labels.labels_of(exported.parent):
        said = ", ".join(f"{label} is {v}" for label, v in sorted(assigned.items()))
        print(
            f"  note: {said} in {labels.CONFIG}, and a server loads no other: `python "
            f"-m lca_keras.export label {exported.parent} stable {exported.name}` "
            "makes this one live"
        )


def _add(args, identifier, folder):
    """Enrolls a singer and says what came of it; returns the next version."""
    from lca_keras.inference import enrollment

    name = catalogue.readable(args.artist)
    if not name or not name.isprintable():
        raise UserError(f"--artist {args.artist!r}: not a name")
    songs, errors = answers.listed(args.songs)
    if errors:
        raise UserError("; ".join(f"{path}: {why}" for path, why in errors.items()))
    identifier.check(answers.vocals_of(args, songs))
    with console.progress("Listening") as show:
        found = enrollment.enroll(identifier, folder, name, songs, args.vocals, show)
    screen.print_reasons("skipped", found.skipped)
    threshold = identifier.gallery.threshold
    for path, similarity in found.songs.items():
        if similarity < threshold:
            print(
                f"  note: {path} is unlike the others (similarity {similarity:.2f}): "
                f"is it {name} who sings?"
            )
    print(
        f"{name} is known to {found.exported}, by {len(found.songs)} songs; the "
        f"nearest voice is {found.nearest}'s ({found.similarity:.2f}; songs of one "
        f"singer are above {threshold:.2f})"
    )
    if found.alike:
        print("  note: that is near: songs of the two may be taken for each other")
    return found.exported


if __name__ == "__main__":
    sys.exit(main())
