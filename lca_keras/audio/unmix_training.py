"""Trains a small Open-Unmix on songs whose vocals are known.

The model class, its transforms and the files are openunmix's; the training follows
its recipe: mean squared error of magnitudes, vocals and backings mixed anew.
"""

import copy

import numpy as np

from lca_keras import files
from lca_keras.console import UserError

_BATCH, _EXCERPT_SECONDS = 16, 4.0
N_FFT, HOP_LENGTH = 2048, 512


def train(stems, validation, folder, sample_rate, hidden_size, epochs, seed, report):
    """Trains a vocals model and writes the folder that openunmix's loader reads.

    Args:
        stems: List of float32 arrays `(2, samples)`, vocals and all the rest.
        validation: The same, of other songs; the epoch with the least loss on them is
            kept.
        folder: Folder to write, which must not exist.
        sample_rate: Int, Hz.
        hidden_size: Int, width of the network.
        epochs: Int.
        seed: Int.
        report: Function called after every epoch with (epoch, loss, validation loss).

    Raises:
        UserError: A song is shorter than an excerpt.
    """
    import torch
    from openunmix.model import OpenUnmix
    from openunmix.transforms import ComplexNorm, make_filterbanks

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

    mean, deviation = _statistics(stems, magnitudes)
    model = OpenUnmix(
        nb_bins=N_FFT // 2 + 1,
        nb_channels=1,
        hidden_size=hidden_size,
        input_mean=mean,
        input_scale=deviation,
    )
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3, weight_decay=1e-5)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
    steps = max(1, round(sum(pair.shape[1] for pair in stems) / length / _BATCH))
    loss_of = torch.nn.functional.mse_loss
    best, best_weights = np.inf, None
    for epoch in range(1, epochs + 1):
        model.train()
        losses = []
        for _ in range(steps):
            vocals, rest = draw_batch(stems, length, rng)
            loss = loss_of(model(magnitudes(vocals + rest)), magnitudes(vocals))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        schedule.step()
        model.eval()
        with torch.no_grad():
            held_out = [
                float(
                    loss_of(
                        model(magnitudes(pair.sum(axis=0)[None])),
                        magnitudes(pair[:1]),
                    )
                )
                for pair in validation
            ]
        now = float(np.mean(held_out))
        report(epoch, float(np.mean(losses)), now)
        if now < best:
            best, best_weights = now, copy.deepcopy(model.state_dict())
    if best_weights is None:
        raise UserError("training diverged (the loss is not a number): nothing written")
    settings = {
        "sample_rate": sample_rate,
        "nfft": N_FFT,
        "nhop": HOP_LENGTH,
        "nb_channels": 1,
    }
    with files.atomic_path(folder) as temporary:
        temporary.mkdir(parents=True)
        torch.save(best_weights, temporary / "vocals.pth")
        files.write_json(temporary / "separator.json", settings)
        arguments = {**settings, "hidden_size": hidden_size, "seed": seed}
        files.write_json(
            temporary / "vocals.json",
            {"args": arguments, "epochs_trained": epochs, "best_loss": best},
        )


def draw_batch(stems, length, rng):
    """Draws vocals and backings of random songs, at random levels.

    Args:
        stems: List of arrays `(2, samples)`.
        length: Int, samples of an excerpt.
        rng: `numpy.random.Generator`.

    Returns:
        Tuple of float32 arrays `(batch, length)`, vocals and backings.
    """
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


def _statistics(stems, magnitudes):
    """Mean and deviation of the mixtures' magnitudes, by frequency."""
    from sklearn.preprocessing import StandardScaler

    scaler = StandardScaler()
    for pair in stems:
        frames = magnitudes(pair.sum(axis=0)[None])[0, 0].numpy().T
        scaler.partial_fit(frames)
    # As in openunmix: a bin that hardly moves must not be blown up.
    deviation = np.maximum(scaler.scale_, 1e-4 * scaler.scale_.max())
    return scaler.mean_, deviation


def separation_quality(separator, songs):
    """How much better the separated vocals are than the mixture.

    Args:
        separator: `lca_keras.audio.separation.Separator`.
        songs: List of songs with `path` and `vocals_path`.

    Returns:
        List of tuples (song, SDR of the mixture, SDR of the vocals), decibels.
    """
    from lca_keras.audio.decode import AudioError, decode
    from lca_keras.audio.separation import signal_to_distortion

    rows = []
    for song in songs:
        rate = separator.sample_rate
        mixture, vocals = decode(song.path, rate), decode(song.vocals_path, rate)
        try:
            estimate = separator.separate(song.path, rate)
        except AudioError:  # It heard no voice.
            estimate = np.zeros_like(mixture)
        length = min(len(mixture), len(vocals), len(estimate))
        reference = vocals[:length]
        rows.append(
            (
                song,
                signal_to_distortion(reference, mixture[:length]),
                signal_to_distortion(reference, estimate[:length]),
            )
        )
    return rows
