"""What a person sees while a method runs."""

import sys
import time
from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

from jaxunlearn._signals import raise_if_interrupted
from jaxunlearn.evaluate import Evaluation


@runtime_checkable
class Display(Protocol):
    """Told what happens; shows it or not."""

    def say(self, text: str) -> None:
        """A line of text."""

    def start(self, rounds: int, done: int) -> None:
        """Rounds begin, ``done`` of them are over already."""

    def advance(self, share: float) -> None:
        """This share of the current round is done."""

    def round_done(self, number: int, losses: Mapping[str, float], evaluation: Evaluation) -> None:
        """A round is over."""

    def stop(self) -> None:
        """No more rounds."""

    def work(self, what: str, share: float) -> None:
        """This share is done of something beside the rounds."""


def describe(evaluation: Evaluation) -> str:
    """ACC, ASR and RA in percent.

    Example:
      >>> from jaxunlearn.metrics import Count
      >>> describe(Evaluation(Count(9, 10), None, None))
      'ACC  90.00 %  ASR unknown'
    """
    text = f"ACC {100 * evaluation.acc.rate:6.2f} %"
    if evaluation.asr is None or evaluation.ra is None:
        return f"{text}  ASR unknown"
    return f"{text}  ASR {100 * evaluation.asr.rate:6.2f} %  RA {100 * evaluation.ra.rate:6.2f} %"


def make_display(*, quiet: bool) -> Display:
    """A live display on a terminal, plain lines elsewhere, nothing when quiet."""
    if quiet or sys.stdout is None:  # which a program has that was started without one
        return _Silent()
    return _Live() if sys.stdout.isatty() else _Plain()


def _aligned(value: float) -> str:
    return f"{value:9d}" if isinstance(value, int) else f"{value:9.3f}"


class _Silent:
    """Nothing; but an interruption that was lost is noticed here."""

    def say(self, text: str) -> None:
        pass

    def start(self, rounds: int, done: int) -> None:
        pass

    def advance(self, share: float) -> None:
        raise_if_interrupted()

    def round_done(self, number: int, losses: Mapping[str, float], evaluation: Evaluation) -> None:
        raise_if_interrupted()

    def stop(self) -> None:
        pass

    def work(self, what: str, share: float) -> None:
        raise_if_interrupted()


class _Plain(_Silent):
    """One line per round, and per quarter of other work."""

    _quarter = 0

    def say(self, text: str) -> None:
        sys.stdout.write(text + "\n")
        sys.stdout.flush()

    def start(self, rounds: int, done: int) -> None:
        self._rounds, self._first, self._began = rounds, done, time.monotonic()

    def round_done(self, number: int, losses: Mapping[str, float], evaluation: Evaluation) -> None:
        elapsed = time.monotonic() - self._began
        left = elapsed / (number - self._first) * (self._rounds - number)
        named = "  ".join(f"{name} {_aligned(value)}" for name, value in losses.items())
        self.say(
            f"round {number}/{self._rounds}  {named}  {describe(evaluation)}  {elapsed:4.0f} s, {left:.0f} s left"
        )
        raise_if_interrupted()

    def work(self, what: str, share: float) -> None:
        raise_if_interrupted()
        quarter = int(4 * share)
        if quarter > self._quarter:
            self.say(f"{what}  {25 * quarter} %")
        self._quarter = quarter % 4


class _Live(_Plain):
    """The same lines, and a bar below them."""

    def say(self, text: str) -> None:
        if self._bar is None:
            super().say(text)
        else:
            self._bar.console.print(text, highlight=False, markup=False, soft_wrap=True)

    def __init__(self) -> None:
        self._bar: Any = None

    def start(self, rounds: int, done: int) -> None:
        super().start(rounds, done)
        self._number = done
        self._show(f"round {done + 1}/{rounds}", rounds, done)

    def _show(self, description: str, total: float, done: float) -> None:
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("elapsed"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            transient=True,
        )
        self._task = self._bar.add_task(description, total=total, completed=done)
        self._bar.start()

    def advance(self, share: float) -> None:
        raise_if_interrupted()
        self._bar.update(self._task, completed=self._number + share)

    def round_done(self, number: int, losses: Mapping[str, float], evaluation: Evaluation) -> None:
        super().round_done(number, losses, evaluation)
        self._number = number
        following = min(number + 1, self._rounds)
        self._bar.update(self._task, completed=number, description=f"round {following}/{self._rounds}")

    def stop(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def work(self, what: str, share: float) -> None:
        raise_if_interrupted()
        if self._bar is None:
            self._show(what, 1, share)
        self._bar.update(self._task, completed=share)
        if share >= 1:
            self.stop()
