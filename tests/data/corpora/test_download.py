"""Downloads, over urllib's own machinery with a connection that a test makes up."""

from __future__ import annotations

import email.message
import http.client
import io
import urllib.request
import urllib.response
from pathlib import Path

import pytest

from asr.data.corpora.download import download
from asr.data.corpora.prepared import Silent

URL = "https://example.org/a.zip"


class Answers(urllib.request.HTTPSHandler):
    """Answers https requests by URL: status, headers, body."""

    def __init__(self, answers: dict[str, tuple[int, dict[str, str], bytes]]) -> None:
        super().__init__()
        self.answers = answers

    def https_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        status, headers, body = self.answers[req.full_url]
        message = email.message.Message()
        for name, value in headers.items():
            message[name] = value
        response = urllib.response.addinfourl(io.BytesIO(body), message, req.full_url, status)
        response.msg = "message"  # type: ignore[attr-defined]
        return response  # type: ignore[return-value]


class Recorder(Silent):
    """Notes how far it is."""

    def __init__(self) -> None:
        self.steps: list[tuple[int, int]] = []

    def advance(self, step: str, done: int, total: int, unit: str) -> None:
        assert (step, unit) == ("download", "bytes")
        self.steps.append((done, total))


def fetch(
    target: Path, answers: dict[str, tuple[int, dict[str, str], bytes]], max_bytes: int = 10**6
) -> list[tuple[int, int]]:
    recorder = Recorder()
    download(URL, target, max_bytes=max_bytes, progress=recorder, handlers=[Answers(answers)])
    return recorder.steps


def test_a_file_arrives_with_progress(tmp_path: Path) -> None:
    body = bytes(range(256)) * 1000
    steps = fetch(tmp_path / "a", {URL: (200, {"Content-Length": str(len(body))}, body)})
    assert (tmp_path / "a").read_bytes() == body
    assert steps[-1] == (len(body), len(body))
    assert len(steps) > 2


def test_a_redirection_to_https_is_followed(tmp_path: Path) -> None:
    other = "https://cdn.example.org/b"
    fetch(tmp_path / "a", {URL: (302, {"Location": other}, b""), other: (200, {}, b"body")})
    assert (tmp_path / "a").read_bytes() == b"body"


@pytest.mark.parametrize("other", ["http://example.org/b", "ftp://example.org/b", "file:///etc/x"])
def test_a_redirection_to_anything_else_is_refused(tmp_path: Path, other: str) -> None:
    with pytest.raises((ValueError, OSError), match=r"begins with https://|not allowed"):
        fetch(tmp_path / "a", {URL: (302, {"Location": other}, b"")})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("url", ["http://x/a", "file:///etc/passwd", "ftp://x/a", "x"])
def test_other_addresses_are_refused(tmp_path: Path, url: str) -> None:
    with pytest.raises(ValueError, match="expected an address that begins with https://"):
        download(url, tmp_path / "a", max_bytes=1, progress=Silent())


@pytest.mark.parametrize("headers", [{"Content-Length": "101"}, {}])
def test_too_much_is_refused_announced_or_not(tmp_path: Path, headers: dict[str, str]) -> None:
    (tmp_path / "a").write_text("old")
    with pytest.raises(ValueError, match="at least 101 bytes, expected at most 100"):
        fetch(tmp_path / "a", {URL: (200, headers, bytes(101))}, max_bytes=100)
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [("a", "old")]


def test_a_connection_that_ends_early_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="ended after 4 bytes, expected 10"):
        fetch(tmp_path / "a", {URL: (200, {"Content-Length": "10"}, b"four")})
    assert list(tmp_path.iterdir()) == []


def test_a_missing_file_is_said_with_its_address(tmp_path: Path) -> None:
    with pytest.raises(OSError, match=r"example\.org/a\.zip: cannot be downloaded \(message\)"):
        fetch(tmp_path / "a", {URL: (404, {}, b"")})
