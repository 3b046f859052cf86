"""The routes of a running server, asked as clients ask: the official one, browsers, Prometheus."""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import openai
import pytest
import websockets

from asr.transcriber import Transcriber
from tests.cli.conftest import RATE, tones
from tests.serve.running import TRANSCRIPTIONS, Running, form

TEXT = "c a"


@pytest.fixture
def client(server: Running) -> Any:
    return openai.OpenAI(
        base_url=f"http://127.0.0.1:{server.port}/v1", api_key="none", max_retries=0
    )


def test_the_official_client_reads_every_format(client: Any, wav: bytes, tone_model: Path) -> None:
    offline = Transcriber.load(tone_model).transcribe(wav)

    def ask(**fields: Any) -> Any:
        return client.audio.transcriptions.create(file=("a.wav", wav), model="tones", **fields)

    assert ask().text == TEXT
    assert ask(response_format="text") == f"{TEXT}\n"
    assert ask(response_format="srt") == offline.srt()
    assert ask(response_format="vtt") == offline.vtt()
    whole = ask(response_format="verbose_json", timestamp_granularities=["word", "segment"])
    assert whole.text == TEXT
    assert whole.duration == round(offline.duration, 3)
    rows = [{key: word.row()[key] for key in ("word", "start", "end")} for word in offline.words]
    assert [{key: getattr(word, key) for key in rows[0]} for word in whole.words] == rows
    assert [segment.text for segment in whole.segments] == [TEXT]
    assert whole.segments[0].words == [word.row() for word in offline.words]
    assert ask(response_format="verbose_json").words is None
    only_words = ask(response_format="verbose_json", timestamp_granularities=["word"])
    assert only_words.segments is None
    assert client.models.list().data[0].id == "tones"


@pytest.mark.parametrize(
    ("fields", "status", "told"),
    [
        ({"model": "/etc/passwd"}, 404, "model is '/etc/passwd', expected one of tones"),
        ({"response_format": "docx"}, 400, "response_format is 'docx'"),
        ({"temperature": "7"}, 400, "temperature is '7'"),
        ({"stream": "true"}, 400, "stream is 'true'"),
        ({"keywords": "abc"}, 400, "unknown field 'keywords'"),
        ({"timestamp_granularities[]": "word"}, 400, "verbose_json, which has times"),
        ({"model": ["tones", "tones"]}, 400, "'model' is given twice"),
    ],
)
def test_a_field_that_is_wrong_is_told_of(
    server: Running, wav: bytes, fields: Any, status: int, told: str
) -> None:
    answer = server.transcribe(wav, **fields)
    assert answer.status == status
    assert told in answer.message


def test_what_is_no_audio_and_no_form_is_told_of(server: Running) -> None:
    answer = server.transcribe(b"This is no audio.")
    assert answer.status == 400
    assert answer.message.startswith("file: cannot be read as audio")
    body, kind = form({"model": "tones"}, None)
    answer = server.ask("POST", TRANSCRIPTIONS, body, {"Content-Type": kind})
    assert (answer.status, answer.json["error"]["param"]) == (400, "file")
    answer = server.ask("POST", TRANSCRIPTIONS, b"{}", {"Content-Type": "application/json"})
    assert (answer.status, answer.json["error"]["code"]) == (400, "missing_file")


def test_the_page_may_use_nothing_but_this_server(server: Running) -> None:
    answer = server.ask("GET", "/")
    assert answer.status == 200
    policy = answer.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'")
    assert not re.search(r"https?:|unsafe|\*", policy)
    assert "microphone=(self)" in answer.headers["permissions-policy"]
    again = server.ask("GET", "/", headers={"If-None-Match": answer.headers["etag"]})
    assert (again.status, again.content) == (304, b"")
    for path in ("/../app.py", "/%2e%2e/app.py", "/page", "/index.htm", "//etc/passwd"):
        assert server.ask("GET", path).status == 404, path


def test_it_tells_how_it_is(server: Running, wav: bytes) -> None:
    assert server.ask("GET", "/health").json == {"status": "ok"}
    assert server.ask("GET", "/ready").json == {"status": "ready"}
    about = server.ask("GET", "/v1/about").json
    assert (about["model"], about["sample_rate"], about["unit"]) == ("tones", RATE, "word")

    def counted() -> float:
        text = server.ask("GET", "/metrics").content.decode()
        name = f'asr_requests_total{{route="{TRANSCRIPTIONS}",status="200"}}'
        return sum(float(line.split()[-1]) for line in text.splitlines() if line.startswith(name))

    before = counted()
    server.transcribe(wav)
    assert counted() == before + 1


def test_live_speech_is_heard(server: Running, tone_model: Path) -> None:
    pause = np.zeros(RATE, np.float32)
    samples = np.concatenate([tones("c a"), pause, tones("abc")])
    sent = np.rint(samples * 32767).astype("<i2")
    stream = Transcriber.load(tone_model).stream(RATE)
    offline = [*stream.push(sent), *stream.finish()]

    async def speak() -> list[dict[str, Any]]:
        async with websockets.connect(server.stream_url(sample_rate=RATE, model="tones")) as link:
            content = sent.tobytes()
            for place in range(0, len(content), 999):  # an odd number of bytes
                await link.send(content[place : place + 999])
            await link.send(json.dumps({"type": "finish"}))
            rows = [json.loads(message) async for message in link]
            assert link.close_code == 1000
            return rows

    rows = asyncio.run(speak())
    assert rows[0] == {"type": "ready", "sample_rate": RATE}
    assert rows[-1] == {"type": "done", "duration": round(len(samples) / RATE, 3)}
    final = [row for row in rows if row["type"] == "final"]
    assert [row["text"] for row in final] == [segment.text for segment in offline] == ["c a", "abc"]
    assert [row["words"] for row in final] == [
        [word.row() for word in segment.words] for segment in offline
    ]
    assert any(row["type"] == "partial" for row in rows)
