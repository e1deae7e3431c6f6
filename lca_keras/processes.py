"""Work spread over the processor's cores."""

import concurrent.futures
import concurrent.futures.process
import multiprocessing
import os

from lca_keras.errors import UserError


def spread(work, arguments, jobs=None, progress=None):
    """Calls a function that other processes can import with each tuple of arguments.

    `jobs` is the number of processes, by default that of cores; `progress` is called
    with (done, total) after every call. Returns what the calls returned, in order.

    Raises:
        UserError: A process died.
    """
    if multiprocessing.current_process().daemon:  # It may have no children.
        return [work(*each) for each in arguments]
    with concurrent.futures.ProcessPoolExecutor(jobs or os.cpu_count()) as pool:
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
