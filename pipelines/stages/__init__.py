"""The stages of a pipeline: functions from artefacts to an artefact.

ExampleGen -> StatisticsGen -> ExampleValidator -> Tuner -> Trainer -> Evaluator ->
InfraValidator -> Pusher, as TFX names them. Each takes what it depends on, and its
settings name just that: of the songs a training depends on those of its parts, and
an evaluation on the test songs.
"""

from pipelines.stages.examples import example_gen, example_validator, statistics_gen
from pipelines.stages.judging import evaluator, infra_validator
from pipelines.stages.pushing import pusher
from pipelines.stages.training import trainer, training_run, tuner

__all__ = [
    "evaluator",
    "example_gen",
    "example_validator",
    "infra_validator",
    "pusher",
    "statistics_gen",
    "trainer",
    "training_run",
    "tuner",
]
