"""asr serve: transcripts over HTTP as OpenAI's clients ask for them, live speech, and a page."""

from __future__ import annotations

import argparse
import logging
import os
import re
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from asr import __version__
from asr.cli.decoder import add_decoder_options, decoder_settings, load_transcriber
from asr.cli.main import USER_ERROR_STATUS
from asr.cli.options import MODEL_HELP, Parser
from asr.cli.terminal import one_line, tell
from asr.serve.limits import Limits
from asr.starter_model import decoder_file, model_path

if TYPE_CHECKING:
    import socket

    from asr.serve.access import Keys
    from asr.serve.service import Served

NAME = re.compile(r"[\w.:-]{1,100}")  # of a model, for clients
OF_FOLDER = ("best", "last", "model")  # names of files that say less than their folder's


def main(arguments: list[str]) -> int:
    """Serve until a signal says to end."""
    options = make_parser().parse_args(arguments)
    limits = Limits(**{each.name: getattr(options, each.name) for each in fields(Limits)})
    models = named_models(options.model)
    origins = frozenset(map(_origin, options.allow_origin))
    if options.nbest is not None:
        raise ValueError("--n-best has no effect here: OpenAI's answers have one text")
    if options.workers < 1:
        raise ValueError(f"--workers {options.workers}, expected at least 1")
    for path in models.values():
        os.stat(path)  # a model that is missing is told at once
    folder = None
    if options.workers > 1:
        # Before torch and prometheus_client are imported, which read them.
        threads = max((os.cpu_count() or 1) // options.workers, 1)
        os.environ.setdefault("OMP_NUM_THREADS", str(threads))
        folder = tempfile.TemporaryDirectory(prefix="asr-metrics-")
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = folder.name
    # Imported here: `--help` and a mistake in the call need none of it.
    try:
        from asr.serve.access import is_loopback, read_keys
        from asr.serve.server import listen
    except ImportError as error:
        raise ValueError(
            f"{error.name} is not installed, which serves: pip install 'lstm-asr[serve]'"
        ) from error
    keys = read_keys(options.api_key_file, os.environ)
    if not is_loopback(options.host) and not keys:
        raise ValueError(
            f"--host {options.host} lets other machines ask and there are no API keys, expected "
            "--api-key-file FILE or ASR_API_KEYS, or --host 127.0.0.1"
        )
    logging.basicConfig(
        level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)s %(message)s"
    )
    listener = listen(options.host, options.port, limits.silence_s)
    work = partial(_work, options, limits, models, keys, origins, listener)
    try:
        if options.workers == 1:
            work(lambda: _tell_address(options, listener, models))
            return 0
        return _run_workers(options, work, lambda: _tell_address(options, listener, models))
    finally:
        if folder is not None:
            folder.cleanup()


def _run_workers(
    options: argparse.Namespace,
    work: Callable[[Callable[[], None]], None],
    ready: Callable[[], None],
) -> int:
    """Work in several processes, each of which ends with this one."""
    from prometheus_client.multiprocess import mark_process_dead

    import asr.transcriber  # noqa: F401 -- before the fork: its code is in memory once
    from asr.data.workers import end_with_parent
    from asr.serve.workers import Workers

    parent = os.getpid()

    def work_of_one(is_ready: Callable[[], None]) -> int:
        end_with_parent(parent)
        try:
            work(is_ready)
        except (ValueError, OSError, MemoryError) as error:
            tell(f"error: {one_line(error)}")
            return USER_ERROR_STATUS
        return 0

    return Workers(work_of_one, mark_process_dead, ready).run(options.workers)


def _work(
    options: argparse.Namespace,
    limits: Limits,
    models: dict[str, Path],
    keys: Keys,
    origins: frozenset[str],
    listener: socket.socket,
    ready: Callable[[], None],
) -> None:
    """Load the models and answer, in this process."""
    from asr.serve.app import create_app
    from asr.serve.server import serve
    from asr.serve.service import Service

    service = Service(load(models, options), limits)
    serve(create_app(service, keys, origins, __version__), service, listener, ready)


