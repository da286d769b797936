"""Log-probabilities and entropies of chosen tokens without ever holding all tokens' logits.

The logits of N tokens over V words are the largest tensor of a training step. Here the head is applied to a chunk of
tokens at a time, and the chunk's logits are thrown away and computed again for the gradient.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

_AMPLIFIED = 100.0  # a soft cap is nearly linear near 0, where an untrained model's logits lie
_TOLERANCE = 1e-3  # relative; the two sides do the same sums


class TokenStats(NamedTuple):
    """What the objectives need of each scored token.

    Attributes:
        logprobs: (N,) float32, log π(token | what is before it) at the temperature asked for.
        entropy: (N,) float32, in nats, of the whole distribution at that place; None where not asked for.
    """

    logprobs: Tensor
    entropy: Tensor | None


def token_stats(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    targets: Tensor,
    temperature: float,
    chunk: int,
    with_entropy: bool,
) -> TokenStats:
    """log softmax(hidden Wᵀ / temperature) at the targets, and its entropy, at most `chunk` tokens' logits at a time.

    hidden (N, H), weight (V, H), bias (V,) or None, targets (N,) int64. The product is taken in the precision of
    `hidden` (or autocast's), everything after it in float32 (float64 for float64 input). Values and gradients do not
    depend on `chunk` but for rounding. Ours.

    Raises:
        ValueError: the temperature or the chunk is not positive.
    """
    if not temperature > 0 or chunk < 1:
        raise ValueError(f"temperature {temperature} and chunk {chunk} must be positive")
    parts = [
        # Autograd keeps a chunk's hidden states alone; its logits live only while they are used, forward and backward.
        checkpoint(_chunk_stats, h, weight, bias, t, temperature, with_entropy, use_reentrant=False)
        for h, t in zip(hidden.split(chunk), targets.split(chunk), strict=True)
    ]
    entropy = torch.cat([part[1] for part in parts]) if with_entropy else None
    return TokenStats(torch.cat([part[0] for part in parts]), entropy)


def _chunk_stats(
    hidden: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor, temperature: float, with_entropy: bool
) -> tuple[Tensor, Tensor | None]:
    logits = F.linear(hidden, weight, bias)  # (n, V)
    if logits.dtype != torch.float64:
        logits = logits.float()
    logprobs = (logits / temperature).log_softmax(dim=-1)
    chosen = logprobs.gather(1, targets[:, None]).squeeze(1)
    return chosen, -(logprobs.exp() * logprobs).sum(dim=-1) if with_entropy else None


@torch.no_grad()
def demand_plain_head(model: Any, body: nn.Module, head: nn.Module) -> nn.Linear:
    """The head, once it is sure that the model's logits are hidden Wᵀ + b and nothing more.

    Compares with the model's own logits on eight tokens, the head's output amplified so that even a gentle cap shows.

    Raises:
        ValueError: the head is no linear layer (adapters on it count), or the model scales or caps its logits.
    """
    name = type(model).__name__
    if type(head) is not nn.Linear:
        raise ValueError(f"{name}: its head is a {type(head).__name__}; only a plain linear head can be trained")
    ids = torch.arange(8, device=head.weight.device)[None] % head.out_features
    mode, hook = model.training, head.register_forward_hook(lambda _module, _inputs, logits: _AMPLIFIED * logits)
    model.eval()
    try:
        theirs = model(input_ids=ids, use_cache=False).logits
        ours = _AMPLIFIED * F.linear(body(input_ids=ids, use_cache=False).last_hidden_state, head.weight, head.bias)
    finally:
        hook.remove()
        model.train(mode)
    if (ours - theirs).abs().max() > _TOLERANCE * ours.abs().max():
        raise ValueError(
            f"{name}: its logits are more than hidden states times the head (a cap such as final_logit_softcapping or "
            "a scale such as logit_scale), which the chunked head would ignore; choose another model"
        )
    return head
