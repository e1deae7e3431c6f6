"""Requests as clients send them: songs of several lengths, files, and nonsense."""

import io
import json

import numpy as np
import pytest
import soundfile
import tensorflow as tf

from lca_keras.audio.decode import decode
from lca_keras.base.sections import FeatureConfig
from lca_keras.exports import signatures
from lca_keras.features.spectrogram import mel_spectrogram
from tests.exports.material import ARTISTS, song

OK = b"ok"
NOT_FINITE, SILENT = signatures.NOT_FINITE, signatures.SILENT


def wav(samples, rate=16000, subtype="PCM_16", kind="WAV"):
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format=kind, subtype=subtype)
    return file.getvalue()


def padded(songs, filling, rng):
    rows = rng.normal(0, filling, (len(songs), max(s.size for s in songs) + 777))
    for row, samples in zip(rows, songs, strict=True):
        row[: samples.size] = samples
    return rows.astype("float32")


def test_songs_of_random_lengths_equal_each_alone(loaded):
    rng = np.random.default_rng(0)
    # Sound up to the end, silence at the end, exactly some clips, a pause.
    lengths = [94 * 512, 94 * 512 * 2, *rng.integers(50_000, 200_000, 62).tolist()]
    songs = [
        song(size / 16000, seed=i % 5) * rng.uniform(0.01, 2) + rng.uniform(-0.2, 0.2)
        for i, size in enumerate(lengths)
    ]
    songs[5][-20_000:] = songs[5].mean()
    songs[6][100_000:130_000] = songs[6].mean()
    sizes = np.array([samples.size for samples in songs], "int32")
    assert len(set(sizes)) > 60
    together = loaded.signatures["songs"](
        waveform=padded(songs, 0.3, rng), lengths=sizes
    )
    serve = loaded.signatures["serving_default"]
    assert len(set(together["singer"].numpy())) > 1
    for index, samples in enumerate(songs):
        alone = serve(waveform=samples[None].astype("float32"))
        np.testing.assert_allclose(
            together["probabilities"][index], alone["probabilities"][0], atol=1e-5
        )
        clips = alone["frame_probabilities"].shape[1]
        rows = together["frame_probabilities"][index]
        np.testing.assert_allclose(
            rows[:clips], alone["frame_probabilities"][0], atol=1e-5
        )
        assert not rows[clips:].numpy().any()
        assert together["singer"][index] == alone["singer"][0]
        assert together["status"][index] == alone["status"][0] == OK


def with_sample(samples, place, value):
    spoilt = samples.copy()
    spoilt[place] = value
    return spoilt


SPOILT = {
    "nan": (NOT_FINITE, lambda x: with_sample(x, 999, np.nan)),
    "infinite": (NOT_FINITE, lambda x: with_sample(x, 9, -np.inf)),
    "a spike": (signatures.DAMAGED, lambda x: with_sample(x, 9, 1e4)),
    "huge": (signatures.DAMAGED, lambda x: 1e30 * x),
    "silent": (SILENT, lambda x: 0 * x),
    "a whisper of rounding": (SILENT, lambda x: 1e-5 * x / np.abs(x).max()),
    "an offset": (SILENT, lambda x: 0 * x + 0.5),
    "short": (signatures.TOO_SHORT, lambda x: x[: 93 * 512 - 1]),
    "a sample": (signatures.TOO_SHORT, lambda x: x[:1]),
    "nothing": (signatures.TOO_SHORT, lambda x: x[:0]),
    "nearly silent": (
        signatures.TOO_SILENT,
        lambda x: with_sample(x, slice(30000, None), 0),
    ),
}


