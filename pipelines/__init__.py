"""Beam pipelines for corpora of any size, and the stages up to a pushed model."""

# As TFX names them, in their order.
STAGES = (
    "ExampleGen",
    "StatisticsGen",
    "ExampleValidator",
    "Tuner",
    "Trainer",
    "Evaluator",
    "InfraValidator",
    "Pusher",
)
