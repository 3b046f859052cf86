"""Bounds on what a client sends: bytes of a body, its pace, and how many ask at once."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from asr.serve.access import refuse
from asr.serve.limits import Limits
from asr.serve.refusal import Refusal

LINGER_S = 2.0  # [s] in which a client that is refused may still send, so that it reads why
LINGER_BYTES = 1 << 24
RETRY_S = 1  # [s] after which a client that has too much under way may ask again


class BodyBounds:
    """Reads no more of a body than may be, and waits for none of it too long.

    A body may come slowly, but not slower than a pace: one whose bytes drip is given up, as is one
    that is larger than it may be, at the latest when the byte too many comes. All bodies that are
    there together have a bound, too: they lie on the disk.

    Args:
        app: whom the requests are passed on to.
        limits: the bounds.
    """

    def __init__(self, app: ASGIApp, limits: Limits) -> None:
        self._app, self._limits = app, limits
        self._held = 0  # bytes of bodies of requests under way

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        limits, taken = self._limits, 0
        headers = dict(scope["headers"])
        is_whole = headers.get(b"content-length", b"0") == b"0" and (
            b"transfer-encoding" not in headers
        )
        start = time.monotonic()

        async def take() -> Message:
            nonlocal taken, is_whole
            pace = limits.upload_kb_per_s * 1000
            left = start + limits.silence_s + taken / pace - time.monotonic()
            try:
                # A body that is there is followed by nothing but the end of the connection.
                async with asyncio.timeout(None if is_whole else max(left, 0)):
                    message = await receive()
            except TimeoutError:
                raise _too_slow(limits) from None
            is_whole = is_whole or not message.get("more_body")
            size = len(message.get("body", b""))
            taken += size
            self._held += size
            if taken > limits.upload_bytes:
                raise _too_large(limits)
            if self._held > limits.uploads_mb * 1e6:
                raise Refusal(
                    503, "the requests under way have no room for more, expected fewer at once",
                    "overloaded", retry_after_s=RETRY_S,
                )  # fmt: skip
            return message

        async def give(message: Message) -> None:
            """Answer; where the body is not read, read on for a moment, and end the connection.

            One that is closed with bytes unread is reset, and the answer may be lost with it.
            """
            if is_whole:
                await send(message)
            elif message["type"] == "http.response.start":
                closing = [*message.get("headers", ()), (b"connection", b"close")]
                await send({**message, "headers": closing})
            elif message.get("more_body") or b"expect" in headers:
                await send(message)
            else:
                await send({**message, "more_body": True})
                await _linger(receive)
                await send({"type": "http.response.body", "body": b""})

        try:
            declared = headers.get(b"content-length", b"")
            # A number of more digits than any size is refused by the parser.
            if declared.isdigit() and int(declared) > limits.upload_bytes:
                await refuse(_too_large(limits), scope, take, give)
            else:
                await self._app(scope, take, give)
        finally:
            self._held -= taken


async def _linger(receive: Receive) -> None:
    left = LINGER_BYTES
    with suppress(TimeoutError):
        async with asyncio.timeout(LINGER_S):
            while left > 0:
                sent = await receive()
                if not sent.get("more_body"):
                    return
                left -= len(sent.get("body", b""))


def _too_slow(limits: Limits) -> Refusal:
    pace = f"{limits.upload_kb_per_s:g} kB/s"
    return Refusal(408, f"the body comes slower than {pace}, expected at least that", "too_slow")


def _too_large(limits: Limits) -> Refusal:
    return Refusal(
        413, f"the body is larger than {limits.upload_mb:g} MB, expected at most that", "too_large"
    )


class Door:
    """Turns away who would have to wait for a place, before anything else is done for it.

    What is not taken has to cost little, or it is what the server is busy with.

    Args:
        app: whom the others are passed on to.
        path: of the requests that need a place.
        places: that they take later.
        retry_after_s: tells when there will be room again, about [s].
    """

    def __init__(
        self, app: ASGIApp, path: str, places: Places, retry_after_s: Callable[[], int]
    ) -> None:
        self._app, self._path, self._places = app, path, places
        self._retry_after_s = retry_after_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] == self._path and not self._places.has_room:
            refusal = self._places.refusal(self._retry_after_s())
            await refuse(refusal, scope, receive, send)
        else:
            await self._app(scope, receive, send)


class Places:
    """Counts what is under way, of all clients and of each.

    Args:
        most: of all.
        most_of_one: of one client.
        what: these are, for messages.
    """

    def __init__(self, most: int, most_of_one: int, what: str) -> None:
        self._most, self._most_of_one, self._what = most, most_of_one, what
        self._of: Counter[str] = Counter()
        self.taken = 0

    @property
    def has_room(self) -> bool:
        """Whether another one may come."""
        return self.taken < self._most

    def refusal(self, retry_after_s: int) -> Refusal:
        """Tell that all are taken."""
        return Refusal(
            503, f"{self.taken} {self._what} are under way, expected at most {self._most}",
            "overloaded", retry_after_s=retry_after_s,
        )  # fmt: skip

    @contextmanager
    def one(self, client: str, retry_after_s: int) -> Iterator[None]:
        """Take a place while the block runs.

        Args:
            client: who takes it.
            retry_after_s: when there will be room again, about [s].

        Raises:
            Refusal: 503 where all are taken, 429 where this client has its share.
        """
        if self._of[client] >= self._most_of_one:
            raise Refusal(
                429, f"{self._of[client]} {self._what} of this client are under way, expected at "
                f"most {self._most_of_one}", "rate_limit_exceeded", retry_after_s=retry_after_s,
            )  # fmt: skip
        if not self.has_room:
            raise self.refusal(retry_after_s)
        self.taken += 1
        self._of[client] += 1
        try:
            yield
        finally:
            self.taken -= 1
            self._of[client] -= 1
            if not self._of[client]:
                del self._of[client]
