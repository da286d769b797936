"""A policy's weights as an engine needs them: whole where training shards them, merged where training adapts them."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor


@torch.no_grad()
def merged_parameters(network: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Every parameter of a policy's network under the name it has without adapters; tied ones once.

    Where there is LoRA, W + scaling · B A takes W's place. The network itself is not touched: to merge and unmerge in
    place would leave rounding errors in its weights.

    Of a sharded model one parameter at a time is whole in memory, and every process must take them all.
    """
    for name, parameter in network.named_parameters():
        if ".lora_" in name:
            continue
        weight = _whole(parameter)
        if name.endswith(".base_layer.weight"):
            weight = weight + _adapters(network.get_submodule(name.removesuffix(".base_layer.weight")))
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
