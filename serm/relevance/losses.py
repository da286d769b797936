"""Losses on label distributions, shared by both families. Pure."""

from collections.abc import Sequence

import torch
from torch import Tensor

SMALLEST = 1e-30


def label_losses(log_probs: Tensor, targets: Tensor, seen: Tensor) -> Tensor:
    """−sum_y t_y log Pr(y | q, d), or −log sum_y t_y Pr(y | q, d) for rows whose target is a likelihood: (B,).

    The first is SERM's supervised loss, with soft labels the KL divergence up to a constant; the second is Patrini et
    al.'s forward correction (2017). At a one-hot target they are equal.

    Args:
        log_probs: (B, |Y|), normalised.
        targets: (B, |Y|).
        seen: (B,) boolean; the rows of the second kind.
    """
    likelihoods = torch.logsumexp(log_probs + targets.clamp_min(SMALLEST).log(), dim=-1)
    return -torch.where(seen, likelihoods, (targets * log_probs).sum(dim=-1))


def ordinal_losses(log_probs: Tensor, targets: Tensor, scale: Sequence[int]) -> Tensor:
    """Squared earth mover's distance between Pr(y | q, d) and the target: (B,), each 0 to 1.

    sum_k g_k (F_k − T_k)² over the cumulative distributions F and T (Hou et al. 2016, arXiv 1611.05916), with
    g_k = (y_k+1 − y_k) / (y_max − y_min) for scales of uneven steps (ours). For two labels it is the Brier score.
    A likelihood counts as the posterior that it gives under a flat prior.

    Args:
        log_probs: (B, |Y|), normalised.
        targets: (B, |Y|).
    """
    grades = torch.tensor(scale, dtype=log_probs.dtype, device=log_probs.device)
    gaps = grades.diff() / (grades[-1] - grades[0])
    wanted = targets / targets.sum(dim=-1, keepdim=True)
    apart = log_probs.exp().cumsum(dim=-1) - wanted.cumsum(dim=-1)
    return (apart[:, :-1].square() * gaps).sum(dim=-1)
