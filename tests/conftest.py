"""Fixtures that tests of several stages share."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from pathlib import Path

import pytest
import torch

# Before anything imports Triton: without a GPU its kernels run in the interpreter.
if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"

# absl, which Keras and TensorBoard bring along, keeps the sys.stderr that it finds, a file of
# pytest, and closes it when Hydra configures the logging. It leaves that of the process alone.
with suppress(ImportError):
    from absl import logging as absl_logging

    absl_logging.get_absl_handler().python_handler.stream = sys.__stderr__

DEFAULT_SPEECH_DATA = Path(__file__).parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def speech_data() -> Path:
    """The folder of recordings that ASR_TEST_DATA names, else shared/data beside the checkout."""
    named = os.environ.get("ASR_TEST_DATA")
    folder = Path(named) if named else DEFAULT_SPEECH_DATA
    if folder.is_dir():
        return folder
    if named:
        pytest.fail(f"ASR_TEST_DATA is {named!r}, expected a folder")
    pytest.skip("no real speech here: set ASR_TEST_DATA to a folder that holds it")


@pytest.fixture(scope="session")
def speech_cases() -> Path:
    """The folder of faulty and foreign inputs beside that of recordings, shared/cases."""
    named = os.environ.get("ASR_TEST_DATA")
    folder = (Path(named) if named else DEFAULT_SPEECH_DATA).parent / "cases"
    if not folder.is_dir():
        pytest.skip(f"no {folder}: nothing but what the tests make is tried")
    return folder
