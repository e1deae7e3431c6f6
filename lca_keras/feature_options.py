"""Command line options that say which features are wanted."""

from lca_keras.config import MELODIES, SOURCES
from lca_keras.console import UserError

_DEFAULT_SEPARATOR = "umxl"


def add_feature_options(parser):
    """Adds `--source`, `--separator` and `--melody`.

    Args:
        parser: `argparse.ArgumentParser`, or a group of one.
    """
    parser.add_argument(
        "--source", choices=SOURCES, help="what is heard; default: mixture"
    )
    parser.add_argument(
        "--separator",
        metavar="umxl|umxhq|FOLDER",
        help="Open-Unmix model for --source vocals, where the manifest has no "
        "vocals_path; default: umxl",
    )
    parser.add_argument(
        "--melody", choices=MELODIES, help="tracker of the melody; default: none"
    )


def resolve(args, features):
    """Turns the options into fields of a `FeatureConfig`.

    Args:
        args: `argparse.Namespace` with `source`, `separator` and `melody`.
        features: `lca_keras.config.FeatureConfig` that the options change.

    Returns:
        Tuple of a dict of fields and the separator's folder, or `None`.

    Raises:
        UserError: A separator without `--source vocals`, or one that is not there.
    """
    source = args.source or features.source
    if source != "vocals":
        if args.separator:
            raise UserError("--separator is for --source vocals")
        return {"source": source, "separator": "", "melody": args.melody}, None
    fields = {"source": source, "melody": args.melody}
    if not args.separator:
        fields["separator"] = features.separator or _DEFAULT_SEPARATOR
        return fields, None
    from lca_keras.audio import separation

    fields["separator"] = separation.identify(args.separator)
    local = args.separator not in separation.PRETRAINED
    return fields, args.separator if local else None
