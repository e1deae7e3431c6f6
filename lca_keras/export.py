"""Lists, pushes, labels, rolls back, prunes, signs and verifies exported models."""

import argparse
import contextlib
import os
import pathlib
import sys

from lca_keras.base import console, files
from lca_keras.base.errors import UserError
from lca_keras.exports import integrity, labels, versions
from lca_keras.exports.tflite_file import FORMS
from lca_keras.terminal import arguments, screen


def main(argv=None):
    """Command line of exported models."""
    parser = arguments.parser_of("lca_keras.export", __doc__)
    group = parser.add_argument_group("TFLite files of a run, without a command")
    group.add_argument("--run", metavar="RUN", help="folder of a finished run")
    several = {"nargs": "+", "choices": FORMS, "metavar": "FORMAT"}
    group.add_argument("--tflite", help=f"some of {', '.join(FORMS)}", **several)
    group.add_argument("--out", metavar="FOLDER", help="default: RUN/tflite")
    parser.set_defaults(job=convert)
    _add_commands(parser.add_subparsers(dest="command", metavar="COMMAND"))

    def job(args):
        if (args.command is None) == (args.run is None):
            parser.error("give a command, or --run RUN and --tflite FORMAT …")
        if args.run is not None and not args.tflite:
            parser.error("--run needs --tflite FORMAT …")
        return args.job(args)

    return arguments.finish(parser, job, argv)


def _add_commands(commands):
    def command(name, job, nargs=None, more=""):
        parser = commands.add_parser(name, help=job.__doc__, description=job.__doc__)
        parser.set_defaults(job=job)
        add, told = parser.add_argument, f"of the model, or its folder{more}"
        add("name", metavar="NAME", nargs=nargs, help=told)
        told = "folder of exports"
        add("--exports", default="saved_models", metavar="FOLDER", help=told)
        # Without a default of its own, which would undo one before the command.
        hidden = {"action": "store_true", "default": argparse.SUPPRESS}
        add("--debug", help="show tracebacks", **hidden)
        return add

    told = f"of all models as the server sees it, for {labels.CONFIG}"
    of_labels = {"metavar": "FOLDER", "help": told}
    command("list", show, "?", "; default: all")
    add = command("push", push)
    told = "folder of a version, or of a model: its newest"
    add("source", metavar="EXPORT", help=told)
    add("--canary", action="store_true", help="label it canary instead of stable")
    add("--keep", help="prune to N versions", **arguments.WHOLE)
    add("--base-path", **of_labels)
    add = command("rollback", roll_back)
    told = "default: the one before the live one"
    add("version", type=int, nargs="?", help=told)
    add = command("label", label)
    add("label", choices=labels.LABELS)
    add("version", help="its number, or none")
    add("--base-path", **of_labels)
    add = command("prune", prune)
    add("--keep", required=True, help="so many stay", **arguments.WHOLE)
    told = (
        "for servers that are still loading: since when a version must have been "
        "followed by another; default: %(default)g"
    )
    seconds = {"type": float, "default": versions.GRACE_SECONDS, "metavar": "SECONDS"}
    add("--grace", help=told, **seconds)
    for name, job, key in (("sign", sign, "private"), ("verify", verify, "public")):
        add = command(name, job)
        add("--version", type=int, metavar="N", help="default: the newest")
        add("--key", metavar="PEM", help=f"{key} key, elliptic curve")
        told = "certificates above the signer's, the root's last"
        add("--chain", nargs="+", default=[], metavar="PEM", help=told)
        if name == "sign":
            add("--certificate", metavar="PEM", help="the signer's, of --key")


def _folder(args):
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
    phone.convert(job, dict.fromkeys(args.tflite), folder, screen.Screen())
    print((folder / phone.CARD).read_text(encoding="utf-8"))
    print(f"written to {folder}")


def show(args):
    """Lists versions, with labels, where they come from, and if they are whole."""
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
        assigned, numbers = labels.labels_of(folder), versions.versions(folder)
        for number in numbers:
            said = [name for name, labelled in assigned.items() if labelled == number]
            said += _about(folder / str(number))
            live = "live  " if number == numbers[-1] else ""
            print(f"  {number:>4}  {live}{', '.join(said)}")


def _about(folder):
    """What there is to say of a version, a list of strings."""
    history, said = versions.history_of(folder), []
    if "pushed" in history:
        said.append(f"pushed {history['pushed']} on {history.get('host')}")
    if "restored" in history:
        said.append(f"restored from {history['restored']}")
    with contextlib.suppress(OSError, ValueError, KeyError):
        test = files.read_json(folder / versions.METADATA)["metrics"]["test"]
        said.append(f"test songs F1 {test['song']['f1']:.3f}")
    try:
        integrity.check(folder)
        said.append("whole")
    except UserError as error:
        said.append(f"NOT AS IT WAS: {error}")
    if (folder / integrity.SIGNATURE).exists():
        said.append("signed")
    return said


def push(args):
    """Makes an export the next version of a model, whole or not at all."""
    source = versions.find_version(args.source)
    if "://" in args.exports:
        if args.keep or args.canary or args.base_path:
            raise UserError(
                f"{args.exports}: versions of an object store are not pruned and have "
                "no labels here; leave out --keep, --canary and --base-path"
            )
        console.quiet_tensorflow()
        address = f"{args.exports}/{args.name}"
        print(f"pushed to {versions.push_to_store(source, address)}")
        return
    folder = pathlib.Path(args.exports, args.name)
    before = versions.versions(folder)[-1:]
    pushed = versions.push(source, folder)
    with contextlib.suppress(UserError):  # The one before may not be whole.
        sums = integrity.read_sums(pushed)
        if before and sums == integrity.read_sums(folder / str(before[0])):
            print(f"note: it is the same as version {before[0]}")
    said = "canary" if args.canary else "stable"
    now = labels.follow(folder, int(pushed.name), said, args.base_path)
    print(f"pushed to {pushed}, {_labels(now)} in {folder.parent / labels.CONFIG}")
    if args.keep:
        _prune(folder, args.keep, versions.GRACE_SECONDS)


def roll_back(args):
    """Makes an older version the newest again, as a new version."""
    folder = _folder(args)
    pushed, version = versions.roll_back(folder, args.version)
    # A trial ends with it: what was on trial may be what is taken back.
    now = labels.follow(folder, int(pushed.name))
    print(f"version {version} is live again, as {pushed}; {_labels(now)}")


def label(args):
    """Gives a label to a version, in models.config, or takes it away."""
    if args.version != "none" and not args.version.isdecimal():
        raise UserError(f"{args.version!r}: a version's number, or none")
    version = None if args.version == "none" else int(args.version)
    print(_labels(labels.assign(_folder(args), args.label, version, args.base_path)))


def _labels(assigned):
    said = [f"{name} is {number}" for name, number in sorted(assigned.items())]
    return ", ".join(said) or "no labels"


def prune(args):
    """Deletes the oldest versions, never the newest one or one with a label."""
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
    """Signs a version, with the password of LCA_KERAS_KEY_PASSWORD if one is set."""
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
    if args.key or args.chain:
        integrity.verify(folder, args.key, args.chain)
        print(f"{folder}: whole, and signed by that key or certificate")
        return
    integrity.check(folder)
    signed = "there is none"
    if (folder / integrity.SIGNATURE).exists():
        signed = "was not checked: give --key PUBLIC.pem, or --chain CA.pem"
    print(f"{folder}: whole by its sums; its signature: {signed}")


if __name__ == "__main__":
    sys.exit(main())
