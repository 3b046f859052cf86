"""The server's routes: recordings as OpenAI's clients send them, live speech, and its state."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Coroutine
from contextlib import ExitStack, asynccontextmanager
from typing import Any, Literal, TypeVar

from fastapi import FastAPI, Request, WebSocket
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from asr.serve.access import OPEN_PATHS, Access, Keys
from asr.serve.bounds import BodyBounds, Door
from asr.serve.correction import Correction, read_correction
from asr.serve.learning import Learning
from asr.serve.metrics import CONTENT_TYPE
from asr.serve.pages import Page
from asr.serve.refusal import LEFT, ErrorBody, Refusal
from asr.serve.review import Review, Verdict
from asr.serve.service import Service
from asr.serve.streaming import live
from asr.serve.transcription import (
    Transcription,
    TranscriptionRequest,
    TranscriptionVerbose,
    answer,
    read_form,
)

TITLE = "asr"
TRANSCRIPTIONS = "/v1/audio/transcriptions"
T = TypeVar("T")
WHY = {
    400: "what was sent is no request, or no audio",
    401: "no API key, or an unknown one",
    403: "a page of a foreign origin, or a foreign host",
    404: "no such model",
    408: "the body came too slowly",
    413: "a body that is too large, or a recording that is too long",
    429: "too many requests of this client are under way",
    503: "too many requests are under way, or the server is shutting down",
}
CODES = {
    404: ("not_found", "no such path: /openapi.json lists those there are"),
    405: ("method_not_allowed", "no such method of this path: /openapi.json lists those there are"),
}

logger = logging.getLogger(__name__)


class State(BaseModel):
    """How the server is."""

    status: Literal["ok", "ready"]


class Model(BaseModel):
    """A model that is served."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: str


class Models(BaseModel):
    """The models that are served."""

    object: Literal["list"]
    data: list[Model]


class About(BaseModel):
    """The first model, for the page."""

    model: str
    sample_rate: int
    is_live: bool
    unit: Literal["word", "character"]
    version: str
    is_review: bool


def create_app(
    service: Service,
    keys: Keys,
    origins: frozenset[str] = frozenset(),
    version: str = "",
    review: Review | None = None,
    learning: Learning | None = None,
) -> FastAPI:
    """Make the application of one process.

    Args:
        service: its models and bounds, started and closed with the application.
        keys: that clients need; none for nobody needs one.
        origins: of pages elsewhere that may ask.
        version: of asr.
        review: recordings that the page looks through; None for a page that transcribes.
        learning: what the page begins when they are reviewed.
    """

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        await service.start()
        yield
        await service.close()

    # Their documentation pages load programs from elsewhere.
    app = FastAPI(
        title=TITLE, version=version, lifespan=lifespan, docs_url=None, redoc_url=None,
        description="Speech to text, as OpenAI's clients ask for it.",
    )  # fmt: skip
    page = Page()
    _add_errors(app)
    _add_recordings(app, service)
    _add_files(app)
    _add_models(app, service)
    _add_watching(app, service, version, review is not None)
    if review is not None and learning is not None:
        _add_review(app, review, learning)

    @app.websocket("/v1/stream")
    async def stream(socket: WebSocket) -> None:
        await live(socket, service)

    for path in page.paths:
        app.add_route(path, page.answer, include_in_schema=False)
    open_paths = OPEN_PATHS | page.paths
    app.add_middleware(Access, keys=keys, origins=origins, is_open=open_paths.__contains__)
    app.add_middleware(
        Door, path=TRANSCRIPTIONS, places=service.requests,
        retry_after_s=lambda: service.engine.wait_s,
    )  # fmt: skip
    app.add_middleware(BodyBounds, limits=service.limits)
    app.add_middleware(Counted, service=service, known=page.paths | {TRANSCRIPTIONS})
    return app


def _errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """What OpenAPI says of a route's errors."""
    return {
        status: {"model": ErrorBody, "description": WHY[status]}
        | ({"headers": _RETRY} if status in (429, 503) else {})
        for status in statuses
    }


