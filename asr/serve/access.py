"""Who may ask: keys, and the origins and hosts of pages in browsers."""

from __future__ import annotations

import base64
import hashlib
import hmac
import ipaddress
import json
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from urllib.parse import urlsplit

from starlette.types import ASGIApp, Receive, Scope, Send

from asr.serve.refusal import Refusal
from asr.untrusted import read_text

KEYS_VARIABLE = "ASR_API_KEYS"  # of the environment: keys with commas between
MIN_KEY_CHARACTERS = 16
MAX_KEY_CHARACTERS = 512
MAX_KEYS_BYTES = 1 << 20
PRINTABLE = re.compile(r"[!-~]+")  # what a header may hold as one word
PROTOCOL, KEY_PROTOCOL = "asr", "key."  # of WebSockets: what is spoken, and what a key begins with
BAD_KEY_CODE = 1008  # of WebSockets: policy violation

# What nobody needs a key for: whether the process lives, what it offers, and the page's files.
OPEN_PATHS = frozenset({"/health", "/ready", "/openapi.json"})


class Keys:
    """The keys that clients may have, of which only hashes are kept.

    Args:
        keys: at least MIN_KEY_CHARACTERS printable characters each.

    Raises:
        ValueError: a key that is too short, or has other characters.
    """

    def __init__(self, keys: Iterable[str]) -> None:
        self._hashes: list[bytes] = []
        for number, key in enumerate(keys, 1):
            # The key itself is told to nobody, also not in an error.
            if not MIN_KEY_CHARACTERS <= len(key) <= MAX_KEY_CHARACTERS:
                raise ValueError(
                    f"key {number} has {len(key)} characters, expected {MIN_KEY_CHARACTERS} to "
                    f"{MAX_KEY_CHARACTERS}: openssl rand -hex 32"
                )
            if not PRINTABLE.fullmatch(key):
                raise ValueError(
                    f"key {number} has a space or a character beyond ASCII, expected letters, "
                    "digits and signs"
                )
            self._hashes.append(_hash(key))

    def __bool__(self) -> bool:
        return bool(self._hashes)

    def find(self, key: str) -> str | None:
        """Name the client that has this key, for counts, in time that says nothing of the keys."""
        given = _hash(key)
        found = [hmac.compare_digest(given, each) for each in self._hashes]
        return f"key {found.index(True) + 1}" if any(found) else None