@pytest.mark.parametrize("case", SPOILT)
def test_who_cannot_be_judged_is_told_why(loaded, case):
    """And its neighbour is not touched."""
    status, spoil = SPOILT[case]
    good = song(9.0, seed=1)
    spoilt = spoil(song(8.0, seed=2)).astype("float32")
    serve = loaded.signatures["serving_default"]
    expected = serve(waveform=good[None])
    assert expected["status"][0] == OK
    answers = [
        loaded.signatures["songs"](
            waveform=padded([spoilt, good], 0.1, np.random.default_rng(0)),
            lengths=np.array([spoilt.size, good.size], "int32"),
        ),
        serve(waveform=spoilt[None]),
    ]
    for answer in answers:
        assert answer["status"][0].numpy().decode() == status
        assert answer["singer"][0] == b""
        assert not answer["probabilities"][0].numpy().any()
        assert not answer["frame_probabilities"][0].numpy().any()
    for name in ("singer", "status"):
        assert answers[0][name][1] == expected[name][0]
    np.testing.assert_allclose(
        answers[0]["probabilities"][1], expected["probabilities"][0], atol=1e-6
    )
    embedded = loaded.signatures["embed"](waveform=spoilt[None])
    assert embedded["status"][0].numpy().decode() == status
    assert not embedded["embedding"].numpy().any()


@pytest.mark.parametrize("length", [-1, -(2**31), 10**6, 2**31 - 1])
def test_lengths_that_cannot_be(loaded, length):
    songs = np.stack([song(9.0), song(9.0, seed=1)])
    answer = loaded.signatures["songs"](
        waveform=songs, lengths=np.array([length, songs.shape[1]], "int32")
    )
    assert answer["status"].numpy().tolist() == [b"length out of range", OK]
    assert answer["singer"][0] == b""


def test_spectrograms_and_clips_that_cannot_be_judged(loaded):
    mel = mel_spectrogram(song(7.0), FeatureConfig())[None, ..., None]
    mels = np.concatenate([mel, mel, np.full_like(mel, -100), mel])
    mels[1, 5, 50] = np.nan
    answer = loaded.signatures["mel"](mel_spectrogram=mels)
    expected = [OK, signatures.NOT_FINITE.encode(), signatures.SILENT.encode(), OK]
    assert answer["status"].numpy().tolist() == expected
    assert not answer["probabilities"][1:3].numpy().any()
    answer = loaded.signatures["mel"](mel_spectrogram=mel[:, :, :93])
    assert answer["status"].numpy().tolist() == [b"too short"]
    clips = loaded.signatures["clips"](mel_spectrogram=mels[:, :, :94])
    assert clips["status"].numpy().tolist() == [
        OK,
        signatures.NOT_FINITE.encode(),
        OK,
        OK,
    ]
    rows = clips["probabilities"].numpy()
    assert not rows[1].any()
    np.testing.assert_allclose(rows[[0, 2, 3]].sum(axis=1), 1, atol=1e-5)


# === Encoded audio ===


@pytest.mark.parametrize("rate", [8000, 16000, 22050, 44100, 44099, 48000])
@pytest.mark.parametrize("channels", [1, 2])
def test_a_file_is_heard_as_its_decoded_samples(loaded, tmp_path, rate, channels):
    from tests.audio.signals import music

    samples = np.concatenate(
        [music(rate, seconds=4.5, channels=channels, seed=i) for i in (1, 2)]
    )
    content = wav(samples, rate)
    (tmp_path / "a.wav").write_bytes(content)
    sound = decode(tmp_path / "a.wav").samples
    expected = loaded.signatures["serving_default"](waveform=sound[None])
    answer = loaded.signatures["audio_bytes"](audio_bytes=tf.constant([content]))
    assert answer["status"][0] == OK
    np.testing.assert_allclose(
        answer["probabilities"], expected["probabilities"], atol=1e-3
    )
    assert answer["singer"][0] == expected["singer"][0]


def lying(content, rate):
    """A mono file's bytes with another rate in its header, twice as headers have it."""
    rates = rate.to_bytes(4, "little") + (2 * rate).to_bytes(4, "little")
    return content[:24] + rates + content[32:]


