"""Work in several processes."""

import concurrent.futures
import concurrent.futures.process
import multiprocessing
import os
import signal
import threading
import time

from lca_keras.base.errors import UserError

# What `each` yields in the place of a result.
DIED = "brings its process down: damaged, or more than there is memory for"
_POLL_SECONDS = 1.0
# Time that a process has to clear away what it has begun.
_GRACE_SECONDS = 5
# Read by libraries of linear algebra, and TensorFlow, when they are loaded.
_THREADS = (
    *("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"),
    *("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"),
)


def pool(workers=None, prepare=None, spawn=False):
    """Opens a pool of processes that end with this one and compute in one thread.

    Args:
        workers: Optional int, number of processes; by default one for each core.
        prepare: Optional function that each process calls first. What it returns is the
            first argument of every call that `each` makes there.
        spawn: Whether processes start anew. Copies of this one start faster, but hang
            where it has threads, as with TensorFlow.

    Returns:
        `concurrent.futures.ProcessPoolExecutor`.
    """
    return concurrent.futures.ProcessPoolExecutor(
        workers or os.cpu_count(),
        multiprocessing.get_context("spawn" if spawn else "fork"),
        _begin,
        (os.getpid(), prepare),
    )


def each(work, calls, workers=None, open_pool=pool):
    """Calls a function in several processes; yields what it returns as it comes.

    When a process dies, the remaining calls are made one after the other: so the one
    that brings its process down is known, and the only one that is lost.

    Args:
        work: Function that other processes can import.
        calls: Sequence of tuples, its arguments.
        workers: Optional int, for `open_pool`.
        open_pool: Function of a number of workers, which gives an executor: `pool`, or
            `concurrent.futures.ThreadPoolExecutor`.

    Yields:
        Tuples of a call's number, and what it returned or `DIED`.
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
    """Calls a function in several processes; returns what it returned, in order.

    Args:
        work: Function that other processes can import.
        calls: Sequence of tuples, its arguments.
        jobs: Optional int, number of processes; by default one for each core.
        progress: Optional function, called with (done, total) after every call.
        died: What a call gives that brings its process down; by default an error.

    Raises:
        UserError: A process died.
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

    Args:
        parent: Int, the parent's process number.
    """

    def watch():
        while os.getppid() == parent:
            time.sleep(_POLL_SECONDS)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


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
