"""The process that decodes: a script, which `lca_keras.audio.decode` runs.

Decoders are written in C and read what anybody sends, so they have a process of their
own: whatever a damaged or hostile file does to it, only that file is lost. A request is
a line on standard input, the path in hexadecimal; the answer a series of messages, each
a header `kind, rate, channels, size` and as many bytes.

It imports nothing of the package, so it starts at once.
"""

import contextlib
import dataclasses
import io
import json
import os
import signal
import struct
import sys

HEADER = struct.Struct("<4sIII")
BLOCK, END, UNUSABLE, NO_ACCESS = b"blok", b"done", b"fail", b"deny"

# FFmpeg's names of the formats that hold recordings. Not among them: playlists and
# other formats that open further files, or addresses.
_FORMATS = (
    *("aac", "ac3", "aiff", "amr", "ape", "asf", "au", "avi", "caf", "dsf", "dts"),
    *("eac3", "flac", "flv", "matroska", "mov", "mp3", "mpc", "mpc8", "mpeg"),
    *("mpegts", "ogg", "rm", "tak", "tta", "w64", "wav", "webm", "wv"),
)
_MAGIC = {b"RIFF": "wav", b"fLaC": "flac", b"OggS": "ogg", b"ID3": "mp3"}
_MAGIC |= {b"FORM": "aiff", b"wvpk": "wv", b"caff": "caf"}
# Formats whose header says how long they are; the length of others is an estimate from
# their bit rate. (FFmpeg takes that of wav from the file: `_after_chunks` reads it.)
_DECLARE = {"aiff", "ape", "asf", "caf", "flac", "matroska", "mov", "ogg", "tta", "wv"}
# The process ends itself when nothing comes of a file for so long.
PATIENCE_SECONDS = 45
# Bytes of address space that a file may take. OpenBLAS and FFmpeg reserve much of it.
_MEMORY = 2 << 30
# Samples, of all channels, in a message.
_SAMPLES = 1 << 18
_MOST_CHANNELS = 64
# Bytes at the end of a file that are worth a word.
_LEAST_REST = 1 << 14
_LOWEST_RATE, _HIGHEST_RATE = 2000, 768000


class Unusable(Exception):
    """A file that cannot be used; the message is the reason."""


def main():
    """Answers requests until standard input ends."""
    import resource

    import av

    av.logging.set_level(None)
    with contextlib.suppress(ValueError, OSError):  # Not every system has it.
        resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    out = sys.stdout.buffer

    def send(kind, rate, parts):
        signal.alarm(0)  # Whoever reads it may take their time.
        size = sum(map(len, parts))
        out.write(HEADER.pack(kind, rate, len(parts), size))
        for part in parts:
            out.write(part)
        out.flush()
        signal.alarm(PATIENCE_SECONDS)

    for line in sys.stdin.buffer:
        path = bytes.fromhex(line.decode())
        signal.alarm(PATIENCE_SECONDS)
        try:
            notes = []
            for rate, channels in read(path, notes):
                send(BLOCK, rate, channels)
            kind, said = END, json.dumps(notes)
        except Unusable as error:
            kind, said = UNUSABLE, str(error)
        except MemoryError:
            kind, said = UNUSABLE, "damaged: decoding it takes too much memory"
        except OSError as error:
            kind, said = NO_ACCESS, f"cannot be read: {error.strerror or error}"
        send(kind, 0, [said.encode()])
        signal.alarm(0)


def read(path, notes):
    """Decodes a file, a path in bytes, piece by piece.

    Yields tuples of sample rate and a list with the bytes of each channel, its samples
    in float32. Rate and channels may change within a file of several that were joined.
    The list `notes` takes sentences for people, of what may be missing.
    """
    import av

    with _File(path) as file:
        start = file.read(12)
        file.seek(0)
        if not start:
            raise Unusable("empty file (0 bytes)")
        if start[:4] == b"MThd":
            raise Unusable("a MIDI file: it holds notes, no sound")
        try:
            # As an open file: of a name, FFmpeg would read protocols.
            container = av.open(
                file,
                options={"format_whitelist": ",".join(_FORMATS)},
                metadata_errors="ignore",
            )
        except (av.error.FFmpegError, ValueError) as error:
            raise Unusable(_not_opened(start)) from error
        with container:
            if not container.streams.audio:
                raise Unusable("there is no sound in it")
            stream = container.streams.best("audio")
            if stream is None or stream.codec_context is None:
                raise Unusable(
                    "its sound is coded in an unknown way, protected, or damaged"
                )
            if len(container.streams.audio) > 1:
                notes.append(
                    f"it has {len(container.streams.audio)} sound tracks, of which "
                    f"number {container.streams.audio.index(stream) + 1} is used"
                )
            decoded = _Decoded()
            yield from _blocks(container, stream, decoded)
            names = set(container.format.name.split(","))
            notes += _notes(
                file, names, decoded, _declared(file, names, container, stream)
            )