def test_files_that_are_none_leave_their_neighbours_alone(loaded):
    good = wav(song(9.0, seed=1))
    ask = loaded.signatures["audio_bytes"]
    expected = ask(audio_bytes=tf.constant([good]))
    bad = {
        b"\x89PNG\r\n\x1a\n" + bytes(1000): signatures.NO_WAV,
        b"": signatures.NO_WAV,
        good[:1000]: signatures.NO_WAV,
        wav(song(9.0), subtype="FLOAT"): signatures.NO_WAV,
        wav(song(9.0), kind="FLAC"): signatures.NO_WAV,
        wav(song(1.0)): signatures.TOO_SHORT,
        wav(np.zeros(100_000)): signatures.SILENT,
        # No samples in a second.
        good[:24] + bytes(4) + good[28:]: signatures.NO_WAV,
        lying(good, 1): signatures.NO_WAV,
        lying(good, 1_000_000_007): signatures.NO_WAV,
        lying(good, 2**31 - 1): signatures.NO_WAV,
        lying(good, 767_999): signatures.TOO_SHORT,
    }
    answer = ask(audio_bytes=tf.constant([*bad, good]))
    assert [s.numpy().decode() for s in answer["status"]] == [*bad.values(), "ok"]
    assert answer["singer"].numpy().tolist()[:-1] == [b""] * len(bad)
    assert not answer["probabilities"][:-1].numpy().any()
    np.testing.assert_allclose(
        answer["probabilities"][-1], expected["probabilities"][0], atol=1e-6
    )


def test_channels_that_cancel_out(loaded):
    left = song(8.0)
    ask = loaded.signatures["audio_bytes"]
    stereo, mono = wav(np.stack([left, -left], axis=1)), wav(left)
    answer = ask(audio_bytes=tf.constant([stereo, mono]))
    assert answer["status"].numpy().tolist() == [OK, OK]
    np.testing.assert_allclose(
        answer["probabilities"][0], answer["probabilities"][1], atol=1e-4
    )


def test_records_that_are_none_leave_their_neighbours_alone(loaded):
    mel = mel_spectrogram(song(8.0), FeatureConfig())
    shape = tf.train.Int64List(value=(*mel.shape, 1))
    content = tf.train.BytesList(value=[mel.astype("<f2").tobytes()])
    feature = {
        "mel_spectrogram": tf.train.Feature(bytes_list=content),
        "mel_spectrogram/shape": tf.train.Feature(int64_list=shape),
    }
    record = tf.train.Example(features=tf.train.Features(feature=feature))
    good = record.SerializeToString()
    feature["mel_spectrogram/shape"].int64_list.value[1] += 1
    records = [b"nonsense", b"", good[:-9], good]
    answer = loaded.signatures["examples"](examples=tf.constant(records))
    status = [s.numpy().decode() for s in answer["status"]]
    assert status == ["no record of a feature store"] * 3 + ["ok"]
    assert answer["singer"].numpy()[3].decode() in ARTISTS
    assert not answer["decision"][:3].numpy().any()


# === Limits, shapes, types ===


def test_more_than_can_be_asked_is_an_error_that_says_so(loaded, monkeypatch, network):
    from lca_keras.base.config import get_preset

    monkeypatch.setattr(signatures, "MOST_HOURS", 0.005)  # 18 s.
    served = signatures.ServedNetwork(network, ARTISTS, get_preset("demo"))
    served.from_waveform(np.tile(song(8.0), (2, 1)))
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"at most 0.005 h"):
        served.from_waveform(np.tile(song(8.0), (3, 1)))
    monkeypatch.setattr(signatures, "MOST_BYTES", 1000)
    answer = served.from_audio(tf.constant([wav(song(8.0))]))
    assert answer["status"].numpy().tolist() == [b"too long"]


