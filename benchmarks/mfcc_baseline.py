"""Song-level F1 of a classifier of mean MFCCs, the yardstick for a corpus.

Run `python -m benchmarks.mfcc_baseline CORPUS SPLIT.csv`. A corpus that this solves
says little about attention.
"""

import numpy as np

from benchmarks import common


def main(argv=None):
    """Computes the features and prints the scores."""
    parser = common.parser(__doc__)
    parser.add_argument("corpus")
    parser.add_argument("split")
    args = parser.parse_args(argv)

    import librosa
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import f1_score
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import SVC

    from lca_keras.audio.decode import decode
    from lca_keras.data import catalogue, split

    songs = catalogue.load(args.corpus)
    part_of = split.read_split(args.split, songs)
    features, artists = {}, {}
    for song in songs:
        mfcc = librosa.feature.mfcc(y=decode(song.path).samples, sr=16000, n_mfcc=20)
        part = part_of[song.key]
        features.setdefault(part, []).append(mfcc.mean(axis=1))
        artists.setdefault(part, []).append(song.artist)
    classifiers = {
        "logistic regression": LogisticRegression(max_iter=5000),
        "support vector machine": SVC(C=10),
    }
    for name, classifier in classifiers.items():
        model = make_pipeline(StandardScaler(), classifier)
        model.fit(np.array(features["train"]), artists["train"])
        scores = []
        for part in ("validation", "test"):
            named = model.predict(np.array(features[part]))
            f1 = f1_score(artists[part], named, average="weighted")
            scores.append(f"{part} {f1:.3f}")
        print(f"{name:<24} song F1: {', '.join(scores)}")


if __name__ == "__main__":
    main()
