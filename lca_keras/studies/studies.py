"""Each experiment from its options to its result."""

import dataclasses
import functools
import os
import pathlib

import numpy as np

from lca_keras.audio import separation
from lca_keras.base import console, files, plots
from lca_keras.base.config import get_preset
from lca_keras.base.errors import UserError
from lca_keras.base.observer import Observer
from lca_keras.corpora import synthesis
from lca_keras.data import catalogue, split
from lca_keras.data.corpus import DataSource
from lca_keras.studies import confounding, noise, open_set, pictures, tables, variants
from lca_keras.studies.laboratory import Laboratory, configure
from lca_keras.studies.results import Picture, Result, check_settings
from lca_keras.studies.schedule import Crew, Plan
from lca_keras.studies.tables import Row
from lca_keras.workflow import records

# Trainings without strangers are compared with one that knows them.
_EVERYONE = "everyone"


def study(args, observer=None, helper=False):
    """Does an experiment, or helps the process that does it.

    Args:
        args: What the command line gave.
        observer: `lca_keras.base.observer.Observer`.
        helper: Whether to compute only what others have not taken.

    Returns:
        `Result`, or `None` of a helper.
    """
    console.quiet_tensorflow()
    log = pathlib.Path(args.out, "helpers.log")
    help_with = study, (args, None, True)
    with Crew(args.jobs, help_with, log, observer or Observer(), helper) as crew:
        return _STUDIES[args.name](args, crew)


def _base(args, stems=False):
    """The configuration that variants change; its features are of mixtures or stems."""
    own = getattr(args, "data", None) is not None
    config = get_preset(args.preset or ("paper" if own else "demo"))
    epochs = args.epochs or config.train.epochs
    warm_up = args.warmup_epochs
    warm_up = config.train.warmup_epochs if warm_up is None else warm_up
    if warm_up >= epochs:
        raise UserError(
            f"the warm-up ({warm_up} epochs) outlasts the training ({epochs}): the "
            "counterfactual's terms would never act. Choose a smaller --warmup-epochs "
            "or more --epochs"
        )
    features = {"source": "mixture", "separator": ""}
    if stems:
        features = {"source": "stems", "separator": _separator(args)[0]}
    train = {"epochs": args.epochs, "warmup_epochs": args.warmup_epochs}
    if not args.name.startswith("table"):
        train["clip_seconds"] = args.clip_seconds
    features["level"] = args.level
    return config.replace(features=features, augment={"kinds": ()}, train=train)


def _separator(args):
    """Identifier of the separator, and its folder if it is none that is known."""
    given = getattr(args, "separator", None)
    if given is None:
        return separation.DEFAULT, None
    folder = None if given in separation.PRETRAINED else given
    return separation.separator_id(given), folder


def _plan(laboratory, wanted):
    """`Plan` of configurations, by names that begin with the variant."""
    return Plan({name: (laboratory, name[0], each) for name, each in wanted.items()})


def _data(args, crew):
    """`DataSource` without separator, and the split file, of the corpus options."""
    if args.data is None:
        if args.tags or args.data_root:
            raise UserError("--tags and --data-root say how to read --data")
        with crew.observer.progress("Synthesising songs") as progress:
            folder = synthesis.write_built_in(progress)
        source = DataSource(data=str(folder / "manifest.csv"), features=args.features)
    else:
        where = {name: getattr(args, name) for name in ("data", "data_root", "tags")}
        built_in = os.path.isdir(args.data) and synthesis.own_split(args.data)
        if built_in and not getattr(args, "separator", None):
            # It says where the stems are.
            where["data"] = os.path.join(args.data, "manifest.csv")
        source = DataSource(**where, features=args.features)
    source.songs()  # A corpus that is none is said before anything else.
    own = synthesis.own_split(source.data)
    path = args.split_file or own
    if own and not args.split_file:
        crew.observer.note(f"split: the corpus's own, {own}")
    return source.absolute(), path and os.path.abspath(path)


def _settings(args, source, config, **more):
    """All that decides a result, for JSON."""
    return {
        "data": source.data,
        "config": config.to_dict(),
        "seeds": list(args.seeds),
        **more,
    }


def _result(args, settings, trained, **parts):
    out = pathlib.Path(args.out)
    runs = sorted({os.fspath(each.folder.relative_to(out)) for each in trained})
    about = {"command": args.command, "settings": settings, "runs": runs}
    config = next(iter(trained)).config
    return Result(
        name=args.name, environment=records.environment(config), **about, **parts
    )


