"""Files of formats that libsndfile does not write, encoded with FFmpeg."""

import av
import numpy as np

# By suffix: codec, sample format, and FFmpeg's name of the container.
FORMATS = {
    "m4a": ("aac", "fltp", "ipod"),
    "alac.m4a": ("alac", "s16p", "ipod"),
    "mp4": ("aac", "fltp", "mp4"),
    "aac": ("aac", "fltp", "adts"),
    "wma": ("wmav2", "fltp", "asf"),
    "mp2": ("mp2", "s16", "mp2"),
    "mka": ("aac", "fltp", "matroska"),
    "caf": ("alac", "s16p", "caf"),
    "wv": ("wavpack", "s16p", "wv"),
    "tta": ("tta", "s16", "tta"),
    "ac3": ("ac3", "fltp", "ac3"),
    "headless.mp3": ("libmp3lame", "fltp", "mp3"),
}


def encode(path, samples, rate, kind):
    """Writes float samples `(samples, channels)` as one of `FORMATS`."""
    codec, sample_format, container = FORMATS[kind]
    options = {"write_xing": "0"} if kind == "headless.mp3" else {}
    layout = {1: "mono", 2: "stereo"}[samples.shape[1]]
    frame = av.AudioFrame.from_ndarray(
        np.ascontiguousarray(samples.T, "float32"), "fltp", layout
    )
    frame.sample_rate = rate
    with av.open(str(path), "w", format=container, options=options) as file:
        stream = file.add_stream(codec, rate=rate, layout=layout, format=sample_format)
        stream.bit_rate = 192000
        resampler = av.AudioResampler(
            sample_format, layout, rate, stream.codec_context.frame_size or 1024
        )
        for piece in [*resampler.resample(frame), *resampler.resample(None)]:
            file.mux(stream.encode(piece))
        file.mux(stream.encode(None))
