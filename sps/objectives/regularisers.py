"""Other terms that keep a policy from collapsing: entropy bonus, KL-Cov, likelihood of given completions."""

import torch
from torch import Tensor


def entropy_loss(entropy: Tensor, weights: Tensor) -> Tensor:
    """Minus the weighted entropy (scalar), from the policy's entropy in nats at every token (N,) and weights (N,).

    The caller multiplies by entropy_bonus. The gradient is that of the states' own entropies, not through the states.
    """
    return -(weights * entropy).sum()


def kl_cov_mask(old_logprobs: Tensor, advantages: Tensor, fraction: float) -> Tensor:
    """The tokens (N,) bool whose log-probability and advantage covary most, which are those that cost entropy.

    Takes all tokens of a step, since the covariance (log π - mean)(A - mean) is centred over them; selects the share
    `fraction`, at least one token unless it is 0. KL-Cov (2505.22617).
    """
    mask = torch.zeros(old_logprobs.shape, dtype=torch.bool, device=old_logprobs.device)
    if fraction == 0 or not mask.numel():
        return mask
    covariance = (old_logprobs - old_logprobs.mean()) * (advantages - advantages.mean())
    mask[covariance.topk(max(1, int(fraction * mask.numel()))).indices] = True
    return mask


def kl_cov_loss(logprobs: Tensor, old_logprobs: Tensor, mask: Tensor, weights: Tensor) -> Tensor:
    """Weighted sum (scalar) of |log π - log π_old| over the masked tokens; all (N,); the old ones detached.

    KL-Cov (2505.22617), with the absolute difference that its authors' code takes for KL(π_old ‖ π). While the
    policy is still the old one its gradient is exactly 0: it acts from the second optimiser step on the same rollouts.
    The caller multiplies by kl_cov_coefficient.
    """
    return (weights * mask * (logprobs - old_logprobs.detach()).abs()).sum()


def nll_loss(logprobs: Tensor, weights: Tensor) -> Tensor:
    """Minus the weighted log-likelihood (scalar) of given completions: logprobs (N,), weights (N,).

    On completions of the initial policy for prompts that it solves, this is KL(initial ‖ π) up to a constant: the
    forward-KL rehearsal of DPH-RL. The caller multiplies by forward_kl.
    """
    return -(weights * logprobs).sum()
