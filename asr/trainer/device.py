"""Devices, precision and processes of a training, through Lightning Fabric."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import torch
from lightning_fabric import Fabric
from lightning_fabric.strategies.ddp import DDPStrategy
from torch import Tensor, nn

from asr.trainer.rendezvous import join_elastic

Value = TypeVar("Value")

HALF = ("16-mixed", "bf16-mixed")


class Processes(DDPStrategy):
    """Joins processes and leaves the model as it is: gradients are `Gradients.sum_over_ranks`.

    DistributedDataParallel exchanges gradients within the backward pass. A rank that must repeat a
    pass (out of memory, NaN) would then exchange twice, and the others wait for ever.
    """

    def setup_module(self, module: nn.Module) -> nn.Module:  # type: ignore[override]
        """The module itself."""
        return module


def sum_over_ranks(fabric: Fabric, value: Tensor) -> Tensor:
    """The sum of a tensor over all ranks, written into it and returned."""
    if fabric.world_size > 1:
        torch.distributed.all_reduce(value)  # Fabric's own waits at a barrier before it
    return value


def gather_objects(fabric: Fabric, value: Any) -> list[Any]:
    """A value of every rank, in the order of the ranks; for small ones that are seldom needed."""
    if fabric.world_size == 1:
        return [value]
    values: list[Any] = [None] * fabric.world_size
    torch.distributed.all_gather_object(values, value)
    return values


def broadcast(fabric: Fabric, make: Callable[[], Value]) -> Value:
    """What rank 0 makes, on every rank.

    Raises:
        ValueError: as rank 0 did, on every rank.
        OSError: likewise.
    """
    made: Value | ValueError | OSError | None = None
    if fabric.global_rank == 0:
        try:
            made = make()
        except (ValueError, OSError) as error:
            made = error
    made = fabric.broadcast(made)
    if isinstance(made, (ValueError, OSError)):
        raise made
    return cast(Value, made)


def surroundings(fabric: Fabric) -> dict[str, str]:
    """What the bits of a training depend on beside its settings and data, by name."""
    is_cuda = fabric.device.type == "cuda"
    return {
        "device": torch.cuda.get_device_name()
        if is_cuda
        else torch.backends.cpu.get_cpu_capability(),
        "precision": str(fabric._precision.precision),
        "threads": str(torch.get_num_threads()),
        "torch": str(torch.__version__),
    }


def make_fabric(accelerator: str, devices: int, num_nodes: int, precision: str) -> Fabric:
    """Fabric, with the process group joined where there are several processes.

    Args:
        accelerator: "cpu", "cuda", or "auto": cuda where there is one.
        devices: processes of this machine, one a device.
        num_nodes: machines.
        precision: see `choose_precision`.

    Raises:
        ValueError: an unknown accelerator, or a precision that it does not have.
    """
    if accelerator == "auto":
        accelerator = "cuda" if torch.cuda.is_available() else "cpu"
    if accelerator == "cuda":
        torch.backends.cudnn.deterministic = True  # gradients of convolutions: the same bits
    if accelerator not in ("cpu", "cuda"):
        raise ValueError(f"accelerator {accelerator!r}, expected auto, cpu or cuda")
    fabric = Fabric(
        accelerator=accelerator,
        devices=devices,
        num_nodes=num_nodes,
        precision=choose_precision(precision, accelerator),  # type: ignore[arg-type]
        strategy="auto" if devices * num_nodes == 1 else Processes(),
    )
    join_elastic(accelerator)
    fabric.launch()
    return fabric


def choose_precision(precision: str, accelerator: str) -> str:
    """The precision to train in.

    Args:
        precision: "32-true", "bf16-mixed", "16-mixed", or "auto": bf16-mixed on a GPU that has it,
            32-true elsewhere.
        accelerator: "cpu" or "cuda".

    Raises:
        ValueError: half precision without a GPU, where the LSTM kernels lack it; an unknown name.
    """
    is_cuda = accelerator == "cuda" and torch.cuda.is_available()
    if precision == "auto":
        return "bf16-mixed" if is_cuda and torch.cuda.is_bf16_supported() else "32-true"
    if precision not in ("32-true", *HALF):
        known = ", ".join(("auto", "32-true", *HALF))
        raise ValueError(f"precision {precision!r}, expected one of {known}")
    if precision in HALF and not is_cuda:
        raise ValueError(f"precision {precision!r} needs a GPU, expected 32-true on a CPU")
    return precision
