"""Melody contour: the fundamental frequency of each frame, as a mel band."""

import importlib.util

import numpy as np

from lca_keras.base.errors import UserError
from lca_keras.features.spectrogram import hertz_at

# From C2 to C6: the range of singing voices, in Hz.
FMIN, FMAX = 65.4, 1046.5
# Frames that CREPE is less sure of are unvoiced. On songs of the built-in corpus its
# small model then finds three of four sung frames, nearly all at the right pitch.
_PERIODICITY = 0.21
# Trackers find a pitch in the faintest noise: frames this far below the loudest are
# taken for silence.
_SILENCE_DB = 50.0
UNVOICED = -1


def melody_bands(samples, config, threads=None):
    """The mel band of the pitch of each frame, int16, -1 where nothing is sung.

    The pitch is quantised to the bands of the spectrogram, as in CRNNM, so that the
    contour and the spectrogram share both axes.

    Args:
        samples: Float32 array `(samples,)` at `config.sample_rate`.
        config: `lca_keras.base.config.FeatureConfig`; `melody` names the tracker.
        threads: Optional int, threads of CREPE's network.

    Raises:
        UserError: The tracker is not installed.

    References:
        - Hsieh et al., 2020, https://arxiv.org/abs/2002.06817
        - Mauch & Dixon, 2014, pYIN; Kim et al., 2018, https://arxiv.org/abs/1802.06182
    """
    import librosa

    samples = np.asarray(samples, "float32")
    frames = 1 + len(samples) // config.hop_length
    if not samples.any():
        return np.full(frames, UNVOICED, "int16")
    if config.melody == "pyin":
        pitch, _, _ = librosa.pyin(
            samples,
            fmin=FMIN,
            fmax=FMAX,
            sr=config.sample_rate,
            frame_length=config.n_fft,
            hop_length=config.hop_length,
            fill_na=0.0,
        )
    else:
        pitch = _crepe(samples, config, threads)
    pitch = np.pad(pitch[:frames], (0, max(0, frames - len(pitch))))
    loudness = librosa.feature.rms(
        y=samples, frame_length=config.n_fft, hop_length=config.hop_length
    )[0, :frames]
    sung = (pitch > 0) & (loudness > loudness.max() * 10 ** (-_SILENCE_DB / 20))
    # Bands meet midway between their centres on the mel scale.
    edges = hertz_at(np.arange(config.mel_bins) + 0.5, config)
    bands = np.searchsorted(edges, pitch, side="right") - 1
    bands = np.clip(bands, 0, config.mel_bins - 1)
    return np.where(sung, bands, UNVOICED).astype("int16")


def contour(bands, mel_bins):
    """What `melody_bands` gives as an image, float32 `(mel_bins, frames)`, one-hot.

    Unvoiced frames are all zero.
    """
    return (np.arange(mel_bins)[:, None] == bands).astype("float32")


def require_crepe():
    """Raises a `UserError` unless torchcrepe is installed."""
    if importlib.util.find_spec("torchcrepe") is None:
        raise UserError(
            "--melody crepe needs torchcrepe: pip install 'lca-keras[crepe]', or use "
            "--melody pyin."
        )


def _crepe(samples, config, threads):
    """Pitch in Hz by CREPE's small model, 0 where unvoiced."""
    require_crepe()
    import torch
    import torchcrepe

    if threads is not None:
        torch.set_num_threads(threads)
    # On a CPU the full model takes longer than the song lasts, and is no better here.
    pitch, periodicity = torchcrepe.predict(
        torch.from_numpy(np.array(samples))[None],
        config.sample_rate,
        config.hop_length,
        FMIN,
        FMAX,
        model="tiny",
        decoder=torchcrepe.decode.viterbi,
        return_periodicity=True,
        batch_size=512,
        device="cpu",
    )
    return np.where(periodicity[0] > _PERIODICITY, pitch[0], 0.0)
