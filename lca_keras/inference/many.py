"""Many songs, asked about in this process or in several."""

import concurrent.futures
import functools
import os

from lca_keras.audio.decode import AudioError
from lca_keras.base import processes
from lca_keras.inference.runtimes import AnswerError
from lca_keras.voices import index

# Songs from which on several processes are worth their start.
_MANY = 8


def ask_each(ask, songs, identifier, opened=None, workers=None):
    """Asks about songs, and yields what is said as it comes.

    Args:
        ask: Function of an `lca_keras.inference.identification.Identifier` and a song,
            which other processes can import.
        songs: List of paths.
        identifier: The one for this process.
        opened: Function that opens it in another one; it takes `threads`. Without,
            workers are threads, for an `Identifier` of a server.
        workers: Optional int. By default one, or, of many songs and with LiteRT, one
            for each core.

    Yields:
        Tuples of a song and what `ask` returned, or `lca_keras.base.processes.DIED`.
    """
    if workers is None:
        many = len(songs) >= _MANY and identifier.runtime.name == "litert"
        workers = os.cpu_count() if many else 1
    if workers == 1:
        yield from ((song, ask(identifier, song)) for song in songs)
        return
    if opened is None:
        ask = functools.partial(ask, identifier)
        pool = concurrent.futures.ThreadPoolExecutor
    else:
        prepare = functools.partial(opened, threads=1)
        pool = functools.partial(processes.pool, prepare=prepare, spawn=True)
    for number, result in processes.each(ask, [(s,) for s in songs], workers, pool):
        yield songs[number], result


def identified(identifier, song, vocals=False, **how):
    """The `Identification` of a song, or as a string why there is none."""
    try:
        return identifier.identify(song, song if vocals else None, **how)
    except (AudioError, AnswerError) as error:
        return str(error)


def voice_of(identifier, song, vocals=False):
    """The `lca_keras.voices.index.SongVoice` of a song, or why there is none."""
    try:
        return index.song_voice(identifier, song, song if vocals else None)
    except AudioError as error:
        return str(error)
