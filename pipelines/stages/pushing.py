"""The pushed versions of a model: Pusher, and which models they are."""

import shutil

from lca_keras.base import files
from lca_keras.base.errors import UserError
from lca_keras.exports import integrity, labels, versions
from lca_keras.exports.card import model_card
from pipelines import artefacts
from pipelines.stages.training import candidate


def identity(export):
    """What tells two models apart: a digest of the files that compute."""
    computing = ("saved_model.pb", "variables/", "labels.txt")
    sums = integrity.read_sums(export).items()
    return artefacts.digest({n: v for n, v in sums if n.startswith(computing)})


def pushed_before(pipeline, export):
    """Folder of the newest pushed version that is another model, or `None`."""
    own, pushed = identity(export), _pushed(pipeline)
    return next((folder for folder in pushed if identity(folder) != own), None)


def _pushed(pipeline):
    """Folders of the versions, the newest one, which is live, first."""
    numbers = versions.versions(pipeline.model)
    return [pipeline.model / str(number) for number in reversed(numbers)]


def _live(pipeline):
    return next(iter(_pushed(pipeline)), None)


def pusher(pipeline, measured, trained, evaluated, tried):
    """Pushes the candidate, unless it was pushed already; an `Artefact`.

    The version's card carries the scores on the test songs. What was pushed once, and
    another version has followed, after a roll-back say, is not pushed again unasked.

    Raises:
        UserError: The candidate is not blessed, or cannot be served.
    """
    for artefact in (evaluated, tried):
        if not artefact.outcome["passed"]:
            live = _live(pipeline)
            raise UserError(
                f"not pushed, {f'{live} stays live' if live else 'nothing is'}. "
                f"{artefact.stage}: {artefact.outcome['verdict']}. See "
                f"{artefact.folder}"
            )
    export = candidate(pipeline, trained)
    # Not the evaluation: other test songs make no other model.
    settings = {"candidate": identity(export)}

    def make(folder):
        # A push that was killed after its rename has pushed all the same.
        pushed = _live(pipeline)
        if not pushed or identity(pushed) != settings["candidate"]:
            about = {"pipeline": pipeline.name, **settings}
            pushed = _push(pipeline, export, evaluated, about)
        number, verdict = int(pushed.name), f"pushed as {pushed}"
        label = "canary" if pipeline.settings.canary else "stable"
        labels.follow(pipeline.model, number, label)
        blessed = {"version": number, "statistics": measured.folder.name}
        files.write_json(pipeline.blessed, [*pipeline.blessings, blessed])
        if pipeline.settings.keep:
            spare = labels.labels_of(pipeline.model).values()
            found = versions.prune(pipeline.model, pipeline.settings.keep, spare)
            for done, numbers in zip(("deleted", "spared"), found, strict=True):
                if numbers:
                    verdict += f", {done} {', '.join(map(str, numbers))}"
        return {"verdict": verdict, "version": number}

    def lost(outcome):
        return None if _live(pipeline) else f"{pipeline.model} has no version"

    artefact = pipeline.artefact("Pusher", settings, make, lost=lost)
    live = _live(pipeline)
    if artefact.reused and int(live.name) != artefact.outcome["version"]:
        if identity(live) == settings["candidate"]:
            artefact.outcome["verdict"] = f"live as {live}"
        else:
            artefact.outcome["verdict"] += (
                f", NOT LIVE: {live} is, which has followed it. --from Pusher pushes "
                "it again"
            )
    return artefact


def _push(pipeline, export, evaluated, about):
    integrity.check(export)
    with versions.staging(pipeline.model) as temporary:
        shutil.copytree(export, temporary, dirs_exist_ok=True)
        metadata = files.read_json(temporary / versions.METADATA)
        outcome = evaluated.outcome
        metadata["metrics"]["test"] = outcome["scores"]
        metadata["evaluation"] = {
            name: outcome[name] for name in ("judgements", "baseline", "band_share")
        }
        files.write_json(temporary / versions.METADATA, metadata)
        card = model_card(metadata)
        (temporary / "model_card.md").write_text(card, encoding="utf-8")
        integrity.write_sums(temporary)
        return versions.publish(temporary, pipeline.model, about)
