"""A real browser for tests of pages: the chromium that is installed."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest


@contextmanager
def launched(*arguments: str) -> Iterator[Any]:
    """Start the browser for the length of a block; skips the test where there is none.

    Args:
        arguments: of its command line.
    """
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    path = os.environ.get("ASR_CHROMIUM") or shutil.which("chromium")
    if path is None:
        pytest.skip("no chromium on PATH, and ASR_CHROMIUM names none")
    with playwright.sync_playwright() as running:
        # A container's root cannot have the sandbox, and the pages are our own.
        browser = running.chromium.launch(executable_path=path, args=["--no-sandbox", *arguments])
        yield browser
        browser.close()
