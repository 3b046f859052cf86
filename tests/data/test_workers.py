"""Loading processes end with the process they serve, whatever it leaves undone."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

LIMIT_S = 60.0  # [s] for what takes 3, or 15 where a process hangs

# Loads one of six batches and leaves without a word to the loading processes.
SCRIPT = """
import sys, time
from pathlib import Path
from asr.data.batch import BatchLoader
from asr.data.dataset import SpeechDataset
from asr.data.manifest import Utterance

class Stuck(SpeechDataset):
    def __getitem__(self, key):
        if key[1]:
            time.sleep(10_000)
        return super().__getitem__(key)

path, ending = Path(sys.argv[1]), sys.argv[2]
utterances = [Utterance(path, "a", 0.1, f"u{k}") for k in range(6)]
kind, num_workers = (Stuck, 1) if ending == "stuck" else (SpeechDataset, 2)
loader = BatchLoader(kind(utterances, [[1]] * 6, 8000), num_workers)
batches = loader.batches(0, [(k,) for k in range(6)])
first, workers = next(batches), loader._loader._iterator._workers
print(first.utterances[0].id, *(worker.pid for worker in workers), flush=True)
del workers
if ending == "without its loader":
    del loader
if ending == "error":
    raise ValueError("wrong")
"""


@pytest.mark.parametrize(
    ("ending", "status"),
    [
        ("plain", 0),
        ("without its loader", 0),
        ("error", 1),
        pytest.param("stuck", 0, marks=pytest.mark.slow),
    ],
)
def test_a_script_that_closes_nothing_ends(tmp_path: Path, ending: str, status: int) -> None:
    path = tmp_path / "a.wav"
    soundfile.write(path, np.zeros(800), 8000)
    with subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(path), ending],
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            output, _ = process.communicate(timeout=LIMIT_S)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            raise
    assert process.returncode == status
    first, *pids = output.split()
    assert first == "u0"
    assert pids
    for pid in pids:
        assert not Path(f"/proc/{pid}").exists(), "a loading process was left behind"
