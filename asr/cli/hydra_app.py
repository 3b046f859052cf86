"""Run a command as a Hydra application: compose its config, and tell its mistakes as ours."""

from __future__ import annotations

import functools
import json
import logging
import os
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.types import Quote, QuotedString
from hydra.core.utils import JobReturn, JobStatus
from hydra.errors import HydraException, OverrideParseException
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from asr.cli.build import check_config
from asr.cli.conf import KINDS, conf_dir
from asr.cli.overrides import parted
from asr.cli.record import check_own_files, write_record
from asr.cli.terminal import one_line
from asr.text import printable
from asr.untrusted import nearest

# Plugins that are not installed with asr itself: a part of Hydra's complaint, what to install.
PLUGINS = ("hydra/sweeper/optuna", "hydra/launcher/joblib", "hydra/launcher/submitit_")
FAILED_FILE = "failed.jsonl"  # in a multirun's folder: a line a failed job

Job = Callable[[DictConfig], float | None]


def run_hydra(command: str, job: Job, arguments: list[str]) -> int:
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
    FailedJobs.latest = None
    careful = _Careful(command, job)
    app = hydra.main(version_base="1.3", config_path=str(conf_dir()), config_name=command)(careful)
    try:
        program, *rest = sys.argv  # which alone Hydra reads its arguments from
        # It knows no settings behind an option that stands between them: a=1 --multirun b=2.
        options, settings = parted(arguments)
        sys.argv = [f"asr {command}" if program else program, *options, *settings]
        try:
            app()
        finally:
            sys.argv = [program, *rest]
        if careful.failure is not None:
            raise careful.failure
    except (HydraException, OmegaConfBaseException) as error:
        raise ValueError(describe(error)) from error
    except ValueError as error:
        # Optuna's complaint that no trial succeeded says nothing of why.
        if told := told_failures():
            raise ValueError(told) from error
        raise
    except (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError) as error:
        if careful.has_begun:
            raise
        # Where Hydra does not look before it takes a value for a text, say.
        what = " ".join(arguments)
        raise ValueError(f"{what}: these settings do not compose ({one_line(error)})") from error
    if told := told_failures():
        raise ValueError(told)
    return 0


class _Careful:
    """The job, after a look at its settings and its folder, with its mistakes kept for us to tell.

    Hydra would announce an error in a line of its own before passing it on.
    """

    def __init__(self, command: str, job: Job) -> None:
        functools.update_wrapper(self, job)  # Hydra calls the log after the module
        self.command, self.job = command, job
        self.has_begun = False
        self.failure: Exception | None = None

    def __call__(self, config: DictConfig) -> float | FailedJob | None:
        self.has_begun = True
        try:
            check_config(config, KINDS[self.command])
            run_dir = Path(HydraConfig.get().runtime.output_dir)
            check_own_files(run_dir)
            if self.command != "train":  # which finds out first whether the folder is its own
                write_record(run_dir, config)
            return self.job(config)
        except (ValueError, OSError, HydraException, OmegaConfBaseException) as error:
            if not is_multirun():
                self.failure = error
                return None
            is_hydras = isinstance(error, HydraException | OmegaConfBaseException)
            reason = describe(error) if is_hydras else one_line(error)
            logging.getLogger("asr").error("failed: %s", reason)
            return FailedJob(reason)


def _keep_libraries_quiet() -> None:
    """Keep back what they would print beside the one line that answers a user's mistake."""
    # Hydra prints and exits by itself unless this is set; errors are ours to word.
    os.environ["HYDRA_FULL_ERROR"] = "1"
    # Optuna 2 is not ready for SQLAlchemy 2, which is not installed; its users need not be told.
    os.environ.setdefault("SQLALCHEMY_SILENCE_UBER_WARNING", "1")
    # A log file without room on the disk is no reason for a traceback a line: what is logged goes
    # to the terminal too, and what cannot be saved stops the command.
    logging.raiseExceptions = False


def _log_printable_text() -> None:
    """See to it that whatever is logged from now on has no characters that act on a terminal."""
    make_record = logging.getLogRecordFactory()
    if make_record is not logging.LogRecord:
        return  # done already, or somebody else's business

    def make(*arguments: Any, **options: Any) -> logging.LogRecord:
        record = make_record(*arguments, **options)
        record.msg, record.args = printable(record.getMessage()), None
        return record

    logging.setLogRecordFactory(make)


