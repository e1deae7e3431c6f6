"""The model card: what an exported model is and how well it does, for people."""

import json

from lca_keras.base import registry
from lca_keras.drawing import markdown
from lca_keras.evaluation.voice_report import HEARINGS, followed, verdict

_NAMED = "A recording of anybody else is given one of these names too."
_UNKNOWN = "A recording of anybody else is to be called unknown: see below."


def _list(items):
    return "\n".join(f"- {item}" for item in items)


def _facts(metadata):
    """What was trained on what, in a list."""
    config = metadata["config"]
    features, kinds = config["features"], config["augment"]["kinds"]
    heard = "the song"
    if features["source"] == "vocals":
        heard = f"the song's vocals alone (separator `{features['separator']}`)"
    if "melody" in registry.NETWORKS[config["model"]["name"]].streams:
        heard += f" and its melody (`{features['melody']}`)"
    augmented = f", clips augmented by {' and '.join(kinds)}" if kinds else ""
    return _list(
        [
            f"Network: `{config['model']['name']}`, {metadata['parameters']:,} "
            f"parameters, trained with method `{config['train']['method']}`{augmented}",
            f"Input: {heard}, mono at {metadata['sample_rate']} Hz, at "
            f"least {metadata['clip_seconds']:.2f} s",
            f"Softmax temperature: {metadata['temperature']:.3f}, fitted on "
            "validation clips",
            f"Split: by {config['split']['kind']}",
        ]
    )


def _scores(test):
    """Blocks on how often it is right."""
    kinds, titles = ("f1", "f1_macro", "accuracy"), {"frame": "clips", "song": "songs"}
    yield "## Scores on the held-out test songs"
    yield markdown.table(
        ["level", "scored", "F1 (weighted)", "F1 (macro)", "accuracy"],
        [
            [level, f"{test[level]['count']} {title}"]
            + [f"{test[level][kind]:.3f}" for kind in kinds]
            for level, title in titles.items()
            if level in test
        ],
    )
    if "calibration_error_before" in test:
        yield (
            "Expected calibration error on test clips: "
            f"{test['calibration_error_before']:.3f} before, "
            f"{test['calibration_error_after']:.3f} after the temperature."
        )


def named(strangers):
    """Who the strangers were by whom a gallery was measured, `strangers` of results."""
    if strangers.get("given"):
        return "strangers"
    epochs, names = strangers["epochs"], ", ".join(strangers["artists"])
    return f"{names}, whom a side training of {epochs} epochs left out"


def _nobody(gallery, told):
    """Blocks on when a song is by nobody of the singers, and how well that is known."""
    yield "## Songs by nobody of these"
    yield (
        "A song is `unknown` if its voiceprint is less similar to every singer's than "
        f"{gallery['threshold']:.3f} (a cosine), which is to reject "
        f"{gallery['false_alarm']:.0%} of songs by known singers."
    )
    known, strange = [], told.get("strangers")
    if "test" in told:
        test = told["test"]
        known = [
            f"Of {test['songs']} held-out test songs by known singers "
            f"{test['unknown']:.1%} are called unknown, {test['no_voice']:.1%} without "
            "voice."
        ]
    if strange:
        said = (
            f"Of {strange['songs']} songs by {named(strange)}: "
            f"{strange['unknown']:.1%} are called unknown; AUROC "
            f"{strange['auroc_songs']:.3f} over songs, "
            f"{strange['auroc_clips']:.3f} over clips."
        )
        yield _list([*known, said])
        yield markdown.table(
            ["known songs rejected", "strangers' songs rejected"],
            [
                [f"{row['known']:.0%}", f"{row['strange']:.1%}"]
                for row in strange["trade_off"]
            ],
        )
    else:
        yield _list([*known, "What it makes of strangers was not measured."])
    if told:
        detector = told["detector"]
        yield (
            f"Clips without voice have no vote. What tells them was taught with "
            f"{detector['heard']}: right on {detector['voice']:.1%} of validation "
            f"clips with a voice, {detector['no_voice']:.1%} without."
        )
    if gallery["enrolled"]:
        yield from ("Enrolled without training:", _list(gallery["enrolled"]))


def _hearings(scores):
    """Blocks on what it makes of the test songs' parts."""
    yield "## What it listens to"
    yield (
        "F1 on the test songs; right is the singer, or, where it says so, the artist "
        "whose band plays."
    )
    yield markdown.table(
        ["heard", "clips", "songs"],
        [
            [heard, *(f"{scores[name][level]:.3f}" for level in ("frame", "song"))]
            for name, heard in HEARINGS.items()
        ],
    )


def model_card(metadata):
    """An exported model for people, in Markdown, from what `lca_keras.json` has."""
    metrics, gallery = metadata["metrics"], metadata["gallery"]
    artists, report = metadata["artists"], metrics.get("voice_report")
    blocks = [f"# {metadata['name']}"]
    if report:
        said = verdict(report["shares"])
        if followed(report["shares"]) != "voice":
            said = f"**Mind what it listens to. {said}**"
        blocks.append(said)
    blocks += [
        f"Identifies the singer of a song among {len(artists)} known ones. "
        f"{_UNKNOWN if gallery else _NAMED}",
        _facts(metadata),
        *_scores(metrics.get("test", {})),
    ]
    if gallery:
        blocks += _nobody(gallery, metrics.get("gallery") or {})
    if report:
        blocks += _hearings(report["scores"])
    settings = json.dumps(metadata["config"], indent=2, ensure_ascii=False)
    blocks += ["## Artists", _list(artists)]
    blocks += ["## Configuration", f"```json\n{settings}\n```"]
    return "\n\n".join(blocks) + "\n"
