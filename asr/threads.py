"""How many threads this process may use."""

from __future__ import annotations

import os
import sys


def num_threads() -> int:
    """Tell how many threads share the work: as many as torch uses, where it is loaded.

    Else as it would choose: what OMP_NUM_THREADS says, or one for each core that the process may
    run on.
    """
    torch = sys.modules.get("torch")
    if torch is not None:
        return int(torch.get_num_threads())
    said = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0]
    cores = len(os.sched_getaffinity(0))
    return min(int(said), cores) if said.isdecimal() and int(said) else cores
