"""Files of strangers to samples, in processes apart: limited, and replaced when they die."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from asr.serve.decoding_child import (
    BAD,
    DONE,
    FILE_NAME,
    MAX_MESSAGE_BYTES,
    MESSAGE,
    REQUEST,
    SAMPLES,
    TOO_LONG,
)
from asr.serve.limits import Limits
from asr.serve.metrics import Metrics
from asr.serve.refusal import Refusal

READ_BYTES = 1 << 18  # of a file at a time
FILES_OF_ONE = 2000  # that a process decodes; a library may lose some bytes with each
MAX_MESSAGE = 500  # characters of what a process tells, which a file may have taken over
# This package, also where it is a checkout that is not installed; nothing of the working folder.
PROGRAM = """\
import sys
sys.path.insert(0, sys.argv[2])
from asr.serve.decoding_child import main
main(int(sys.argv[1]))
"""
# No key is in the environment of a process that a file may take over.
KEPT_VARIABLES = ("PATH", "PYTHONPATH", "PYTHONHOME", "LD_LIBRARY_PATH", "LANG", "LC_ALL")


class Decoders:
    """Processes that decode, each a file at a time.

    Args:
        count: of processes.
        limits: of memory, time and duration.
        metrics: told of processes that died.
    """

    def __init__(self, count: int, limits: Limits, metrics: Metrics) -> None:
        self._count, self._limits, self._metrics = count, limits, metrics
        self._idle: asyncio.Queue[_Child | None] = asyncio.Queue()
        self._children: set[_Child] = set()
        self._work: set[asyncio.Future[NDArray[np.float32]]] = set()

    async def start(self) -> None:
        """Start the processes."""
        for _ in range(self._count):
            self._idle.put_nowait(await self._started())

    async def close(self) -> None:
        """End the processes."""
        for child in list(self._children):
            await self._end(child)

    async def decode(self, file: BinaryIO, num_bytes: int, sample_rate: int) -> NDArray[np.float32]:
        """Decode a file, as `asr.audio.stream_audio` does.

        Args:
            file: read from its beginning, and closed once it is not needed.
            num_bytes: of it.
            sample_rate: of the samples [Hz].

        Raises:
            Refusal: no audio, damaged, too long, or more than the limits allow.
        """
        try:
            child = await self._idle.get()
        except BaseException:
            file.close()
            raise
        # A process that is in the middle of a file is not to be ended because a client has left: to
        # start another one takes longer than the file.
        work = asyncio.ensure_future(self._decode(child, file, num_bytes, sample_rate))
        self._work.add(work)
        work.add_done_callback(self._work.discard)
        work.add_done_callback(lambda done: done.cancelled() or done.exception())
        return await asyncio.shield(work)

    async def _decode(
        self, child: _Child | None, file: BinaryIO, num_bytes: int, sample_rate: int
    ) -> NDArray[np.float32]:
        is_whole = False
        try:
            if child is None:
                child = await self._started()
            async with asyncio.timeout(self._limits.decoding_s):
                samples = await child.decode(file, num_bytes, sample_rate, self._limits)
            is_whole = True
            return samples
        except Refusal:
            is_whole = True
            raise
        except (TimeoutError, EOFError, ConnectionError) as error:
            # asyncio.IncompleteReadError is an EOFError: the process has ended.
            self._metrics.lost_decoders.inc()
            raise Refusal(
                400, f"{FILE_NAME}: takes more than {self._limits.decoding_s:g} s or "
                f"{self._limits.decoding_mb:g} MB to decode, expected common audio",
                "invalid_audio", "file",
            ) from error  # fmt: skip
        finally:
            file.close()
            if child is not None and is_whole and child.num_files < FILES_OF_ONE:
                self._idle.put_nowait(child)
            else:
                self._idle.put_nowait(None)  # another one is started when it is needed
                if child is not None:
                    await self._end(child)

    async def _started(self) -> _Child:
        memory = round(self._limits.decoding_mb * 1e6) + self._limits.upload_bytes
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-P", "-c", PROGRAM, str(memory), str(Path(__file__).parents[2]),
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL, limit=1 << 20,
            env={name: os.environ[name] for name in KEPT_VARIABLES if name in os.environ}
            | {"OPENBLAS_NUM_THREADS": "1"},
            start_new_session=True,
        )  # fmt: skip
        child = _Child(process)
        self._children.add(child)
        return child

    async def _end(self, child: _Child) -> None:
        self._children.discard(child)
        with suppress(ProcessLookupError):
            child.process.kill()
        await child.process.wait()


class _Child:
    """One process and its pipes."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.num_files = 0

    async def decode(
        self, file: BinaryIO, num_bytes: int, sample_rate: int, limits: Limits
    ) -> NDArray[np.float32]:
        sink, source = self.process.stdin, self.process.stdout
        assert sink is not None
        assert source is not None
        self.num_files += 1
        request = REQUEST.pack(sample_rate, limits.duration_s, limits.decoding_s, num_bytes)
        file.seek(0)
        for block in _blocks(request, file, num_bytes):
            sink.write(block)
            await sink.drain()
        samples = bytearray()
        while True:
            kind, size = MESSAGE.unpack(await source.readexactly(MESSAGE.size))
            if size > MAX_MESSAGE_BYTES:
                raise ConnectionError("no message of a decoding process")
            content = await source.readexactly(size)
            if kind == SAMPLES:
                samples += content
            if len(samples) > 4 * (limits.duration_s + 1) * sample_rate:
                raise ConnectionError("more samples than were asked for")
            if kind == TOO_LONG:
                raise Refusal(
                    413,
                    f"{FILE_NAME}: more than {limits.duration_s:g} s of audio, expected at most "
                    "that",
                    "audio_too_long", "file",
                )  # fmt: skip
            if kind == BAD:
                message = content.decode(errors="replace")[:MAX_MESSAGE]
                raise Refusal(400, message, "invalid_audio", "file")
            if kind == DONE:
                return np.frombuffer(samples, np.float32)


def _blocks(request: bytes, file: BinaryIO, num_bytes: int) -> Iterator[bytes]:
    yield request
    while num_bytes > 0:
        block = file.read(min(READ_BYTES, num_bytes))
        if not block:
            raise EOFError("a file that was sent is shorter than it was")
        num_bytes -= len(block)
        yield block
