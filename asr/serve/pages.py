"""The files of the page, read once, with headers that let it use nothing but this server."""

from __future__ import annotations

import hashlib
import mimetypes
from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response

PAGE = Path(__file__).with_name("page")
INDEX = "index.html"
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; "
        "media-src 'self' blob:; font-src 'self'; connect-src 'self'; worker-src 'self'; "
        "manifest-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Permissions-Policy": "microphone=(self), camera=(), geolocation=()",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-cache",
}
# Of files whose kind a system may not know, or call something else.
KINDS = {
    ".html": "text/html; charset=utf-8", ".js": "text/javascript; charset=utf-8",
    ".mjs": "text/javascript; charset=utf-8", ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml", ".json": "application/json", ".wasm": "application/wasm",
    ".webmanifest": "application/manifest+json", ".woff2": "font/woff2",
}  # fmt: skip


class Page:
    """The files of a folder, by their paths in it.

    Args:
        folder: of index.html and what it names.
    """

    def __init__(self, folder: Path = PAGE) -> None:
        self._files: dict[str, tuple[bytes, str, str]] = {}
        for file in sorted(folder.rglob("*")):
            if file.is_file() and not file.name.startswith("."):
                content = file.read_bytes()
                kind = KINDS.get(file.suffix) or mimetypes.guess_type(file.name)[0]
                tag = f'"{hashlib.sha256(content).hexdigest()[:32]}"'
                name = file.relative_to(folder).as_posix()
                self._files[name] = content, kind or "application/octet-stream", tag

    @property
    def paths(self) -> frozenset[str]:
        """The paths of requests for its files."""
        return frozenset({"/", *(f"/{name}" for name in self._files)})

    async def answer(self, request: Request) -> Response:
        """Answer with the file that a request names, which is there."""
        content, kind, tag = self._files[request.url.path.removeprefix("/") or INDEX]
        headers = {**HEADERS, "ETag": tag}
        if request.headers.get("if-none-match") == tag:
            return Response(status_code=304, headers=headers)
        return Response(content, media_type=kind, headers=headers)
