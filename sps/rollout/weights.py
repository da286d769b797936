"""A policy's weights as an engine needs them: whole where training shards them, merged where training adapts them."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor
from transformers import PreTrainedModel


@torch.no_grad()
def merged_parameters(model: Any) -> Iterator[tuple[str, Tensor]]:
    """Every parameter of the policy under the name it has without adapters; tied ones once.

    Args:
        model: a transformers model, or a peft one of LoRA on linear layers: W + scaling · B A takes W's place. The
            policy itself is not touched: to merge and unmerge in place would leave rounding errors in its weights.

    Of a sharded model one parameter at a time is whole in memory, and every process must take them all.
    """
    base = model if isinstance(model, PreTrainedModel) else model.get_base_model()
    for name, parameter in base.named_parameters():
        if ".lora_" in name:
            continue
        weight = _whole(parameter)
        if name.endswith(".base_layer.weight"):
            layer = base.get_submodule(name.removesuffix(".base_layer.weight"))
            weight = weight + _adapters(layer)
        yield name.replace(".base_layer.", "."), weight


def _adapters(layer: Any) -> Tensor:
    """The sum of scaling · B A over a layer's active adapters: (out, in)."""
    products = [
        layer.scaling[name] * (_whole(layer.lora_B[name].weight) @ _whole(layer.lora_A[name].weight))
        for name in layer.active_adapters
    ]
    return torch.stack(products).sum(dim=0)


def _whole(parameter: Tensor) -> Tensor:
    """The parameter's values, gathered from all processes where they are sharded."""
    values = parameter.detach()
    return values.full_tensor() if isinstance(values, DTensor) else values
