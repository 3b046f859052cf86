"""Train on several processes: started here, by torchrun or by Slurm; mistakes are told once.

`asr train trainer.devices=N` starts N processes of this machine, joined as torchrun would join
them. The tasks of one `srun` are given the same variables. Under torchrun they are there already.
"""

from __future__ import annotations

import logging
import os
import re
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

import asr
from asr.atomic_file import replace_text
from asr.cli.main import PARENT, USER_ERROR_STATUS
from asr.cli.terminal import one_line

ERROR_FILE = "ASR_ERROR_FILE"  # environment: where the first process that fails says why
STOPPED_STATUS = 75  # EX_TEMPFAIL of sysexits.h: asked to stop and saved, to be gone on with
# What the parent passes on to the processes, which save and leave.
PASSED_ON = "SIGTERM,SIGINT,SIGHUP,SIGQUIT,SIGUSR1"
# Python's -m would look for asr, and for random and types before it, in the working folder. This is
# the package that the parent runs, also where that is a checkout which is not installed.
SAME_PACKAGE = """\
import sys
from importlib.util import module_from_spec, spec_from_file_location
spec = spec_from_file_location("asr", sys.argv.pop(1))
sys.modules["asr"] = module_from_spec(spec)
spec.loader.exec_module(sys.modules["asr"])
from asr.cli.main import entry_point
entry_point()
"""
# Arguments of Python for it; those of asr come behind.
SAME_PROGRAM = ("-P", "-c", SAME_PACKAGE, str(Path(asr.__file__).resolve()))


# --- the parent ----------------------------------------------------------------------------------


