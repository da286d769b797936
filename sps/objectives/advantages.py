"""From the rewards of a group to its advantages."""

import math

import torch
from torch import Tensor

from sps.config import ObjectiveSettings

EQUAL = 1e-9  # rewards that differ by rounding alone are equal; dividing by their spread would blow the rounding up


def equal_rewards(rewards: Tensor) -> bool:
    """Whether the rewards (G,) of a group are all the same, as they are in a group of one."""
    if rewards.numel() < 2:
        return True
    return bool(rewards.max() - rewards.min() <= EQUAL * max(1.0, float(rewards.abs().max())))


def group_advantages(rewards: Tensor, settings: ObjectiveSettings, correct: Tensor) -> Tensor:
    """Advantages (G,) of one prompt's completions from rewards (G,) and correct (G,) bool, in the rewards' dtype.

        standardised: (r - mean) / std, the population's std (GRPO, 2402.03300, Sec. 4.1.2);
        centred:      r - mean (Dr. GRPO, 2503.20783);
        passk:        from `correct`, see `passk_advantages`;
        signed:       `positive_weight` where correct and -1 where not (W-REINFORCE, 2506.01347).
    Equal rewards give exact zeros. Only signed is free of the group: it pushes down all of an all-wrong group too.
    """
    if settings.advantage == "signed":
        return torch.where(correct, settings.positive_weight, -1.0).to(rewards.dtype)
    if settings.advantage == "passk":
        return passk_advantages(correct, settings.passk).to(rewards.dtype)
    if equal_rewards(rewards):
        return torch.zeros_like(rewards)
    centred = rewards.double() - rewards.double().mean()
    if settings.advantage == "standardised":
        centred = centred / centred.square().mean().sqrt()
    return centred.to(rewards.dtype)


def passk_advantages(correct: Tensor, k: int) -> Tensor:
    """Advantages (G,) float64 when the reward is that of k completions together, over all C(G, k) choices of them.

    Pass@k training (2508.10751, analytical derivation): with W wrong of G,
        mean R = 1 - C(W, k) / C(G, k),  sd = sqrt(R (1 - R)),
        right completions: (1 - R) / sd,  wrong ones: (1 - R - C(W - 1, k - 1) / C(G - 1, k - 1)) / sd.
    Zeros where every choice earns the same, which is so whenever G <= k: then there is nothing to compare.
    """
    size, wrong = correct.numel(), int((~correct).sum())
    advantages = torch.zeros(size, dtype=torch.float64, device=correct.device)
    if size <= k or wrong < k or wrong == size:
        return advantages
    failing = math.comb(wrong, k) / math.comb(size, k)  # 1 - R
    deviation = math.sqrt(failing * (1 - failing))
    failing_with = math.comb(wrong - 1, k - 1) / math.comb(size - 1, k - 1)
    advantages[correct] = failing / deviation
    advantages[~correct] = (failing - failing_with) / deviation
    return advantages


def soft_overlong(lengths: Tensor, max_tokens: int, ramp: int) -> Tensor:
    """Penalty (B,) float32 in [-1, 0] to add to the reward: from 0 at max_tokens - ramp tokens to -1 at max_tokens.

    Soft overlong punishment (DAPO, 2503.14476, Eq. 13). lengths (B,) in tokens; ramp in tokens, at least 1.
    """
    over = lengths.to(torch.float32) - (max_tokens - ramp)
    return -(over / ramp).clamp(0.0, 1.0)
