"""What a Python program of its own costs from its start to its end: clock, processor, memory."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import time
from typing import NamedTuple

# ru_maxrss would count this process too, which the other one is begun as a copy of.
PEAK = 'print(*[x for x in open("/proc/self/status") if x.startswith("VmHWM")], file=sys.stderr)'


class Cost(NamedTuple):
    """Seconds on the clock, of the processor, and the most memory at once."""

    wall_s: float
    cpu_s: float
    peak_mb: float


def cost(code: str, *arguments: object) -> Cost:
    """Run the code with arguments in `sys.argv[1:]`, in one thread; its output is thrown away.

    Raises:
        subprocess.CalledProcessError: it fails.
    """
    program = f"import sys\n{code}\n{PEAK}\n"
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    began = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", program, *map(str, arguments)],
        check=True, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    wall = time.perf_counter() - began
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Cost(wall, used, int(done.stderr.split()[-2]) / 1000)
