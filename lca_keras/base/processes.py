"""Work in several processes."""

import concurrent.futures
import concurrent.futures.process
import contextlib
import multiprocessing
import os
import signal
import threading
import time

from lca_keras.base.errors import UserError

# What `each` yields in the place of a result.
DIED = "brings its process down: damaged, or more than there is memory for"
# Time that a process has to clear away what it has begun.
_GRACE_SECONDS = 5
# Read by libraries of linear algebra, and TensorFlow, when they are loaded.
_THREADS = (
    *("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"),
    *("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"),
)


def pool(workers=None, prepare=None, spawn=False):
    """A `ProcessPoolExecutor` whose processes end with this one, each with one thread.

    There are `workers`, by default one for each core. Each calls `prepare` first; what
    it returns is the first argument of every call that `each` makes there. With `spawn`
    they start anew. Copies of this process start faster, but hang where it has threads,
    as with TensorFlow.
    """
    return concurrent.futures.ProcessPoolExecutor(
        workers or os.cpu_count(),
        multiprocessing.get_context("spawn" if spawn else "fork"),
        _begin,
        (os.getpid(), prepare),
    )


def each(work, calls, workers=None, open_pool=pool):
    """Calls a function that other processes can import with each tuple of arguments.

    Yields, as they come, tuples of a call's number and what it returned. When a process
    dies, the remaining calls are made one after the other: so the one that brings its
    process down is known, gives `DIED`, and is the only one that is lost. `open_pool`
    is a function of `workers`: `pool`, or `concurrent.futures.ThreadPoolExecutor`.
    """
    left, others = dict(enumerate(calls)), set(multiprocessing.active_children())
    gather = _side_by_side
    while left:
        with open_pool(1 if gather is _one_by_one else workers) as executor:
            try:
                for number, result in gather(executor, work, dict(left)):
                    del left[number]
                    yield number, result
            except concurrent.futures.process.BrokenProcessPool:
                gather = _one_by_one
            except BaseException:  # An error, Ctrl-C, or nobody wants the rest.
                for child in set(multiprocessing.active_children()) - others:
                    child.terminate()
                executor.shutdown(cancel_futures=True)
                raise


def spread(work, calls, jobs=None, progress=None, died=None):
    """As `each`, but returns what calls returned, in order.

    `progress` is called with (done, total) after every call. A call that brings its
    process down gives `died`; without, it is a `UserError`.
    """
    if multiprocessing.current_process().daemon:  # It may have no children.
        return [work(*call) for call in calls]
    results = {}
    for number, result in each(work, calls, jobs):
        if result is DIED and died is None:
            raise UserError(
                "a process died, perhaps for lack of memory: try fewer with --jobs"
            )
        results[number] = died if result is DIED else result
        if progress is not None:
            progress(len(results), len(calls))
    return [results[number] for number in range(len(calls))]


def end_with(parent):
    """Has this process end, at once and without a word, when its parent is gone.

    A pool's processes wait for work for ever if theirs is killed; and those that are
    forked hold its locks, for which the next one would wait for ever too.
    """

    def watch():
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


@contextlib.contextmanager
def repeatedly(call, seconds):
    """Calls a function at the start, every so many seconds beside, and at the end."""
    ended = threading.Event()

    def go_on():
        while not ended.wait(seconds):
            call()

    call()
    thread = threading.Thread(target=go_on, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        call()


class _EndedError(BaseException):
    """Raised in a process that is to end, so that it clears away what it has begun."""


# Of a process of a `pool`: what it has prepared, if anything, and whether it works.
_prepared, _busy = [], threading.Event()


def _begin(parent, prepare):
    """The first thing that a process of a `pool` does."""
    import threadpoolctl

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # The parent ends it, by SIGTERM.
    signal.signal(signal.SIGTERM, _end)
    end_with(parent)
    # As many processes as cores, each with threads for all of these, take twice the
    # time. The variables are for libraries to come, the limit for those that are here.
    for variable in _THREADS:
        os.environ.setdefault(variable, "1")
    threadpoolctl.threadpool_limits(1)
    if prepare is not None:
        _prepared.append(prepare())


def _end(*_):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.alarm(_GRACE_SECONDS)  # It kills.
    if not _busy.is_set():
        os._exit(1)
    raise _EndedError


def _call(work, arguments):
    try:
        _busy.set()
        return work(*_prepared, *arguments)
    except _EndedError:
        os._exit(1)  # The pool would go on with the next call.
    finally:
        _busy.clear()


def _side_by_side(executor, work, calls):
    futures = {
        executor.submit(_call, work, call): number for number, call in calls.items()
    }
    for future in concurrent.futures.as_completed(futures):
        yield futures[future], future.result()


def _one_by_one(executor, work, calls):
    for number, call in calls.items():
        future = executor.submit(_call, work, call)
        try:
            result = future.result()
        except concurrent.futures.process.BrokenProcessPool:
            result = DIED
        yield number, result
        if result is DIED:
            return
