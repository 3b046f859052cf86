"""A training beside the server: commands one after the other, and what they say."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from asr.serve.refusal import Refusal

MAX_LINES = 200  # that are shown
MAX_LINE = 500  # characters


@dataclass(frozen=True)
class Lesson:
    """What is run, and how its outcome is told.

    Attributes:
        commands: of asr, arguments each.
        outcome: called once all have ended well; tells in a line what came of it.
    """

    commands: Sequence[Sequence[str]]
    outcome: Callable[[], str]


class Learning:
    """Runs the commands of a lesson, one lesson at a time.

    Args:
        plan: makes the next lesson.
        program: arguments of Python that run asr; those of a command come behind.
    """

    def __init__(self, plan: Callable[[], Lesson], program: Sequence[str]) -> None:
        self._plan, self._program = plan, program
        self._lines: deque[str] = deque(maxlen=MAX_LINES)
        self._told = ""
        self._process: subprocess.Popen[str] | None = None
        self._thread: threading.Thread | None = None
        self._is_over = False

    @property
    def is_running(self) -> bool:
        """Whether a lesson is under way."""
        return self._thread is not None and self._thread.is_alive()

    def state(self) -> dict[str, Any]:
        """Tell how far it is."""
        return {"is_running": self.is_running, "told": self._told, "lines": list(self._lines)}

    def start(self) -> None:
        """Begin.

        Raises:
            Refusal: one is under way, or there is too little to learn from.
        """
        if self.is_running:
            raise Refusal(409, "a training is under way, expected one at a time", "busy")
        try:
            lesson = self._plan()
        except ValueError as error:
            raise Refusal(400, str(error), "invalid_value") from error
        self._lines.clear()
        self._told = ""
        self._thread = threading.Thread(target=self._run, args=(lesson,), daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End what runs; a training saves its state, so that it can be resumed."""
        self._is_over = True
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
            self._process.wait()

    def _run(self, lesson: Lesson) -> None:
        for command in lesson.commands:
            self._lines.append(f"$ asr {' '.join(command)}")
            self._process = subprocess.Popen(
                [sys.executable, *self._program, *command], stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace",
            )  # fmt: skip
            with self._process as process:
                assert process.stdout is not None, "asked for"
                for line in process.stdout:
                    self._lines.append(line.rstrip()[:MAX_LINE])
            if process.returncode:
                self._told = f"not learnt: {self._lines[-1]}"
                return
            if self._is_over:
                return
        try:
            self._told = lesson.outcome()
        except (ValueError, OSError) as error:
            self._told = f"learnt, but its figures cannot be read: {error}"
