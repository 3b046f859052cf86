"""What was corrected is written as the program writes it, and what is no transcript is told."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from websockets.sync.client import connect

from asr.serve.access import _key_of
from asr.serve.correction import MAX_BODY_BYTES
from tests.serve.running import Running

SAID: dict[str, Any] = {
    "name": "call.m4a",
    "duration": 4.0,
    "segments": [
        {
            "start": 0.5, "end": 1.5, "speaker": "Ada",
            "words": [
                {"word": "good", "start": 0.5, "end": 0.9},
                {"word": "day", "start": 1.0, "end": 1.5, "confidence": 0.5},
            ],
        },
        {"start": 2.0, "end": 3.0, "words": [{"word": "日", "start": 2.0, "end": 2.4},
            {"word": "本", "start": 2.5, "end": 3.0, "is_joined": True}]},
        {"start": 3.5, "end": 3.6, "words": []},
    ],
}  # fmt: skip


def written(server: Running, to: str, **changes: Any) -> str:
    body = json.dumps({**SAID, "to": to, **changes}).encode()
    answer = server.ask("POST", "/v1/format", body, {"Content-Type": "application/json"})
    assert answer.status == 200, answer.content
    return answer.content.decode()


def test_every_format(server: Running) -> None:
    assert written(server, "text") == "good day\n日本\n"
    assert "Ada: good day" in written(server, "srt")
    assert "<v Ada>good day" in written(server, "vtt")
    found = json.loads(written(server, "json"))
    assert found["audio_filepath"] == "call.m4a"
    assert [word["word"] for word in found["words"]] == ["good", "day", "日", "本"]
    rows = [json.loads(line) for line in written(server, "manifest").splitlines()]
    assert [(row["text"], row["offset"], row["duration"]) for row in rows] == [
        ("good day", 0.5, 1.0), ("日本", 2.0, 1.0),
    ]  # fmt: skip
    assert [row.get("speaker") for row in rows] == ["Ada", None]


def test_a_name_is_no_path(server: Running) -> None:
    rows = written(server, "manifest", name="../../etc/passwd.wav").splitlines()
    assert json.loads(rows[0])["audio_filepath"] == "passwd.wav"


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"{", "the body: Invalid JSON"),
        (b"{}", "to: Field required"),
        (json.dumps({**SAID, "to": "exe"}).encode(), "to: Input should be 'text', 'srt'"),
        (json.dumps({**SAID, "to": "srt", "duration": -1}).encode(), "duration: Input should be"),
        (
            json.dumps(
                {**SAID, "to": "srt", "segments": [{"start": 0, "end": 1, "words": [{"word": ""}]}]}
            ).encode(),
            "segments.0.words.0.word: String should have at least 1",
        ),
    ],
)
def test_what_is_no_transcript_is_told(server: Running, body: bytes, message: str) -> None:
    answer = server.ask("POST", "/v1/format", body, {"Content-Type": "application/json"})
    assert answer.status == 400
    assert answer.message.startswith(message)


def test_more_than_a_day_is_refused(server: Running) -> None:
    answer = server.ask("POST", "/v1/format", b" " * (MAX_BODY_BYTES + 1))
    assert answer.status == 413


def test_a_page_sends_its_key_as_a_subprotocol(server: Running) -> None:
    key = "a-key/with+signs-of-base64???>>>"
    coded = base64.urlsafe_b64encode(key.encode()).decode().rstrip("=")
    scope = {"type": "websocket", "subprotocols": ["asr", f"key.{coded}"], "query_string": b""}
    assert _key_of(scope, {}) == key
    assert _key_of({**scope, "subprotocols": ["asr"]}, {}) is None
    assert not _key_of({**scope, "subprotocols": ["key.%%%", "asr"]}, {})
    assert _key_of({**scope, "type": "http"}, {}) is None
    with connect(server.stream_url(), subprotocols=["asr", f"key.{coded}"]) as socket:  # type: ignore[list-item]
        assert socket.subprotocol == "asr"
