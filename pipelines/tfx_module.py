"""What TFX calls: `run_fn` of its Trainer, `tuner_fn` of its Tuner.

Use this file as `module_file`. Both take TFX's `FnArgs`: records of a feature store
(`pipelines.tfx_examples`), and as `custom_config["config"]` what
`lca_keras.base.config.Config.to_dict` gives.
"""

import pathlib
import shutil
import tempfile

import keras
import keras_tuner

from lca_keras.base.config import Config
from lca_keras.data import corpus
from lca_keras.data.corpus import DataSource
from lca_keras.models.factory import build_training_model
from lca_keras.workflow import course, training
from lca_keras.workflow.run import Run
from pipelines.tfx_examples import read_splits
from tuning import space as spaces


def run_fn(fn_args):
    """Trains, with what the Tuner has found, calibrates, exports the SavedModel."""
    config = Config.from_dict(fn_args.custom_config["config"])
    if values := fn_args.hyperparameters:
        config = spaces.apply(values.get("values", values), config)
    root = pathlib.Path(fn_args.model_run_dir)
    songs, part_of, sources, artists = _data(fn_args, config, root)
    job = Run(
        folder=root / "singer",
        config=config,
        source=DataSource(store=str(songs.store.folder)),
        exports=str(root / "exports"),
    )
    division = corpus.Division(part_of, artists, None, [], [])
    way = course.Course(job, songs, division, sources)
    result = job.complete(course.WITHOUT_TEST, course=way)
    shutil.copytree(result.export, fn_args.serving_model_dir, dirs_exist_ok=True)


def tuner_fn(fn_args):
    """Searches the loss weights for validation F1; `custom_config` has `"trials"`."""
    from tfx.components.tuner.component import TunerFnResult

    config = Config.from_dict(fn_args.custom_config["config"])
    folder = pathlib.Path(fn_args.working_dir)
    _, _, sources, artists = _data(fn_args, config, folder)
    tuner = keras_tuner.BayesianOptimization(
        LossWeightSearch(config, sources, len(artists)),
        objective=keras_tuner.Objective("val_f1", "max"),
        max_trials=int(fn_args.custom_config["trials"]),
        seed=config.train.seed,
        hyperparameters=spaces.hyperparameters(spaces.load_space(None)),
        tune_new_entries=False,
        directory=str(folder),
        project_name="loss_weights",
    )
    return TunerFnResult(tuner=tuner, fit_kwargs={})


class LossWeightSearch(keras_tuner.HyperModel):
    """A trial of the search: trains with some loss weights; `config` says the rest."""

    def __init__(self, config, sources, num_classes):
        super().__init__()
        self.config = config
        self.material = sources, num_classes

    def build(self, hp):
        """Builds the model of a trial."""
        keras.utils.set_random_seed(self.config.train.seed)
        _, num_classes = self.material
        return build_training_model(spaces.apply(hp.values, self.config), num_classes)

    def fit(self, hp, model, callbacks=(), **kwargs):
        """Trains it; returns the best epoch's F1 of validation clips."""
        config = spaces.apply(hp.values, self.config)
        with tempfile.TemporaryDirectory() as folder:
            state = training.train(
                config, *self.material, folder, callbacks, lambda *_: model
            )
        return max(logs["val_f1"] for logs in state.history)


def _data(fn_args, config, folder):
    """Corpus, part of each song, clips by part, artists."""
    patterns = {"train": fn_args.train_files, "eval": fn_args.eval_files}
    songs, part_of = read_splits(patterns, config.features, folder / "store")
    artists = sorted({song.artist for song in songs.songs})
    parts = ("train", "validation")
    sources = corpus.clip_sources(songs, part_of, artists, config, parts)
    return songs, part_of, sources, artists
