"""Test clips in the plane by their embeddings, without LCA and with."""

from lca_keras.studies import hearings, pictures, scores
from lca_keras.studies.results import Picture
from lca_keras.studies.study import Study

_NAMES = {"none": "CRNN_FGNL", "lca": "CRNN_FGNL with LCA"}


class Figure4(Study):
    """Embeddings of the test clips, without LCA and with."""

    title = "Test clips in the plane"

    def __init__(self, args, crew):
        super().__init__(args, crew)
        self.source, split_file = self.data()
        self.config = self.configuration(split_file)
        self.settings = self.settings_of(self.source)

    def trainings(self):
        """Both, with each seed."""
        return self.by_seed(self.laboratory(self.source), _NAMES)

    def show(self, trained, found):
        """The figure of the first seed, and the silhouettes of all."""
        seed, planes, notes = self.seeds[0], {}, []
        for name, title in _NAMES.items():
            heard = [each.predictions for each in self.of_seeds(trained, name)]
            wrong = heard[0].decide().winners != heard[0].labels
            planes[name] = pictures.plane_of(heard[0], wrong)
            apart = scores.Plain([hearings.silhouette(each) for each in heard])
            notes.append(
                f"Silhouette of the artists in the embedding, {title}: "
                f"{apart.describe()} ({len(heard)} seeds)."
            )
        artists = trained["none", seed].artists
        drawn = pictures.planes(planes, artists, "named wrongly", _NAMES)
        caption = (
            "Embeddings of test clips in the plane (t-SNE), without LCA and with; seed "
            f"{seed}"
        )
        picture = Picture("figure4.png", caption, "figure4.csv")
        return {"pictures": [self.save(picture, *drawn)], "notes": notes}
