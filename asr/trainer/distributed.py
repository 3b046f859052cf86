"""The processes of a training: device, precision, what they tell each other, and their stop."""

from __future__ import annotations

import os
import secrets
import signal
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import timedelta
from types import FrameType, TracebackType
from typing import Any, TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed import PrefixStore, Store  # type: ignore[attr-defined]  # its public names
from torch.distributed.rendezvous import rendezvous

from asr.data.workers import STOP_SIGNALS

Value = TypeVar("Value")

HALF = {"16-mixed": torch.float16, "bf16-mixed": torch.bfloat16}
TIMEOUT_S = 600.0  # [s] for the slowest process to start
POLL_S = 0.02  # [s] between looks at the store


# DistributedDataParallel exchanges gradients within the backward pass. A rank that must repeat a
# pass (out of memory, NaN) would then exchange twice, and the others wait for ever: docs/scale.md.
@dataclass(frozen=True)
class World:
    """The processes that train together, and this one's place among them.

    Attributes:
        device: of this process.
        precision: "32-true", or with autocast "bf16-mixed" or "16-mixed".
        rank: of this process, from 0, which is the one that writes.
        size: number of processes.
    """

    device: torch.device
    precision: str = "32-true"
    rank: int = 0
    size: int = 1

    def autocast(self) -> AbstractContextManager[Any]:
        """Matrix products within are in half precision, if the training's are."""
        dtype = HALF.get(self.precision)
        return torch.autocast(self.device.type, dtype, enabled=dtype is not None)

    def sum(self, value: Tensor) -> Tensor:
        """All-reduce: the sum of a tensor over all ranks, written into it and returned."""
        if self.size > 1:
            dist.all_reduce(value)
        return value

    def any(self, is_true: bool) -> bool:
        """Whether something is so on any rank."""
        return bool(self.sum(torch.tensor(float(is_true), device=self.device)) > 0)

    def gather(self, value: Value) -> list[Value]:
        """A small value of every rank, in the order of the ranks."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        dist.all_gather_object(values, value)
        return values

    def broadcast(self, make: Callable[[], Value]) -> Value:
        """What rank 0 makes, on every rank.

        Raises:
            ValueError: as rank 0 did, on every rank.
            OSError: likewise.
        """
        made: Value | ValueError | OSError | None = None
        if self.rank == 0:
            try:
                made = make()
            except (ValueError, OSError) as error:
                made = error
        if self.size > 1:
            row = [made]
            dist.broadcast_object_list(row)
            made = row[0]
        if isinstance(made, (ValueError, OSError)):
            raise made
        return cast(Value, made)

    def copy_from_first(self, value: Tensor) -> None:
        """Give a tensor of every rank what it holds on rank 0."""
        if self.size > 1:
            dist.broadcast(value, src=0)

    def environment(self) -> dict[str, str]:
        """What the bits of a training depend on beside its settings and data, by name."""
        is_cuda = self.device.type == "cuda"
        return {
            "device": torch.cuda.get_device_name()
            if is_cuda
            else torch.backends.cpu.get_cpu_capability(),
            "precision": self.precision,
            "threads": str(torch.get_num_threads()),
            "torch": str(torch.__version__),
        }


def join_world(accelerator: str, devices: int, num_nodes: int, precision: str) -> World:
    """Take this process's device, and meet the others where a launcher has started several.

    Args:
        accelerator: "cpu", "cuda", or "auto": cuda where there is one.
        devices: processes of this machine, one a device.
        num_nodes: machines.
        precision: see `choose_precision`.

    Raises:
        ValueError: an accelerator or a precision that is not there, or other processes than asked.
        TimeoutError: a process did not join.
    """
    if accelerator == "auto":
        accelerator = "cuda" if torch.cuda.is_available() else "cpu"
    if accelerator not in ("cpu", "cuda"):
        raise ValueError(f"accelerator {accelerator!r}, expected auto, cpu or cuda")
    if accelerator == "cuda" and not torch.cuda.is_available():
        raise ValueError("accelerator 'cuda': torch finds no GPU, expected one, or auto or cpu")
    precision = choose_precision(precision, accelerator)
    # torchrun's names, which `asr train` sets for the tasks of srun too.
    rank, size = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    if size != devices * num_nodes:
        raise ValueError(
            f"devices {devices} on num_nodes {num_nodes}, but {size} process(es) started: expected "
            "asr train, torchrun or srun to start as many"
        )
    device = torch.device(accelerator)
    if accelerator == "cuda":
        local_rank = int(os.environ.get("LOCAL_RANK", "0"))
        if local_rank >= torch.cuda.device_count():
            raise ValueError(f"devices {devices}, expected at most {torch.cuda.device_count()}")
        device = torch.device("cuda", local_rank)
        torch.cuda.set_device(device)
        torch.backends.cudnn.deterministic = True  # gradients of convolutions: the same bits
    if size > 1 and not dist.is_initialized():
        store, _, _ = next(rendezvous("env://", rank, size))
        dist.init_process_group(
            "nccl" if accelerator == "cuda" else "gloo",
            store=PrefixStore(agree_on_attempt(store, rank, size), store),
            rank=rank,
            world_size=size,
            device_id=device if accelerator == "cuda" else None,
        )
    return World(device, precision, rank, size)


def choose_precision(precision: str, accelerator: str) -> str:
    """The precision to train in.

    Args:
        precision: "32-true", "bf16-mixed", "16-mixed", or "auto": bf16-mixed on a GPU that has it,
            32-true elsewhere.
        accelerator: "cpu" or "cuda".

    Raises:
        ValueError: half precision without a GPU, where the LSTM kernels lack it; an unknown name.
    """
    is_cuda = accelerator == "cuda"
    if precision == "auto":
        return "bf16-mixed" if is_cuda and torch.cuda.is_bf16_supported() else "32-true"
    if precision not in ("32-true", *HALF):
        known = ", ".join(("auto", "32-true", *HALF))
        raise ValueError(f"precision {precision!r}, expected one of {known}")
    if precision in HALF and not is_cuda:
        raise ValueError(f"precision {precision!r} needs a GPU, expected 32-true on a CPU")
    return precision


def agree_on_attempt(store: Store, rank: int, world_size: int, timeout_s: float = TIMEOUT_S) -> str:
    """A name that this attempt's processes share and no other attempt's do.

    torchrun hands the same key-value store to every attempt of a job, so that a process may read
    the address of one that is dead (github.com/pytorch/pytorch/issues/135712). Its count of
    restarts is each machine's own and keeps nothing apart. So rank 0 draws a name and tells it to
    those who ask now: each process asks under a word of its own, and only a rank 0 that is alive
    answers that word; what earlier attempts left in the store is answered too, and read by nobody.

    Args:
        store: that all processes see, with whatever is in it.
        rank: of this process.
        world_size: number of processes.
        timeout_s: for the slowest of them [s].

    Raises:
        TimeoutError: a process did not join.
    """
    end = time.monotonic() + timeout_s
    if rank:
        word = secrets.token_hex(8)
        store.set(f"ask/{rank}", word)
        store.wait([f"answer/{word}"], timedelta(seconds=timeout_s))
        told: str = store.get(f"answer/{word}").decode()
        store.set(f"{told}/here/{rank}", "")
        return told
    name = secrets.token_hex(8)
    missing = set(range(1, world_size))
    while missing:
        for other in sorted(missing):
            if store.check([f"ask/{other}"]):
                store.set(f"answer/{store.get(f'ask/{other}').decode()}", name)
            if store.check([f"{name}/here/{other}"]):
                missing.remove(other)
        if time.monotonic() > end:
            raise TimeoutError(f"ranks {sorted(missing)} of {world_size} did not join")
        time.sleep(POLL_S)
    return name


class Stopped(Exception):  # noqa: N818 -- no error: it was asked to
    """A training left because it was asked to; its state is saved."""


class Leaving(Exception):  # noqa: N818 -- it carries one
    """All ranks end the training here, after the state is saved.

    Args:
        reason: what is to be raised then: Stopped, or why batches cannot be loaded.
    """

    def __init__(self, reason: Exception) -> None:
        super().__init__(reason)
        self.reason = reason


class StopRequest:
    """Notes signals within a `with` block; the handler does nothing else.

    Schedulers send SIGTERM, or SIGUSR1 some time before it; a terminal that closes sends SIGHUP,
    unless nohup has it ignored; Ctrl-C is SIGINT, and the second one interrupts at once. Among
    several processes the launcher passes signals on, so that one may come twice: there the second
    changes nothing. A handler that somebody else had for the signal (submitit puts a job back into
    the queue there) is called when the block is left. Outside a process's main thread, where Python
    hears no signals, none is noted.
    """

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> StopRequest:
        if threading.current_thread() is threading.main_thread():
            noted = [each for each in STOP_SIGNALS if signal.getsignal(each) is not signal.SIG_IGN]
            self._before = {each: signal.signal(each, self._note) for each in noted}
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for each, handler in self._before.items():
            signal.signal(each, handler)
        handler = self._before.get(self.signal) if self.signal else None
        if self.signal and callable(handler) and handler is not signal.default_int_handler:
            os.kill(os.getpid(), self.signal)

    @property
    def is_made(self) -> bool:
        """Whether a signal has come."""
        return self.signal is not None

    def _note(self, number: int, frame: FrameType | None) -> None:
        is_second = self.signal is signal.SIGINT and number == signal.SIGINT
        if is_second and "RANK" not in os.environ:
            raise KeyboardInterrupt
        self.signal = signal.Signals(number)
