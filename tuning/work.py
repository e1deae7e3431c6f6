"""One process's work in a search: trial after trial until there are none left."""

from tuning import heartbeat, study
from tuning.trials import Trainer, run_trial


def run_trials(folder, sources, num_classes, worker, callbacks_of, on_event=None):
    """Runs the trials of a search that nobody else runs.

    Args:
        folder: Folder of the search, opened by `tuning.study.open_folder`.
        sources: Dict from `"train"` and `"validation"` to
            `lca_keras.data.clips.ClipSource`.
        num_classes: Int, number of artists.
        worker: Name of this process among others.
        callbacks_of: Function of a trial's id and a seed to Keras callbacks.
        on_event: Optional function for `tuning.study.Study`.

    Raises:
        UserError: Several trials failed in a row.
    """
    search = study.Search.load(folder)
    trainer = Trainer(folder, sources, num_classes)
    with heartbeat.beating(folder / "workers", worker):
        part = study.Study(folder, worker, on_event)
        while (trial := part.ask()) is not None:
            score, reason = run_trial(
                folder,
                search,
                trainer,
                trial.trial_id,
                trial.hyperparameters.values,
                lambda seed, trial=trial.trial_id: callbacks_of(trial, seed),
            )
            part.tell(trial, score, reason)
