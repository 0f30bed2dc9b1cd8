"""Errors the user can fix, reported as one line without a traceback."""

import contextlib
import errno
import io
import math
import os
import signal
import sys
import threading
from collections.abc import Iterator
from typing import Any

EXIT_USER_ERROR = 2
EXIT_BROKEN_OUTPUT = EXIT_MACHINE = 1
EXIT_PREEMPTED = 75
"""Ended by SIGTERM with everything saved: run the same command again (EX_TEMPFAIL of sysexits)."""
EXIT_INTERRUPTED = 130


class UserError(ValueError):
    """Bad input, in one line without a final period: `NAME is VALUE; expected WHAT. Hint`."""


def check_at_least(settings: object, **least: int | float) -> None:
    """Raises UserError if a field of the settings is less than that, infinite, or NaN."""
    for name, bound in least.items():
        value = getattr(settings, name)
        if not bound <= value < math.inf:
            raise UserError(f"{name} is {value}; expected at least {bound:g}")


class MachineError(Exception):
    """A fault of the machine, such as a cache that cannot be written; says what to do in one line.

    Not a UserError: commands that skip bad songs must not skip a song because of it.
    """


class PreemptedError(BaseException):
    """The job was preempted. Its work is saved and can be resumed, also on another machine.

    A BaseException, like KeyboardInterrupt, so that `except Exception` does not catch it.
    """


@contextlib.contextmanager
def one_line_errors(memory_option: str = "--batch-size") -> Iterator[None]:
    """Wraps a command's main function: exceptions become one line and an exit status.

    A script's imports can go inside too, as their extras may not be installed. `memory_option` is
    the option to lower if a device runs out of memory.
    """
    try:
        for stream in (sys.stdout, sys.stderr):  # an odd file name must not end a run
            if isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(errors="backslashreplace")
        try:
            with _no_lost_interrupts():
                yield
        finally:
            print(end="", flush=True)  # Python would do it at exit, with a traceback
    except UserError as error:
        print(f"error: {printable(error)}", file=sys.stderr)
        raise SystemExit(EXIT_USER_ERROR) from None
    except ModuleNotFoundError as error:
        print(
            f"error: the package {error.name} is not installed; in the checkout, pip install -e"
            " '.[train]' installs what training and data sets need, '.[dev]' what tests need",
            file=sys.stderr,
        )
        raise SystemExit(EXIT_USER_ERROR) from None
    except RuntimeError as error:  # JAX's
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        reason = str(error).splitlines()[0]
        print(f"error: {reason}; lower {memory_option}, or take a larger device", file=sys.stderr)
        raise SystemExit(EXIT_USER_ERROR) from None
    except MachineError as error:
        print(f"error: {printable(error)}", file=sys.stderr)
        raise SystemExit(EXIT_MACHINE) from None
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        raise SystemExit(EXIT_INTERRUPTED) from None
    except OSError as error:
        if error.errno == errno.EPIPE:
            print("stopped: nobody reads the output any more", file=sys.stderr)
        elif error.errno == errno.ENOSPC and error.filename is None:  # not a file's error
            print(f"stopped: the output cannot be written: {error.strerror}", file=sys.stderr)
        else:
            raise
        with contextlib.suppress(OSError):  # Python would write the rest at exit
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(EXIT_BROKEN_OUTPUT) from None
    except PreemptedError as error:
        print(f"preempted: {error}", file=sys.stderr)
        raise SystemExit(EXIT_PREEMPTED) from None


@contextlib.contextmanager
def _no_lost_interrupts() -> Iterator[None]:
    """Re-raises what a signal handler raised where Python would only report it.

    That is in destructors and in callbacks of the garbage collector; JAX has one of these.
    """
    before = sys.unraisablehook

    def raise_again(lost: Any) -> None:
        error = lost.exc_value
        if not isinstance(error, KeyboardInterrupt | PreemptedError):
            before(lost)
            return

        def handle(*_: object) -> None:
            timer.cancel()
            signal.signal(signal.SIGINT, handler)
            raise error

        def handle_at_end() -> None:
            if signal.getsignal(signal.SIGINT) is handle:
                handle(signal.SIGINT, None)

        handler = signal.signal(signal.SIGINT, handle)
        thread = threading.main_thread().ident
        # After this function has ended: within it Python would drop the exception, too.
        timer = threading.Timer(0.3, signal.pthread_kill, (thread, signal.SIGINT))
        timer.start()
        at_end.callback(handle_at_end)

    sys.unraisablehook = raise_again
    with contextlib.ExitStack() as at_end:
        at_end.callback(setattr, sys, "unraisablehook", before)
        yield


def describe(error: Exception) -> str:
    """The class of another library's error, and the first line of its message."""
    return ": ".join([type(error).__name__, *str(error).splitlines()[:1]])


def printable(text: object) -> str:
    """The text with its control characters escaped; names of files may have some."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(text))
