"""The pipeline as TFX's own components, for its orchestrators.

`python -m pipelines.tfx_pipeline --examples SPLITS --config FILE --name NAME --root TFX
--serving MODELS` runs it on this machine, in an environment with tfx 1.16. `create`
gives the same pipeline to the runners of Kubeflow and Vertex AI.
"""

import argparse
import json
import pathlib
import sys

from lca_keras.base.config import Config
from pipelines.tfx_examples import SPLITS

_MODULE = pathlib.Path(__file__).with_name("tfx_module.py")
# What statistics are of: text and numbers, not spectrograms.
_DESCRIBED = ("artist", "album", "song", "duration", "mel_shape", "feature_config")


def create(
    name,
    root,
    examples,
    serving,
    config,
    metadata=None,
    thresholds=(0.3, -0.02, 0.0, -0.5),
    trials=0,
    infra_image=None,
    cache=True,
):
    """The pipeline as a `tfx.v1.dsl.Pipeline`.

    Args:
        name: Name of the pipeline.
        root: Folder of its artefacts.
        examples: Folder with `train`, `eval` and `test`, as
            `pipelines.tfx_examples.write_splits` leaves it.
        serving: Folder of the pushed versions.
        config: Dict, `lca_keras.base.config.Config.to_dict()`.
        metadata: ML Metadata's connection; by default SQLite in `root`.
        thresholds: Four numbers: least accuracy over test songs, least change of it
            against the blessed model, and the same for every artist.
        trials: Int, trainings of Tuner; 0 leaves it out.
        infra_image: Image of TF Serving for InfraValidator, which needs Docker or
            Kubernetes; `None` leaves it out.
        cache: Whether components whose inputs have not changed are skipped.
    """
    import tensorflow_data_validation as tfdv
    from tfx import v1 as tfx

    proto, Split = tfx.proto, tfx.proto.Input.Split
    example_gen = tfx.components.ImportExampleGen(
        input_base=str(examples),
        input_config=proto.Input(
            splits=[Split(name=name, pattern=f"{name}/*") for name in SPLITS]
        ),
    )
    records = example_gen.outputs["examples"]
    statistics_gen = tfx.components.StatisticsGen(
        examples=records,
        stats_options=tfdv.StatsOptions(feature_allowlist=list(_DESCRIBED)),
    )
    schema_gen = tfx.components.SchemaGen(
        statistics=statistics_gen.outputs["statistics"], infer_feature_shape=True
    )
    validator = tfx.components.ExampleValidator(
        statistics=statistics_gen.outputs["statistics"],
        schema=schema_gen.outputs["schema"],
    )
    components = [example_gen, statistics_gen, schema_gen, validator]
    given = {
        "module_file": str(_MODULE),
        "examples": records,
        "train_args": proto.TrainArgs(splits=["train"]),
        "eval_args": proto.EvalArgs(splits=["eval"]),
        "custom_config": {"config": config, "trials": trials},
    }
    if trials:
        tuner = tfx.components.Tuner(**given)
        components.append(tuner)
        given["hyperparameters"] = tuner.outputs["best_hyperparameters"]
    trainer = tfx.components.Trainer(**given)
    model = trainer.outputs["model"]
    resolver = tfx.dsl.Resolver(
        strategy_class=tfx.dsl.experimental.LatestBlessedModelStrategy,
        model=tfx.dsl.Channel(type=tfx.types.standard_artifacts.Model),
        model_blessing=tfx.dsl.Channel(type=tfx.types.standard_artifacts.ModelBlessing),
    ).with_id("latest_blessed_model")
    evaluator = tfx.components.Evaluator(
        examples=records,
        example_splits=["test"],
        model=model,
        baseline_model=resolver.outputs["model"],
        eval_config=_eval_config(thresholds),
    )
    components += [trainer, resolver, evaluator]
    infra_blessing = None
    if infra_image:
        infra_validator = tfx.components.InfraValidator(
            model=model,
            examples=records,
            serving_spec=proto.ServingSpec(
                tensorflow_serving=proto.TensorFlowServing(tags=[infra_image]),
                local_docker=proto.LocalDockerConfig(),
            ),
            request_spec=proto.RequestSpec(
                tensorflow_serving=proto.TensorFlowServingRequestSpec(
                    signature_names=["examples"]
                ),
                num_examples=3,
            ),
        )
        components.append(infra_validator)
        infra_blessing = infra_validator.outputs["blessing"]
    components.append(
        tfx.components.Pusher(
            model=model,
            model_blessing=evaluator.outputs["blessing"],
            infra_blessing=infra_blessing,
            push_destination=proto.PushDestination(
                filesystem=proto.PushDestination.Filesystem(base_directory=str(serving))
            ),
        )
    )
    if metadata is None:
        path = str(pathlib.Path(root, "metadata.sqlite"))
        metadata = tfx.orchestration.metadata.sqlite_metadata_connection_config(path)
    return tfx.dsl.Pipeline(
        pipeline_name=name,
        pipeline_root=str(root),
        components=components,
        metadata_connection_config=metadata,
        enable_cache=cache,
    )


def _eval_config(thresholds):
    """Accuracy over all test songs and by artist, beside the blessed model."""
    import tensorflow_model_analysis as tfma
    from google.protobuf import json_format

    least, change, least_artist, change_artist = thresholds
    by_artist = {"feature_keys": ["artist"]}

    def bounds(of, lower, difference):
        better = {"direction": "HIGHER_IS_BETTER", "absolute": difference}
        return {
            "slicing_specs": [of],
            "threshold": {
                "value_threshold": {"lower_bound": lower},
                "change_threshold": better,
            },
        }

    accuracy = {
        "class_name": "CategoricalAccuracy",
        "config": '"name": "accuracy"',
        "per_slice_thresholds": [
            bounds({}, least, change),
            bounds(by_artist, least_artist, change_artist),
        ],
    }
    model = {
        "signature_name": "examples",
        "prediction_key": "decision",
        "label_key": "label",
        "preprocessing_function_names": ["labels"],
    }
    config = {
        "model_specs": [model],
        "slicing_specs": [{}, by_artist, {"feature_keys": ["album"]}],
        "metrics_specs": [{"metrics": [{"class_name": "ExampleCount"}, accuracy]}],
    }
    return json_format.ParseDict(config, tfma.EvalConfig())


def main(argv=None):
    """Command line: runs the pipeline under LocalDagRunner."""
    parser = argparse.ArgumentParser(
        prog="python -m pipelines.tfx_pipeline", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--examples", required=True, help="folder of split records")
    parser.add_argument("--config", required=True, help="YAML of the training")
    parser.add_argument("--name", required=True)
    parser.add_argument("--root", required=True, help="folder of TFX's artefacts")
    parser.add_argument("--serving", required=True, help="folder of pushed versions")
    parser.add_argument("--trials", type=int, default=0, help="of Tuner; default: 0")
    parser.add_argument("--thresholds", default="[0.3, -0.02, 0.0, -0.5]")
    args = parser.parse_args(argv)
    from tfx import v1 as tfx

    pipeline = create(
        args.name,
        args.root,
        args.examples,
        args.serving,
        Config.load(args.config).to_dict(),
        thresholds=json.loads(args.thresholds),
        trials=args.trials,
    )
    tfx.orchestration.LocalDagRunner().run(pipeline)


if __name__ == "__main__":
    sys.exit(main())
