"""The failed jobs of a multirun: each is told at once, the others go on, all count at the end."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import JobReturn, JobStatus
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf

FAILED_FILE = "failed.jsonl"  # in the multirun's folder: a line a failed job


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
    """Whether the job that runs is one of several."""
    return not OmegaConf.is_missing(HydraConfig.get().job, "num")


def failed_job(reason: str) -> FailedJob:
    """A failed job, told in the job's log."""
    logging.getLogger("asr").error("failed: %s", reason)
    return FailedJob(reason)


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
    """How many jobs of this process's multirun failed and why the first one did; None: none."""
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
