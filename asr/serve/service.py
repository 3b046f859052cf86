"""What a server's routes share: its models, its engine, its decoders, its bounds."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import BinaryIO

from asr.serve.bounds import Places
from asr.serve.decoding import Decoders
from asr.serve.engine import Engine
from asr.serve.limits import Limits
from asr.serve.metrics import Metrics
from asr.serve.refusal import Refusal
from asr.transcriber import Transcriber
from asr.transcript import Transcript
from asr.untrusted import shown


@dataclass(frozen=True)
class Served:
    """A model that clients may name.

    Attributes:
        name: by which they do.
        transcriber: which it goes through.
    """

    name: str
    transcriber: Transcriber


class Service:
    """The models of a server, and who may use them how much.

    Args:
        models: at least one; the first where a client names none.
        limits: the bounds.

    Attributes:
        is_ending: once the server was told to end.
    """

    def __init__(self, models: Sequence[Served], limits: Limits) -> None:
        self.models = {served.name: served for served in models}
        self.first = models[0]
        self.limits = limits
        self.metrics = Metrics()
        self.engine = Engine(self.metrics)
        self.decoders = Decoders(os.cpu_count() or 1, limits, self.metrics)
        self.requests = Places(
            round(limits.queue), round(min(limits.per_client, limits.queue)), "requests"
        )
        self.streams = Places(round(limits.streams), round(limits.streams), "live streams")
        self.is_ending = asyncio.Event()

    async def start(self) -> None:
        """Start what is outside of this process."""
        await self.decoders.start()

    async def close(self) -> None:
        """End what `start` started, and the engine."""
        await self.decoders.close()
        self.engine.close()

    @property
    def is_ready(self) -> bool:
        """Whether a request would be taken."""
        return self.requests.has_room and not self.is_ending.is_set()

    def model(self, name: str) -> Served:
        """Find a model by the name that a client gives, the first by none; it is never a path.

        Raises:
            Refusal: none is called so.
        """
        if not name:
            return self.first
        if name not in self.models:
            known = ", ".join(self.models)
            raise Refusal(
                404, f"model is {shown(name)}, expected one of {known}", "model_not_found", "model"
            )
        return self.models[name]

    async def transcribe(self, file: BinaryIO, num_bytes: int, served: Served) -> Transcript:
        """Transcribe a file.

        Args:
            file: read from its beginning, and closed.
            num_bytes: of it.
            served: the model.

        Raises:
            Refusal: no audio, or more than there is room or time for.
        """
        rate = served.transcriber.sample_rate
        try:
            async with asyncio.timeout(self.limits.request_s):
                samples = await self.decoders.decode(file, num_bytes, rate)
                if self.engine.waiting_s + len(samples) / rate > self.limits.waiting_s:
                    raise Refusal(
                        503, f"{self.engine.waiting_s:.0f} s of audio wait, expected at most "
                        f"{self.limits.waiting_s:g} s", "overloaded",
                        retry_after_s=self.engine.wait_s,
                    )  # fmt: skip
                job = self.engine.transcribe(served.transcriber, samples, "file")
                return await asyncio.wrap_future(job)
        except TimeoutError as error:
            raise Refusal(
                503, f"not done within {self.limits.request_s:g} s, expected a quieter hour, or a "
                "shorter recording", "timeout", retry_after_s=self.engine.wait_s,
            ) from error  # fmt: skip
        except ValueError as error:  # of this recording alone: it needs more memory than there is
            raise Refusal(503, str(error), "overloaded", "file", self.engine.wait_s) from error
