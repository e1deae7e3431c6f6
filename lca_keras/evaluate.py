"""Evaluates a trained run again: scores, tables, pictures.

`python -m lca_keras.evaluate --run RUN` evaluates the run's model on its own validation
and test songs, or on a corpus, `--data PATH`.
"""

import collections
import dataclasses
import hashlib
import os
import pathlib
import sys

from lca_keras.base import console, files
from lca_keras.base.errors import UserError
from lca_keras.terminal import arguments, screen


def main(argv=None):
    """Command line of evaluation."""
    parser = arguments.parser_of("lca_keras.evaluate", __doc__)
    add = parser.add_argument
    add("--run", required=True, help="run folder, such as runs/demo")
    arguments.add_corpus_options(parser)
    told = "where the run's own corpus, a folder or a manifest, is now"
    add("--moved-to", metavar="PATH", help=told)
    add("--out", help="folder for the results; default: the run's own")
    told = "also hear the songs in parts and remixed: does it follow the voice?"
    add("--voice-report", action="store_true", help=told)
    told = (
        "where the run's separator is now, or what is to make the stems for a voice "
        "report"
    )
    add("--separator", metavar="umxl|umxhq|FOLDER", help=told)
    return arguments.finish(parser, _evaluate, argv)


def _evaluate(args):
    console.quiet_tensorflow()
    from lca_keras.audio import separation
    from lca_keras.data import corpus
    from lca_keras.workflow import advice, judgement
    from lca_keras.workflow.run import Run

    watching, job = screen.Screen(), Run.load(args.run)
    model, artists = job.load_model()
    # Nothing is augmented here.
    config, source = job.config.replace(augment={"kinds": ()}), job.source
    if args.voice_report:
        judgement.check_voice_report(config)
    if args.data and args.moved_to:
        which = "--data is another corpus, --moved-to the run's own"
        raise UserError(f"{which}: they exclude each other")
    if args.data:
        own = arguments.corpus_source(args)
        source = dataclasses.replace(source, store=None, **own)
        if not args.voice_report:
            # Stems are not needed to name singers.
            config = config.replace(features=vars(config.served_features))
    elif args.moved_to:
        source = dataclasses.replace(source, data=args.moved_to, store=None)
        moved = dataclasses.replace(job, source=source)
    if args.separator:
        if config.features.source != "mixture":
            separation.check_same(args.separator, config.features.separator)
        source = dataclasses.replace(source, separator=args.separator)
    songs = screen.prepare_corpus(source, config)
    if args.data:
        parts = [pathlib.Path(args.data).resolve().name]
        known = [song for song in songs.songs if song.artist in artists]
        unknown = sorted({s.artist for s in songs.songs} - set(artists))
        if unknown and job.gallery is not None:
            _reject(job, model, songs, unknown, config)
            if not known:
                return
        elif unknown:
            print(f"left out, unknown to the model: {', '.join(unknown)}")
        if not known:
            raise UserError(f"{args.data}: no song of an artist that the model knows")
        part_of = {song.key: parts[0] for song in known}
        seen, note = corpus.learned_from(job.source, job.config, job.folder, songs)
        watching.notes([note] if note else [])
        _print_learned_from(seen, known)
        folder = pathlib.Path(args.out or own_folder(job.folder, args.data))
    else:
        parts = ["validation", "test"]
        division = corpus.divide(config, songs, job.folder)
        if args.moved_to:
            moved.save()  # Its songs are there.
        watching.notes(advice.of_new(division))
        part_of = division.part_of
        folder = pathlib.Path(args.out or job.folder)
    sources = corpus.clip_sources(songs, part_of, artists, config, parts)
    with watching.working("Evaluating"):
        found = judgement.evaluate(folder, model, sources, artists)
    watching.told("evaluate", {part: each.scores for part, each in found.items()})
    if args.voice_report:
        about = sources[parts[-1]], artists, source, config, songs.songs
        judgement.voice_report(folder, model, *about, watching)
    for part in parts:
        print(f"\nsongs of {part}, by artist:")
        print((folder / f"artists_{part}.txt").read_text(encoding="utf-8"))
    print(f"written to {folder}")


def _print_learned_from(seen, songs):
    """Says how many of some songs a model knows; `corpus.learned_from` found them."""
    parts = collections.Counter(seen[s.key] for s in songs if s.key in seen)
    if parts:
        counts = " and ".join(f"{n} by {part}" for part, n in sorted(parts.items()))
        print(
            f"note: the model knows {sum(parts.values())} of these {len(songs)} songs "
            f"({counts} of its run): scores on them say little. Without --data its "
            "test songs are evaluated, with --moved-to where they are now"
        )


def _reject(job, model, songs, names, config):
    """Prints what a run's model makes of songs by artists whom it does not know."""
    from lca_keras.data.clips import ClipSource
    from lca_keras.voices import strangers

    labels = {song.key: 0 for song in songs.songs if song.artist in names}
    clips = ClipSource(songs.store, labels, config.clip_frames, config.streams)
    with console.working("Listening to strangers"):
        heard = strangers.describe_clips(model.backbone, clips, job.gallery.detector)
        found = strangers.verdicts(job.gallery, heard, model.temperature)
    told = strangers.shares(found)
    shares = f"{told['unknown']:.1%} are called unknown, {told['no_voice']:.1%}"
    who = f"{told['songs']} songs by {', '.join(names)}"
    print(f"{who}, whom the model does not know: {shares} without voice")


def own_folder(run_folder, data):
    """Folder for the evaluation on a corpus, also where another one has its name."""
    path = pathlib.Path(data).resolve()
    folder = pathlib.Path(run_folder, f"evaluation-{path.name}")
    mark, told = "corpus.json", {"corpus": str(path)}
    own = (folder / mark).exists() and files.read_json(folder / mark) == told
    if folder.exists() and not own:
        tag = hashlib.sha256(os.fsencode(path)).hexdigest()[:6]
        folder = folder.with_name(f"{folder.name}-{tag}")
    folder.mkdir(exist_ok=True)
    files.write_json(folder / mark, told)
    return folder


if __name__ == "__main__":
    sys.exit(main())