def run_on_processes(count: int, arguments: Sequence[str]) -> None:
    """Run `asr ARGUMENTS` in `count` processes, joined as by torchrun, and wait for their end.

    Raises:
        ValueError: a process failed; the message is its own where it left one (`tell_parent`).
        SystemExit: with STOPPED_STATUS, the processes were asked to stop and have saved.
        KeyboardInterrupt: they were stopped before there was anything to save.
    """
    # torch reads it when it is loaded. Its C++ parts would tell what the message of the exception
    # tells again, on lines of their own.
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "FATAL")
    # Imported here: `asr train --help` and completion need no torch.
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    for name in list(logging.root.manager.loggerDict):
        if name.startswith("torch.distributed"):
            logging.getLogger(name).setLevel(logging.CRITICAL)
    config = LaunchConfig(
        min_nodes=1, max_nodes=1, nproc_per_node=count, max_restarts=0,
        run_id="asr", rdzv_backend="c10d", rdzv_endpoint="localhost:0", signals_to_handle=PASSED_ON,
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        error_file = Path(folder) / "error.txt"
        variables = {
            ERROR_FILE: str(error_file),
            PARENT: str(os.getpid()),
            "OMP_NUM_THREADS": str(max((os.cpu_count() or 1) // count, 1)),
        }
        try:
            with environment(variables):
                elastic_launch(config, sys.executable)(*SAME_PROGRAM, *arguments)
        except (SignalException, ChildFailedError) as error:
            if stopped_file(error_file).exists():
                raise SystemExit(STOPPED_STATUS) from error
            if isinstance(error, SignalException):
                raise KeyboardInterrupt from error
            rank, failure = error.get_first_failure()
            told = error_file.read_text(encoding="utf-8") if error_file.exists() else ""
            status = f"process {rank} of {count} ended with status {failure.exitcode}, see above"
            raise ValueError(told or status) from error


@contextmanager
def environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Set what is not set yet, within; a next run finds it unset."""
    added = {name: value for name, value in variables.items() if name not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for name in added:
            del os.environ[name]


def stopped_file(error_file: Path) -> Path:
    """Name the file beside the error file that tells of processes which were stopped and saved."""
    return error_file.with_name("stopped")


# --- one of the processes ------------------------------------------------------------------------


@contextmanager
def tell_parent() -> Iterator[None]:
    """Leave a user's mistake to the parent to print, and wait for the others at the end.

    The first process to fail writes the message and ends. The others then lose their connection to
    it, which they do not report: that is the consequence, not the cause. In a process without a
    parent a mistake is left as it is.
    """
    error_file = Path(os.environ[ERROR_FILE]) if ERROR_FILE in os.environ else None
    try:
        yield
        leave_together()
    except Exception as error:
        if error_file is None:
            raise
        if not error_file.exists():
            if not isinstance(error, (ValueError, OSError)):
                raise
            # Whole or not at all: the parent ends this process as soon as another one has ended.
            replace_text(error_file, one_line(error))
        raise SystemExit(USER_ERROR_STATUS) from error


def leave_stopped() -> NoReturn:
    """End a process that was asked to stop and has saved, together with the others.

    Raises:
        SystemExit: with STOPPED_STATUS.
    """
    if ERROR_FILE in os.environ:
        stopped_file(Path(os.environ[ERROR_FILE])).touch()
    leave_together()
    raise SystemExit(STOPPED_STATUS)


def leave_together() -> None:
    """Wait for the other processes and part from them, if there are any.

    A process whose connections are cut while it ends may be aborted by its own threads.
    """
    import torch.distributed as dist

    if dist.is_available() and dist.is_initialized():
        dist.barrier()
        dist.destroy_process_group()


# --- tasks of Slurm ------------------------------------------------------------------------------


def torchrun_variables(slurm: Mapping[str, str]) -> dict[str, str]:
    """Find the variables that torchrun would set for a task of `srun`; none for a task by itself.

    Args:
        slurm: the environment. The variables are those of sbatch(1) and srun(1); SLURM_STEP_ID
            tells a task of `srun` from the batch script, which has the other ones too.

    Raises:
        ValueError: nodes with different counts of tasks.
    """
    count = int(slurm.get("SLURM_NTASKS", "1"))
    if count == 1 or "SLURM_STEP_ID" not in slurm or "RANK" in slurm:
        return {}
    nodes = int(slurm.get("SLURM_STEP_NUM_NODES", slurm.get("SLURM_NNODES", "1")))
    if count % nodes:
        raise ValueError(f"Slurm runs {count} tasks on {nodes} nodes, expected as many on each")
    names = slurm.get("SLURM_STEP_NODELIST", slurm.get("SLURM_NODELIST", "127.0.0.1"))
    first = re.match(r"([^,\[]*)(?:\[([^],-]*)[^]]*\])?([^,\[]*)", names)  # gpu[07-09,12],login
    assert first is not None, "all of it may be empty"
    # A port that all tasks agree on, that another step on this machine does not take, below those
    # that Linux gives out by itself.
    job, step = int(slurm.get("SLURM_JOB_ID", "0")), int(slurm["SLURM_STEP_ID"])
    port = 12_000 + (101 * job + step) % 20_000
    return {
        "RANK": slurm["SLURM_PROCID"],
        "LOCAL_RANK": slurm["SLURM_LOCALID"],
        "GROUP_RANK": slurm.get("SLURM_NODEID", "0"),
        "WORLD_SIZE": str(count),
        "LOCAL_WORLD_SIZE": str(count // nodes),
        "MASTER_ADDR": "".join(part or "" for part in first.groups()),
        "MASTER_PORT": str(port),
    }


def check_started_by_srun(slurm: Mapping[str, str]) -> None:
    """Refuse to train in one process of a batch script that asked for several.

    Raises:
        ValueError: several tasks, and `srun` forgotten. An interactive job may do as it likes.
    """
    count, name = slurm.get("SLURM_NTASKS", "1"), slurm.get("SLURM_JOB_NAME")
    if count != "1" and "SLURM_STEP_ID" not in slurm and name not in ("bash", "interactive"):
        raise ValueError(
            f"Slurm has {count} tasks for this job, of which only one trains: expected "
            f"'srun asr train ...', or trainer.devices={count}"
        )


@contextmanager
def slurm_ranks() -> Iterator[int]:
    """Join the tasks of an `srun` for the time of a job; give the process's rank, 0 if alone."""
    with environment(torchrun_variables(os.environ)):
        yield int(os.environ.get("RANK", "0"))


def own_rank() -> int:
    """Tell the rank of this process, under torchrun or Slurm; 0 if it is alone."""
    with slurm_ranks() as rank:
        return rank
