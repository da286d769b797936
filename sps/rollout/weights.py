"""A policy's weights as an engine needs them: whole where training shards them, merged where training adapts them."""

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor

from sps.lora import merged
from sps.policy import Policy


@torch.no_grad()
def plain_parameters(policy: Policy) -> Iterator[tuple[str, Tensor]]:
    """Every parameter under the name it has without adapters, with theirs merged; a tied one under each of its names.

    Of a sharded policy one layer at a time is whole in memory, and every process must take them all.
    """
    parameters = dict(policy.model.named_parameters(remove_duplicate=False))
    for name, parameter in parameters.items():
        if not policy.lora:
            yield name, _whole(parameter)
        elif ".lora_" not in name:
            layer = name.removesuffix("base_layer.weight")
            parts = [other for other in parameters if other == name or other.startswith(f"{layer}lora_")]
            yield from merged(policy.model, {part: _whole(parameters[part]) for part in parts}).items()


def _whole(parameter: Tensor) -> Tensor:
    """The parameter's values, gathered from all processes where they are sharded."""
    values = parameter.detach()
    return values.full_tensor() if isinstance(values, DTensor) else values
