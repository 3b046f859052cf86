"""How far long work has come: a bar on a terminal, a line now and then in a log."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

PLAIN_INTERVAL_S = 10.0  # [s] between the lines that stand in for a bar where there is no terminal


@contextmanager
def progress_bar(doing: str, unit: str) -> Iterator[Callable[[int, int], None]]:
    """Show progress on standard error while the block runs.

    Args:
        doing: what is done, as "listening".
        unit: of what is counted, as "utterances".

    Yields:
        A function to tell how many of how many are done, as often as one likes.
    """
    console = Console(stderr=True, highlight=False)
    bar = Progress(
        TextColumn(doing), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(),
        console=console, transient=True, disable=not console.is_terminal,
    )  # fmt: skip
    task = bar.add_task("", total=None)
    told = time.monotonic()

    def advance(done: int, total: int) -> None:
        nonlocal told
        bar.update(task, completed=done, total=total)
        if not console.is_terminal and time.monotonic() - told > PLAIN_INTERVAL_S:
            told = time.monotonic()
            console.print(f"{doing}: {done:,} of {total:,} {unit}")

    with bar:
        yield advance
