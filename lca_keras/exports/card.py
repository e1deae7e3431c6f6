"""The model card: what an exported model is and how well it does, for people."""

import json

from lca_keras.evaluation.voice_report import HEARINGS, followed, verdict


def _heard(config):
    """What a model listens to, in words."""
    features = config["features"]
    heard = "the song"
    if features["source"] == "vocals":
        heard = f"the song's vocals alone (separator `{features['separator']}`)"
    if config["model"]["name"] == "crnnm":
        heard += f" and its melody (`{features['melody']}`)"
    return heard


def _augmented(config):
    """What was done to training clips, in words."""
    kinds = config["augment"]["kinds"]
    return f", clips augmented by {' and '.join(kinds)}" if kinds else ""


def _listens_to(metrics):
    """First lines of the card: whether the model follows the voice."""
    report = metrics.get("voice_report")
    if not report:
        return []
    said = verdict(report["shares"])
    if followed(report["shares"]) != "voice":
        said = f"**Mind what it listens to. {said}**"
    return [said, ""]


def _calibration(test):
    """How far probabilities are from how often they are right."""
    if "calibration_error_before" not in test:
        return []
    return [
        "Expected calibration error on test clips: "
        f"{test['calibration_error_before']:.3f} before, "
        f"{test['calibration_error_after']:.3f} after the temperature.",
        "",
    ]


def _hearings(metrics):
    """A table of what it makes of the test songs' parts."""
    report = metrics.get("voice_report")
    if not report:
        return []
    rows = [
        f"| {heard} | {report['scores'][name]['frame']:.3f} | "
        f"{report['scores'][name]['song']:.3f} |"
        for name, heard in HEARINGS.items()
    ]
    return [
        "## What it listens to",
        "",
        "F1 on the test songs; right is the singer, or, where it says so, the artist "
        "whose band plays.",
        "",
        "| heard | clips | songs |",
        "| --- | --- | --- |",
        *rows,
        "",
    ]


def _anybody(metadata):
    """What happens to recordings of others."""
    if metadata.get("gallery"):
        return "A recording of anybody else is to be called unknown: see below."
    return "A recording of anybody else is given one of these names too."


def _nobody(metadata):
    """When a song is by nobody of the singers, and how well that is known."""
    if not metadata.get("gallery"):
        return []
    gallery = metadata["gallery"]
    lines = [
        "## Songs by nobody of these",
        "",
        "A song is `unknown` if its voiceprint is less similar to every singer's than "
        f"{gallery['threshold']:.3f} (a cosine), which is to reject "
        f"{gallery['false_alarm']:.0%} of songs by known singers.",
        "",
    ]
    told = metadata["metrics"].get("open_set") or {}
    if "test" in told:
        test = told["test"]
        lines.append(
            f"- Of {test['songs']} held-out test songs by known singers "
            f"{test['unknown']:.1%} are called unknown, {test['no_voice']:.1%} without "
            "voice."
        )
    strange = told.get("strangers")
    if strange:
        who = "strangers"
        if not strange.get("given"):
            names, epochs = ", ".join(strange["artists"]), strange["epochs"]
            who = f"{names}, whom a side training of {epochs} epochs left out"
        lines.append(
            f"- Of {strange['songs']} songs by {who}: {strange['unknown']:.1%} are "
            f"called unknown; AUROC {strange['auroc_songs']:.3f} over songs, "
            f"{strange['auroc_clips']:.3f} over clips."
        )
        rows = [
            f"| {row['known']:.0%} | {row['strange']:.1%} |"
            for row in strange["trade_off"]
        ]
        lines += [
            "",
            "| known songs rejected | strangers' songs rejected |",
            "| --- | --- |",
            *rows,
        ]
    else:
        lines.append("- What it makes of strangers was not measured.")
    if told:
        detector = told["detector"]
        lines += [
            "",
            f"Clips without voice have no vote. What tells them was taught with "
            f"{detector['heard']}: right on {detector['voice']:.1%} of validation "
            f"clips with a voice, {detector['no_voice']:.1%} without.",
        ]
    if gallery["enrolled"]:
        lines += ["", "Enrolled without training:", ""]
        lines += [f"- {singer}" for singer in gallery["enrolled"]]
    return [*lines, ""]


def model_card(metadata):
    """Describes an exported model for people.

    Args:
        metadata: Dict, as written to `lca_keras.json`.

    Returns:
        Markdown text.
    """
    test = metadata["metrics"].get("test", {})
    rows = []
    for level, title in (("frame", "clips"), ("song", "songs")):
        if level in test:
            scores = test[level]
            rows.append(
                f"| {level} | {scores['count']} {title} | {scores['f1']:.3f} | "
                f"{scores['f1_macro']:.3f} | {scores['accuracy']:.3f} |"
            )
    config = metadata["config"]
    return "\n".join(
        [
            f"# {metadata['name']}",
            "",
            *_listens_to(metadata["metrics"]),
            "Identifies the singer of a song among "
            f"{len(metadata['artists'])} known ones. {_anybody(metadata)}",
            "",
            f"- Network: `{config['model']['name']}`, {metadata['parameters']:,} "
            f"parameters, trained with method `{config['train']['method']}`"
            f"{_augmented(config)}",
            f"- Input: {_heard(config)}, mono at {metadata['sample_rate']} Hz, at "
            f"least {metadata['clip_seconds']:.2f} s",
            f"- Softmax temperature: {metadata['temperature']:.3f}, fitted on "
            "validation clips",
            f"- Split: by {config['split']['kind']}",
            "",
            "## Scores on the held-out test songs",
            "",
            "| level | scored | F1 (weighted) | F1 (macro) | accuracy |",
            "| --- | --- | --- | --- | --- |",
            *rows,
            "",
            *_calibration(test),
            *_nobody(metadata),
            *_hearings(metadata["metrics"]),
            "## Artists",
            "",
            *(f"- {artist}" for artist in metadata["artists"]),
            "",
            "## Configuration",
            "",
            "```json",
            json.dumps(config, indent=2, ensure_ascii=False),
            "```",
            "",
        ]
    )