# === Tables ===


def study_table(args, crew):
    """Tables 1 to 4 of the paper; a `Result`."""
    source, split_file = _data(args, crew)
    config = _base(args).replace(split={"file": split_file})
    lengths = args.clip_seconds or tables.default_lengths(args.name, config)
    vocals, notes = False, []
    if args.name == "table3":
        source, vocals, notes = _with_vocals(args, source, crew)
    headings, rows = tables.rows_of(args.name, tuple(lengths), vocals)
    wanted = tables.trainings(rows, config, args.seeds, _separator(args)[0])
    settings = _settings(args, source, config, clip_seconds=list(lengths))
    check_settings(args.out, args.name, settings)
    laboratory = Laboratory(args.out, source, crew.observer)
    trained = crew.train(_plan(laboratory, wanted))
    if crew.helper:
        return None
    made = tables.build(args.name, headings, rows, trained, args.seeds, args.published)
    if args.name == "table4":
        notes.append(_below(trained))
    return _result(
        args,
        settings,
        trained.values(),
        title=tables.TABLES[args.name],
        tables=[made],
        pictures=[],
        notes=notes,
    )


def _below(trained):
    """Whether the counterfactual stays below the main branch, a sentence."""
    gaps = {
        name: run.result["test"]["cf_song"]["f1"] - run.result["test"]["song"]["f1"]
        for name, run in trained.items()
    }
    kinds = {"below": 0, "level with": 0, "above": 0}
    for gap in gaps.values():
        kinds["below" if gap < 0 else "above" if gap > 0 else "level with"] += 1
    counts = ", ".join(f"{kind} it in {count}" for kind, count in kinds.items())
    return (
        "The counterfactual beside the main branch, F1 over songs of each of the "
        f"{len(gaps)} runs: {counts}."
    )


def _with_vocals(args, source, crew):
    """The corpus with its vocals, whether there are any, and notes."""
    songs = source.songs()
    if args.vocals:
        given = {
            (s.artist, s.album, s.song): s.path for s in catalogue.load(args.vocals)
        }
        missing = [s for s in songs if (s.artist, s.album, s.song) not in given]
        if missing:
            raise UserError(
                f"--vocals {args.vocals}: {len(missing)} of {len(songs)} songs are not "
                f"there by name, the first is {missing[0].label}"
            )
        path = pathlib.Path(args.out, "songs-with-vocals.csv").absolute()
        columns = ("path", "artist", "album", "song", "vocals_path")
        rows = [
            [s.path, s.artist, s.album, s.song, given[s.artist, s.album, s.song]]
            for s in songs
        ]
        files.write_csv(path, columns, rows)
        root = os.path.abspath(os.sep)
        listed = dataclasses.replace(source, data=str(path), data_root=root, tags=False)
        return listed, True, []
    if args.separator:
        return dataclasses.replace(source, separator=_separator(args)[1]), True, []
    if all(song.vocals_path for song in songs):
        return source, True, []
    note = (
        "Vocal-only audio is left out: the songs have no vocals_path. Give --vocals "
        "PATH, or --separator."
    )
    crew.observer.note(f"note: {note}")
    return source, False, [note]


def study_variants(args, crew):
    """Any ways to train, compared; a `Result`."""
    source, split_file = _data(args, crew)
    stems = _needs_stems(args, source)
    config = _base(args, stems).replace(split={"file": split_file})
    source = dataclasses.replace(source, separator=_separator(args)[1])
    against = args.against or args.variants[0]
    if against not in args.variants:
        raise UserError(f"--against {against}: not among --variants")
    seconds = config.train.clip_seconds
    rows = [Row((name,), name, seconds) for name in args.variants]
    wanted = tables.trainings(rows, config, args.seeds)
    settings = _settings(args, source, config, variants=args.variants, against=against)
    check_settings(args.out, args.name, settings)
    laboratory = Laboratory(args.out, source, crew.observer)
    trained = crew.train(_plan(laboratory, wanted))
    reports = {}
    if stems:
        heard = {
            name: variants.report_cell(laboratory, each)
            for name, each in trained.items()
            if each.config.features.source == "stems"
        }
        reports = crew.analyse("Listening", heard)
    if crew.helper:
        return None
    made = variants.table(trained, reports, args.variants, seconds, args.seeds, against)
    return _result(
        args,
        settings,
        trained.values(),
        title="Ways to train",
        tables=[made],
        pictures=[],
        notes=[],
    )


