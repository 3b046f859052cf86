"""Several tasks of one `srun`: they join as the processes of one training, as under torchrun."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from asr.cli.processes import environment


def torchrun_variables(slurm: Mapping[str, str]) -> dict[str, str]:
    """The variables that torchrun would set for a task of `srun`; none for a task by itself.

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
    return {
        "RANK": slurm["SLURM_PROCID"],
        "LOCAL_RANK": slurm["SLURM_LOCALID"],
        "GROUP_RANK": slurm.get("SLURM_NODEID", "0"),
        "WORLD_SIZE": str(count),
        "LOCAL_WORLD_SIZE": str(count // nodes),
        "MASTER_ADDR": _first_node(slurm),
        "MASTER_PORT": str(_port(slurm)),
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
    """Joins the tasks of an `srun` for the time of a job; gives the process's rank, 0 if alone."""
    with environment(torchrun_variables(os.environ)):
        yield int(os.environ.get("RANK", "0"))


def rank() -> int:
    """The rank of this process, under torchrun or Slurm; 0 if it is alone."""
    with slurm_ranks() as own:
        return own


def _first_node(slurm: Mapping[str, str]) -> str:
    names = slurm.get("SLURM_STEP_NODELIST", slurm.get("SLURM_NODELIST", "127.0.0.1"))
    first = re.match(r"([^,\[]*)(?:\[([^],-]*)[^]]*\])?([^,\[]*)", names)  # gpu[07-09,12],login
    assert first is not None, "all of it may be empty"
    return "".join(part or "" for part in first.groups())


def _port(slurm: Mapping[str, str]) -> int:
    """A port that all tasks agree on, and that another step on this machine does not take."""
    job, step = int(slurm.get("SLURM_JOB_ID", "0")), int(slurm["SLURM_STEP_ID"])
    return 12_000 + (101 * job + step) % 20_000  # below the ports that Linux gives out by itself
