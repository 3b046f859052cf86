"""Keys, origins and hosts, by the answers to requests that go no further."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from asr.serve.access import Access, Keys, is_loopback, read_keys

KEY, OTHER = "0123456789abcdef-one", "0123456789abcdef-two"


def ask(
    access: Access, path: str = "/v1/models", method: str = "GET", **headers: str
) -> tuple[int, dict[str, str], Any]:
    """Status and headers of an answer, and the client as the application knows it."""
    sent: list[Any] = []
    raw = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    scope = {
        "type": "http", "method": method, "path": path, "headers": raw, "query_string": b"",
        "client": ("192.0.2.1", 5),
    }  # fmt: skip

    async def receive() -> Any:
        return {"type": "http.request", "body": b""}

    async def send(message: Any) -> None:
        sent.append(message)

    asyncio.run(access(scope, receive, send))  # type: ignore[arg-type]
    found = {name.decode().lower(): value.decode() for name, value in sent[0]["headers"]}
    return sent[0]["status"], found, scope.get("state", {}).get("client")


def access(*keys: str, origins: frozenset[str] = frozenset()) -> Access:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    return Access(app, Keys(keys), origins, lambda path: path == "/health")


def test_a_key_opens_and_names_its_client() -> None:
    kept = access(KEY, OTHER)
    assert ask(kept, host="asr.example", authorization=f"Bearer {OTHER}")[::2] == (200, "key 2")
    assert ask(kept, host="asr.example", authorization=f"bearer {KEY}")[::2] == (200, "key 1")
    status, headers, _ = ask(kept, host="asr.example", authorization="Bearer x")
    assert (status, headers["www-authenticate"]) == (401, "Bearer")
    assert ask(kept, "/health", host="asr.example")[::2] == (200, "192.0.2.1")


def test_without_keys_only_this_machines_own_names_are_answered() -> None:
    for host in ("localhost", "127.0.0.1:8000", "[::1]:8000", "127.8.8.8"):
        assert ask(access(), host=host)[0] == 200, host
    for host in ("evil.example", "127.0.0.1.evil.example", "", "localhost.evil", "10.0.0.1"):
        assert ask(access(), host=host)[0] == 403, host


def test_a_page_of_another_origin_is_refused_unless_it_is_allowed() -> None:
    lab = access(origins=frozenset({"https://lab.example"}))
    for origin in ("https://evil.example", "null", "http://localhost:81", "https://lab.example.x"):
        assert ask(lab, host="localhost:80", origin=origin)[0] == 403, origin
    assert ask(lab, host="localhost:80", origin="http://localhost:80")[0] == 200
    status, headers, _ = ask(lab, host="localhost", origin="https://lab.example")
    assert (status, headers["access-control-allow-origin"]) == (200, "https://lab.example")
    status, headers, _ = ask(
        lab, method="OPTIONS", host="localhost", origin="https://lab.example",
        access_control_request_method="POST",
    )  # fmt: skip
    assert status == 204
    assert "authorization" in headers["access-control-allow-headers"]
    assert "access-control-allow-origin" not in ask(lab, host="localhost")[1]


def test_keys_come_from_a_file_and_from_the_environment(tmp_path: Path) -> None:
    file = tmp_path / "keys.txt"
    file.write_text(f"# for the lab\n\n  {KEY}\n")
    keys = read_keys(file, {"ASR_API_KEYS": f"{OTHER}, "})
    assert [keys.find(key) for key in (OTHER, KEY, "x", KEY + " ")] == [
        "key 1",
        "key 2",
        None,
        None,
    ]
    assert not read_keys(None, {})
    assert KEY not in repr(vars(keys))
    with pytest.raises(ValueError, match="key 1 has 3 characters"):
        read_keys(None, {"ASR_API_KEYS": "abc"})


def test_loopback_is_told_from_other_addresses() -> None:
    assert all(map(is_loopback, ("localhost", "127.0.0.1", "127.1.2.3", "::1", "[::1]")))
    assert not any(map(is_loopback, ("0.0.0.0", "::", "", "10.0.0.1", "localhost.example")))
