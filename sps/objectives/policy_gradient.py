"""The clipped policy gradient, with a token's or a whole completion's ratio."""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from sps.config import ObjectiveSettings

LARGEST_LOG = 20.0  # exp of it is finite in float32, so that a zero advantage or weight still gives zero, not NaN


@dataclass(frozen=True)
class LossInputs:
    """A micro-batch, packed: N completion tokens of `rows` completions.

    Attributes:
        logprobs: (N,) natural log-probabilities under the policy now; the loss differentiates these.
        old_logprobs: (N,) under the policy that the step began with, recomputed by the trainer.
        sampler_logprobs: (N,) as the engine reported them.
        advantages: (N,), each completion's advantage at each of its tokens.
        sequence: (N,) int64, each token's completion, 0 to rows - 1; completions are whole.
        rows: number of completions.
        weights: (N,) from `token_weights`.
    """

    logprobs: Tensor
    old_logprobs: Tensor
    sampler_logprobs: Tensor
    advantages: Tensor
    sequence: Tensor
    rows: int
    weights: Tensor


@dataclass(frozen=True)
class LossOutputs:
    """A micro-batch's loss and figures.

    Attributes:
        loss: scalar; add up over the step's micro-batches and processes.
        sums: "weight" (the weights' sum) and, weighted, "ratio", "clipped", "importance", "capped". Add up over the
            step, then divide by "weight" to have means over tokens.
        maxima: "ratio" and "importance", before clipping and capping, over tokens of positive weight.
    """

    loss: Tensor
    sums: dict[str, Tensor]
    maxima: dict[str, Tensor]


def policy_loss(inputs: LossInputs, settings: ObjectiveSettings, importance_cap: float | None) -> LossOutputs:
    """-sum_t w_t c_t min(r_t A_t, clip(r_t, 1 - clip_low, 1 + clip_high) A_t).

    r is the ratio of the policy now to the old one, of a token (PPO's, as in GRPO, 2402.03300, Eq. 3; unequal bounds:
    DAPO, 2503.14476, Eq. 8) or of a completion (GSPO, 2507.18071, Eqs. 5 and 7). c = min(old / sampler,
    importance_cap), detached, corrects for a sampler that is not the trainer (truncated importance sampling); with a
    completion's ratio it is the completion's too (ours). importance_cap None: c = 1, old / sampler is still measured.
    """
    old, advantages, weights = inputs.old_logprobs.detach(), inputs.advantages.detach(), inputs.weights
    ratio = ratios(inputs.logprobs, old, inputs.sequence, inputs.rows, settings.ratio)
    clipped = ratio.clamp(1 - settings.clip_low, 1 + settings.clip_high)
    surrogate = torch.minimum(ratio * advantages, clipped * advantages)
    importance = ratios(old, inputs.sampler_logprobs.detach(), inputs.sequence, inputs.rows, settings.ratio)
    cap = math.inf if importance_cap is None else importance_cap
    correction = torch.ones_like(importance) if importance_cap is None else importance.clamp(max=cap)
    loss = -(weights * correction * surrogate).sum()

    ratio = ratio.detach()
    is_clipped = clipped.detach() * advantages < ratio * advantages
    used = weights > 0
    sums = {
        "weight": weights.sum(),
        "ratio": (weights * ratio).sum(),
        "clipped": (weights * is_clipped).sum(),
        "importance": (weights * importance).sum(),
        "capped": (weights * (importance > cap)).sum(),
    }
    maxima = {"ratio": (ratio * used).max(), "importance": (importance * used).max()}
    return LossOutputs(loss, sums, maxima)


def ratios(
    logprobs: Tensor, base_logprobs: Tensor, sequence: Tensor, rows: int, kind: Literal["token", "sequence"]
) -> Tensor:
    """Probability over base probability at every token (N,): its own, or the geometric mean over its completion."""
    difference = logprobs - base_logprobs
    if kind == "sequence":
        lengths = torch.bincount(sequence, minlength=rows)
        means = difference.new_zeros(rows).index_add(0, sequence, difference / lengths[sequence])
        difference = means[sequence]
    return difference.clamp(-LARGEST_LOG, LARGEST_LOG).exp()
