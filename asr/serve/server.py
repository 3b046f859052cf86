"""One process that listens: connections that are silent are closed, and signals end it in order."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import sys
import time
from asyncio import TimerHandle, Transport
from collections.abc import Callable
from functools import partial
from types import FrameType
from typing import Any

import uvicorn
from fastapi import FastAPI
from starlette.types import Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from uvicorn.server import ServerState

from asr.serve.bounds import BodyBounds
from asr.serve.limits import Limits
from asr.serve.refusal import Refusal
from asr.serve.service import Service

MAX_HEAD_BYTES = 1 << 16  # of a request's line and headers
MAX_PIPELINED = 8  # requests that are sent before the answer to the one before
KEEP_ALIVE_S = 5  # [s] that a connection waits for another request
TOLD_S = 5.0  # [s] in which live streams are told that the server ends
SWITCH_S = 0.0005  # [s] after which a thread of Python gives way to another
BACKLOG = 4096  # connections that the kernel holds while nobody takes them
HEAD_TOO_LARGE = (
    b"HTTP/1.1 431 Request Header Fields Too Large\r\nContent-Length: 0\r\n"
    b"Connection: close\r\n\r\n"
)


def listen(host: str, port: int, silence_s: float) -> socket.socket:
    """Take an address.

    Args:
        host: its name or number.
        port: 0 for any that is free.
        silence_s: after which a client that takes nothing of what is sent is given up [s].

    Raises:
        OSError: it is taken, or not of this machine.
    """
    family, kind, protocol, _, address = socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        # Connections inherit it. A write to one whose other end has closed its window would
        # otherwise wait for ever.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, round(silence_s * 1000))
        listener.bind(address)
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise OSError(error.errno, error.strerror, f"{host}:{port}") from error
    listener.setblocking(False)
    return listener


def serve(
    app: FastAPI, service: Service, listener: socket.socket, ready: Callable[[], None]
) -> None:
    """Answer until a signal says to end: SIGTERM or SIGINT; a second one ends at once.

    Args:
        app: of `create_app`.
        service: that it was made of.
        listener: of `listen`.
        ready: called once requests are answered.
    """
    limits = service.limits
    timed: Any = partial(_Timed, limits=limits, service=service, full=_full(limits))
    config = uvicorn.Config(
        app, http=timed, ws="websockets-sansio",
        ws_max_size=round(limits.message_kb * 1000),
        # A client whose samples wait is not read, and neither are its answers to pings; one that
        # is gone is found by its silence.
        ws_ping_interval=None, ws_ping_timeout=None,
        ws_per_message_deflate=False,  # a packed message may hold a thousand times its size
        timeout_keep_alive=KEEP_ALIVE_S, timeout_graceful_shutdown=round(limits.shutdown_s),
        backlog=BACKLOG, log_config=None,
        access_log=False,  # uvicorn writes queries, and a page's key is in one
        server_header=False, lifespan="on",
    )  # fmt: skip
    # The loop waits for the engine's thread at every turn, by Python's default for 5 ms.
    sys.setswitchinterval(SWITCH_S)
    for name in ("uvicorn", "uvicorn.error"):
        logging.getLogger(name).setLevel(logging.WARNING)
    _Server(config, service, ready).run(sockets=[listener])


class _Server(uvicorn.Server):
    """uvicorn's, which tells live streams of its end, and takes a second SIGTERM for what it is."""

    def __init__(self, config: uvicorn.Config, service: Service, ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._service, self._ready = service, ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._ready()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self.should_exit:
            os._exit(128 + sig)
        self.should_exit = True

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        for server in self.servers:
            server.close()  # no new connections
        self._service.is_ending.set()
        # uvicorn would end the streams itself, before their clients have read why.
        until = time.monotonic() + TOLD_S
        while time.monotonic() < until and any(
            isinstance(each, WebSocketsSansIOProtocol) for each in self.server_state.connections
        ):
            await asyncio.sleep(0.05)
        await super().shutdown(sockets)


def _full(limits: Limits) -> Any:
    """The application that answers connections beyond the bound."""

    async def tell(scope: Scope, receive: Receive, send: Send) -> None:
        refusal = Refusal(
            503, f"more than {limits.connections:g} connections, expected fewer", "overloaded",
            retry_after_s=1,
        )  # fmt: skip
        response = refusal.response()
        response.headers["Connection"] = "close"
        await response(scope, receive, send)

    return BodyBounds(tell, limits)


class _Timed(HttpToolsProtocol):
    """uvicorn's protocol, with an end to the patience with silent connections, which it has not.

    Args:
        config: as of uvicorn, and the next three.
        server_state: of all connections.
        app_state: of the application.
        limits: the bounds.
        service: whose connections are counted.
        full: answers those beyond the bound.
    """

    def __init__(
        self,
        config: uvicorn.Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
        *,
        limits: Limits,
        service: Service,
        full: Any,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._limits, self._service, self._full = limits, service, full
        self._timer: TimerHandle | None = None
        self._is_waiting = True  # for a request
        self._head_bytes = self._unsent = 0

    def connection_made(self, transport: Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._service.metrics.connections.inc()
        if len(self.connections) > 2 * self._limits.connections:
            transport.abort()
        elif len(self.connections) > self._limits.connections:
            self.app = self._full  # which tells so, once there is somebody who asks
        self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        self._service.metrics.connections.dec()
        self._stop()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self.transport.is_closing():
            return
        super().data_received(data)
        if self._is_waiting:
            self._head_bytes += len(data)
            if self._head_bytes > MAX_HEAD_BYTES and not self.transport.is_closing():
                self.transport.write(HEAD_TOO_LARGE)
                self.transport.close()

    def on_headers_complete(self) -> None:
        self._is_waiting = False
        self._stop()
        if len(self.pipeline) >= MAX_PIPELINED:
            self.transport.abort()
            return
        super().on_headers_complete()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.cycle.response_complete:  # else one that came before its turn has begun
            self._wait()

    def handle_websocket_upgrade(self) -> None:
        super().handle_websocket_upgrade()
        self._service.metrics.connections.dec()

    def _wait(self) -> None:
        self._is_waiting, self._head_bytes = True, 0
        self._stop()
        self._unsent = self.transport.get_write_buffer_size()
        self._timer = self.loop.call_later(self._limits.silence_s, self._look)

    def _stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self) -> None:
        """Give up, unless the last answer is still on its way, at the pace of a body."""
        left = self.transport.get_write_buffer_size()
        if 0 < left <= self._unsent - self._limits.upload_kb_per_s * 1000 * self._limits.silence_s:
            self._unsent = left
            self._timer = self.loop.call_later(self._limits.silence_s, self._look)
        else:
            self._timer = None
            self.transport.abort()
