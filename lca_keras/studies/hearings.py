"""Songs heard in several ways by one training: with a noise and without, say."""

import numpy as np

from lca_keras.evaluation import scoring
from lca_keras.explanation import saliency
from lca_keras.studies.laboratory import contents, load_predictions, save_predictions
from lca_keras.studies.scores import scores_of


class Hearings:
    """What trainings make of test songs in several versions.

    A subclass has `measure`, of a `Trained`: what there is to know beside the
    predictions, a dict for JSON. It lies in the folder `place` of a run's folder.
    `laboratories` has, by a version's name, a `Laboratory` with such test songs;
    `about` is what else decides the results.
    """

    def __init__(self, place, laboratories, **about):
        self.place, self.laboratories, self._about = place, laboratories, about

    def cell(self, trained):
        """The arguments of `lca_keras.workflow.cells.cell` for a `Trained`."""
        names = self.laboratories
        songs = {name: contents(self.source(name, trained)) for name in names}
        settings = {"training": trained.result, **self._about, "songs": songs}
        return trained.folder / self.place, settings, lambda: self.measure(trained)

    def source(self, name, trained):
        """`lca_keras.data.clips.ClipSource` of a version of the test songs."""
        return self.laboratories[name].tested(trained.config, trained.artists)

    def clips(self, name, trained):
        """Array `(clips, mel_bins, frames, channels)` of a version of the songs."""
        ordered = self.source(name, trained).ordered(64)
        return np.concatenate([mel for mel, _ in ordered])

    def predict(self, model, trained):
        """Stores what a model predicts of every version; a dict of it by name."""
        heard = {}
        for name in self.laboratories:
            heard[name] = scoring.Predictor(self.source(name, trained))(model)
            path = trained.folder / self.place / f"{name}.npz"
            save_predictions(path, heard[name])
        return heard

    def predictions(self, trained, name):
        """The `ClipPredictions` of a version of the songs, as stored."""
        return load_predictions(trained.folder / self.place / f"{name}.npz")

    def scores(self, runs):
        """Dict from version to the scores of `Trained` of several seeds."""
        return {
            name: scores_of([self.predictions(run, name).decide() for run in runs])
            for name in self.laboratories
        }


# Where the networks of these experiments have maps, the last ones last.
LAYERS = ("convolution", "fgnl")


def activations(network, clips, classes):
    """Maps of a network's class activation by each layer that has one, the last last.

    Clips are `(clips, mel_bins, frames, channels)`, classes `(clips,)`, and the maps
    `(clips, mel_bins, frames)`.
    """
    maps = {}
    for layer in network.map_layers():
        cams = saliency.ClassActivation(network, layer)(clips, classes)
        maps[layer] = saliency.upsample(cams, *clips.shape[1:3])
    return maps


def shares_on(maps, cells):
    """How much of class activations lies on some cells, bool, that broadcast to them.

    By layer: the mean share over the clips that have a map (NaN if there are none), and
    the share of clips whose map is zero everywhere.
    """
    means, empty = {}, {}
    for layer, cams in maps.items():
        shares = saliency.share(cams, cells)
        none = np.isnan(shares)
        means[layer] = float(np.mean(shares[~none]) if any(~none) else np.nan)
        empty[layer] = float(none.mean())
    return means, empty


def without_map(found):
    """A sentence about the clips that results `found` leave out of a CAM's mean."""
    most = max((max(each["without_map"].values()) for each in found), default=0.0)
    if not most:
        return "Every clip has a map."
    return (
        "Clips whose map is zero everywhere (nothing in them speaks for the artist) "
        f"are left out of a CAM's mean: at most {most:.1%} of those of a seed."
    )


def silhouette(predictions):
    """How artists' clips keep apart in the embedding, in [-1, 1] (Rousseeuw, 1987)."""
    from sklearn.metrics import silhouette_score

    embeddings, labels = predictions.outputs["embedding"], predictions.labels
    return float(silhouette_score(embeddings, labels))