def _needs_stems(args, source):
    """Whether stems are used: where they are at hand, or asked for."""
    if args.separator or any("remix" in each.split("+") for each in args.variants):
        return True
    return all(song.vocals_path for song in source.songs())


# === Figures ===


def study_figure1(args, crew):
    """Noise on one artist's recordings; a `Result`."""
    out = pathlib.Path(args.out)
    songs, source, split_file = _five_artists(args, crew, out)
    artist = songs[0].artist if not args.artists else args.artists[0]
    _check_spectrograms(args)
    stems = bool(args.separator) or all(song.vocals_path for song in songs)
    chosen, notes = args.variants, []
    if chosen is None:
        chosen = [v for v in noise.VARIANTS if stems or "remix" not in v]
        if not stems:
            notes.append(
                "Remixing is left out: the songs have no vocals_path. Give --separator."
            )
    separator = _separator(args)[1]
    config = _base(args, stems).replace(split={"file": split_file})
    band = tuple(args.band)
    settings = _settings(
        args,
        source,
        config,
        variants=chosen,
        artist=artist,
        band=list(band),
        snr_db=args.snr_db,
    )
    check_settings(out, args.name, settings)
    root = pathlib.Path(os.path.commonpath([song.path.parent for song in songs]))
    about = (artist, band, args.snr_db)
    with (
        files.lock(_made(out) / ".noise.lock"),
        crew.observer.progress("Adding noise") as progress,
    ):
        made = noise.corpora(out, songs, root, split_file, *about, progress)
    notes += noise.clipping(made)

    def laboratory(manifest):
        there = dataclasses.replace(
            source, data=str(manifest), data_root=None, tags=False, separator=separator
        )
        return Laboratory(out, there.absolute(), crew.observer)

    clean = Laboratory(
        out, dataclasses.replace(source, separator=separator), crew.observer
    )
    biased, noised = laboratory(made["biased"]), laboratory(made["noised"])
    heard = {"as in training": biased, "clean": clean, "noised": noised}
    listening = noise.Listening(heard, artist, band)
    wanted = {
        (name, seed): configure(name, config).replace(train={"seed": seed})
        for seed in args.seeds
        for name in chosen
    }
    trained = crew.train(_plan(biased, wanted))
    found = crew.analyse(
        "Listening", {name: listening.cell(each) for name, each in trained.items()}
    )
    if crew.helper:
        return None
    centres = config.front_end.frequencies
    figures, shown, data = noise.draw(
        listening, trained, centres, config.least_seconds, args.seeds[0]
    )
    _save(out, figures, data)
    return _result(
        args,
        settings,
        trained.values(),
        title="Noise on one artist's recordings",
        tables=[noise.table(listening, trained, found, args.seeds)],
        pictures=shown,
        notes=[*notes, *noise.claims(found, args.seeds)],
    )


def _check_spectrograms(args):
    """Raises for networks that take more than spectrograms."""
    if any("crnnm" in name.split("+") for name in args.variants or ()):
        raise UserError(
            f"{args.name} has no crnnm: the melody would have to be tracked anew in "
            "every version of a song. Leave it out of --variants"
        )


def _made(out):
    """Folder of the corpora that an experiment makes."""
    folder = out / "corpora"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _five_artists(args, crew, out):
    """Songs of five artists, the `DataSource` that lists them, and the split file."""
    folder = _made(out)
    if args.data is None:
        with (
            files.lock(folder / ".clean.lock"),
            crew.observer.progress("Synthesising songs") as progress,
        ):
            manifest = noise.built_in(out, progress=progress)
        source = DataSource(data=str(manifest), features=args.features).absolute()
        songs = source.songs()
        if args.artists:
            known = sorted({song.artist for song in songs})
            if set(args.artists) != set(known):
                raise UserError(f"--artists: the built-in five are {', '.join(known)}")
        return songs, source, str(manifest.parent / "split.csv")
    source, split_file = _data(args, crew)
    songs = source.songs()
    count = {}
    for song in songs:
        count[song.artist] = count.get(song.artist, 0) + 1
    most = sorted(count, key=lambda name: (-count[name], name))[:5]
    names = args.artists or most
    unknown = sorted(set(names) - set(count))
    if unknown:
        raise UserError(f"--artists: no songs of {', '.join(unknown)}")
    if len(set(names)) < 2:
        raise UserError("figure 1 needs at least two artists, five as published")
    songs = sorted(
        (song for song in songs if song.artist in names),
        key=lambda song: (names.index(song.artist), song),
    )
    manifest = folder / "clean.csv"
    columns = ("path", "artist", "album", "song", "vocals_path")
    rows = [
        [song.path, song.artist, song.album, song.song, song.vocals_path or ""]
        for song in songs
    ]
    with files.lock(folder / ".clean.lock"):
        files.write_csv(manifest, columns, rows)
        if split_file is None:
            split_file = folder / "split.csv"
            parts = split.split_songs(songs, get_preset("paper").split, args.seeds[0])
            split.write_split(split_file, songs, parts)
    root = os.path.abspath(os.sep)
    source = dataclasses.replace(
        source, data=str(manifest), data_root=root, tags=False
    ).absolute()
    return songs, source, os.path.abspath(split_file)


