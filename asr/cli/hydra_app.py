"""Run a function as a Hydra application with this project's conf/ and error manners."""

from __future__ import annotations

import functools
import logging
import os
import re
import sys
from collections.abc import Callable
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.types import Quote, QuotedString
from hydra.errors import HydraException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from asr.cli.conf import conf_dir
from asr.cli.main import one_line
from asr.cli.multirun import FailedJob, FailedJobs, failed_job, is_multirun, told_failures
from asr.cli.record import check_own_files, write_record
from asr.text import printable

# Plugins that are not installed with asr itself: a part of Hydra's complaint, what to install.
PLUGINS = ("hydra/sweeper/optuna", "hydra/launcher/joblib", "hydra/launcher/submitit_")


def run_hydra(command: str, job: Callable[[DictConfig], float | None], arguments: list[str]) -> int:
    """Compose `<command>.yaml` with the arguments as overrides and run the job on it.

    A job of a multirun that fails by a user's mistake leaves the others going.

    Args:
        command: name of the primary config, "train" for instance.
        job: the command's work; it gets the composed config and returns what a sweep minimises.
        arguments: Hydra's command line: overrides and flags such as --multirun.

    Returns:
        0 when the job is done, or all of them.

    Raises:
        ValueError: for a config that does not compose (a misspelt key, a missing value), or after
            a multirun with failed jobs, in a message of one line.
    """
    _keep_libraries_quiet()
    _log_printable_text()
    failures: list[Exception] = []
    has_begun = False
    FailedJobs.latest = None

    @functools.wraps(job)
    def careful(config: DictConfig) -> float | FailedJob | None:
        nonlocal has_begun
        has_begun = True
        # Hydra would announce the error in a line of its own before passing it on.
        try:
            run_dir = Path(HydraConfig.get().runtime.output_dir)
            check_own_files(run_dir)
            if command != "train":  # which finds out first whether the folder is its own
                write_record(run_dir, config)
            return job(config)
        except (ValueError, OSError, HydraException, OmegaConfBaseException) as error:
            if is_multirun():
                return failed_job(reason(error))
            failures.append(error)
            return None

    decorate = hydra.main(version_base="1.3", config_path=str(conf_dir()), config_name=command)
    program, *rest = sys.argv
    sys.argv = [f"asr {command}" if program else program, *arguments]
    try:
        decorate(careful)()
        if failures:
            raise failures[0]
    except (HydraException, OmegaConfBaseException) as error:
        raise ValueError(describe(error)) from error
    except ValueError as error:
        # Optuna's complaint that no trial succeeded says nothing of why.
        if told := told_failures():
            raise ValueError(told) from error
        raise
    except (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError) as error:
        if has_begun:
            raise
        # Where Hydra does not look before it takes a value for a text, say.
        what = " ".join(arguments)
        raise ValueError(f"{what}: these settings do not compose ({one_line(error)})") from error
    finally:
        sys.argv = [program, *rest]
    if told := told_failures():
        raise ValueError(told)
    return 0


def _keep_libraries_quiet() -> None:
    """What they would print beside the one line that a user's mistake is answered with."""
    # Hydra prints and exits by itself unless this is set; errors are ours to word.
    os.environ["HYDRA_FULL_ERROR"] = "1"
    # Optuna 2 is not ready for SQLAlchemy 2, which is not installed; its users need not be told.
    os.environ.setdefault("SQLALCHEMY_SILENCE_UBER_WARNING", "1")
    # A log file without room on the disk is no reason for a traceback a line: what is said goes
    # to the terminal too, and what cannot be saved stops the command.
    logging.raiseExceptions = False


def _log_printable_text() -> None:
    """Whatever is logged from now on has no characters that act on a terminal."""
    make_record = logging.getLogRecordFactory()
    if make_record is not logging.LogRecord:
        return  # done already, or somebody else's business

    def make(*arguments: Any, **options: Any) -> logging.LogRecord:
        record = make_record(*arguments, **options)
        record.msg, record.args = printable(record.getMessage()), None
        return record

    logging.setLogRecordFactory(make)


def quoted(key: str, value: str) -> str:
    """An override whose value holds any characters, as Hydra's grammar takes it."""
    return f"{key}={QuotedString(value, Quote.single).with_quotes()}"


def reason(error: Exception) -> str:
    """An error of a job in one line."""
    if isinstance(error, HydraException | OmegaConfBaseException):
        return describe(error)
    return one_line(error)


def describe(error: Exception) -> str:
    """What is wrong with a config, in one line, with the nearest key where one was misspelt."""
    cause = error.__cause__ if isinstance(error.__cause__, OmegaConfBaseException) else error
    message = " ".join(line.strip() for line in str(error).splitlines() if line.strip())
    for plugin in PLUGINS:
        if plugin in message and "Could not find" in message:
            return f"{plugin.rstrip('_')} is not installed: pip install 'lstm-asr[sweep]'"
    missing = re.search(r"Missing mandatory value: ([\w.]+)", message)
    if missing:
        return f"{missing[1]} is missing, expected {missing[1]}=VALUE"
    key = getattr(cause, "key", None)
    parent = getattr(cause, "parent_node", None)
    if key is not None and isinstance(parent, DictConfig) and "is not in struct" in str(cause):
        known = [str(name) for name in parent if name != "_target_"]
        near = get_close_matches(str(key), known, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"expected one of {', '.join(known)}"
        return f"unknown config key {getattr(cause, 'full_key', None) or key!r}: {hint}"
    return message