def _hash(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()


def read_keys(file: Path | None, environment: Mapping[str, str]) -> Keys:
    """Read the keys of a file, one a line, and those of the environment.

    Args:
        file: empty lines and those that begin with # are passed over; None for none.
        environment: its ASR_API_KEYS holds keys with commas between.

    Raises:
        ValueError: a key that is none, or a file without any.
        OSError: missing or unreadable.
    """
    keys = [key.strip() for key in environment.get(KEYS_VARIABLE, "").split(",") if key.strip()]
    if file is not None:
        lines = [line.strip() for line in read_text(file, "keys", MAX_KEYS_BYTES).splitlines()]
        found = [line for line in lines if line and not line.startswith("#")]
        if not found:
            raise ValueError(f"{file}: no key, expected one a line")
        keys += found
    return Keys(keys)


def is_loopback(host: str) -> bool:
    """Tell whether an address or a name is that of this machine for itself."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


class Access:
    """Answers who may not ask, before anything of a body is read.

    A browser sends the page of anybody to this machine. So an origin must be that of the host that
    was asked, or be allowed; and without keys the host must be this machine by its own names: a
    name of somebody else's may lead here too.

    Args:
        app: whom the others are passed on to, with `scope["state"]["client"]`.
        keys: none lets everybody in.
        origins: that are allowed beside the server's own, `https://example.org`.
        is_open: paths for which no key is needed.
    """

    def __init__(
        self, app: ASGIApp, keys: Keys, origins: frozenset[str], is_open: Callable[[str], bool]
    ) -> None:
        self._app, self._keys, self._origins, self._is_open = app, keys, origins, is_open
        self._hosts = {urlsplit(origin).netloc for origin in origins}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        headers = {name.decode("latin-1"): value for name, value in scope["headers"]}
        texts = {name: value.decode("latin-1") for name, value in headers.items()}
        try:
            self._check_origin(texts)
        except Refusal as refusal:
            await refuse(refusal, scope, receive, send)
            return
        if texts.get("origin") in self._origins and scope["type"] == "http":
            if scope["method"] == "OPTIONS" and "access-control-request-method" in texts:
                await self._answer_preflight(texts, send)
                return
            send = _with_origin(send, texts["origin"])
        scope.setdefault("state", {})["client"] = (scope.get("client") or ("socket",))[0]
        if self._keys and not self._is_open(scope["path"]):
            key = _key_of(scope, texts)
            client = self._keys.find(key) if key else None
            if client is None:
                await self._refuse_key(bool(key), scope, receive, send)
                return
            scope["state"]["client"] = client
        await self._app(scope, receive, send)

    def _check_origin(self, headers: Mapping[str, str]) -> None:
        host = headers.get("host", "").lower()
        if not self._keys and host not in self._hosts and not is_loopback(_without_port(host)):
            raise Refusal(
                403, "the host that was asked is not this machine by its own names, expected "
                "localhost, a host of --allow-origin, or a server with keys", "foreign_host",
            )  # fmt: skip
        origin = headers.get("origin")
        if origin is None or origin in self._origins:
            return
        if urlsplit(origin).netloc.lower() != host:
            raise Refusal(
                403, "a page of another origin asks, expected this server's own page, or "
                "--allow-origin", "foreign_origin",
            )  # fmt: skip

    async def _refuse_key(self, is_given: bool, scope: Scope, receive: Receive, send: Send) -> None:
        told = "this API key is not one of the server's" if is_given else "no API key"
        refusal = Refusal(401, f"{told}, expected Authorization: Bearer KEY", "invalid_api_key")
        if scope["type"] == "http":
            await refuse(refusal, scope, receive, send)
            return
        # A page in a browser is told nothing of a handshake that fails: only codes of what was
        # accepted.
        await receive()
        await send({"type": "websocket.accept", "subprotocol": spoken_with(scope)})
        message = json.dumps({"type": "error", "message": str(refusal)})
        await send({"type": "websocket.send", "text": message})
        await send({"type": "websocket.close", "code": BAD_KEY_CODE, "reason": "API key"})

    async def _answer_preflight(self, headers: Mapping[str, str], send: Send) -> None:
        allowed = [
            (b"access-control-allow-origin", headers["origin"].encode("latin-1")),
            (b"access-control-allow-methods", b"GET, POST, PUT"),
            (b"access-control-allow-headers", b"authorization, content-type"),
            (b"access-control-max-age", b"600"),
            (b"vary", b"origin"),
        ]
        await send({"type": "http.response.start", "status": 204, "headers": allowed})
        await send({"type": "http.response.body", "body": b""})


def _key_of(scope: Scope, headers: Mapping[str, str]) -> str | None:
    """The key that a client sends.

    A page cannot give a WebSocket headers, and what stands in an address is written to logs; so it
    sends a subprotocol, `key.` and the key in base64 of addresses.
    """
    scheme, _, key = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer" and key:
        return key.strip(" ")
    if scope["type"] == "websocket" and not scheme:
        offered = scope.get("subprotocols", ())
        try:
            (coded,) = [
                each.removeprefix(KEY_PROTOCOL) for each in offered if each.startswith(KEY_PROTOCOL)
            ]
            return base64.urlsafe_b64decode(coded + "=" * (-len(coded) % 4)).decode("ascii")
        except ValueError:
            return None
    return None


def spoken_with(scope: Scope) -> str | None:
    """The subprotocol for the answer to a client: a browser wants one of those that it offered."""
    return PROTOCOL if PROTOCOL in scope.get("subprotocols", ()) else None


def _without_port(host: str) -> str:
    return re.sub(r":\d+$", "", host)


def _with_origin(send: Send, origin: str) -> Send:
    async def allow(message: dict[str, object]) -> None:
        if message["type"] == "http.response.start":
            headers = list(message.get("headers", ()))  # type: ignore[call-overload]
            headers += [
                (b"access-control-allow-origin", origin.encode("latin-1")),
                (b"vary", b"origin"),
            ]
            message = {**message, "headers": headers}
        await send(message)

    return allow  # type: ignore[return-value]


async def refuse(refusal: Refusal, scope: Scope, receive: Receive, send: Send) -> None:
    """Answer with a refusal; a WebSocket by the answer to its handshake."""
    await refusal.response()(scope, receive, send)
