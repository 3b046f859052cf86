"""The page of docs/examples/browser in a real browser: it writes what the program does."""

from __future__ import annotations

import base64
import functools
import http.server
import os
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from torch import nn

from asr.exporter import exported
from asr.model_spec import ModelSpec, Part
from asr.recognizer import Recognizer
from asr.transcriber import Transcriber
from tests.chromium import launched

pytestmark = pytest.mark.browser

EXAMPLE = Path(__file__).parents[2] / "docs/examples/browser"
RATE = 8000  # [Hz]
LIVE = {"remove_mean": False, "remove_dc_offset": True, "normalizer": "pcen"}


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with launched() as found:
        yield found


@pytest.fixture
def site(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """The example with onnxruntime-web, served: its folder and its address."""
    named = os.environ.get("ASR_NODE_MODULES")
    packages = Path(named) if named else EXAMPLE / "node_modules"
    if not (packages / "onnxruntime-web").is_dir():
        pytest.skip("no onnxruntime-web: npm install in docs/examples/browser, or ASR_NODE_MODULES")
    for name in ("index.html", "main.js"):
        shutil.copy(EXAMPLE / name, tmp_path / name)
    (tmp_path / "node_modules").symlink_to(packages.absolute())

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            """Say nothing."""

    handler = functools.partial(Quiet, directory=str(tmp_path))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield tmp_path, f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    server.server_close()


def model_of(is_live: bool) -> Recognizer:
    """One that was never trained, and says many things."""
    torch.manual_seed(1)
    features = {"sample_rate": RATE, "n_mels": 12} | (LIVE if is_live else {})
    size = {"hidden_size": 8, "num_layers": 2, "lookahead": 2 if is_live else 0}
    model = Part("BiLstmCtc", {**size, "bidirectional": not is_live})
    recognizer = Recognizer(ModelSpec(Part("LogMel", features), model, " ab'", {}))
    for parameter in recognizer.parameters():
        nn.init.normal_(parameter)
    if is_live:
        recognizer.features.normalizer.is_measured.fill_(True)
    return recognizer.eval()


@pytest.mark.parametrize("is_live", [True, False])
def test_the_page_writes_what_the_program_does(
    is_live: bool, site: tuple[Path, str], browser: Any
) -> None:
    folder, address = site
    recognizer = model_of(is_live)
    (folder / "model.onnx").write_bytes(exported(recognizer, {}, "int8"))
    swell = 0.2 + np.abs(np.sin(np.arange(3 * RATE) / 700))
    samples = 0.2 * swell * np.random.default_rng(3).standard_normal(3 * RATE)
    recording = folder / "said.wav"
    soundfile.write(recording, samples.clip(-1, 1), RATE)
    expected = Transcriber.load(folder / "model.onnx").transcribe(recording).text
    assert len(expected) > 2
    page = browser.new_page()
    complaints: list[str] = []
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("console", lambda message: complaints.append(message.text))
    page.on("request", lambda asked: complaints.extend(
        [] if asked.url.startswith((address, "data:")) else [asked.url]))  # fmt: skip
    page.goto(address)
    status = page.locator("#status")
    status.filter(has_text="Ready.").wait_for()
    page.set_input_files("#file", recording)
    status.filter(has_text="said.wav: ").wait_for()
    assert page.inner_text("#text") == expected
    page.set_input_files("#file", folder / "index.html")
    status.filter(has_text="index.html: ").wait_for()
    assert page.inner_text("#text") == ""
    content = base64.b64encode(recording.read_bytes()).decode()
    dropped = page.evaluate_handle(
        """content => {
            const bytes = Uint8Array.from(atob(content), (each) => each.charCodeAt(0));
            const transfer = new DataTransfer();
            transfer.items.add(new File([bytes], "dropped.wav"));
            return transfer;
        }""",
        content,
    )
    page.dispatch_event("#drop", "drop", {"dataTransfer": dropped})
    status.filter(has_text="dropped.wav: ").wait_for()
    assert page.inner_text("#text") == expected
    assert complaints == []
    page.close()
