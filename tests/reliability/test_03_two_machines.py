"""Check 3 on two machines, which are two network namespaces: they train and go on as one."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from asr.model_file import load_model
from tests.reliability.training import LIMIT_S, ROOT
from tests.trainer.fitting import rows_of

# Of this process: a run that was killed leaves its own behind.
MACHINES = tuple(f"asr-test-{os.getpid()}-{number}" for number in range(2))
ADDRESSES = ("10.213.77.1", "10.213.77.2")
TINY = (
    "features=log_mel_40_8k", "features.n_mels=20", "augment=none", "model.subsampling=2",
    "model.channels=4", "model.hidden_size=16", "model.num_layers=1", "model.dropout=0",
    "trainer.num_workers=0",
    "trainer.accelerator=cpu", "trainer.log_every=1", "trainer.batch_duration_s=1.45",
    "trainer.save_every_steps=2", "trainer.max_epochs=3", "name=run", "resume=auto",
)  # fmt: skip


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)


@pytest.fixture
def machines() -> Iterator[tuple[str, ...]]:
    """Two namespaces joined by a cable: neither sees the other's ports but through it."""
    made = subprocess.run(["ip", "netns", "add", MACHINES[0]], check=False, capture_output=True)
    if made.returncode:
        pytest.skip(f"no network namespaces here: {made.stderr.decode().strip()}")
    try:
        ip("netns", "add", MACHINES[1])
        ip(
            "link",
            "add",
            "asr0",
            "netns",
            MACHINES[0],
            "type",
            "veth",
            "peer",
            "asr1",
            "netns",
            MACHINES[1],
        )
        for number, machine in enumerate(MACHINES):
            ip("-n", machine, "addr", "add", f"{ADDRESSES[number]}/24", "dev", f"asr{number}")
            for device in ("lo", f"asr{number}"):
                ip("-n", machine, "link", "set", device, "up")
        yield MACHINES
    finally:
        for machine in MACHINES:
            subprocess.run(["ip", "netns", "del", machine], check=False, capture_output=True)


def start(number: int, arguments: list[str]) -> subprocess.Popen[str]:
    """torchrun on one of the machines, as its administrator types it."""
    launcher = [
        "-m", "torch.distributed.run", "--nnodes=2", "--nproc-per-node=1", "--rdzv-id=test",
        "--rdzv-backend=c10d", f"--rdzv-endpoint={ADDRESSES[0]}:29477", "--max-restarts=3",
        # In one host's namespaces no machine takes itself for the endpoint by its name.
        f"--rdzv-conf=is_host={1 - number}", f"--local-addr={ADDRESSES[number]}",
        "-m", "asr", "train",
    ]  # fmt: skip
    return subprocess.Popen(
        ["ip", "netns", "exec", MACHINES[number], sys.executable, *launcher, *arguments],
        env=os.environ
        | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": f"asr{number}"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def rank_of(number: int) -> int:
    """The process that trains on a machine: the child of its torchrun."""
    pids = subprocess.run(
        ["ip", "netns", "pids", MACHINES[number]], check=True, capture_output=True, text=True
    ).stdout.split()
    for pid in pids:
        line = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        if b"asr" in line and b"torch.distributed.run" not in line:
            return int(pid)
    raise AssertionError(f"no training on {MACHINES[number]}")


@pytest.mark.slow
@pytest.mark.parametrize("killed", [None, 0, 1])
def test_two_machines_train_as_one_process_that_accumulates_two_batches(
    machines: tuple[str, ...],
    corpus: Callable[..., Path],
    tmp_path: Path,
    killed: int | None,
    survived: Callable[[str, int, int], None],
) -> None:
    data = [f"data.train={corpus(60, letters=(3, 3))}", f"data.dev={corpus(6, 'dev')}"]
    alone = [*TINY, *data, f"paths.run_dir={tmp_path}/alone", "trainer.accumulate=2"]
    command = [sys.executable, "-m", "asr", "train", *alone]
    subprocess.run(
        command, check=True, capture_output=True, env=os.environ | {"PYTHONPATH": str(ROOT)}
    )
    together = [*TINY, *data, f"paths.run_dir={tmp_path}/together"]
    launchers = [start(number, together) for number in (0, 1)]
    run = tmp_path / "together" / "train" / "run"
    if killed is not None:
        end = time.monotonic() + LIMIT_S
        while len(rows_of(run / "steps.csv") if (run / "steps.csv").exists() else []) < 5:
            assert time.monotonic() < end
            time.sleep(0.01)
        os.kill(rank_of(killed), 9)
    try:
        outputs = [launcher.communicate(timeout=LIMIT_S)[0] for launcher in launchers]
    finally:
        for launcher in launchers:
            launcher.kill()
    assert [launcher.returncode for launcher in launchers] == [0, 0], outputs
    models = [
        folder / "train" / "run" / "last.safetensors"
        for folder in (tmp_path / "alone", tmp_path / "together")
    ]
    ours, theirs = (load_model(path)[0].state_dict() for path in models)
    assert all(ours[name].allclose(value, rtol=1e-4, atol=1e-5) for name, value in theirs.items())
    steps = [int(row["step"]) for row in rows_of(run / "steps.csv")]
    assert steps == list(range(1, len(steps) + 1))
    survived(f"two machines, {'none killed' if killed is None else f'{killed} killed'}", 1, 1)
