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
        root: Folder of its artefacts.
        examples: Folder as `pipelines.tfx_examples.write_splits` leaves it.
        serving: Folder of the pushed versions.
        config: Dict, as of `Config.to_dict`.
        metadata: ML Metadata's connection; by default SQLite in `root`.
        thresholds: Least accuracy over test songs, least change of it against the
            blessed model, and the same for every artist.
        trials: Trainings of Tuner; 0 leaves it out.
        infra_image: Image of TF Serving for InfraValidator, which needs Docker or
            Kubernetes; `None` leaves it out.
        cache: Whether components whose inputs have not changed are skipped.
    """
    import tensorflow_data_validation as tfdv
    from tfx import v1 as tfx

    stages, proto, channel = tfx.components, tfx.proto, tfx.dsl.Channel
    kinds = tfx.types.standard_artifacts
    splits = [proto.Input.Split(name=name, pattern=f"{name}/*") for name in SPLITS]
    example_gen = stages.ImportExampleGen(
        input_base=str(examples), input_config=proto.Input(splits=splits)
    )
    records = example_gen.outputs["examples"]
    described = tfdv.StatsOptions(feature_allowlist=list(_DESCRIBED))
    statistics_gen = stages.StatisticsGen(examples=records, stats_options=described)
    statistics = statistics_gen.outputs["statistics"]
    schema_gen = stages.SchemaGen(statistics=statistics, infer_feature_shape=True)
    validator = stages.ExampleValidator(
        statistics=statistics, schema=schema_gen.outputs["schema"]
    )
    components = [example_gen, statistics_gen, schema_gen, validator]
    given = {
        "module_file": str(pathlib.Path(__file__).with_name("tfx_module.py")),
        "examples": records,
        "train_args": proto.TrainArgs(splits=["train"]),
        "eval_args": proto.EvalArgs(splits=["eval"]),
        "custom_config": {"config": config, "trials": trials},
    }
    if trials:
        tuner = stages.Tuner(**given)
        components.append(tuner)
        given["hyperparameters"] = tuner.outputs["best_hyperparameters"]
    trainer = stages.Trainer(**given)
    model = trainer.outputs["model"]
    resolver = tfx.dsl.Resolver(
        strategy_class=tfx.dsl.experimental.LatestBlessedModelStrategy,
        model=channel(type=kinds.Model),
        model_blessing=channel(type=kinds.ModelBlessing),
    ).with_id("latest_blessed_model")
    evaluator = stages.Evaluator(
        examples=records,
        example_splits=["test"],
        model=model,
        baseline_model=resolver.outputs["model"],
        eval_config=_eval_config(thresholds),
    )
    components += [trainer, resolver, evaluator]
    infra_blessing = None
    if infra_image:
        served = proto.TensorFlowServing(tags=[infra_image])
        asked = proto.TensorFlowServingRequestSpec(signature_names=["examples"])
        infra_validator = stages.InfraValidator(
            model=model,
            examples=records,
            serving_spec=proto.ServingSpec(
                tensorflow_serving=served, local_docker=proto.LocalDockerConfig()
            ),
            request_spec=proto.RequestSpec(tensorflow_serving=asked, num_examples=3),
        )
        components.append(infra_validator)
        infra_blessing = infra_validator.outputs["blessing"]
    place = proto.PushDestination.Filesystem(base_directory=str(serving))
    pusher = stages.Pusher(
        model=model,
        model_blessing=evaluator.outputs["blessing"],
        infra_blessing=infra_blessing,
        push_destination=proto.PushDestination(filesystem=place),
    )
    if metadata is None:
        path = str(pathlib.Path(root, "metadata.sqlite"))
        metadata = tfx.orchestration.metadata.sqlite_metadata_connection_config(path)
    return tfx.dsl.Pipeline(
        pipeline_name=name,
        pipeline_root=str(root),
        components=[*components, pusher],
        metadata_connection_config=metadata,
        enable_cache=cache,
    )


def _eval_config(thresholds):
    """Accuracy over all test songs and by artist, beside the blessed model."""
    import tensorflow_model_analysis as tfma
    from google.protobuf import json_format

    by_artist = {"feature_keys": ["artist"]}

    def bounds(of, lower, difference):
        better = {"direction": "HIGHER_IS_BETTER", "absolute": difference}
        limits = {"value_threshold": {"lower_bound": lower}, "change_threshold": better}
        return {"slicing_specs": [of], "threshold": limits}

    accuracy = {
        "class_name": "CategoricalAccuracy",
        "config": '"name": "accuracy"',
        "per_slice_thresholds": [
            bounds({}, *thresholds[:2]),
            bounds(by_artist, *thresholds[2:]),
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

    where = args.name, args.root, args.examples, args.serving
    config, thresholds = Config.load(args.config), json.loads(args.thresholds)
    pipeline = create(
        *where, config.to_dict(), thresholds=thresholds, trials=args.trials
    )
    tfx.orchestration.LocalDagRunner().run(pipeline)


if __name__ == "__main__":
    sys.exit(main())