def _schema(model: type[BaseModel]) -> Any:
    """Write a model's schema, what it is made of in its place."""
    schema = model.model_json_schema()
    parts = schema.pop("$defs", {})

    def filled(value: Any) -> Any:
        if isinstance(value, list):
            return [filled(each) for each in value]
        if not isinstance(value, dict):
            return value
        if "$ref" in value:
            return filled(parts[value["$ref"].rpartition("/")[2]])
        return {key: filled(each) for key, each in value.items()}

    return filled(schema)


_RETRY = {"Retry-After": {"description": "[s]", "schema": {"type": "integer"}, "required": True}}


def _add_recordings(app: FastAPI, service: Service) -> None:
    texts = {
        "text/plain": {"schema": {"type": "string"}},
        "text/vtt": {"schema": {"type": "string"}},
    }
    form = {
        "schema": _schema(TranscriptionRequest),
        "encoding": {"file": {"contentType": "audio/*, video/*"}},
    }

    @app.post(
        TRANSCRIPTIONS, operation_id="transcribe", response_model=None,
        responses={
            200: {
                "model": Transcription | TranscriptionVerbose, "content": texts,
                "description": "the text, in the format that was asked for",
            },
            **_errors(400, 401, 403, 404, 408, 413, 429, 503),
        },
        openapi_extra={
            "requestBody": {
                "required": True, "content": {"multipart/form-data": form}
            }
        },
    )  # fmt: skip
    async def transcribe(request: Request) -> Response:
        """Transcribe a recording, of any format that FFmpeg or libsndfile reads."""
        client, wait_s = request.state.client, service.engine.wait_s
        form = await read_form(request)
        with ExitStack() as closing:
            closing.callback(form.file.file.close)
            served = service.model(form.fields.model)
            language = served.transcriber.recognizer.text.language
            asked = form.fields.language
            if asked and language and asked.lower() != language:
                raise Refusal(
                    400, f"language is {asked[:20]!r}, expected {language}: the model's",
                    "invalid_value", "language",
                )  # fmt: skip
            with service.requests.one(client, wait_s), service.metrics.queued.track_inprogress():
                closing.pop_all()  # who decodes it closes it
                work = service.transcribe(form.file.file, form.file.size or 0, served)
                transcript = await _unless_left(request, work)
        return answer(transcript, form.fields, language)


def _add_files(app: FastAPI) -> None:
    @app.post(
        "/v1/format", operation_id="write", response_model=None,
        responses={
            200: {
                "content": {"text/plain": {"schema": {"type": "string"}}},
                "description": "the file",
            },
            **_errors(400, 401, 403, 408, 413, 503),
        },
        openapi_extra={
            "requestBody": {
                "required": True,
                "content": {"application/json": {"schema": _schema(Correction)}},
            }
        },
    )  # fmt: skip
    async def write(request: Request) -> Response:
        """Write words that were corrected to a file: text, subtitles, JSON, or a manifest."""
        correction = await read_correction(request)
        return PlainTextResponse(await asyncio.to_thread(correction.written))


def _add_models(app: FastAPI, service: Service) -> None:
    @app.get(
        "/v1/models", operation_id="models", response_model=Models, responses=_errors(401, 403)
    )
    async def models() -> dict[str, Any]:
        """List the models that are served."""
        rows = [
            {"id": name, "object": "model", "created": 0, "owned_by": TITLE}
            for name in service.models
        ]
        return {"object": "list", "data": rows}


