"""Each completion token's weight in the loss, with one normaliser for the whole optimiser step.

A loss term is then a plain weighted sum, so that the gradients of micro-batches add up exactly however the step is cut.
"""

from typing import Literal

import torch
from torch import Tensor

Normalise = Literal["sequence", "token", "constant"]


def normaliser(lengths: Tensor, kind: Normalise) -> float:
    """What these completions add to the step's `total`: their tokens for "token", otherwise their number.

    lengths (B,) in tokens. Additive: sum it over all micro-batches and processes of the step.
    """
    return float(lengths.sum() if kind == "token" else lengths.numel())


def token_weights(lengths: Tensor, sequence: Tensor, kind: Normalise, total: float, max_tokens: int) -> Tensor:
    """Weight of every token of a micro-batch: (N,) float32 from lengths (B,) and each token's row, sequence (N,).

    With `total` the step's sum of `normaliser`, a token of completion i weighs
        sequence: 1 / (total |y_i|): the mean over completions of their means (GRPO, 2402.03300, Eq. 3);
        token:    1 / total: the mean over the step's tokens (DAPO, 2503.14476, Eq. 8);
        constant: 1 / (total max_tokens): no length in it, hence no length bias (Dr. GRPO, 2503.20783).
    Weights add up to 1 over the step, except with "constant", where they add up to mean length / max_tokens.
    Raises ValueError where total is not positive although there are tokens.
    """
    if sequence.numel() and total <= 0:
        raise ValueError(f"{sequence.numel()} tokens but a normaliser of {total:g}; sum normaliser() over the step")
    if kind == "sequence":
        return 1 / (total * lengths.to(torch.float32)[sequence])
    weight = 1 / total if kind == "token" else 1 / (total * max_tokens)
    return torch.full(sequence.shape, weight, dtype=torch.float32, device=sequence.device)