def test_wrong_shapes_and_types_are_errors(loaded):
    for name, inputs in (
        ("serving_default", {"waveform": tf.zeros((90_000,))}),
        ("serving_default", {"waveform": tf.zeros((1, 90_000, 1))}),
        ("serving_default", {"waveform": tf.zeros((1, 90_000), tf.float64)}),
        ("songs", {"waveform": tf.zeros((2, 90_000)), "lengths": tf.constant([9])}),
        ("mel", {"mel_spectrogram": tf.zeros((1, 127, 94, 1))}),
        ("clips", {"mel_spectrogram": tf.zeros((1, 128, 95, 1))}),
    ):
        with pytest.raises((tf.errors.InvalidArgumentError, TypeError, ValueError)):
            loaded.signatures[name](**inputs)


def test_what_clients_have_to_know_can_be_asked_for(loaded, exported):
    answer = loaded.signatures["about"](request=tf.constant(["", "x"]))
    first, second = (json.loads(each.numpy()) for each in answer["metadata"])
    assert first == second
    about = json.loads((exported / "lca_keras.json").read_text(encoding="utf-8"))
    assert first == {name: about[name] for name in first}
    assert {"artists", "config", "clip_frames", "sample_rate"} <= set(first)


# === Anything at all ===


def _resident():
    """MiB of this process's memory."""
    with open("/proc/self/status", encoding="ascii") as file:
        return next(int(line.split()[1]) for line in file if "VmRSS" in line) / 1024


@pytest.mark.slow
def test_thousands_of_requests_of_anything(loaded):
    """An answer or an error for each, the good song beside it untouched, no memory."""
    import gc

    from hypothesis import HealthCheck, given, settings
    from hypothesis import strategies as st

    good = song(3.2, seed=1)
    file = wav(good)
    ask = loaded.signatures["audio_bytes"]
    expected = ask(audio_bytes=tf.constant([file]))["probabilities"][0].numpy()
    alone = loaded.signatures["serving_default"](waveform=good[None])
    count, resident = 0, []
    numbers = st.one_of(
        st.floats(width=32, allow_nan=True, allow_infinity=True),
        st.sampled_from([0.0, -0.0, 1e-30, 1e30, 3.4e38, -3.4e38, 1.0]),
    )

    def check(answer, at, expected):
        status = answer["status"].numpy()
        assert np.isfinite(answer["probabilities"].numpy()).all()
        for said, singer in zip(status, answer["singer"].numpy(), strict=True):
            assert (said == OK) == bool(singer)
        assert status[at] == OK
        np.testing.assert_allclose(answer["probabilities"][at], expected, atol=1e-5)

    @settings(
        max_examples=3000,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(st.data())
    def one(data):
        nonlocal count
        count += 1
        if data.draw(st.booleans()):
            # A file with some of its bytes changed, or any bytes.
            content = bytearray(file)
            for place, byte in data.draw(
                st.lists(st.tuples(st.integers(0, 60), st.integers(0, 255)), max_size=5)
            ):
                content[place] = byte
            content = content[: data.draw(st.integers(0, len(file)))]
            if data.draw(st.booleans()):
                content = data.draw(st.binary(max_size=200))
            files = tf.constant([bytes(content), file])
            check(ask(audio_bytes=files), 1, expected)
        else:
            length = data.draw(st.integers(-3, good.size + 3))
            rows = np.zeros((2, good.size), "float32")
            rows[0], rows[1] = good * data.draw(numbers), good
            for place, number in data.draw(
                st.lists(st.tuples(st.integers(0, good.size - 1), numbers), max_size=5)
            ):
                rows[0, place] = number
            lengths = np.array([length, good.size], "int32")
            answer = loaded.signatures["songs"](waveform=rows, lengths=lengths)
            check(answer, 1, alone["probabilities"][0])
        if count % 600 == 0:
            gc.collect()
            resident.append(_resident())

    with np.errstate(all="ignore"):
        one()
    assert count >= 3000
    # After the first thousands nothing more is kept.
    assert resident[-1] < resident[1] + 100
