"""How much memory there is: the machine's, the control groups', the process's own limits."""

from __future__ import annotations

import resource
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch

from asr.memory import available_memory, is_out_of_memory, machine_memory, require_memory

GB = 1_000_000_000
MEMINFO = "MemTotal:  16000000 kB\nMemFree:  1 kB\nMemAvailable:  8000000 kB\n"
NO_LIMIT_V1 = "9223372036854771712\n"
MakeRoot = Callable[[Mapping[str, str]], Path]


@pytest.fixture
def make_root(tmp_path: Path) -> MakeRoot:
    """A machine of 16.384 GB, 8.192 GB of them free, with these files as well."""

    def make(files: Mapping[str, str]) -> Path:
        usual = {"proc/meminfo": MEMINFO, "proc/self/statm": "100 50 40 5 0 60 0"}
        for name, content in {**usual, **files}.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content)
        return tmp_path

    return make


def test_a_machine_without_limits(make_root: MakeRoot) -> None:
    root = make_root({"proc/self/cgroup": "0::/\n"})
    assert machine_memory(root) == 16_384_000_000
    assert available_memory(root) == 8_192_000_000


def test_every_group_above_the_process_counts(make_root: MakeRoot) -> None:
    v2 = "sys/fs/cgroup"
    files = {
        "proc/self/cgroup": "0::/a/b\n",
        f"{v2}/memory.max": "max\n",
        f"{v2}/a/memory.max": "4000000000\n",
        f"{v2}/a/memory.current": "3000000000\n",
        f"{v2}/a/memory.stat": "anon 5\ninactive_file 500000000\nactive_file 7\n",
        f"{v2}/a/b/memory.max": "5000000000\n",
        f"{v2}/a/b/memory.current": "1000000000\n",
        f"{v2}/a/b/memory.stat": "inactive_file 0\n",
    }
    root = make_root(files)
    assert machine_memory(root) == 4 * GB
    assert available_memory(root) == 3 * GB // 2
    (root / f"{v2}/a/b/memory.current").write_text("4900000000\n")
    assert available_memory(root) == GB // 10


def test_the_first_version_of_control_groups(make_root: MakeRoot) -> None:
    v1 = "sys/fs/cgroup/memory"
    files = {
        "proc/self/cgroup": "5:cpu,cpuacct:/x\n4:memory:/x\n0::/\n",
        f"{v1}/memory.limit_in_bytes": NO_LIMIT_V1,
        f"{v1}/memory.usage_in_bytes": "1\n",
        f"{v1}/x/memory.limit_in_bytes": "2000000000\n",
        f"{v1}/x/memory.usage_in_bytes": "500000000\n",
        f"{v1}/x/memory.stat": "cache 9\ninactive_file 1\ntotal_inactive_file 100000000\n",
    }
    root = make_root(files)
    assert machine_memory(root) == 2 * GB
    assert available_memory(root) == 16 * GB // 10


def test_in_a_container_the_mount_is_the_group(make_root: MakeRoot) -> None:
    v2 = "sys/fs/cgroup"
    files = {
        "proc/self/cgroup": "0::/docker/0123\n",
        f"{v2}/memory.max": "3000000000\n",
        f"{v2}/memory.current": "1000000000\n",
    }
    root = make_root(files)
    assert machine_memory(root) == 3 * GB
    assert available_memory(root) == 2 * GB


@pytest.mark.parametrize(("kind", "pages"), [("RLIMIT_AS", 100), ("RLIMIT_DATA", 60)])
def test_limits_of_the_process(
    make_root: MakeRoot, monkeypatch: pytest.MonkeyPatch, kind: str, pages: int
) -> None:
    limited = getattr(resource, kind)
    monkeypatch.setattr(resource, "getrlimit", lambda asked: (GB if asked == limited else -1, -1))
    root = make_root({})
    assert available_memory(root) == GB - pages * resource.getpagesize()
    (root / "proc/self/statm").write_text(f"{GB} 0 0 0 0 {GB} 0")
    assert available_memory(root) == 0


def test_this_machine_has_some() -> None:
    assert 0 < available_memory() <= machine_memory()


def test_what_does_not_fit_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("asr.memory.available_memory", lambda: 2 * GB)
    require_memory(2 * GB, "x")
    with pytest.raises(
        ValueError,
        match=r"^x: needs 2.01 GB of memory, expected at most the 2.00 GB that are free$",
    ):
        require_memory(2.01 * GB, "x")


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (torch.OutOfMemoryError("CUDA out of memory"), True),
        (MemoryError(), True),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to ..."), True),
        (RuntimeError("CUDA error: out of memory"), True),
        (RuntimeError("size mismatch"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_what_a_lack_of_memory_is(error: Exception, expected: bool) -> None:
    assert is_out_of_memory(error) is expected


def test_another_memory_than_the_process_has() -> None:
    require_memory(10**15, "x", there=10**15)
    with pytest.raises(ValueError, match=r"expected at most the 1.00 GB that are free"):
        require_memory(2 * GB, "x", there=GB)