def _save(out, figures, data):
    """Writes pictures and what they show."""
    for name, figure in figures.items():
        plots.save_figure(figure, out / name)
    for name, content in data.items():
        if isinstance(content, dict):
            with files.atomic_path(out / name) as temporary:
                np.savez_compressed(temporary, **content)
        else:
            files.write_csv(out / name, *content)


def study_figure4(args, crew):
    """Embeddings of the test clips, without LCA and with; a `Result`."""
    out = pathlib.Path(args.out)
    source, split_file = _data(args, crew)
    config = _base(args).replace(split={"file": split_file})
    settings = _settings(args, source, config)
    check_settings(out, args.name, settings)
    laboratory = Laboratory(out, source, crew.observer)
    names = {"none": "CRNN_FGNL", "lca": "CRNN_FGNL with LCA"}
    seconds = config.train.clip_seconds
    rows = [Row((title,), name, seconds) for name, title in names.items()]
    wanted = tables.trainings(rows, config, args.seeds)
    trained = crew.train(_plan(laboratory, wanted))
    if crew.helper:
        return None
    panels, data, apart = {}, [], {name: [] for name in names}
    for (name, _, seed), each in trained.items():
        apart[name].append(noise.silhouette(each.predictions))
        if seed == args.seeds[0]:
            predictions = each.predictions
            plane = pictures.embed_in_plane(predictions.outputs["embedding"])
            wrong = predictions.decide().winners != predictions.labels
            panels[names[name]] = (plane, predictions.labels, wrong)
            data += [
                [name, each.artists[label], int(ring), f"{x:.4f}", f"{y:.4f}"]
                for label, ring, (x, y) in zip(
                    predictions.labels, wrong, plane, strict=True
                )
            ]
    figure = pictures.planes(panels, each.artists, "named wrongly")
    columns = ["training", "artist", "named_wrongly", "x", "y"]
    _save(out, {"figure4.png": figure}, {"figure4.csv": (columns, data)})
    caption = (
        "Embeddings of test clips in the plane (t-SNE), without LCA and with; seed "
        f"{args.seeds[0]}"
    )
    notes = [
        f"Silhouette of the artists in the embedding, {names[name]}: "
        f"{tables.Plain(values).describe()} ({len(values)} seeds)."
        for name, values in apart.items()
    ]
    return _result(
        args,
        settings,
        trained.values(),
        title="Test clips in the plane",
        tables=[],
        pictures=[Picture("figure4.png", caption, "figure4.csv")],
        notes=notes,
    )


def study_confounding(args, crew):
    """Bands that tell the singer, more or less; a `Result`."""
    out = pathlib.Path(args.out)
    corpus = _changed(args, confounding.CORPUS)
    values = _values(args, confounding.VALUES)
    chosen = args.variants or list(confounding.VARIANTS)
    config, settings = _own_settings(args, corpus, values, chosen)
    laboratory = functools.partial(_laboratory, args, crew)
    made, tested = {}, {}
    with (
        files.lock(_made(out) / ".synthesis.lock"),
        crew.observer.progress("Synthesising songs") as progress,
    ):
        for value in values:
            made[value] = confounding.corpus_of(out, corpus, value, progress)
        for bands in confounding.BANDS:
            tested[bands] = confounding.corpus_with_bands(out, corpus, bands, progress)
    listening = confounding.Listening(
        {bands: laboratory(manifest) for bands, manifest in tested.items()}
    )
    trainings = {}
    laboratories = {value: laboratory(manifest) for value, manifest in made.items()}
    for seed in args.seeds:
        for value, manifest in made.items():
            own = {"file": os.path.abspath(manifest.parent / "split.csv")}
            for name in chosen:
                changed = configure(name, config).replace(
                    split=own, train={"seed": seed}
                )
                trainings[value, name, seed] = (laboratories[value], name, changed)
    trained = crew.train(Plan(trainings))
    found = crew.analyse(
        "Listening", {name: listening.cell(each) for name, each in trained.items()}
    )
    if crew.helper:
        return None
    scores = confounding.scores_by_bands(listening, trained, values, chosen, args.seeds)
    figure, picture, data = confounding.draw(scores)
    _save(out, {picture.file: figure}, {picture.data: data})
    return _result(
        args,
        settings,
        trained.values(),
        title="What turns a model to the voice",
        tables=[confounding.table(scores, trained, found, args.seeds)],
        pictures=[picture],
        notes=confounding.claims(scores, values),
    )


