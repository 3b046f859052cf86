"""Decoding processes: the samples of `load_audio`, limits, and another one for each that died."""

from __future__ import annotations

import asyncio
import io
import os
import signal
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from asr.audio import load_audio
from asr.serve.decoding import Decoders
from asr.serve.limits import Limits
from asr.serve.metrics import Metrics
from asr.serve.refusal import Refusal
from tests.audio_files import RATE, encode, noise
from tests.reliability.test_11_bombs import _odd_rate, _two_hours

Use = Callable[[Decoders], Coroutine[Any, Any, None]]


def use(work: Use, **limits: float) -> None:
    """Run the work with one decoding process."""

    async def run() -> None:
        decoders = Decoders(1, Limits(**limits), Metrics())
        await decoders.start()
        try:
            await work(decoders)
        finally:
            await decoders.close()

    asyncio.run(run())


async def decode(decoders: Decoders, content: bytes, rate: int = RATE) -> np.ndarray:
    return await decoders.decode(io.BytesIO(content), len(content), rate)


def children() -> list[int]:
    """Processes of this one that decode."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            command = (folder / "cmdline").read_text()
            parent = int((folder / "stat").read_text().rsplit(")", 1)[1].split()[1])
        except OSError:
            continue
        if parent == os.getpid() and "decoding_child" in command:
            found.append(int(folder.name))
    return found


def test_samples_are_those_of_load_audio_and_faults_are_told() -> None:
    async def work(decoders: Decoders) -> None:
        for name in ("wav", "flac", "mp3", "opus"):
            content = encode(noise(3 * RATE), name=name)
            found = await decode(decoders, content)
            np.testing.assert_array_equal(found, load_audio(content, RATE))
        with pytest.raises(Refusal, match=r"^file: cannot be read as audio"):
            await decode(decoders, b"no audio")
        with pytest.raises(Refusal, match=r"^file: empty file"):
            await decode(decoders, b"")

    use(work)


def test_one_that_dies_or_hangs_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    content = encode(noise(RATE), name="flac")

    async def work(decoders: Decoders) -> None:
        monkeypatch.setenv("ASR_API_KEYS", "secret")
        first = children()
        os.kill(first[0], signal.SIGKILL)
        with pytest.raises(Refusal, match="takes more than 3 s or 512 MB"):
            await decode(decoders, content)
        await decode(decoders, content)
        second = children()
        assert len(second) == 1
        assert second != first
        assert "ASR_API_KEYS" not in Path(f"/proc/{second[0]}/environ").read_text()
        os.kill(second[0], signal.SIGSTOP)
        with pytest.raises(Refusal, match="takes more than 3 s"):
            await decode(decoders, content)
        assert len(await decode(decoders, content)) == RATE
        # A client that leaves costs no process.
        third = children()
        leaving = asyncio.ensure_future(decode(decoders, encode(noise(60 * RATE), name="flac")))
        await asyncio.sleep(0.02)
        leaving.cancel()
        assert len(await decode(decoders, content)) == RATE
        assert children() == third

    use(work, decoding_s=3)
    assert not children()


def test_bombs_are_refused(tmp_path: Path) -> None:
    _two_hours(tmp_path / "long.flac")
    _odd_rate(tmp_path / "odd.wav")

    async def work(decoders: Decoders) -> None:
        with pytest.raises(Refusal, match="more than 60 s of audio") as refused:
            await decode(decoders, (tmp_path / "long.flac").read_bytes())
        assert refused.value.status == 413
        assert len(await decode(decoders, (tmp_path / "odd.wav").read_bytes(), 16_000)) == 320_000

    use(work, duration_s=60)
