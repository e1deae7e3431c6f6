"""All experiments by name, and how one is done."""

import pathlib

from lca_keras.base.observer import Observer
from lca_keras.studies.schedule import Crew
from lca_keras.studies.subjects.confounding import Confounding
from lca_keras.studies.subjects.figure1 import Figure1
from lca_keras.studies.subjects.figure4 import Figure4
from lca_keras.studies.subjects.papers import TABLES, PaperTable
from lca_keras.studies.subjects.strangers import Strangers
from lca_keras.studies.subjects.variants import Variants

STUDIES = {
    **dict.fromkeys(TABLES, PaperTable),
    "variants": Variants,
    "figure1": Figure1,
    "figure4": Figure4,
    "confounding": Confounding,
    "strangers": Strangers,
}


def study(args, observer, helper=False):
    """Does an experiment, or helps the process that does it; `Result`, or `None`."""
    log = pathlib.Path(args.out, "helpers.log")
    help_with = (study, (args, Observer(), True))
    with Crew(args.jobs, help_with, log, observer, helper) as crew:
        return STUDIES[args.name](args, crew).result()
