"""The published front end: a log mel-spectrogram, and one with the melody beside it."""

import functools
import importlib
import threading

import numpy as np

from lca_keras.features import spectrogram
from lca_keras.features.front_end import STEMS, FrontEnd, Stream

MEL, MELODY = "mel_spectrogram", "melody"


def front_end(config):
    """The front end of a `lca_keras.base.config.FeatureConfig`."""
    return (MelFrontEnd if config.melody == "none" else MelodyFrontEnd)(config)


class MelFrontEnd(FrontEnd):
    """Log mel-spectrograms; see `lca_keras.features.spectrogram`."""

    mixes_powers = True
    signature = "mel"
    unit = "decibels, as config.features says; see saved_models/README.md"

    def __init__(self, config):
        self.config = config
        self.sample_rate = config.sample_rate
        shape = (config.mel_bins, None, 1)
        self.streams = (Stream(MEL, shape, "float16", config.hop_length),)
        # What is softer lies at the bottom of the spectrogram's range.
        heard = config.top_db * 10 / spectrogram.decibel_scale(config)
        self.range_db = min(heard, self.range_db)

    @functools.cached_property
    def frequencies(self):
        """Centre frequency of each mel bin, Hz."""
        return spectrogram.hertz_at(1 + np.arange(self.config.mel_bins), self.config)

    def prepare(self):
        """See `FrontEnd`."""
        # SciPy comes while a decoder starts and works.
        threading.Thread(target=importlib.import_module, args=("scipy.fft",)).start()
        spectrogram.mel_filters(self.config)

    def frames(self, sound, stems=None, threads=None):
        """See `FrontEnd`; stems are kept as `spectrogram.stem_levels`."""
        power = spectrogram.mel_power(sound, self.config)
        gain = spectrogram.level_gain(power, self.config)
        mel = spectrogram.to_decibels(power, self.config)
        arrays = {MEL: mel[..., None]}
        for name in STEMS if stems and len(stems) == len(STEMS) else ():
            stem = gain * spectrogram.mel_power(stems[name], self.config)
            arrays[name] = spectrogram.stem_levels(stem)[..., None]
        return arrays

    def layer(self):
        """See `FrontEnd`."""
        from lca_keras.features.spectrogram_layer import LogMelSpectrogram

        mel = LogMelSpectrogram(self.config)
        return lambda waveform, lengths=None: {MEL: mel(waveform, lengths)}

    def mixed(self, power):
        """See `FrontEnd`."""
        return spectrogram.to_decibels(power[..., 0], self.config)[..., None]

    def mixed_clips(self, power, loudest):
        """See `FrontEnd`."""
        return spectrogram.decibels_of(power, loudest, self.config)


class MelodyFrontEnd(MelFrontEnd):
    """The same with a second stream, the melody; see `lca_keras.features.melody`.

    It is one-hot over the bands of the spectrogram, and no graph computes it.
    """

    def __init__(self, config):
        super().__init__(config)
        hop, shape = config.hop_length, self.main.shape
        self.streams += (Stream(MELODY, shape, "uint8", hop, in_graph=False),)

    def frames(self, sound, stems=None, threads=None):
        """See `FrontEnd`. The melody is that of the vocals where these are given."""
        from lca_keras.features.melody import contour, melody_bands

        arrays = super().frames(sound, stems, threads)
        sung = (stems or {}).get("vocals", sound)
        samples = sung if isinstance(sung, np.ndarray) else sung.samples
        bands = melody_bands(samples, self.config, threads)
        arrays[MELODY] = contour(bands, self.config.mel_bins)[..., None]
        return arrays
