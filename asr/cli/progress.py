"""How far long work has come: a bar on a terminal, a line now and then in a log."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sized
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

from asr.text import printable

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import TaskID

PLAIN_INTERVAL_S = 10.0  # [s] between the lines that stand in for a bar where there is no terminal
BAR_INTERVAL_S = 0.05  # [s] between moves of the bar: an n-gram takes less than a move

T = TypeVar("T")


class ProgressBar:
    """Tells of work while the block runs: its steps as lines, how far a long one is as a bar.

    Args:
        console: where to tell.
    """

    def __init__(self, console: Console) -> None:
        # Imported here, as all commands import this file: their help needs none of it.
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        self.console = console
        self._bar = Progress(
            TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[amount]}"),
            TimeRemainingColumn(), console=console, transient=True,
            disable=not console.is_terminal,
        )  # fmt: skip
        self._tasks: dict[str, TaskID] = {}
        self._told = self._moved = time.monotonic()

    def __enter__(self) -> ProgressBar:
        self._bar.start()
        return self

    def __exit__(self, *details: object) -> None:
        self._bar.stop()

    def say(self, line: str) -> None:
        """Print a line, above the bar where there is one."""
        self.console.print(printable(line), markup=False, soft_wrap=True)

    def advance(self, doing: str, unit: str, done: int, total: int | None) -> None:
        """Tell how far a step is, as often as one likes.

        Args:
            doing: what is done, as "listening".
            unit: of what is counted, as "utterances".
            done: so many of them.
            total: of so many; None where nobody knows.
        """
        now, is_last = time.monotonic(), done == total
        is_terminal = self.console.is_terminal
        if is_terminal and not is_last and now - self._moved < BAR_INTERVAL_S:
            return
        if not is_terminal and now - self._told <= PLAIN_INTERVAL_S:
            return
        amount = f"{done:,} {unit}" if total is None else f"{done:,} of {total:,} {unit}"
        if not is_terminal:
            self._told = now
            self.say(f"{doing}: {amount}")
            return
        self._moved = now
        if doing not in self._tasks:
            self._tasks[doing] = self._bar.add_task(doing, total=total, amount=amount)
        self._bar.update(
            self._tasks[doing], completed=done, total=total, amount=amount, visible=not is_last
        )


@contextmanager
def progress_bar(doing: str, unit: str) -> Iterator[Callable[[int, int], None]]:
    """Show the progress of one step on standard error while the block runs.

    Args:
        doing: what is done, as "listening".
        unit: of what is counted, as "utterances".

    Yields:
        A function to tell how many of how many are done.
    """
    with _on_standard_error() as bar:
        yield lambda done, total: bar.advance(doing, unit, done, total)


def track(items: Iterable[T], doing: str, unit: str, total: int | None = None) -> Iterator[T]:
    """Give items on, and show on standard error how many of them were worked on.

    Args:
        items: of any number.
        doing: what is done with them.
        unit: what they are, in the plural.
        total: how many there are, where they have no length themselves.
    """
    if total is None and isinstance(items, Sized):
        total = len(items)
    with _on_standard_error() as bar:
        bar.advance(doing, unit, 0, total)
        for number, item in enumerate(items, start=1):
            yield item
            bar.advance(doing, unit, number, total)


def _on_standard_error() -> ProgressBar:
    from rich.console import Console

    return ProgressBar(Console(stderr=True, highlight=False))
