"""Log-probabilities and entropies of chosen tokens without ever holding all tokens' logits.

The logits of N tokens over V words are the largest tensor of a training step. Here the head is applied to a chunk of
tokens at a time; the chunk's logits are thrown away and computed again for the gradient, whose closed form is below.
(Autograd over checkpointed chunks would do, but holds several tensors of the logits' size at once, and a gradient of
the head's size for every chunk.)
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

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

    hidden (N, H), weight (V, H), bias (V,) or None, targets (N,) int64. The products are taken in the precision of
    `hidden` (or autocast's), everything else in float32 (float64 for float64 input). Values and gradients do not
    depend on `chunk` but for rounding. Ours.

    Raises:
        ValueError: the temperature or the chunk is not positive.
    """
    if not temperature > 0 or chunk < 1:
        raise ValueError(f"temperature {temperature} and chunk {chunk} must be positive")
    kind = hidden.device.type
    precision = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else hidden.dtype
    logprobs, entropy = _Chunked.apply(hidden, weight, bias, targets, temperature, chunk, with_entropy, precision)
    return TokenStats(logprobs, entropy)


class _Chunked(torch.autograd.Function):
    """With z the logits over the temperature T, p = softmax(z), entropy H, and t the target:

    d log p_t / d logit_j = (1[j = t] - p_j) / T;    d H / d logit_j = -p_j (log p_j + H) / T
    """

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        targets: Tensor,
        temperature: float,
        chunk: int,
        with_entropy: bool,
        precision: torch.dtype,
    ) -> tuple[Tensor, Tensor | None]:
        """(N,) log-probabilities and entropies."""
        size = torch.promote_types(precision, torch.float32)
        totals, chosen = hidden.new_empty(2, len(hidden), dtype=size)  # log Σ exp z, and z_t
        entropy = torch.empty_like(totals) if with_entropy else None
        with torch.autocast(hidden.device.type, enabled=False):
            w, b = weight.to(precision), None if bias is None else bias.to(precision)
            for rows in _chunks(len(hidden), chunk):
                z = _scaled_logits(hidden[rows], w, b, temperature)  # (n, V)
                chosen[rows] = z.gather(1, targets[rows, None]).squeeze(1)
                totals[rows] = torch.logsumexp(z, dim=1)
                if entropy is not None:
                    entropy[rows] = _entropy(z, totals[rows])
                del z  # before the next chunk's are made
        ctx.save_for_backward(hidden, weight, bias, targets, totals, entropy)
        ctx.settings = temperature, chunk, precision
        ctx.set_materialize_grads(False)  # an entropy that is only logged costs nothing in backward
        return chosen - totals, entropy

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, up: Tensor | None, up_entropy: Tensor | None) -> tuple[Tensor | None, ...]:
        """Gradients of hidden, weight and bias, summed over chunks in place."""
        hidden, weight, bias, targets, totals, entropy = ctx.saved_tensors
        temperature, chunk, precision = ctx.settings
        up = torch.zeros_like(totals) if up is None else up
        for_hidden = torch.empty_like(hidden)
        for_weight = torch.zeros_like(weight) if ctx.needs_input_grad[1] else None
        for_bias = torch.zeros_like(bias) if bias is not None and ctx.needs_input_grad[2] else None
        with torch.autocast(hidden.device.type, enabled=False):
            w, b = weight.to(precision), None if bias is None else bias.to(precision)
            for rows in _chunks(len(hidden), chunk):
                d = _scaled_logits(hidden[rows], w, b, temperature).sub_(totals[rows, None])  # log p: (n, V)
                u = (up[rows] / temperature)[:, None]
                if up_entropy is None:
                    d.exp_().mul_(-u)
                else:
                    p = d.exp()
                    d.add_(entropy[rows, None]).mul_((up_entropy[rows] / temperature)[:, None]).add_(u).mul_(p).neg_()
                    del p
                d.scatter_add_(1, targets[rows, None], u)  # the logits' gradient
                rounded = d.to(precision)
                for_hidden[rows] = rounded @ w
                if for_weight is not None:
                    _add_product(for_weight, rounded.T, hidden[rows].to(precision))
                if for_bias is not None:
                    for_bias += d.sum(dim=0)
                del d, rounded
        return for_hidden, for_weight, for_bias, None, None, None, None, None


def _chunks(rows: int, chunk: int) -> list[slice]:
    return [slice(start, start + chunk) for start in range(0, rows, chunk)]


def _scaled_logits(hidden: Tensor, weight: Tensor, bias: Tensor | None, temperature: float) -> Tensor:
    logits = F.linear(hidden.to(weight.dtype), weight, bias)
    return logits.to(torch.promote_types(logits.dtype, torch.float32)).div_(temperature)


def _entropy(z: Tensor, totals: Tensor) -> Tensor:
    """H = log Σ exp z - Σ p z."""
    p = torch.sub(z, totals[:, None]).exp_()
    return totals - torch.linalg.vecdot(p, z)


def _add_product(total: Tensor, x: Tensor, y: Tensor) -> None:
    """total += x y, summed over chunks in the precision of `total`."""
    if total.dtype == x.dtype:
        total.addmm_(x, y)
    else:
        total += x @ y


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