def quoted(key: str, value: str) -> str:
    """Write an override whose value holds any characters as Hydra's grammar takes it."""
    return f"{key}={QuotedString(value, Quote.single).with_quotes()}"


def override(key: str, value: str) -> str:
    """Write an override, its value in quotes where Hydra's grammar needs them."""
    return f"{key}={value}" if re.fullmatch(r"[\w./-]+", value) else quoted(key, value)


def describe(error: Exception) -> str:
    """Tell what is wrong with a config in one line, with the nearest key for a misspelt one."""
    if isinstance(error, OverrideParseException):
        setting, _, value = error.override.partition("=")
        grammar = error.message.splitlines()[0]
        return (
            f"{error.override}: {grammar}, expected a value in quotes for Hydra and for the shell: "
            f'"{quoted(setting, value)}"'
        )
    cause = error.__cause__ if isinstance(error.__cause__, OmegaConfBaseException) else error
    message = " ".join(line.strip() for line in str(error).splitlines() if line.strip())
    if listed := re.match(r"Ambiguous value for argument '([\w./]+)=(.*)' 1\. To use it", message):
        return (
            f"{listed[1]}={listed[2]}: a comma parts values, expected [VALUE,VALUE] for a list, "
            "--multirun to run with each, or one value in quotes for Hydra and for the shell: "
            f'"{quoted(listed[1], listed[2])}"'
        )
    for plugin in PLUGINS:
        if plugin in message and "Could not find" in message:
            return f"{plugin.rstrip('_')} is not installed: pip install 'lstm-asr[sweep]'"
    missing = re.search(r"Missing mandatory value: ([\w.]+)", message)
    if missing:
        return f"{missing[1]} is missing, expected {missing[1]}=VALUE"
    key = getattr(cause, "key", None)
    parent = getattr(cause, "parent_node", None)
    if key is not None and isinstance(parent, DictConfig) and "is not in struct" in str(cause):
        full = str(getattr(cause, "full_key", None) or key)
        known = [str(name) for name in parent if name != "_target_"]
        return f"unknown setting {full}: {nearest(key, known, full.removesuffix(str(key)))}"
    return message


# --- the failed jobs of a multirun: the others go on, all count at the end ---------------------


@dataclass(frozen=True)
class FailedJob:
    """What a job returns in place of its result; Optuna cannot read a number off it.

    Attributes:
        reason: the user's mistake, in a line.
    """

    reason: str

    def __str__(self) -> str:
        return self.reason


def is_multirun() -> bool:
    """Tell whether the job that runs is one of several."""
    return not OmegaConf.is_missing(HydraConfig.get().job, "num")


class FailedJobs(Callback):
    """Collects the failed jobs of a multirun in a file, for they may run on other machines."""

    # What the multirun of this process found, for `run_hydra`, which Hydra hands no results.
    latest: Path | None = None

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Begin an empty list. The jobs, wherever they run, get a copy of this object."""
        self.file = Path(config.hydra.sweep.dir).absolute() / FAILED_FILE
        self.file.unlink(missing_ok=True)
        FailedJobs.latest = self.file

    def on_job_end(self, config: DictConfig, job_return: JobReturn, **kwargs: Any) -> None:
        """Add the job if it failed."""
        if not is_multirun() or job_return.status is not JobStatus.COMPLETED:
            return
        result = job_return.return_value
        if isinstance(result, FailedJob):
            row = {
                "job": config.hydra.job.num,
                "overrides": job_return.overrides,
                "error": result.reason,
            }
            with self.file.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row, ensure_ascii=False) + "\n")


def told_failures() -> str | None:
    """Tell how many jobs of this process's multirun failed, and why the first; None: none."""
    file = FailedJobs.latest
    if file is None or not file.exists():
        return None
    errors: dict[int, str] = {}  # by job: all tasks of a job may tell the same
    for line in file.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        errors.setdefault(int(row["job"]), row["error"])
    first = min(errors)
    jobs = "1 job" if len(errors) == 1 else f"{len(errors)} jobs"
    return f"{jobs} failed ({file}), the first one job {first}: {errors[first]}"