def study_openset(args, crew):
    """Singers who are not known; a `Result`."""
    out = pathlib.Path(args.out)
    corpus = _changed(args, open_set.CORPUS)
    values = _values(args, open_set.VALUES)
    if corpus.artists < open_set.STRANGERS + 3:
        raise UserError(
            f"--artists must be at least {open_set.STRANGERS + 3}: "
            f"{open_set.STRANGERS} are left out"
        )
    chosen = args.variants or list(open_set.VARIANTS)
    config, settings = _own_settings(args, corpus, values, chosen)
    laboratory = functools.partial(_laboratory, args, crew)
    whole, trainings = {}, {}
    with (
        files.lock(_made(out) / ".synthesis.lock"),
        crew.observer.progress("Synthesising songs") as progress,
    ):
        made = {
            value: confounding.corpus_of(out, corpus, value, progress)
            for value in values
        }
        for value, manifest in made.items():
            whole[value] = laboratory(manifest)
            for seed in args.seeds:
                strange = open_set.strangers_of(corpus, seed)
                known, own = open_set.known_of(manifest, seed, strange)
                everyone = manifest.parent / "split.csv"
                for name, laboratory_of, variant, path in (
                    (_EVERYONE, whole[value], chosen[0], everyone),
                    *((v, laboratory(known), v, own) for v in chosen),
                ):
                    changed = configure(variant, config).replace(
                        split={"file": os.path.abspath(path)}, train={"seed": seed}
                    )
                    trainings[value, name, seed] = (laboratory_of, variant, changed)
    trained = crew.train(Plan(trainings))
    listening = open_set.Listening(whole, corpus)
    found = crew.analyse(
        "Listening to strangers",
        {
            name: listening.cell(name, each, trained[name[0], _EVERYONE, name[2]])
            for name, each in trained.items()
            if name[1] != _EVERYONE
        },
    )
    if crew.helper:
        return None
    return _result(
        args,
        settings,
        trained.values(),
        title="Nobody of these, somebody new, and who sings when",
        tables=[
            open_set.table(found, args.seeds),
            open_set.table_of_scores(found, args.seeds),
        ],
        pictures=[],
        notes=[],
    )


def _own_settings(args, corpus, values, chosen):
    """Configuration and settings of an experiment that makes its own corpora.

    Raises:
        UserError: The folder has results of others.
    """
    _check_spectrograms(args)
    config = _base(args, stems=True)
    settings = {
        "corpus": dataclasses.asdict(corpus),
        "config": config.to_dict(),
        "seeds": list(args.seeds),
        "values": values,
        "variants": chosen,
    }
    check_settings(pathlib.Path(args.out), args.name, settings)
    return config, settings


def _laboratory(args, crew, manifest):
    """The `Laboratory` of a corpus with stems that an experiment has made."""
    source = DataSource(
        data=str(manifest), features=args.features, separator=_separator(args)[1]
    )
    return Laboratory(args.out, source.absolute(), crew.observer)


def _changed(args, corpus):
    """A `SynthesisConfig` with what the options of a built-in corpus say."""
    wanted = {
        name: getattr(args, name)
        for name in ("artists", "albums", "songs", "seconds", "voice_db")
        if getattr(args, name) is not None
    }
    return dataclasses.replace(corpus, **wanted)


def _values(args, usual):
    """The confoundings that are asked for."""
    values = args.values or list(usual)
    if not all(0 <= value <= 1 for value in values):
        raise UserError("--values are probabilities, 0 to 1")
    return values


_STUDIES = {
    **dict.fromkeys(tables.TABLES, study_table),
    "variants": study_variants,
    "figure1": study_figure1,
    "figure4": study_figure4,
    "confounding": study_confounding,
    "openset": study_openset,
}
