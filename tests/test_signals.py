"""Interruptions: of imports, of what swallows exceptions, and of the end itself."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from jaxunlearn import _signals
from jaxunlearn.display import make_display
from jaxunlearn.evaluate import Evaluation
from jaxunlearn.metrics import Count
from tests.shop import environment


@pytest.fixture(autouse=True)
def heeded() -> Iterator[None]:
    """Shells let their background jobs ignore interruptions, and so these tests if they are one."""
    inherited = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, inherited)


@pytest.mark.parametrize("module", ["jaxunlearn.ibau", "converters"])
def test_a_program_that_still_imports_ends_with_a_sentence(module: str) -> None:
    process = subprocess.Popen(
        [sys.executable, "-X", "importtime", "-m", module, "--help"],
        env=environment(),
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stderr is not None
        for line in process.stderr:
            if line.endswith(" jaxunlearn._signals\n"):
                process.send_signal(signal.SIGINT)
                break
        *_, last = process.stderr
    assert (process.returncode, last) == (130, "interrupted: nothing was written.\n")


def test_what_ignores_an_interruption_does_not_lose_it() -> None:
    display = make_display(quiet=True)
    before = signal.getsignal(signal.SIGINT)
    with _signals.interruptible():
        display.advance(0.5)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(1)
        for tell in (
            lambda: display.advance(0.5),
            lambda: display.work("a", 0.5),
            lambda: display.round_done(1, {}, Evaluation(Count(1, 2), None, None)),
        ):
            with pytest.raises(KeyboardInterrupt):
                tell()
    display.advance(0.5)
    assert signal.getsignal(signal.SIGINT) is before


def test_an_interruption_of_a_callback_is_sent_again(capsys: pytest.CaptureFixture[str]) -> None:
    class Callback:
        def __del__(self) -> None:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.01)

    with _signals.interruptible():
        del_me = Callback()
        with pytest.raises(KeyboardInterrupt):
            del del_me
            time.sleep(5)
    assert capsys.readouterr().err == ""


def test_what_ends_is_not_ended_again() -> None:
    with _signals.interruptible():
        _signals.ignore()
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGTERM)
        _signals.raise_if_interrupted()


def test_ignored_signals_stay_ignored() -> None:
    inherited = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with _signals.interruptible():
            os.kill(os.getpid(), signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, inherited)


def test_other_programs_keep_their_handlers() -> None:
    script = "import signal, jaxunlearn; print(signal.getsignal(signal.SIGINT) is signal.default_int_handler)"
    done = subprocess.run(
        [sys.executable, "-c", f"import signal; signal.signal(2, signal.default_int_handler); {script}"],
        env=environment(),
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "True\n"
