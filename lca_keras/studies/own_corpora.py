"""Experiments on built-in corpora whose bands tell the singer, more or less."""

import dataclasses

from lca_keras.base import files
from lca_keras.base.errors import UserError
from lca_keras.corpora import synthesis
from lca_keras.data.corpus import DataSource
from lca_keras.studies.study import Study, check_variants


class OwnCorpora(Study):
    """An experiment that makes a corpus for each confounding.

    Attributes:
        usual: `SynthesisConfig` of which the options change something.
        usual_values: Floats, confoundings where none are asked for.
        usual_variants: Variants, the same.
        corpus: `SynthesisConfig` of all corpora; the confounding is theirs.
        values: Confoundings.
        variants: List of variants.
    """

    usual = None
    usual_values = ()
    usual_variants = ()

    def __init__(self, args, crew):
        super().__init__(args, crew)
        wanted = {
            name: getattr(args, name)
            for name in ("artists", "albums", "songs", "seconds", "voice_db")
            if getattr(args, name) is not None
        }
        self.corpus = dataclasses.replace(self.usual, **wanted)
        self.values = args.values or list(self.usual_values)
        if not all(0 <= value <= 1 for value in self.values):
            raise UserError("--values are probabilities, 0 to 1")
        self.variants = args.variants or list(self.usual_variants)
        check_variants(args.name, self.variants)
        self.config = self.configuration(stems=True)
        self.settings = {
            "corpus": dataclasses.asdict(self.corpus),
            "config": self.config.to_dict(),
            "seeds": list(self.seeds),
            "values": self.values,
            "variants": self.variants,
        }

    def laboratory_of(self, manifest):
        """The `Laboratory` of a corpus with stems that the experiment has made."""
        source = DataSource(
            data=str(manifest),
            features=self.args.features,
            separator=self.separator_folder,
        )
        return self.laboratory(source.absolute())

    def write_corpora(self, test_bands=()):
        """Writes a corpus with stems for each confounding, and test songs alone.

        Args:
            test_bands: Of `synthesis.TEST_BANDS`. Test songs with these are the same
                whatever the confounding in training.

        Returns:
            Dict from confounding to manifest, and dict from test bands to manifest.
        """
        folder = self.made()

        def write(name, parts=synthesis.PARTS, **changes):
            corpus = dataclasses.replace(self.corpus, **changes)
            how = {"stems": True, "progress": progress, "parts": parts}
            synthesis.write_corpus(corpus, folder / name, **how)
            return folder / name / "manifest.csv"

        with (
            files.lock(folder / ".synthesis.lock"),
            self.crew.observer.progress("Synthesising songs") as progress,
        ):
            made = {
                value: write(f"confounding-{value:g}", confounding=value)
                for value in self.values
            }
            tested = {
                bands: write(
                    f"test-{bands}", ("test",), confounding=0.0, test_bands=bands
                )
                for bands in test_bands
            }
        return made, tested
