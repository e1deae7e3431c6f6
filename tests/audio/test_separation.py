import json

import numpy as np
import pytest
import soundfile

from lca_keras.audio import separation
from lca_keras.audio.decode import AudioError, decode
from lca_keras.audio.separation import Separator, SeparatorError
from lca_keras.base import files
from tests.audio.signals import music


class Through(Separator):
    """A separator whose network hands everything through, and keeps count."""

    def __init__(self, sample_rate, channels):
        self.sample_rate, self.channels, self.lengths = sample_rate, channels, []

    def _estimate(self, samples):
        self.lengths.append(len(samples))
        return samples


@pytest.mark.parametrize(
    ("rate", "channels", "seconds"),
    [(16000, 1, 7.3), (44100, 2, 11.0), (48000, 1, 5.0), (44100, 6, 4.0)],
)
@pytest.mark.parametrize("network", [(16000, 1), (44100, 2)])
def test_what_the_network_passes_comes_out_in_place(
    monkeypatch, tmp_path, rate, channels, seconds, network
):
    """Chunks, fades and resampling must not move or change anything."""
    monkeypatch.setattr(separation, "CHUNK_SECONDS", 2.0)
    monkeypatch.setattr(separation, "OVERLAP_SECONDS", 0.5)
    path = tmp_path / "song.wav"
    soundfile.write(path, music(rate, seconds, channels), rate, subtype="FLOAT")
    separator = Through(*network)
    vocals = separator.separate(path, 16000)
    expected = decode(path).samples
    assert abs(len(vocals) - len(expected)) <= 2
    length = min(len(vocals), len(expected)) - 200  # Filters ring at the end.
    window = np.hanning(length - 200)
    error = np.fft.rfft(window * (vocals[200:length] - expected[200:length]))
    # Going up to 44.1 kHz and back takes the highest frequencies off.
    error = error[np.fft.rfftfreq(length - 200, 1 / 16000) < 7000]
    power = 2 * np.sum(np.abs(error) ** 2) / (length - 200)
    assert np.sqrt(power / np.sum(window**2)) < 1e-3 * expected.std()
    assert len(separator.lengths) > 1
    assert max(separator.lengths) == 2 * separator.sample_rate  # Bounded memory.


def test_neighbouring_chunks_are_faded(monkeypatch, tmp_path):
    monkeypatch.setattr(separation, "CHUNK_SECONDS", 2.0)
    monkeypatch.setattr(separation, "OVERLAP_SECONDS", 0.5)

    class Louder(Through):
        def _estimate(self, samples):
            super()._estimate(samples)
            return samples * len(self.lengths)

    soundfile.write(tmp_path / "a.wav", np.full(16000 * 4, 0.1), 16000, subtype="FLOAT")
    vocals = Louder(16000, 1).separate(tmp_path / "a.wav", 16000)
    # 1 for 1.5 s, then up to 2 within half a second, and so on.
    np.testing.assert_allclose(vocals[:24000], 0.1, atol=1e-4)
    np.testing.assert_allclose(vocals[28000], 0.15, atol=1e-4)
    np.testing.assert_allclose(vocals[32000:47000], 0.2, atol=1e-4)
    assert np.abs(np.diff(vocals)).max() < 2e-5


def test_kept_vocals_and_silence(tmp_path):
    path = tmp_path / "song.wav"
    sound = music(44100, 3, channels=2)
    soundfile.write(path, sound, 44100, subtype="FLOAT")
    Through(44100, 2).separate(path, 16000, keep=tmp_path / "kept.flac")
    kept, rate = soundfile.read(tmp_path / "kept.flac")
    assert rate == 44100
    np.testing.assert_allclose(kept, sound, atol=1e-4)

    class Nothing(Through):
        def _estimate(self, samples):
            return np.zeros_like(samples)

    with pytest.raises(AudioError, match="no voice in it"):
        Nothing(44100, 2).separate(path, 16000)


