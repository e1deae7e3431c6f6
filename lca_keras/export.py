"""Lists, pushes, labels, rolls back, prunes, signs and verifies exported models."""

import argparse
import os
import pathlib
import sys

from lca_keras.base import console, files
from lca_keras.base.errors import UserError
from lca_keras.exports import integrity, labels, remote, versions
from lca_keras.exports.tflite_file import FORMS
from lca_keras.terminal import arguments


def main(argv=None):
    """Command line of exported models."""
    parser = argparse.ArgumentParser(
        prog="python -m lca_keras.export", description=__doc__
    )
    _add_tflite(parser)
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    _add_list(commands)
    _add_push(commands)
    _add_rollback(commands)
    _add_label(commands)
    _add_prune(commands)
    _add_signatures(commands)
    console.complete(parser)

    def job(args):
        if (args.command is None) == (args.run is None):
            parser.error("give a command, or --run RUN and --tflite FORMAT …")
        if args.run is not None and not args.tflite:
            parser.error("--run needs --tflite FORMAT …")
        return args.job(args)

    return arguments.command(parser.parse_args, job, argv)


def _add_tflite(parser):
    group = parser.add_argument_group("TFLite files of a run, without a command")
    group.add_argument("--run", metavar="RUN", help="folder of a finished run")
    group.add_argument(
        "--tflite",
        nargs="+",
        choices=FORMS,
        metavar="FORMAT",
        help=f"some of {', '.join(FORMS)}",
    )
    group.add_argument("--out", metavar="FOLDER", help="default: RUN/tflite")
    group.add_argument("--debug", action="store_true", help="show tracebacks")
    parser.set_defaults(job=convert)


def _command(commands, name, job, what, needs_name=True):
    parser = commands.add_parser(name, help=what, description=what)
    parser.set_defaults(job=job)
    parser.add_argument(
        "name",
        metavar="NAME",
        nargs=None if needs_name else "?",
        help="of the model, or its folder" + ("" if needs_name else "; default: all"),
    )
    parser.add_argument(
        "--exports", default="saved_models", help="folder of exports", metavar="FOLDER"
    )
    parser.add_argument("--debug", action="store_true", help="show tracebacks")
    return parser


def _add_list(commands):
    what = "versions, with labels, where they come from, and whether they are whole"
    _command(commands, "list", show, what, needs_name=False)


def _add_push(commands):
    what = "makes an export the next version of a model, whole or not at all"
    parser = _command(commands, "push", push, what)
    parser.add_argument(
        "source",
        metavar="EXPORT",
        help="folder of a version, or of a model: its newest",
    )
    parser.add_argument(
        "--canary", action="store_true", help="label it canary instead of stable"
    )
    parser.add_argument("--keep", help="prune to N versions", **arguments.WHOLE)
    _add_base_path(parser)


def _add_base_path(parser):
    parser.add_argument(
        "--base-path",
        metavar="FOLDER",
        help=f"of all models as the server sees it, for {labels.CONFIG}",
    )


def _add_rollback(commands):
    what = "makes an older version the newest again, as a new version"
    parser = _command(commands, "rollback", roll_back, what)
    parser.add_argument(
        "version", type=int, nargs="?", help="default: the one before the live one"
    )


def _add_label(commands):
    what = f"gives a label to a version, in {labels.CONFIG}, or takes it away"
    parser = _command(commands, "label", label, what)
    parser.add_argument("label", choices=labels.LABELS)
    parser.add_argument("version", help="its number, or none")
    _add_base_path(parser)


def _add_prune(commands):
    what = "deletes the oldest versions, never the newest one or one with a label"
    parser = _command(commands, "prune", prune, what)
    told = "so many stay"
    parser.add_argument("--keep", required=True, help=told, **arguments.WHOLE)
    parser.add_argument(
        "--grace",
        type=float,
        default=versions.GRACE_SECONDS,
        metavar="SECONDS",
        help="for servers that are still loading: since when a version must have been "
        "followed by another; default: %(default)g",
    )


def _add_signatures(commands):
    for name, job, what, key in (
        ("sign", sign, "signs a version", "private"),
        ("verify", verify, "verifies the signature of a version", "public"),
    ):
        parser = _command(commands, name, job, what)
        parser.add_argument(
            "--version", type=int, metavar="N", help="default: the newest"
        )
        parser.add_argument("--key", metavar="PEM", help=f"{key} key, elliptic curve")
        parser.add_argument(
            "--chain",
            nargs="+",
            default=[],
            metavar="PEM",
            help="certificates above the signer's, the root's last",
        )
        if name == "sign":
            parser.add_argument(
                "--certificate", metavar="PEM", help="the signer's, of --key"
            )


# === Jobs ===


def _folder(args):
    """Folder of the model that the arguments name."""
    folder = pathlib.Path(args.exports, args.name)
    own = pathlib.Path(args.name)
    return own if len(own.parts) > 1 and not folder.exists() else folder


def convert(args):
    """Writes TFLite files of a run, and what they are worth."""
    console.quiet_tensorflow()
    from lca_keras.workflow import phone
    from lca_keras.workflow.run import Run

    job = Run.load(args.run)
    folder = pathlib.Path(args.out or job.folder / "tflite")
    forms = list(dict.fromkeys(args.tflite))
    phone.convert(job, forms, folder, console.working)
    print((folder / phone.CARD).read_text(encoding="utf-8"))
    print(f"written to {folder}")


