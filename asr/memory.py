"""How much memory there is: of the machine, and of what the process may still take of it."""

from __future__ import annotations

import gc
import resource
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path("/")  # where /proc and /sys lie
# What torch's errors say, which are RuntimeErrors: of its allocators for CPUs and for GPUs.
OUT_OF_MEMORY = ("can't allocate memory", "not enough memory", "out of memory")
_LIMITS = (  # of a process, and where /proc/self/statm [pages] counts what is taken of it
    (resource.RLIMIT_AS, 0),
    (resource.RLIMIT_DATA, 5),
)


def machine_memory(root: Path = ROOT) -> int:
    """Tell the memory of this machine, or of the control group that the process is in [bytes]."""
    return min([_meminfo(root, "MemTotal"), *(limit for limit, _ in _control_groups(root))])


def available_memory(root: Path = ROOT) -> int:
    """Tell what this process can still take before something is swapped out or killed [bytes].

    The least of what the machine has, what each control group above the process allows, and what
    the limits of the process (`ulimit -v`, `ulimit -d`) leave.
    """
    left = [_meminfo(root, "MemAvailable")]
    left += [limit - used for limit, used in _control_groups(root)]
    pages = (root / "proc/self/statm").read_text(encoding="utf-8").split()
    for kind, place in _LIMITS:
        limit, _ = resource.getrlimit(kind)
        if limit != resource.RLIM_INFINITY:
            left.append(limit - int(pages[place]) * resource.getpagesize())
    return max(0, min(left))


def require_memory(num_bytes: float, what: str, there: int | None = None) -> None:
    """Refuse what would not fit into memory, before it takes any.

    Args:
        num_bytes: what it needs.
        what: takes it, for the message.
        there: what is available, of a GPU's memory for instance; None asks for this process's.

    Raises:
        ValueError: less is available.
    """
    there = available_memory() if there is None else there
    if num_bytes > there:
        raise ValueError(
            f"{what}: needs {num_bytes / 1e9:.2f} GB of memory, expected at most the "
            f"{there / 1e9:.2f} GB that are free"
        )


def is_out_of_memory(error: BaseException) -> bool:
    """Tell whether an error means a lack of memory, on a GPU or a CPU."""
    if isinstance(error, MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in OUT_OF_MEMORY)


def release_memory() -> None:
    """Give back what nothing holds any more, also what torch keeps of a GPU's, where it is used."""
    gc.collect()
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.cuda.empty_cache()  # nothing, where no GPU is in use


def _meminfo(root: Path, name: str) -> int:
    for line in (root / "proc/meminfo").read_text(encoding="utf-8").splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    raise AssertionError(f"/proc/meminfo has {name} since Linux 3.14")


def _control_groups(root: Path) -> Iterator[tuple[int, int]]:
    """Read limit and use of each control group that the process is in and that has a limit.

    Files that are in the cache of the kernel count as used there, though they give way.
    """
    versions = {
        "": ("sys/fs/cgroup", "memory.max", "memory.current", "inactive_file"),
        "memory": (
            "sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes",
            "total_inactive_file",
        ),
    }  # fmt: skip
    groups = root / "proc/self/cgroup"
    for line in groups.read_text(encoding="utf-8").splitlines() if groups.exists() else []:
        _, controllers, place = line.split(":", 2)
        for name in controllers.split(","):
            if name not in versions:
                continue
            mount, limit_file, use_file, cache_name = versions[name]
            # In a container the path may be the host's, and the mount the group itself.
            folder = root / mount / place.lstrip("/")
            for group in (folder, *folder.parents):
                if not group.is_relative_to(root / mount):
                    break
                limit = _read(group / limit_file)
                if limit is not None:
                    cached = _read(group / "memory.stat", cache_name) or 0
                    yield limit, (_read(group / use_file) or 0) - cached


def _read(path: Path, name: str | None = None) -> int | None:
    """Read the number in a file, or that of a name in it; None where there is none."""
    try:
        words = path.read_text(encoding="utf-8").split()
    except OSError:
        return None
    if name is not None:
        words = words[words.index(name) + 1 :] if name in words else []
    return int(words[0]) if words and words[0].isdecimal() else None
