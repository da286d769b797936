"""A policy's weights as an engine needs them: whole where training shards them, merged where training adapts them."""

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor


def full_parameters(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Every parameter by name, gathered where it is sharded; tied ones once.

    Of a sharded model one parameter at a time is whole in memory, and every process must take them all.
    """
    for name, parameter in model.named_parameters():
        yield name, whole(parameter)


@torch.no_grad()
def whole(parameter: Tensor) -> Tensor:
    """The parameter's values without gradient, gathered from all processes where they are sharded."""
    values = parameter.detach()
    return values.full_tensor() if isinstance(values, DTensor) else values


def merged_parameters(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Parameters under the names of the model without adapters, each LoRA's product added to its weight.

    The policy itself is not touched: to merge and unmerge in place would leave rounding errors in the frozen weights.
    """
    try:
        from peft import PeftModel
    except ImportError:
        yield from full_parameters(model)
        return
    if not isinstance(model, PeftModel):
        yield from full_parameters(model)
        return
    yield from _merged(model)


def _merged(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    from peft.tuners.lora import LoraLayer

    base = model.get_base_model()
    layers = {name: module for name, module in base.named_modules() if isinstance(module, LoraLayer)}
