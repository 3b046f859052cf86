"""Files from the network: https alone, bounded, there whole or not at all."""

from __future__ import annotations

import http.client
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

from asr.atomic_file import replacing
from asr.data.corpora.prepared import Progress

TIMEOUT_S = 30.0  # [s] without a single byte
CHUNK_BYTES = 1 << 16


def download(
    url: str,
    target: Path,
    *,
    max_bytes: int,
    progress: Progress,
    handlers: Sequence[urllib.request.BaseHandler] = (),
) -> None:
    """Fetch a file; one that was cut off is fetched again from its beginning.

    Args:
        url: https; so are all redirections.
        target: the file to write.
        max_bytes: refuse more.
        progress: told how many bytes have come.
        handlers: for urllib, in place of its own of the same class; those honour https_proxy.

    Raises:
        ValueError: for another kind of URL, or more than `max_bytes`.
        OSError: where the network or the disk fails; `target` is then as it was.
    """
    _require_https(url)
    opener = urllib.request.build_opener(_HttpsOnlyRedirects(), *handlers)
    try:
        with opener.open(url, timeout=TIMEOUT_S) as response, replacing(target) as file:
            total = int(response.headers.get("Content-Length") or 0)
            _require_at_most(total, max_bytes, url)
            _copy(response, file, url, total, max_bytes, progress)
    except (urllib.error.URLError, http.client.HTTPException, TimeoutError) as error:
        reason = error.reason if isinstance(error, urllib.error.URLError) else error
        raise OSError(f"{url}: cannot be downloaded ({reason or type(error).__name__})") from error


def _copy(
    response: Any, file: IO[bytes], url: str, total: int, max_bytes: int, progress: Progress
) -> None:
    done = 0
    while chunk := response.read(CHUNK_BYTES):
        done += len(chunk)
        _require_at_most(done, max_bytes, url)
        file.write(chunk)
        progress.advance("download", done, max(total, done), "bytes")
    if done < total:
        raise OSError(f"{url}: the connection ended after {done} bytes, expected {total}")


def _require_https(url: str) -> None:
    if not url.lower().startswith("https://"):
        raise ValueError(f"{url}: not downloaded, expected an address that begins with https://")


def _require_at_most(size: int, max_bytes: int, url: str) -> None:
    if size > max_bytes:
        raise ValueError(f"{url}: at least {size} bytes, expected at most {max_bytes}")


class _HttpsOnlyRedirects(urllib.request.HTTPRedirectHandler):
    """Follows a redirection to https and refuses any other."""

    def redirect_request(self, *args: Any, **kwargs: Any) -> urllib.request.Request | None:
        _require_https(kwargs.get("newurl") or args[5])
        return super().redirect_request(*args, **kwargs)
