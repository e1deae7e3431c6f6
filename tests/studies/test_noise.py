import numpy as np
import pytest
import soundfile

from lca_keras.base.errors import UserError
from lca_keras.data import catalogue, split
from lca_keras.experiments import main
from lca_keras.studies.subjects import figure1


@pytest.fixture
def corpus(tmp_path):
    """Songs at full scale of two artists, and the file of their parts."""
    root = tmp_path / "music"
    for artist in ("Ann", "Bo"):
        for album in split.PARTS:
            path = root / artist / album / "song.wav"
            path.parent.mkdir(parents=True)
            tone = np.sin(np.arange(16000) * (0.1 + len(artist)))
            soundfile.write(path, tone, 16000, subtype="FLOAT")
    songs = catalogue.load(root)
    parts = {song.key: song.album for song in songs}
    split.write_split(tmp_path / "split.csv", songs, parts)
    return songs, root, tmp_path / "split.csv"


def test_copies_are_made_once_and_tell_what_noise_clipped(corpus, tmp_path):
    about = (tmp_path / "out", *corpus, "Ann", (3000.0, 5000.0))
    made = figure1.noisy_copies(*about, 3.0)
    biased = {song.label: song.path for song in catalogue.load(made["biased"])}
    assert len(biased) == 6
    assert [song.label for song in catalogue.load(made["noised"])] == [
        "Ann / test / song",
        "Bo / test / song",
    ]
    clipped, other = figure1.clipping(made)
    assert clipped.startswith("Noise took 3 songs (biased) beyond full scale, up to ")
    assert other.startswith("Noise took 1 songs (noised)")
    before = {path: path.stat().st_mtime_ns for path in biased.values()}
    assert figure1.noisy_copies(*about, 3.0) == made
    assert {path: path.stat().st_mtime_ns for path in before} == before
    with pytest.raises(UserError, match="noise of other settings or songs"):
        figure1.noisy_copies(*about, 10.0)


def test_a_melody_is_not_tracked_in_every_version_of_a_song(tmp_path, capsys):
    options = ["--variants", "none", "crnnm", "--out", str(tmp_path)]
    assert main(["confounding", *options]) == 1
    assert "confounding has no crnnm" in capsys.readouterr().err
