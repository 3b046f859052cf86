"""The OpenAPI document is true: what it promises is asked for, and what it does not allow refused.

By Schemathesis, which makes requests of the document, right and wrong ones, and reads the answers.
"""

from __future__ import annotations

from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode

from tests.serve.running import TRANSCRIPTIONS, Running, wav_of

# What else a file may hold is tested in tests/reliability, and is no promise of the document.
schemathesis.openapi.media_type("audio/*", st.sampled_from([wav_of("ab"), wav_of("c a")]))

ROUTES = {
    TRANSCRIPTIONS, "/v1/models", "/v1/about", "/v1/format", "/health", "/ready", "/metrics"
}  # fmt: skip


@pytest.mark.parametrize(
    "count", [pytest.param(10, id="quick"), pytest.param(300, id="many", marks=pytest.mark.slow)]
)
def test_answers_are_as_the_document_says(server: Running, count: int) -> None:
    document = schemathesis.openapi.from_url(f"http://127.0.0.1:{server.port}/openapi.json")
    asked: dict[str, int] = {}
    for found in document.get_all_operations():
        operation = found.ok()
        for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE):
            if mode is GenerationMode.NEGATIVE and not operation.body:
                continue  # nothing can be wrong in a request without anything

            @settings(
                max_examples=count, deadline=None, derandomize=True, database=None,
                phases=[Phase.generate], suppress_health_check=list(HealthCheck),
            )  # fmt: skip
            @given(case=operation.as_strategy(generation_mode=mode))
            def ask(case: Any) -> None:
                case.call_and_validate()
                asked[case.path] = asked.get(case.path, 0) + 1

            ask()
    assert set(asked) >= ROUTES
    assert asked[TRANSCRIPTIONS] >= count


def test_the_document_has_every_status(server: Running) -> None:
    responses = server.ask("GET", "/openapi.json").json["paths"][TRANSCRIPTIONS]["post"][
        "responses"
    ]
    assert {"200", "400", "401", "403", "404", "408", "413", "429", "503"} <= set(responses)
    assert responses["503"]["headers"]["Retry-After"]["schema"] == {"type": "integer"}


def test_what_the_document_does_not_have_is_refused(server: Running) -> None:
    assert server.ask("GET", TRANSCRIPTIONS).status == 405
    assert server.ask("DELETE", "/v1/models").status == 405
    answer = server.ask("GET", "/v1/nothing")
    assert (answer.status, answer.json["error"]["code"]) == (404, "not_found")
