"""Work spread over the processor's cores."""

import concurrent.futures
import concurrent.futures.process
import multiprocessing
import os
import threading
import time

from lca_keras.base.errors import UserError

_POLL_SECONDS = 1.0


def spread(work, arguments, jobs=None, progress=None, method=None):
    """Calls a function that other processes can import with each tuple of arguments.

    `jobs` is the number of processes, by default that of cores; `progress` is called
    with (done, total) after every call; `method` is how processes start, as
    `multiprocessing` names it. Returns what the calls returned, in order.

    Raises:
        UserError: A process died.
    """
    if multiprocessing.current_process().daemon:  # It may have no children.
        return [work(*each) for each in arguments]
    with concurrent.futures.ProcessPoolExecutor(
        jobs or os.cpu_count(),
        multiprocessing.get_context(method),
        initializer=end_with,
        initargs=(os.getpid(),),
    ) as pool:
        futures = [pool.submit(work, *each) for each in arguments]
        try:
            for done, future in enumerate(concurrent.futures.as_completed(futures), 1):
                future.result()  # An error ends it now, not with the last call.
                if progress is not None:
                    progress(done, len(futures))
        except concurrent.futures.process.BrokenProcessPool as error:
            raise UserError(
                "a process died, perhaps for lack of memory: try fewer with --jobs"
            ) from error
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return [future.result() for future in futures]


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
