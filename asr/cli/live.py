"""asr transcribe --live: words while somebody speaks, of a microphone or a pipe of samples."""

from __future__ import annotations

import argparse
import queue
import shutil
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from io import BufferedReader
from types import ModuleType
from typing import TYPE_CHECKING, Any, cast

from asr.cli.options import STDIN
from asr.cli.terminal import tell
from asr.text import printable, printable_json

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from asr.transcriber import Transcriber
    from asr.transcript import Segment

READ_BYTES = 1 << 14  # of a pipe at a time, at most
BEHIND_S = 5.0  # [s] of a microphone's samples that wait, of which is told
ERASE = "\x1b[K"  # what is right of the cursor
FORMATS = ("text", "json")


def check_live(options: argparse.Namespace) -> None:
    """Refuse options that do not go with a recording that comes, and live ones without --live."""
    if not options.live:
        if not options.files:
            raise ValueError("no recordings, expected files, folders, or - for standard input")
        for name, value in (
            ("sample-rate", options.sample_rate),
            ("microphone", options.microphone),
        ):
            if value is not None:
                raise ValueError(f"--{name} has no effect without --live")
        return
    if options.files not in ([], [STDIN]):
        raise ValueError(
            f"--live {options.files[0]}, expected nothing for the microphone, or - for raw samples"
        )
    if options.files and options.microphone is not None:
        raise ValueError("--microphone and -, expected one of them")
    if options.format not in (None, *FORMATS):
        raise ValueError(f"--live --format {options.format}, expected {' or '.join(FORMATS)}")
    others = {
        "output": options.output, "output-dir": options.output_dir, "speaker": options.speakers,
        "min-confidence": options.min_confidence, "n-best": options.nbest,
    }  # fmt: skip
    for name, value in others.items():
        if value:
            raise ValueError(f"--live --{name}, expected --live without it")


def listen(transcriber: Transcriber, options: argparse.Namespace) -> int:
    """Print what is said until the samples end, or somebody presses Ctrl-C.

    Raises:
        ValueError: no microphone, or samples that are no audio.
    """
    rate = transcriber.sample_rate if options.sample_rate is None else options.sample_rate
    stream = transcriber.stream(rate)
    shown = _Shown(options.format or "text")
    source = _pipe() if options.files else _microphone(rate, options.microphone)
    with source as blocks, suppress(KeyboardInterrupt):
        for block in blocks:
            for segment in stream.push(block):
                shown.final(segment)
            shown.partial(stream.partial)
    for segment in stream.finish():
        shown.final(segment)
    return 0


class _Shown:
    """Prints segments a line each; on a terminal, the words so far on a line that changes.

    Args:
        format: of FORMATS; json also has a line for the words so far, whenever they change.
    """

    def __init__(self, format: str) -> None:
        self._is_json = format == "json"
        self._is_terminal = sys.stdout.isatty()
        self._last = ""

    def final(self, segment: Segment) -> None:
        if self._is_json:
            self._write(_json(segment, is_final=True) + "\n")
        else:
            erase = f"\r{ERASE}" if self._is_terminal else ""
            self._write(f"{erase}{printable(segment.text)}\n")
        self._last = ""

    def partial(self, segment: Segment | None) -> None:
        text = "" if segment is None else segment.text
        if text == self._last or segment is None:
            return
        self._last = text
        if self._is_json:
            self._write(_json(segment, is_final=False) + "\n")
        elif self._is_terminal:
            width = shutil.get_terminal_size().columns - 1
            self._write(f"\r{printable(text)[-width:]}{ERASE}")

    def _write(self, text: str) -> None:
        sys.stdout.write(text)
        sys.stdout.flush()


def _json(segment: Segment, *, is_final: bool) -> str:
    row = {
        "final": is_final,
        "start": segment.start,
        "end": segment.end,
        "text": segment.text,
        "words": [word.row() for word in segment.words],
    }
    return printable_json(row)


@contextmanager
def _pipe() -> Iterator[Iterator[NDArray[np.int16]]]:
    """Samples of standard input: 16 bits each, the low byte first, one channel."""
    import numpy as np  # here: a mistake in the call need not wait for it

    def blocks() -> Iterator[NDArray[np.int16]]:
        rest, source = b"", cast(BufferedReader, sys.stdin.buffer)
        while read := source.read1(READ_BYTES):
            content = rest + read
            whole = len(content) - len(content) % 2
            rest = content[whole:]
            yield np.frombuffer(content[:whole], "<i2")

    yield blocks()


@contextmanager
def _microphone(rate: int, name: str | None) -> Iterator[Iterator[NDArray[np.float32]]]:
    """Samples of a microphone, until somebody stops.

    Raises:
        ValueError: sounddevice or PortAudio is not installed, or there is no such microphone.
    """
    import numpy as np  # here: a mistake in the call need not wait for it

    device = _sounddevice()
    waiting: queue.SimpleQueue[NDArray[np.float32]] = queue.SimpleQueue()

    def take(samples: NDArray[np.float32], count: int, when: Any, status: Any) -> None:
        waiting.put(samples[:, 0].copy())

    def blocks() -> Iterator[NDArray[np.float32]]:
        is_told = False
        while True:
            parts = [waiting.get()]
            while not waiting.empty():
                parts.append(waiting.get())
            block = np.concatenate(parts)
            if len(block) > BEHIND_S * rate and not is_told:
                is_told = True
                tell(
                    f"note: {len(block) / rate:.0f} s behind: this computer is slower than speech, "
                    "expected a smaller model or --decoder greedy"
                )
            yield block

    chosen = int(name) if name is not None and name.isdecimal() else name
    with ExitStack() as stack:
        try:
            stack.enter_context(
                device.InputStream(
                    samplerate=rate, channels=1, dtype="float32", device=chosen, callback=take
                )
            )
        except (ValueError, device.PortAudioError) as error:
            raise ValueError(
                f"microphone {'by default' if name is None else name}: {error}, expected one of: "
                f"{_names(device)}"
            ) from error
        tell("listening; Ctrl-C ends it")
        yield blocks()


def _sounddevice() -> ModuleType:
    try:
        import sounddevice
    except ImportError as error:
        raise ValueError(
            "sounddevice is not installed, which listens to microphones: pip install "
            "'lstm-asr[live]'"
        ) from error
    except OSError as error:  # the library that it loads
        raise ValueError(f"{error}: apt-get install libportaudio2") from error
    found: ModuleType = sounddevice
    return found


def _names(device: ModuleType) -> str:
    """The microphones there are, as --microphone takes them."""
    found = [
        f"{number} {each['name']}"
        for number, each in enumerate(device.query_devices())
        if each["max_input_channels"] > 0
    ]
    return ", ".join(found) or "none there is"
