"""A server in a process of its own, as users start it, for the length of a block."""

from __future__ import annotations

import http.client
import io
import json
import os
import re
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import soundfile

from asr.cli.main import main
from tests.cli.conftest import RATE, TINY, tones, write_corpus

ROOT = Path(__file__).parents[2]
START_S = 120.0  # [s] a machine that compiles for the first time, beside other work
TRANSCRIPTIONS = "/v1/audio/transcriptions"


@dataclass(frozen=True)
class Answer:
    """What came back."""

    status: int
    headers: Mapping[str, str]
    content: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.content)

    @property
    def message(self) -> str:
        return str(self.json["error"]["message"])


@dataclass
class Running:
    """A server that runs.

    Attributes:
        process: of it.
        port: that it listens at.
        log: file with what it prints.
        key: that requests of `ask` bring along; none for none.
    """

    process: subprocess.Popen[bytes]
    port: int
    log: Path
    key: str = ""
    headers: dict[str, str] = field(default_factory=dict)

    def connect(self, timeout: float = 60) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)

    def ask(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        connection: http.client.HTTPConnection | None = None,
    ) -> Answer:
        """Send a request, and wait for its answer."""
        own = {"Authorization": f"Bearer {self.key}"} if self.key else {}
        link = connection or self.connect()
        try:
            link.request(method, path, body, {**own, **(headers or {})})
            response = link.getresponse()
            found = {name.lower(): value for name, value in response.getheaders()}
            return Answer(response.status, found, response.read())
        finally:
            if connection is None:
                link.close()

    def transcribe(
        self,
        audio: bytes,
        connection: http.client.HTTPConnection | None = None,
        headers: Mapping[str, str] | None = None,
        **fields: str | list[str],
    ) -> Answer:
        """Ask for a transcript."""
        body, kind = form({"model": "tones", **fields}, audio)
        own = {"Content-Type": kind, **(headers or {})}
        return self.ask("POST", TRANSCRIPTIONS, body, own, connection)

    def stream_url(self, **query: object) -> str:
        words = "&".join(f"{name}={value}" for name, value in query.items())
        return f"ws://127.0.0.1:{self.port}/v1/stream?{words}"

    def stop(self, number: int = signal.SIGTERM, wait_s: float = 60) -> int:
        """Send a signal, and wait for the end."""
        self.process.send_signal(number)
        return self.process.wait(wait_s)


def form(fields: Mapping[str, str | list[str]], audio: bytes | None) -> tuple[bytes, str]:
    """The body of multipart/form-data, and its content type."""
    boundary = uuid.uuid4().hex
    parts = []
    for name, value in fields.items():
        for each in [value] if isinstance(value, str) else value:
            head = f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n'
            parts.append(head.encode() + each.encode() + b"\r\n")
    if audio is not None:
        head = (
            f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\n'
            "Content-Type: audio/wav\r\n\r\n"
        )
        parts.append(head.encode() + audio + b"\r\n")
    return b"".join(parts) + f"--{boundary}--\r\n".encode(), (
        f"multipart/form-data; boundary={boundary}"
    )


def trained(folder: Path) -> Path:
    """The best model of a training on the tone corpus."""
    corpus = write_corpus(folder)
    status = main(
        ["train", *TINY, f"data.train={corpus}", f"data.dev={corpus}", f"paths.run_dir={folder}",
         "name=tones", "trainer.max_epochs=40", "trainer.validate_every=40"]
    )  # fmt: skip
    assert status == 0
    return folder / "train" / "tones" / "best.safetensors"


def wav_of(text: str) -> bytes:
    """A recording of a text in tones."""
    file = io.BytesIO()
    soundfile.write(file, tones(text), RATE, format="WAV")
    return file.getvalue()


@contextmanager
def running(
    model: Path | str, log: Path, *arguments: str, key: str = "", **environment: str
) -> Iterator[Running]:
    """Start `asr serve`, wait until it is ready, and end it behind the block.

    Args:
        model: `[NAME=]MODEL`.
        log: file for what it prints.
        arguments: more of them.
        key: that it asks for; none for none.
        environment: more of that.
    """
    named = f"tones={model}" if isinstance(model, Path) else model
    if key:
        environment["ASR_API_KEYS"] = key
    words = ("serve", "--port", "0", "--model", named, *arguments)
    with started(words, log, **environment) as server:
        server.key = key
        yield server


@contextmanager
def started(words: Sequence[str], log: Path, **environment: str) -> Iterator[Running]:
    """Start `asr WORDS`, wait until it tells its address, and end it behind the block."""
    variables = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), **environment}
    with log.open("wb") as file:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "asr", *words],
            cwd=log.parent, stdout=file, stderr=file, env=variables,
        )  # fmt: skip
    try:
        yield Running(process, _port(process, log), log)
    finally:
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def wait_for(holds: Callable[[], bool], seconds: float = 60.0) -> None:
    """Wait until something holds."""
    until = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < until
        time.sleep(0.02)


def _port(process: subprocess.Popen[bytes], log: Path) -> int:
    until = time.monotonic() + START_S
    while time.monotonic() < until:
        found = re.search(r" on http://\S+:(\d+)/? ", log.read_text())
        if found:
            return int(found[1])
        assert process.poll() is None, log.read_text()
        time.sleep(0.05)
    raise AssertionError(f"not ready: {log.read_text()}")