async def _unless_left(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """Do the work for as long as the client waits for it."""
    working = asyncio.ensure_future(work)
    leaving = asyncio.ensure_future(request.receive())  # nothing but its end is left to come
    try:
        await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise Refusal(LEFT, "the client left", "left")
        return working.result()
    finally:
        for each in (working, leaving):
            each.cancel()


def _add_review(app: FastAPI, review: Review, learning: Learning) -> None:
    """The routes of `asr review`."""

    @app.get("/v1/review")
    def items() -> list[dict[str, object]]:
        return review.rows()

    @app.get("/v1/review/train")
    def learnt() -> dict[str, Any]:
        return learning.state()

    @app.post("/v1/review/train")
    def learn() -> dict[str, Any]:
        learning.start()
        return learning.state()

    @app.get("/v1/review/{number}/audio")
    def audio(number: int) -> Response:
        return Response(review.wav(number), media_type="audio/wav")

    @app.put("/v1/review/{number}")
    def settle(number: int, verdict: Verdict) -> dict[str, str]:
        return {"status": review.settle(number, verdict)}


def _add_watching(app: FastAPI, service: Service, version: str, is_review: bool) -> None:
    @app.get("/v1/about", operation_id="about", response_model=About, responses=_errors(401, 403))
    async def about() -> dict[str, Any]:
        """Tell of the first model what a page needs."""
        recognizer = service.first.transcriber.recognizer
        return {
            "model": service.first.name,
            "sample_rate": recognizer.sample_rate,
            "is_live": recognizer.is_live,
            "unit": recognizer.unit,
            "version": version,
            "is_review": is_review,
        }

    @app.get("/health", operation_id="health", response_model=State, responses=_errors(403))
    async def health() -> dict[str, str]:
        """Tell that the process lives."""
        return {"status": "ok"}

    @app.get("/ready", operation_id="ready", response_model=State, responses=_errors(403, 503))
    async def ready() -> dict[str, str]:
        """Tell whether a request would be taken now."""
        if not service.is_ready:
            raise Refusal(
                503, "too many requests are under way, or the server is shutting down",
                "overloaded", retry_after_s=service.engine.wait_s,
            )  # fmt: skip
        return {"status": "ready"}

    @app.get(
        "/metrics", operation_id="metrics", response_model=None,
        responses={
            200: {"content": {"text/plain": {"schema": {"type": "string"}}}}, **_errors(401, 403)
        },
    )  # fmt: skip
    async def metrics() -> Response:
        """Count what was done, for Prometheus."""
        return Response(service.metrics.text(), media_type=CONTENT_TYPE)


def _add_errors(app: FastAPI) -> None:
    @app.exception_handler(Refusal)
    async def refused(_: Request, refusal: Refusal) -> JSONResponse:
        return refusal.response()

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"][1:]))
        return Refusal(400, f"{where}: {first['msg']}", "invalid_value", where).response()

    @app.exception_handler(HTTPException)
    async def http(_: Request, error: HTTPException) -> JSONResponse:
        code, message = CODES.get(error.status_code, ("invalid_request", str(error.detail)))
        response = Refusal(error.status_code, message, code).response()
        response.headers.update(error.headers or {})
        return response

    @app.exception_handler(ClientDisconnect)
    async def left(_: Request, error: Exception) -> JSONResponse:
        return Refusal(LEFT, "the client left", "left").response()

    @app.exception_handler(Exception)
    async def fault(_: Request, error: Exception) -> JSONResponse:
        return Refusal(500, "the server failed; its log says how", "server_error").response()


class Counted:
    """Counts each answer and writes a line of it to the log: never of what clients wrote.

    Args:
        app: that answers.
        service: whose counts these are.
        known: paths that are counted apart where no route was found.
    """

    def __init__(self, app: ASGIApp, service: Service, known: frozenset[str]) -> None:
        self._app, self._service, self._known = app, service, known

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        status = 0
        start = time.perf_counter()

        async def watch(message: Message) -> None:
            nonlocal status
            if message["type"] in ("http.response.start", "websocket.http.response.start"):
                status = message["status"]
            elif message["type"] == "websocket.close":
                status = message.get("code", 1000)
            await send(message)

        try:
            await self._app(scope, receive, watch)
        finally:
            seconds = time.perf_counter() - start
            # The path as the route has it: a path that a client thought up would be a new count.
            route = getattr(scope.get("route"), "path", None)
            if route is None:  # a file of the page, or who was turned away
                route = scope["path"] if scope["path"] in self._known else "other"
            self._service.metrics.requests.labels(route, str(status)).inc()
            self._service.metrics.request_seconds.labels(route).observe(seconds)
            logger.info("%s %s %.3f s", route, status or "left", seconds)
