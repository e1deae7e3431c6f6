"""What the commands share: errors in one line, progress on the screen."""

import contextlib
import logging
import os
import shlex
import sys
import tempfile

from lca_keras.base.errors import UserError


def add_debug_flag(parser):
    """Adds `--debug`, which shows tracebacks; the last option of every command."""
    parser.add_argument("--debug", action="store_true", help="show tracebacks")
    complete(parser)


def complete(parser):
    """Where a shell asks how its line may go on, answers and ends the program."""
    if "_ARGCOMPLETE" in os.environ:
        import argcomplete

        argcomplete.autocomplete(parser)


def guard(job, debug=False):
    """Runs a command's job and turns what a user can mend into one line.

    Returns an exit code: the job's own or 0, 1 after an error, 130 after Ctrl-C, 141
    when nobody reads on. With `debug`, exceptions pass with their traceback.
    """
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")  # Names that are not UTF-8.
    if debug:
        return job() or 0
    try:
        return job() or 0
    except (KeyboardInterrupt, RuntimeError) as error:
        if not is_interrupt(error):
            raise
        hint = str(error) if isinstance(error, KeyboardInterrupt) else ""
        print(f"\nInterrupted. {hint}".rstrip(), file=sys.stderr)
        return 130
    except BrokenPipeError:  # Who reads has had enough, `head` say.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except UserError as error:
        said = str(error)
    except ModuleNotFoundError as error:
        needed = f"this needs {error.name}: pip install 'lca-keras[train]'"
        said = f"{needed} (--debug shows where)"
    except (ValueError, OSError) as error:
        said = f"{error} (--debug shows where)"
    print(f"error: {said}", file=sys.stderr)
    return 1


def is_interrupt(error):
    """Whether Ctrl-C is behind an error; TensorFlow wraps it while it traces."""
    return isinstance(error, KeyboardInterrupt) or "KeyboardInterrupt" in str(error)


@contextlib.contextmanager
def resumable(words):
    """Says after Ctrl-C, by `guard`, with which words the work goes on."""
    try:
        yield
    except (KeyboardInterrupt, RuntimeError) as error:
        if not is_interrupt(error):
            raise
        raise KeyboardInterrupt(f"Continue with: {shlex.join(words)}") from error


def bar(**settings):
    """A bar of rich: what is done, of how much, how long yet."""
    from rich import progress

    return progress.Progress(
        progress.TextColumn("{task.description}"),
        progress.BarColumn(),
        progress.MofNCompleteColumn(),
        progress.TimeRemainingColumn(),
        **settings,
    )


@contextlib.contextmanager
def progress(description, screen=None):
    """Shows a progress bar on a text stream, standard error by default.

    Yields a function to call with (done, total). What is done at the first call, an
    earlier run did; it has no say in the time that is left.
    """
    from rich.console import Console

    console = Console(file=screen, stderr=screen is None)
    # From the mean over all that was done: one long song is no trend.
    with bar(console=console, speed_estimate_period=86400) as shown:
        task = shown.add_task(description, total=None)

        def show(done, total):
            begun = shown.tasks[task].total is not None
            move = shown.update if begun else shown.reset
            move(task, completed=done, total=total)

        try:
            yield show
        finally:
            if shown.tasks[task].total is None:  # Nothing was to be done.
                shown.update(task, visible=False)


@contextlib.contextmanager
def working(description):
    """Says what is going on, and on a terminal how long already, until it is done."""
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    screen = Console(stderr=True)
    if not screen.is_terminal:
        print(f"{description} ...", file=sys.stderr, flush=True)
        yield
        return
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=screen, transient=True) as spinner:
        spinner.add_task(description, total=None)
        yield


def quiet_tensorflow():
    """Imports TensorFlow without its start-up messages.

    They are written by C++ libraries while these load, before any setting of
    TensorFlow's logging takes effect. An import that fails shows everything.
    """
    if "tensorflow" in sys.modules:
        return
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    # Each model is traced once; several in one process are no fault of anybody's.
    logging.getLogger("tensorflow").addFilter(
        lambda record: "triggered tf.function retracing" not in record.getMessage()
    )
    with tempfile.NamedTemporaryFile() as hidden:
        try:
            with stderr_to(hidden.name):
                import tensorflow as tf

                tf.config.list_physical_devices()  # Looks for GPU drivers.
        except BaseException:
            os.write(2, hidden.read())
            raise


@contextlib.contextmanager
def stderr_to(path):
    """Appends all of standard error to a file; yields a text stream to the screen."""
    sys.stderr.flush()
    with open(path, "ab") as log, os.fdopen(os.dup(2), "w") as screen:
        os.dup2(log.fileno(), 2)
        try:
            yield screen
        finally:
            sys.stderr.flush()
            os.dup2(screen.fileno(), 2)