class _File(io.FileIO):
    """A file as FFmpeg reads it, whose seeks may go wrong in damaged ones."""

    def seek(self, offset, whence=0):
        """Returns the new position, or -1 where there is none."""
        try:
            return super().seek(offset, whence)
        except (OSError, ValueError, OverflowError):
            return -1


@dataclasses.dataclass
class _Decoded:
    """What has been decoded of a file."""

    seconds: float = 0.0
    end: int = 0  # Of its last packet, in bytes.
    lost: int = 0  # Passages that could not be decoded.
    stopped: bool = False  # It could not be read to its end.


def _not_opened(start):
    """Why a file could not be opened, as far as its first bytes tell."""
    for magic, name in _MAGIC.items():
        if start.startswith(magic):
            return f"damaged: it begins like {name}, and no sound can be found in it"
    if start[4:8] == b"ftyp":
        return "damaged or cut off: it begins like m4a or mp4, and its index is missing"
    return "no recording in a format that FFmpeg decodes, or damaged"


def _blocks(container, stream, decoded):
    """Yields what `read` yields; passages that cannot be decoded are left out."""
    import av

    # Frames are short: converted one by one they take longer than to be decoded.
    waiting, form = None, None
    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets, None)
            if packet is None:
                break
            decoded.end = max(decoded.end, (packet.pos or 0) + packet.size)
            frames = packet.decode()
        except av.error.InvalidDataError:
            decoded.lost += 1
            continue
        except av.error.FFmpegError:
            decoded.stopped = True
            break
        for frame in frames:
            now = (frame.sample_rate, frame.layout.name, frame.format.name)
            # Files that were joined may change in all of these.
            full = waiting and waiting.samples * waiting.layout.nb_channels >= _SAMPLES
            if now != form or full:
                yield from _floats(waiting)
            if now != form:
                _check_form(frame)
                form, waiting = now, av.AudioFifo()
            decoded.seconds += frame.samples / frame.sample_rate
            frame.pts = None  # Gaps are not filled.
            waiting.write(frame)
    yield from _floats(waiting)


def _floats(waiting):
    """Yields what is in an `av.AudioFifo` or `None`, as `_blocks` does; empties it."""
    import av

    frame = waiting and waiting.read()
    if not frame:
        return
    # PyAV finds the end of eight planes and more by reading beyond them.
    planar = frame.layout.nb_channels < 8
    resampler = av.AudioResampler(format="fltp" if planar else "flt")
    for found in [*resampler.resample(frame), *resampler.resample(None)]:
        if planar:
            # Planes are as long as memory likes to have them.
            planes = [memoryview(plane)[: 4 * found.samples] for plane in found.planes]
        else:
            samples = found.to_ndarray().reshape(found.samples, -1)
            planes = [channel.tobytes() for channel in samples.T]
        yield found.sample_rate, planes


def _check_form(frame):
    """Raises for a header that cannot be true."""
    for value, what, least, most in (
        (frame.sample_rate, "samples a second", _LOWEST_RATE, _HIGHEST_RATE),
        (frame.layout.nb_channels, "channels", 1, _MOST_CHANNELS),
    ):
        if not least <= value <= most:
            raise Unusable(
                f"its header says {value} {what}: damaged, a recording has {least} to "
                f"{most}"
            )


# === Is that all? ===


def _notes(file, names, decoded, declared):
    """Yields sentences about sound that may be missing, with `_declared` seconds."""
    size = os.fstat(file.fileno()).st_size
    rest, place = 0, _data_of(file)
    if place is not None:
        begin, length = place
        # So much sound a byte, and so many bytes are announced.
        known = decoded.end - begin
        declared = decoded.seconds * length / known if known > 0 else None
    if place is None and names & {"wav", "aiff"}:
        announced, rest = _after_chunks(file, size)
        declared = announced or declared
    elif "mov" in names:
        rest = _second_movie(file, size)
    # Tags have less.
    elif decoded.stopped or size - decoded.end > decoded.end / 4:
        rest = size - decoded.end
    slack = 0.1 + 0.001 * (declared or 0)
    lasts = f"its header announces {declared or 0:.2f} s"
    if declared and decoded.seconds < declared - slack:
        yield f"{lasts}, {decoded.seconds:.2f} s are there: cut off or damaged"
    elif declared and decoded.seconds > declared + slack:
        yield f"{lasts}, {decoded.seconds:.2f} s are there, and used: joined files?"
    elif decoded.lost and not declared:
        yield f"{decoded.lost} passages of it are damaged and left out"
    if rest > _LEAST_REST:
        yield (
            f"it ends after {decoded.seconds:.2f} s, and {rest} bytes that follow are "
            "not used: joined files, or a wrong header?"
        )
    if "ogg" in names and not _ends(file, size):
        yield f"it stops after {decoded.seconds:.2f} s without an end: cut off?"


