"""All experiments by name, and how one is done."""

import pathlib

from lca_keras.base import console
from lca_keras.base.observer import Observer
from lca_keras.studies.schedule import Crew
from lca_keras.studies.subjects.confounding import Confounding
from lca_keras.studies.subjects.figure1 import Figure1
from lca_keras.studies.subjects.figure4 import Figure4
from lca_keras.studies.subjects.openset import OpenSet
from lca_keras.studies.subjects.papers import TABLES, PaperTable
from lca_keras.studies.subjects.variants import Variants

STUDIES = {
    **dict.fromkeys(TABLES, PaperTable),
    "variants": Variants,
    "figure1": Figure1,
    "figure4": Figure4,
    "confounding": Confounding,
    "openset": OpenSet,
}


def study(args, observer=None, helper=False):
    """Does an experiment, or helps the process that does it.

    Args:
        args: What the command line gave.
        observer: `lca_keras.base.observer.Observer`; silence by default.
        helper: Whether to compute only what others have not taken.

    Returns:
        `lca_keras.studies.results.Result`, or `None` of a helper.
    """
    console.quiet_tensorflow()
    log = pathlib.Path(args.out, "helpers.log")
    help_with = (study, (args, None, True))
    with Crew(args.jobs, help_with, log, observer or Observer(), helper) as crew:
        return STUDIES[args.name](args, crew).result()
