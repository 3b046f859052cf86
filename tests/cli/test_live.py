"""asr transcribe --live: samples of a pipe and of a microphone, the same words as of a file."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from asr.audio import load_audio
from asr.cli.main import main

Fails = Callable[..., str]
RATE = 16_000


@pytest.fixture
def samples(corpus: Path, model_file: Path) -> np.ndarray:
    """Two recordings with a pause between, at the model's rate."""
    from asr.transcriber import Transcriber

    rate = Transcriber.load(model_file).sample_rate
    pause = np.zeros(rate, np.float32)
    first, second = (load_audio(corpus.parent / name, rate) for name in ("02.wav", "03.wav"))
    return np.concatenate([first, pause, second])


def pipe(monkeypatch: pytest.MonkeyPatch, samples: np.ndarray, size: int = 1001) -> None:
    """Standard input that gives a few bytes at a time, an odd number of them."""
    content = np.round(samples * 32767).astype("<i2").tobytes()

    class Slow(io.BytesIO):
        def read1(self, size_: int | None = -1) -> bytes:
            return self.read(size)

    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=Slow(content)))


def test_a_pipe_gives_a_line_a_segment(
    model_file: Path,
    samples: np.ndarray,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    pipe(monkeypatch, samples)
    assert main(["transcribe", "--live", "--model", str(model_file), "-"]) == 0
    assert capsys.readouterr().out == "c a\nabc\n"


def test_json_tells_what_is_known_so_far(
    model_file: Path,
    samples: np.ndarray,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    pipe(monkeypatch, samples)
    assert main(["transcribe", "--live", "--format", "json", "--model", str(model_file), "-"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    final = [row for row in rows if row["final"]]
    assert [row["text"] for row in final] == ["c a", "abc"]
    assert [word["word"] for word in final[0]["words"]] == ["c", "a"]
    assert final[1]["start"] > 1.3
    assert any(not row["final"] for row in rows)


def test_a_terminal_shows_the_words_so_far_on_one_line(
    model_file: Path,
    samples: np.ndarray,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    pipe(monkeypatch, samples)
    screen = Terminal()
    monkeypatch.setattr("sys.stdout", screen)
    assert main(["transcribe", "--live", "--model", str(model_file), "-"]) == 0
    lines = screen.getvalue().split("\n")
    assert [line.split("\r\x1b[K")[-1] for line in lines] == ["c a", "abc", ""]
    assert any(line.startswith("\r") and "\x1b[K" in line for line in lines[:2])


def device_of(blocks: list[np.ndarray], **changes: Any) -> ModuleType:
    """sounddevice with a microphone that gives these blocks, and then is stopped by Ctrl-C."""
    module = ModuleType("sounddevice")

    class PortAudioError(Exception):
        pass

    @contextmanager
    def opened(samplerate: int, channels: int, dtype: str, device: Any, callback: Any) -> Iterator:
        if device is not None and device != 1:
            raise PortAudioError(f"No input device matching {device!r}")
        for block in blocks:
            callback(block[:, None], len(block), None, None)
        yield

    vars(module).update(
        PortAudioError=PortAudioError,
        InputStream=opened,
        query_devices=lambda: [
            {"name": "speakers", "max_input_channels": 0},
            {"name": "headset", "max_input_channels": 1},
        ],
        **changes,
    )
    return module


def test_a_microphone_until_ctrl_c(
    model_file: Path,
    samples: np.ndarray,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from queue import SimpleQueue

    class Stopped(SimpleQueue):
        def get(self, *arguments: Any) -> Any:
            if self.empty():
                raise KeyboardInterrupt
            return super().get(*arguments)

    monkeypatch.setattr("asr.cli.live.queue.SimpleQueue", Stopped)
    monkeypatch.setitem(sys.modules, "sounddevice", device_of(np.array_split(samples, 20)))
    assert main(["transcribe", "--live", "--model", str(model_file), "--microphone", "1"]) == 0
    said = capsys.readouterr()
    assert said.out == "c a\nabc\n"
    assert "listening; Ctrl-C ends it" in said.err


def test_faults_of_microphones_are_one_line(
    model_file: Path, monkeypatch: pytest.MonkeyPatch, fails: Fails
) -> None:
    live = ["transcribe", "--live", "--model", str(model_file)]
    monkeypatch.setitem(sys.modules, "sounddevice", None)
    assert fails(*live) == (
        "sounddevice is not installed, which listens to microphones: pip install 'lstm-asr[live]'"
    )
    monkeypatch.setitem(sys.modules, "sounddevice", device_of([]))
    assert fails(*live, "--microphone", "usb") == (
        "microphone usb: No input device matching 'usb', expected one of: 1 headset"
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "no recordings, expected files, folders, or - for standard input"),
        (["a.wav", "--sample-rate", "8000"], "--sample-rate has no effect without --live"),
        (["a.wav", "--microphone", "1"], "--microphone has no effect without --live"),
        (["--live", "a.wav"], "--live a.wav, expected nothing for the microphone, or - for raw"),
        (["--live", "-", "--microphone", "1"], "--microphone and -, expected one of them"),
        (["--live", "-", "--format", "srt"], "--live --format srt, expected text or json"),
        (["--live", "-", "--output", "a.txt"], "--live --output, expected --live without it"),
        (["--live", "-", "--sample-rate", "0"], "sample_rate 0, expected at least 1 Hz"),
    ],
)
def test_what_does_not_go_together(
    arguments: list[str], message: str, model_file: Path, fails: Fails
) -> None:
    assert fails("transcribe", "--model", str(model_file), *arguments).startswith(message)
