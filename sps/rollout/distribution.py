"""From logits to the distribution that is sampled from, and from uniform numbers to tokens of it."""

import torch
from torch import Tensor

from sps.rollout.protocol import Sampling


def sampled_from(logits: Tensor, sampling: Sampling) -> Tensor:
    """Log-probabilities after temperature, then top-k, then top-p: (B, V) float32, -inf for tokens left out.

    Args:
        logits: (B, V), any float type.

    The order is that of vLLM and transformers. Tokens that tie with the k-th stay.
    """
    scores = logits.float() / sampling.temperature
    if 0 < sampling.top_k < scores.shape[1]:
        weakest = scores.topk(sampling.top_k, dim=1).values[:, -1:]
        scores = scores.masked_fill(scores < weakest, -torch.inf)
    if sampling.top_p < 1:
        ascending, tokens = scores.sort(dim=1)
        # The sum from the bottom, as vLLM and transformers do: what may go has at most 1 - top_p; the likeliest stays.
        gone = ascending.softmax(dim=1).cumsum(dim=1) <= 1 - sampling.top_p
        gone[:, -1] = False
        scores = scores.masked_fill(gone.scatter(1, tokens, gone), -torch.inf)
    return scores.log_softmax(dim=1)


def draw(logprobs: Tensor, uniforms: Tensor) -> Tensor:
    """The token at each row's uniform number in the cumulative distribution: (B,) int64.

    Args:
        logprobs: (B, V) float32.
        uniforms: (B,) float64 in [0, 1).

    One uniform number a row, where the exponential race of `torch.multinomial` takes V of them; summed in float64, or
    rare tokens of a large vocabulary would be lost to rounding.
    """
    cumulative = logprobs.exp().cumsum(dim=1, dtype=torch.float64)
    total = cumulative[:, -1]
    # Strictly below the total, so that rounding cannot lead past the last token of positive probability.
    target = torch.minimum(uniforms * total, torch.nextafter(total, torch.zeros_like(total)))
    return torch.searchsorted(cumulative, target[:, None], right=True)[:, 0]
