import numpy as np
import pytest
import soundfile

from lca_keras.audio.decode import AudioError
from lca_keras.base.errors import UserError
from lca_keras.corpora import separator
from lca_keras.data.catalogue import Song
from tests.audio.signals import music


def test_drawn_batches_mix_songs_at_random():
    stems = [np.full((2, 3000), level, "float32") for level in (1.0, 2.0)]
    stems[1][1] = 10.0
    vocals, rest = separator.draw_batch(stems, 100, np.random.default_rng(0))
    assert vocals.shape == rest.shape == (16, 100)
    levels = {round(float(row.max()), 3) for row in vocals}
    assert len(levels) > 8  # Gains differ.
    assert rest.max() > 2.5  # The other song's backing occurs.


def test_sdr_of_known_noise():
    rng = np.random.default_rng(0)
    voice = rng.normal(size=100_000)
    noisy = voice + 0.1 * rng.normal(size=100_000)
    assert separator.signal_to_distortion(voice, noisy) == pytest.approx(20, abs=0.1)


class Halving:
    """Gives half of the mixture for the voice."""

    sample_rate = 16000

    def separate(self, path, rate):
        samples = soundfile.read(path, dtype="float32")[0]
        if samples.max() < 0.01:
            raise AudioError("no voice in it")
        return samples / 2


def test_quality_is_that_of_each_song(tmp_path):
    voice, songs = music(16000, 1.0, seed=1), []
    for name, level in (("loud", 1.0), ("soft", 0.01)):
        mixture, vocals = (tmp_path / f"{name}-{n}.wav" for n in (1, 2))
        soundfile.write(mixture, 2 * level * voice, 16000, "FLOAT")
        soundfile.write(vocals, level * voice[:-9], 16000, "FLOAT")
        songs.append(Song("Ada", "album", name, mixture, vocals))
    (_, before, after), (song, soft, silent) = separator.separation_quality(
        Halving(), songs
    )
    assert before == pytest.approx(0, abs=1e-3)
    assert after > 60
    assert (song.song, soft, silent) == ("soft", *[pytest.approx(0, abs=1e-3)] * 2)
    songs[1].vocals_path.write_bytes(b"")
    with pytest.raises(UserError, match="Ada / album / soft: .*vocals cannot be used"):
        separator.separation_quality(Halving(), songs)
