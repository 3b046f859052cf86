"""What commands print: lines that cannot act on a terminal, whole tables, and how far work is."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sized
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, TypeVar

from asr.finding import describe_error
from asr.text import printable

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import TaskID
    from rich.table import Table

# rich is imported in the functions: every command imports this file, and its help needs none of it.

KEPT = "\n\t"  # between the lines and columns of what we print ourselves
PLAIN_INTERVAL_S = 10.0  # [s] between the lines that stand in for a bar where there is no terminal
SHOWN_AFTER_S = 0.3  # [s] what is done by then needs no bar, nor the import of rich
BAR_INTERVAL_S = 0.05  # [s] between moves of the bar: an n-gram takes less than a move

T = TypeVar("T")


def say(text: str) -> None:
    """Print lines of a result to standard output."""
    sys.stdout.write(f"{printable(text, KEPT)}\n")
    sys.stdout.flush()


def tell(text: str) -> None:
    """Print a line about a result to standard error."""
    print(f"asr: {printable(text)}", file=sys.stderr)


def one_line(error: BaseException) -> str:
    """Write an error's message on one line, with its kind where the message alone says little.

    Characters that would act on a terminal (a file name may hold any) are shown as escapes.
    """
    if isinstance(error, MemoryError):
        return printable(f"not enough memory ({error})" if str(error) else "not enough memory")
    return printable(describe_error(error) or type(error).__name__)


def print_table(table: Table) -> None:
    """Print a table as wide as it is: a line that is too long is for the terminal to wrap.

    Left to itself, rich cuts the cells to the width of the terminal, and cut cells say nothing.
    """
    from rich.console import Console
    from rich.measure import Measurement

    console = Console()
    needed = Measurement.get(console, console.options.update(width=10_000), table).maximum
    Console(width=max(needed, console.width)).print(table)


class ProgressBar:
    """Tells of work while the block runs: its steps as lines, how far a long one is as a bar.

    Args:
        console: where to tell.
    """

    def __init__(self, console: Console) -> None:
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
            doing: what is done, as "evaluating".
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
def progress_bar(doing: str, unit: str) -> Iterator[Callable[[int, int | None], None]]:
    """Show the progress of one step on standard error while the block runs.

    Args:
        doing: what is done, as "evaluating".
        unit: of what is counted, as "utterances".

    Yields:
        A function to tell how many of how many are done.
    """
    with ExitStack() as stack:
        begun, bar = time.monotonic(), None

        def advance(done: int, total: int | None) -> None:
            nonlocal bar
            if bar is None:
                if time.monotonic() - begun < SHOWN_AFTER_S:
                    return
                from rich.console import Console

                bar = stack.enter_context(ProgressBar(Console(stderr=True, highlight=False)))
            bar.advance(doing, unit, done, total)

        yield advance


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
    with progress_bar(doing, unit) as progress:
        progress(0, total)
        for number, item in enumerate(items, start=1):
            yield item
            progress(number, total)
