"""Which weights learn, and how fast: frozen blocks, lower rates below, decay on matrices only."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import torch
from torch import nn

from asr.model import BiLstmCtc

MakeOptimizer = Callable[[Iterable[dict[str, object]]], torch.optim.Optimizer]


@dataclass(frozen=True)
class ParameterGroup:
    """Parameters that an optimiser treats alike.

    Attributes:
        rate: factor on the optimiser's learning rate.
        is_decayed: whether the optimiser's weight decay holds; else there is none.
        parameters: in the model's order.
    """

    rate: float
    is_decayed: bool
    parameters: list[nn.Parameter] = field(default_factory=list)


def freeze(model: BiLstmCtc, num_blocks: int) -> None:
    """Keep the lowest blocks as they are: weights, and running statistics of batch norm.

    Dropout acts in them as in the others. Call it before `train()`, which then leaves their batch
    norms in evaluation mode, and before the model is distributed.

    Args:
        model: see its `blocks`.
        num_blocks: 0 for none.

    Raises:
        ValueError: below 0, or so many that nothing would learn.
    """
    top = len(model.blocks) - 1
    if not 0 <= num_blocks <= top:
        raise ValueError(
            f"trainer.frozen_layers {num_blocks}, expected 0 to {top}: the model has {top + 1} "
            "blocks, counted from the bottom (subsampling, LSTM layers, head)"
        )
    for block in model.blocks[:num_blocks]:
        for module in block:
            module.requires_grad_(False)


def make_optimizer(
    make: MakeOptimizer, model: BiLstmCtc, layer_decay: float = 1.0
) -> torch.optim.Optimizer:
    """An optimiser of all that learns, whose groups have the learning rate of their block.

    Args:
        make: of groups of parameters; its learning rate is that of the uppermost block.
        model: frozen where it is to be.
        layer_decay: see `parameter_groups`.

    Raises:
        ValueError: a layer decay outside of above 0 to 1.
    """
    groups = parameter_groups(model, layer_decay)
    no_decay: dict[str, object] = {"weight_decay": 0.0}
    optimizer = make(
        {"params": group.parameters} | ({} if group.is_decayed else no_decay) for group in groups
    )
    for settings, group in zip(optimizer.param_groups, groups, strict=True):
        settings["lr"] *= group.rate
    return optimizer


def parameter_groups(model: BiLstmCtc, layer_decay: float = 1.0) -> list[ParameterGroup]:
    """The parameters that learn, by learning rate and weight decay.

    What the lower blocks hear is more alike from task to task than what the upper ones make of it,
    so they may learn more slowly (Howard and Ruder, "Universal language model fine-tuning for text
    classification", ACL 2018). Weight decay is for matrices only: shrinking biases and norm gains
    regularises nothing.

    Args:
        model: see its `blocks`.
        layer_decay: the rate of each block is that of the one above times this.

    Returns:
        Groups with a parameter each, the lowest blocks first.

    Raises:
        ValueError: a layer decay outside of above 0 to 1.
    """
    if not 0 < layer_decay <= 1:
        raise ValueError(f"trainer.layer_decay {layer_decay:g}, expected above 0 to 1")
    rates = {
        parameter: layer_decay**above
        for above, block in enumerate(reversed(model.blocks))
        for module in block
        for parameter in module.parameters()
    }
    groups: dict[tuple[float, bool], ParameterGroup] = {}
    for parameter in model.parameters():
        if parameter.requires_grad:
            key = (rates[parameter], parameter.ndim > 1)
            groups.setdefault(key, ParameterGroup(*key)).parameters.append(parameter)
    return sorted(groups.values(), key=lambda group: (group.rate, not group.is_decayed))
