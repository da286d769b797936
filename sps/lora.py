"""Low-rank adapters through peft: put on, and merged into plain weights for saving."""

from typing import Any

import torch
from torch import Tensor, nn

from sps.config import LoraSettings

_ADAPTER = "default"  # the name peft gives to an only adapter


def adapt(model: Any, settings: LoraSettings, seed: int = 0) -> Any:
    """The model with fresh adapters (which change nothing yet); only they are trained.

    Raises:
        ValueError: peft is not installed, a target is not a module of the model, or it is an embedding or the head.
    """
    try:
        from peft import LoraConfig, get_peft_model
        from peft.tuners.lora import Embedding, LoraLayer
    except ImportError as error:
        raise ValueError("policy.lora needs peft; install it with: pip install 'serm[sps]'") from error
    config = LoraConfig(
        r=settings.rank, lora_alpha=settings.alpha, lora_dropout=settings.dropout,
        target_modules=settings.targets, task_type="CAUSAL_LM",
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        try:
            adapted = get_peft_model(model, config)
        except ValueError as error:
            raise ValueError(f"policy.lora.targets {settings.targets!r}: {error}") from error
    base: Any = adapted.get_base_model()
    for name, module in base.named_modules():
        if isinstance(module, LoraLayer) and (isinstance(module, Embedding) or module is base.get_output_embeddings()):
            raise ValueError(f"policy.lora.targets: {name} is an embedding or the head; leave it out")
    return adapted


def merged(adapted: Any, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Plain weights W + (alpha / rank) B A under the names that they have without adapters.

    state: the adapted model's whole state_dict, which stays as it is. LoRA, arXiv 2106.09685, section 4.1.
    """
    layers: dict[str, nn.Module] = dict(adapted.named_modules())
    plain: dict[str, Tensor] = {}
    for name, tensor in state.items():
        if ".lora_" in name:
            continue
        layer = name.removesuffix(".base_layer.weight")
        if layer != name:
            a, b = (state[f"{layer}.lora_{x}.{_ADAPTER}.weight"].float() for x in "AB")  # (r, in), (out, r)
            module: Any = layers[layer]
            delta = module.scaling[_ADAPTER] * (b @ a)  # (out, in)
            tensor = (tensor.float() + (delta.T if module.fan_in_fan_out else delta)).to(tensor.dtype)
        plain[name.removeprefix("base_model.model.").replace(".base_layer.", ".")] = tensor
    return plain
