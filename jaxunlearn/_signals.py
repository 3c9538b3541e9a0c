"""How programs end when they are interrupted: with one sentence and exit code 130, whenever that is."""

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator
from typing import Any

INTERRUPTED = 130
_OURS = ("jaxunlearn", "converters")
_NUMBERS = (signal.SIGINT, signal.SIGTERM)
_SOON = 0.1  # seconds, after which a callback is over

_pending = False


def _is_program() -> bool:
    """Whether this process is one of ours: ``python -m jaxunlearn.NAME``."""
    given = sys.orig_argv
    module = given[given.index("-m") + 1] if "-m" in given[:-1] else ""
    return module.partition(".")[0] in _OURS and threading.current_thread() is threading.main_thread()


def _handle(number: int, handler: Any) -> Any:
    """Sets a handler, unless the signal is ignored, as shells let their background jobs; returns the one before."""
    if (usual := signal.getsignal(number)) is signal.SIG_IGN:
        return usual
    return signal.signal(number, handler)


def _end_at_once(*_: Any) -> None:
    if sys.stderr is not None:
        sys.stderr.write("interrupted: nothing was written.\n")
    leave(INTERRUPTED)


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """Makes signals that end a program raise KeyboardInterrupt, which ``raise_if_interrupted`` repeats.

    What is raised by a signal is lost where it arrives in a callback whose errors are ignored, as JAX has some; it is
    sent again then. Afterwards all is as before.
    """
    global _pending  # noqa: PLW0603
    _pending = False
    usual, report = [_handle(number, _interrupt) for number in _NUMBERS], sys.unraisablehook

    def notice(ignored: Any) -> None:
        if ignored.exc_type is not KeyboardInterrupt:
            report(ignored)
        elif _pending:
            again = threading.Timer(_SOON, _send_again)
            again.daemon = True
            again.start()

    sys.unraisablehook = notice
    try:
        yield
    finally:
        sys.unraisablehook = report
        _pending = False
        for number, handler in zip(_NUMBERS, usual, strict=True):
            signal.signal(number, handler)


def _interrupt(*_: Any) -> None:
    global _pending  # noqa: PLW0603
    _pending = True
    raise KeyboardInterrupt


def _send_again() -> None:
    if _pending:
        os.kill(os.getpid(), signal.SIGINT)


def ignore() -> None:
    """Ignores the signals from now on: what ends is not ended again."""
    for number in _NUMBERS:
        signal.signal(number, signal.SIG_IGN)


def raise_if_interrupted() -> None:
    """Raises KeyboardInterrupt if a signal has, whatever became of that.

    Raises:
      KeyboardInterrupt: if so.
    """
    if _pending:
        raise KeyboardInterrupt


def leave(code: int) -> None:
    """Ends the process with an exit code.

    If it was interrupted, at once: compilations that still run are not waited for, nor another signal.
    """
    ignore()
    if code != INTERRUPTED:
        sys.exit(code)
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError, AttributeError):
            stream.flush()
    os._exit(code)


if _is_program():  # importing takes seconds, in which an interruption would end in a traceback
    _handle(signal.SIGINT, _end_at_once)