def load(models: dict[str, Path], options: argparse.Namespace) -> list[Served]:
    """Load models with the decoder that the options ask for, or their own."""
    import numpy as np

    from asr.serve.service import Served

    served = []
    for name, path in models.items():
        settings = decoder_settings(options, decoder_file(path))
        transcriber = load_transcriber(path, settings, options.device, options.calibration)
        served.append(Served(name, transcriber))
    for each in served:  # what is compiled or loaded at the first use is so before anybody waits
        transcriber = each.transcriber
        noise = np.random.default_rng(0).normal(0, 0.1, transcriber.sample_rate)
        transcriber.transcribe(noise.astype(np.float32))
    return served


def named_models(texts: Sequence[str]) -> dict[str, Path]:
    """Name model files for clients: `NAME=MODEL`, or by the model itself.

    Raises:
        ValueError: a name that is none, or twice the same.
    """
    models: dict[str, Path] = {}
    for text in texts:
        name, equals, model = text.partition("=")
        if not equals or os.path.exists(text):
            path = model_path(text)
            name = path.absolute().parent.name if path.stem in OF_FOLDER else path.stem
        else:
            path = model_path(model)
        if not NAME.fullmatch(name):
            raise ValueError(
                f"--model {text}: {name!r} is no name for clients, expected NAME=MODEL"
            )
        if name in models:
            raise ValueError(f"--model: two are called {name}, expected NAME=MODEL")
        models[name] = path
    return models


def _origin(text: str) -> str:
    parts = urlsplit(text)
    if parts.scheme not in ("http", "https") or not parts.netloc or parts.path.strip("/"):
        raise ValueError(f"--allow-origin {text}, expected https://NAME or https://NAME:PORT")
    return f"{parts.scheme}://{parts.netloc.lower()}"


def _tell_address(
    options: argparse.Namespace, listener: socket.socket, models: dict[str, Path]
) -> None:
    host = f"[{options.host}]" if ":" in options.host else options.host
    port = listener.getsockname()[1]
    tell(f"{', '.join(models)} on http://{host}:{port} (Ctrl-C ends it)")


def make_parser() -> Parser:
    """Define the arguments of the command."""
    parser = Parser(
        prog="asr serve",
        description="Answer requests for transcripts as OpenAI's clients send them, transcribe "
        "live speech, and show a page for both.",
    )
    parser.add_argument(
        "--model", action="append", required=True, metavar="[NAME=]MODEL",
        help=f"{MODEL_HELP}; may be repeated. NAME: what clients call it; default: the folder's "
        "name",
    )  # fmt: skip
    parser.add_argument(
        "--host", default="127.0.0.1",
        help="address to listen at; default: 127.0.0.1, this machine alone. Others need API keys",
    )  # fmt: skip
    parser.add_argument("--port", type=int, default=8000, help="default: 8000; 0: any")
    parser.add_argument(
        "--workers", type=int, default=1, metavar="N",
        help="processes behind the port, each with models and limits of its own; default: 1",
    )  # fmt: skip
    parser.add_argument(
        "--api-key-file", type=Path, metavar="FILE",
        help="keys that clients need, one a line; they may be in ASR_API_KEYS too",
    )  # fmt: skip
    parser.add_argument(
        "--allow-origin", action="append", default=[], metavar="ORIGIN",
        help="https://NAME, whose pages may ask too; may be repeated",
    )  # fmt: skip
    parser.add_argument(
        "--calibration", type=Path, metavar="FILE",
        help="of asr evaluate fit_calibration=FILE: confidences become probabilities",
    )  # fmt: skip
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda; default: auto")
    group = parser.add_argument_group("limits", "Of each process.")
    for each in fields(Limits):
        group.add_argument(
            f"--{each.metadata['bound']}-{each.name.replace('_', '-')}", dest=each.name,
            type=float, default=each.default, metavar="N",
            help=f"{each.metadata['help']}; default: %(default)g",
        )  # fmt: skip
    add_decoder_options(parser)
    return parser
