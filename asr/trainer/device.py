"""Devices, precision and processes of a training, through Lightning Fabric."""

from __future__ import annotations

import torch
from lightning_fabric import Fabric

HALF = ("16-mixed", "bf16-mixed")


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
    if accelerator not in ("cpu", "cuda"):
        raise ValueError(f"accelerator {accelerator!r}, expected auto, cpu or cuda")
    fabric = Fabric(
        accelerator=accelerator,
        devices=devices,
        num_nodes=num_nodes,
        precision=choose_precision(precision, accelerator),  # type: ignore[arg-type]
        strategy="auto" if devices * num_nodes == 1 else "ddp",
    )
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
