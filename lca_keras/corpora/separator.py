"""Trains a separator of the singing voice on songs whose vocals are known.

The model class, its transforms and the files are openunmix's; the training follows its
recipe: mean squared error of magnitudes, vocals and backings mixed anew.
"""

import copy
import runpy

import numpy as np

from lca_keras.audio.decode import AudioError, decode
from lca_keras.base import files
from lca_keras.base.errors import UserError

_BATCH, _EXCERPT_SECONDS = 16, 4.0
N_FFT, HOP_LENGTH = 2048, 512


def train(stems, validation, folder, sample_rate, hidden_size, epochs, seed, report):
    """Trains a vocals model and writes the new folder that openunmix's loader reads.

    `stems` and `validation`, of other songs, are float32 arrays `(2, samples)`, vocals
    and all the rest; the epoch with the least loss on the latter is kept. `report` is
    called after every epoch with (epoch, loss, validation loss). Raises a `UserError`:
    no song is as long as an excerpt, or the training diverged.
    """
    import torch
    from openunmix.model import OpenUnmix
    from openunmix.transforms import ComplexNorm, make_filterbanks
    from sklearn.preprocessing import StandardScaler

    length = int(_EXCERPT_SECONDS * sample_rate)
    stems = [pair for pair in stems if pair.shape[1] >= length]
    validation = [pair for pair in validation if pair.shape[1] >= length]
    if not stems or not validation:
        raise UserError(
            f"training a separator needs songs of at least {_EXCERPT_SECONDS:g} s in "
            "the training and the validation part"
        )
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    transform, _ = make_filterbanks(N_FFT, HOP_LENGTH, sample_rate=float(sample_rate))
    spectrogram = torch.nn.Sequential(transform, ComplexNorm(mono=True))

    def magnitudes(waveforms):
        """(batch, samples) -> (batch, 1, bins, frames)"""
        return spectrogram(torch.from_numpy(waveforms)[:, None])

    def loss_of(vocals, rest):
        estimate = model(magnitudes(vocals + rest))
        return torch.nn.functional.mse_loss(estimate, magnitudes(vocals))

    scaler = StandardScaler()  # Of the mixtures' magnitudes, by frequency.
    for pair in stems:
        scaler.partial_fit(magnitudes(pair.sum(axis=0)[None])[0, 0].numpy().T)
    # As in openunmix: a bin that hardly moves must not be blown up.
    deviation = np.maximum(scaler.scale_, 1e-4 * scaler.scale_.max())
    model = OpenUnmix(
        nb_bins=N_FFT // 2 + 1,
        nb_channels=1,
        hidden_size=hidden_size,
        input_mean=scaler.mean_,
        input_scale=deviation,
    )
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3, weight_decay=1e-5)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
    steps = max(1, round(sum(pair.shape[1] for pair in stems) / length / _BATCH))
    best, best_weights = np.inf, None
    for epoch in range(1, epochs + 1):
        model.train()
        losses = []
        for _ in range(steps):
            loss = loss_of(*draw_batch(stems, length, rng))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        schedule.step()
        model.eval()
        with torch.no_grad():
            held_out = [loss_of(*pair[:, None]).item() for pair in validation]
        now = float(np.mean(held_out))
        report(epoch, float(np.mean(losses)), now)
        if now < best:
            best, best_weights = now, copy.deepcopy(model.state_dict())
    if best_weights is None:
        raise UserError("training diverged (the loss is not a number): nothing written")
    settings = dict(sample_rate=sample_rate, nfft=N_FFT, nhop=HOP_LENGTH, nb_channels=1)
    arguments = {**settings, "hidden_size": hidden_size, "seed": seed}
    about = {"args": arguments, "epochs_trained": epochs, "best_loss": best}
    with files.atomic_path(folder) as temporary:
        temporary.mkdir(parents=True)
        torch.save(best_weights, temporary / "vocals.pth")
        files.write_json(temporary / "separator.json", settings)
        files.write_json(temporary / "vocals.json", about)


def draw_batch(stems, length, rng):
    """Vocals and backings `(batch, length)` of random songs, at random levels."""
    batch = np.empty((2, _BATCH, length), "float32")
    for row in range(_BATCH):
        for stem in (0, 1):
            samples = stems[rng.integers(len(stems))][stem]
            start = rng.integers(samples.size - length + 1)
            gain = rng.uniform(0.25, 1.25)
            batch[stem, row] = gain * samples[start : start + length]
        # Voices without a band, and bands without a voice, occur in songs too.
        alone = rng.random()
        if alone < 0.15:
            batch[0 if alone < 0.05 else 1, row] = 0.0
    return batch[0], batch[1]


def signal_to_distortion(reference, estimate):
    """Signal-to-distortion ratio in decibels, of the whole song."""
    signal, noise = (
        np.sum(np.square(samples, dtype="float64"))
        for samples in (reference, reference - estimate)
    )
    return float(10 * np.log10(signal / (noise + 1e-12)))


def separation_quality(separator, songs):
    """Lists (song, SDR of the mixture, SDR of the separated vocals), decibels."""
    rows, rate = [], separator.sample_rate
    for song, (vocals, rest) in zip(songs, load_stems(songs, rate), strict=True):
        try:
            estimate = separator.separate(song.path, rate)
        except AudioError:  # No voice was found.
            estimate = np.zeros_like(vocals)
        length = min(len(vocals), len(estimate))
        before, after = (
            signal_to_distortion(vocals[:length], samples[:length])
            for samples in (vocals + rest, estimate)
        )
        rows.append((song, before, after))
    return rows


def load_stems(songs, sample_rate):
    """Yields float32 `(2, samples)` of songs with stems: vocals and all the rest."""
    for song in songs:
        try:
            mixture = decode(song.path, sample_rate).samples
            vocals = decode(song.vocals_path, sample_rate).samples
        except AudioError as error:
            raise UserError(
                f"{song.label}: the song or its vocals cannot be used ({error}). Mend "
                "it or take it out of the manifest."
            ) from error
        length = min(len(mixture), len(vocals))
        vocals = vocals[:length]
        yield np.stack([vocals, mixture[:length] - vocals])


if __name__ == "__main__":  # The command has moved up.
    runpy.run_module("lca_keras.separator", run_name="__main__")