def test_folders_that_hold_no_model(tmp_path):
    with pytest.raises(SeparatorError, match="no such folder.*umxl, umxhq"):
        separation.separator_id(tmp_path / "nowhere")
    files.write_json(tmp_path / "separator.json", {})
    with pytest.raises(SeparatorError, match=r"vocals.json, vocals.pth missing"):
        separation.separator_id(tmp_path)
    for name in ("vocals.json", "vocals-2.pth", "vocals-1.pth"):
        files.write_json(tmp_path / name, {})
    with pytest.raises(SeparatorError, match=r"vocals-1.pth, vocals-2.pth: keep one"):
        separation.separator_id(tmp_path)
    assert separation.separator_id("umxl") == "umxl"


def test_identity_is_of_the_content(tmp_path):
    names = []
    for folder, weights in (("a", b"1"), ("b", b"1"), ("c", b"2")):
        (tmp_path / folder).mkdir()
        for name in ("separator.json", "vocals.json"):
            files.write_json(tmp_path / folder / name, {})
        (tmp_path / folder / "vocals.pth").write_bytes(weights)
        names.append(separation.separator_id(tmp_path / folder))
    assert names[0] == names[1] != names[2]
    assert names[0].startswith("local-")


# === With openunmix ===


@pytest.fixture
def model(tmp_path):
    """A folder with an untrained model in openunmix's format."""
    pytest.importorskip("openunmix")
    import torch
    from openunmix.model import OpenUnmix

    folder = tmp_path / "model"
    folder.mkdir()
    settings = {"sample_rate": 16000, "nfft": 512, "nhop": 128, "nb_channels": 1}
    files.write_json(folder / "separator.json", settings)
    files.write_json(folder / "vocals.json", {"args": {**settings, "hidden_size": 8}})
    torch.manual_seed(0)
    model = OpenUnmix(nb_bins=257, nb_channels=1, hidden_size=8)
    torch.save(model.state_dict(), folder / "vocals.pth")
    return folder


@pytest.mark.torch
def test_a_folder_of_openunmix_is_loaded(model, tmp_path):
    separator = Separator(model)
    assert (separator.sample_rate, separator.channels) == (16000, 1)
    path = tmp_path / "short.wav"
    soundfile.write(path, music(16000, 0.01), 16000)  # Shorter than a window.
    assert separator.separate(path, 16000).shape == (160,)


@pytest.mark.torch
def test_weights_that_do_not_fit(model):
    import torch

    weights = torch.load(model / "vocals.pth", weights_only=True)
    without = {k: v for k, v in weights.items() if "lstm.weight_hh_l2" not in k}
    torch.save(without, model / "vocals.pth")
    with pytest.raises(SeparatorError, match=r"2 weights are missing.*lstm.weight_hh"):
        Separator(model)
    torch.save({**weights, "fc1.weight": torch.zeros(9, 257)}, model / "vocals.pth")
    with pytest.raises(SeparatorError, match=r"fc1.weight has the shape \(9, 257\)"):
        Separator(model)
    (model / "vocals.pth").write_bytes(b"not weights")
    with pytest.raises(SeparatorError, match=r"vocals.pth is damaged"):
        Separator(model)
    torch.save(weights, model / "vocals.pth")
    settings = json.loads((model / "vocals.json").read_text())
    del settings["args"]["hidden_size"]
    files.write_json(model / "vocals.json", settings)
    with pytest.raises(SeparatorError, match="settings cannot be used.*hidden_size"):
        Separator(model)


@pytest.mark.torch
def test_code_in_a_weights_file_is_not_run(model):
    import pickle

    class Mean:
        def __reduce__(self):
            return (open, (str(model / "pwned"), "w"))

    (model / "vocals.pth").write_bytes(pickle.dumps(Mean()))
    with pytest.raises(SeparatorError, match="damaged"):
        Separator(model)
    assert not (model / "pwned").exists()


@pytest.mark.torch
def test_weights_that_cannot_be_downloaded(monkeypatch):
    pytest.importorskip("openunmix")
    import openunmix

    def offline(*args, **kwargs):
        raise OSError("no route to host")

    monkeypatch.setattr(openunmix, "umxl", offline)
    with pytest.raises(SeparatorError, match="cannot be downloaded.*separator train"):
        Separator("umxl")