def _declared(file, names, container, stream):
    """Seconds that a file's header says it lasts, or `None` if it does not say."""
    if "mp3" in names:
        # The first frame of LAME's and Xing's files, and of Fraunhofer's, tells.
        file.seek(_tag_size(file))
        start = file.read(4096)
        if not any(magic in start for magic in (b"Xing", b"Info", b"VBRI")):
            return None
    elif "asf" in names:
        return _asf_seconds(file)
    elif not names & _DECLARE:
        return None
    if stream.duration is not None:
        return float(stream.duration * stream.time_base)
    return container.duration / 1e6 if container.duration else None


def _asf_seconds(file):
    """Seconds that a wma file announces, or `None`; FFmpeg takes them from its size."""
    file.seek(0)
    head = file.read(1 << 16)
    # The identifier of the file's properties, and what comes before its length.
    place = head.find(bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365"))
    if place < 0 or place + 88 > len(head):
        return None
    length, _, before = struct.unpack("<QQQ", head[place + 64 : place + 88])
    return length / 1e7 - before / 1e3 if length else None


def _tag_size(file):
    """Bytes of the ID3 tag that a file begins with."""
    file.seek(0)
    head = file.read(10)
    if head[:3] != b"ID3" or len(head) < 10:
        return 0
    shifts = (21, 14, 7, 0)  # Seven bits a byte.
    return 10 + sum((b & 127) << s for b, s in zip(head[6:], shifts, strict=True))


def _chunks(file, position, head, rounded=1, counted=0):
    """Yields name, begin and length of the chunks of a file, from a position on.

    `head` is the format of a header, a name and a length; chunks begin at multiples of
    `rounded` bytes, and the length counts `counted` bytes of the header too.
    """
    size = struct.calcsize(head)
    for _ in range(100_000):  # A damaged file may have any number.
        file.seek(position)
        field = file.read(size)
        if len(field) < size:
            return
        name, length = struct.unpack(head, field)
        length -= counted
        if length < 0:
            return
        yield name, position + size, length
        position += size + length
        position += -position % rounded


def _after_chunks(file, size):
    """Seconds that a wav file announces, and bytes after the chunks of wav or aiff.

    Sound that a header leaves out follows the last chunk, or the bytes that come
    where a chunk should begin are none.
    """
    file.seek(0)
    order = ">" if file.read(4) == b"FORM" else "<"
    seconds, rate, end = None, 0, 12
    for name, begin, length in _chunks(file, end, f"{order}4sI", 2):
        whole = begin + length <= size and name not in (b"RIFF", b"FORM")
        if name == b"fmt " and length >= 16:
            file.seek(begin)
            rate = struct.unpack("<I", file.read(12)[8:])[0]
        if name == b"data" and not 0 < length < 0xFFFFFF00:
            return None, 0  # Written to a pipe: all that follows is sound.
        if name == b"data" and rate:
            seconds = length / rate
        if name in (b"data", b"SSND") and not whole:
            return seconds, 0
        if not whole or not all(32 <= byte < 127 for byte in name):
            break
        end = begin + length + length % 2
    return seconds, max(0, size - end)


def _data_of(file):
    """Begin and announced bytes of the sound in au, w64, rf64 and caf, or `None`."""
    file.seek(0)
    start = file.read(40).ljust(40, b"\0")
    announced = 0
    if start[:4] == b".snd":
        begin, length = struct.unpack(">II", start[4:12])
        return (begin, length) if 0 < length < 0xFFFFFFFF else None
    if start[:4] in (b"RF64", b"BW64") and start[12:16] == b"ds64":
        (announced,) = struct.unpack("<Q", start[28:36])
        chunks = _chunks(file, 12, "<4sI", 2)
    elif start[:4] == b"riff" and start[24:28] == b"wave":
        chunks = _chunks(file, 40, "<4s12xQ", 8, counted=24)
    elif start[:4] == b"caff":
        chunks = _chunks(file, 8, ">4sq")
    else:
        return None
    for name, begin, length in chunks:
        if name == b"data":
            length = announced or length
            return (begin, length) if 0 < length < 1 << 60 else None
    return None


def _second_movie(file, size):
    """Bytes from the second file on, where several of mp4 or m4a were joined."""
    position, found = 0, 0
    while position + 8 <= size:
        file.seek(position)
        length, name = struct.unpack(">I4s", file.read(8))
        found += name == b"ftyp"
        if found > 1:
            return size - position
        if length == 1:
            length = struct.unpack(">Q", file.read(8).ljust(8, b"\0"))[0]
        if length < 8:
            break
        position += length
    return 0


def _ends(file, size):
    """Whether the last page of an Ogg file says that it is the last."""
    file.seek(max(0, size - (1 << 17)))
    end = file.read()
    page = end[max(0, end.rfind(b"OggS")) :].ljust(27, b"\0")
    sizes = page[27 : 27 + page[26]]  # Of the page's segments.
    whole = len(sizes) == page[26] and len(page) >= 27 + len(sizes) + sum(sizes)
    return bool(page[5] & 4) and whole


if __name__ == "__main__":
    main()