def show(args):
    """Prints the versions of one model or of all."""
    root = pathlib.Path(args.exports)
    if args.name:
        folders = [_folder(args)]
        versions.find_version(folders[0])  # Says what is wrong, if something is.
    else:
        folders = [path for path in sorted(root.glob("*")) if versions.versions(path)]
        if not folders:
            raise UserError(f"{root}: no exported models")
    for folder in folders:
        print(folder)
        names = {}
        for name, number in labels.labels_of(folder).items():
            names.setdefault(number, []).append(name)
        numbers = versions.versions(folder)
        for number in numbers:
            said = [*names.get(number, []), *_about(folder / str(number))]
            live = "live  " if number == numbers[-1] else ""
            print(f"  {number:>4}  {live}{', '.join(said)}")


def _about(folder):
    """What there is to say of a version, a list of strings."""
    history = versions.history_of(folder)
    said = []
    if "pushed" in history:
        said.append(f"pushed {history['pushed']} on {history.get('host')}")
    if "restored" in history:
        said.append(f"restored from {history['restored']}")
    try:
        f1 = files.read_json(folder / versions.METADATA)["metrics"]["test"]["song"][
            "f1"
        ]
        said.append(f"test songs F1 {f1:.3f}")
    except (OSError, ValueError, KeyError):
        pass
    try:
        said.append("whole" if integrity.check(folder) else "without sums")
    except UserError as error:
        said.append(f"NOT AS IT WAS: {error}")
    if (folder / integrity.SIGNATURE).exists():
        said.append("signed")
    return said


def push(args):
    """Pushes an export."""
    source = versions.find_version(args.source)
    if remote.is_remote(args.exports):
        if args.keep or args.canary or args.base_path:
            raise UserError(
                f"{args.exports}: versions of an object store are not pruned and have "
                "no labels here; leave out --keep, --canary and --base-path"
            )
        console.quiet_tensorflow()
        print(f"pushed to {remote.push(source, f'{args.exports}/{args.name}')}")
        return
    folder = pathlib.Path(args.exports, args.name)
    sums, before = integrity.read_sums(source), versions.versions(folder)
    pushed = versions.push(source, folder)
    if before and sums and sums == integrity.read_sums(folder / str(before[-1])):
        print(f"note: it is the same as version {before[-1]}")
    said = "canary" if args.canary else "stable"
    now = labels.follow(folder, int(pushed.name), said, args.base_path)
    print(f"pushed to {pushed}, {_labels(now)} in {folder.parent / labels.CONFIG}")
    if args.keep:
        _prune(folder, args.keep, versions.GRACE_SECONDS)


def roll_back(args):
    """Restores an older version."""
    folder = _folder(args)
    pushed, version = versions.roll_back(folder, args.version)
    # A trial ends with it: what was on trial may be what is taken back.
    now = labels.follow(folder, int(pushed.name))
    print(f"version {version} is live again, as {pushed}; {_labels(now)}")


def label(args):
    """Gives or takes a label."""
    if args.version != "none" and not args.version.isdecimal():
        raise UserError(f"{args.version!r}: a version's number, or none")
    version = None if args.version == "none" else int(args.version)
    folder = _folder(args)
    versions.find_version(folder, version)
    labels.assign(folder, args.label, version, args.base_path)
    print(_labels(labels.labels_of(folder)))


def _labels(assigned):
    said = [f"{name} is {number}" for name, number in sorted(assigned.items())]
    return ", ".join(said) or "no labels"


def prune(args):
    """Deletes old versions."""
    folder = _folder(args)
    versions.find_version(folder)
    _prune(folder, args.keep, args.grace)


def _prune(folder, keep, grace):
    labelled = labels.labels_of(folder).values()
    deleted, spared = versions.prune(folder, keep, labelled, grace)
    print(f"deleted {', '.join(map(str, deleted)) or 'none'}")
    for number in spared:
        why = f"it was live within the last {grace:g} s; --grace says how long"
        if number in labelled:
            why = "it has a label"
        print(f"kept {number}: {why}")


def sign(args):
    """Signs a version."""
    if not args.key:
        raise UserError("say which private key: --key FILE.pem")
    folder = versions.find_version(_folder(args), args.version)
    password = os.environ.get("LCA_KERAS_KEY_PASSWORD")
    integrity.sign(folder, args.key, password, args.certificate, args.chain)
    print(f"signed {folder}")


def verify(args):
    """Verifies a version's sums and, with a key or certificates, its signature."""
    if args.key and args.chain:
        raise UserError("--key and --chain exclude each other")
    folder = versions.find_version(_folder(args), args.version)
    if not args.key and not args.chain:
        if not integrity.check(folder):
            raise UserError(f"{folder} has no {integrity.SUMS}")
        signed = "was not checked: give --key PUBLIC.pem, or --chain CA.pem"
        if not (folder / integrity.SIGNATURE).exists():
            signed = "there is none"
        print(f"{folder}: whole by its sums; its signature: {signed}")
        return
    integrity.verify(folder, args.key, args.chain)
    print(f"{folder}: whole, and signed by that key or certificate")


if __name__ == "__main__":
    sys.exit(main())
