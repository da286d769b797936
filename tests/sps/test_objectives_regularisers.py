"""Entropy bonus, KL-Cov and likelihood: closed forms, and what fitting one's own rollouts does and does not do."""

import math

import pytest
import torch
from torch import Tensor

from sps.objectives.regularisers import entropy_loss, kl_cov_loss, kl_cov_mask, nll_loss

LOGITS = torch.tensor([1.1, 0.2, -0.5, 0.7, -1.3], dtype=torch.float64)
CORRECT = torch.tensor([True, True, False, True, False])


def gradient_of_nll(logits: Tensor, weights: Tensor) -> Tensor:
    """By enumeration: each of the five completions, of one token, with its probability as its weight."""
    logits = logits.clone().requires_grad_()
    nll_loss(logits.log_softmax(0), weights).backward()
    assert logits.grad is not None
    return logits.grad


def test_entropy_gradient_is_the_closed_form() -> None:
    logits = torch.randn(6, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    weights = torch.rand(6, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    full = logits.log_softmax(1)
    entropy = -(full.exp() * full).sum(1)
    loss = entropy_loss(entropy, weights)
    loss.backward()
    expected = [
        [w * q * (math.log(q) + h) for q in row.tolist()]  # d(-H)/dz_j = p_j (log p_j + H)
        for w, row, h in zip(weights.tolist(), full.exp(), entropy.tolist(), strict=True)
    ]
    assert logits.grad is not None
    torch.testing.assert_close(logits.grad, torch.tensor(expected, dtype=torch.float64), rtol=0, atol=1e-12)
    assert float(loss) == pytest.approx(-sum(w * h for w, h in zip(weights.tolist(), entropy.tolist(), strict=True)))


def test_kl_cov_selects_the_tokens_of_largest_covariance() -> None:
    draw = torch.Generator().manual_seed(3)
    logprobs, advantages = torch.randn(2, 50, dtype=torch.float64, generator=draw)
    x, y = logprobs.tolist(), advantages.tolist()
    covariance = [(a - sum(x) / 50) * (b - sum(y) / 50) for a, b in zip(x, y, strict=True)]
    top = sorted(range(50), key=lambda t: covariance[t], reverse=True)[:7]
    assert kl_cov_mask(logprobs, advantages, 0.15).nonzero().flatten().tolist() == sorted(top)
    assert int(kl_cov_mask(logprobs, advantages, 0.002).sum()) == 1
    assert int(kl_cov_mask(logprobs, advantages, 0.0).sum()) == 0
    assert kl_cov_mask(logprobs[:0], advantages[:0], 0.2).shape == (0,)


def test_kl_cov_penalises_moving_either_way_but_only_the_masked() -> None:
    logprobs = torch.tensor([-1.0, -2.0, -3.0, -1.5], dtype=torch.float64, requires_grad=True)
    old = torch.tensor([-1.4, -1.0, -9.0, -1.5], dtype=torch.float64, requires_grad=True)
    weights = torch.tensor([0.1, 0.2, 0.3, 0.4], dtype=torch.float64)
    loss = kl_cov_loss(logprobs, old, torch.tensor([True, True, False, True]), weights)
    loss.backward()
    assert float(loss) == pytest.approx(0.1 * 0.4 + 0.2 * 1.0)
    assert logprobs.grad is not None
    assert logprobs.grad.tolist() == pytest.approx([0.1, -0.2, 0.0, 0.0])  # the last has not moved yet
    assert old.grad is None


def test_fitting_ones_own_unfiltered_rollouts_does_nothing_in_expectation() -> None:
    assert float(gradient_of_nll(LOGITS, LOGITS.softmax(0)).abs().max()) < 1e-15


def test_fitting_ones_own_correct_rollouts_keeps_their_ratios() -> None:
    """The minimum of the correct-only likelihood, a convex function of the logits, is the policy's own conditional."""
    conditional = torch.where(CORRECT, LOGITS.softmax(0), 0.0)
    conditional = conditional / conditional.sum()
    same_ratios = torch.where(CORRECT, LOGITS, -60.0)
    flat = torch.where(CORRECT, 0.0, -60.0).double()
    assert float(gradient_of_nll(same_ratios, conditional).abs().max()) < 1e-12
    assert float(gradient_of_nll(flat, conditional).abs().max()) > 0.1


def test_a_step_on_correct_rollouts_squeezes_further() -> None:
    """On logits, the likelier of two right answers even gains on the other: it is more reinforcement, not less."""
    conditional = torch.where(CORRECT, LOGITS.softmax(0), 0.0)
    conditional = conditional / conditional.sum()
    moved = LOGITS - 0.1 * gradient_of_nll(LOGITS, conditional)
    assert float(moved[0] - moved[1]) > float(LOGITS[0] - LOGITS[1])
    assert float(moved.softmax(0)[CORRECT].sum()) > float(LOGITS.softmax(0)[CORRECT].sum())


def test_nll_on_the_initial_policys_completions_is_forward_kl() -> None:
    initial = torch.tensor([0.5, -0.5, 1.0, 0.0, 0.3], dtype=torch.float64).log_softmax(0)
    logits = LOGITS.clone().requires_grad_()
    torch.nn.functional.kl_div(logits.log_softmax(0), initial, reduction="sum", log_target=True).backward()
    assert logits.grad is not None
    torch.testing.assert_close(gradient_of_nll(LOGITS, initial.exp()), logits.grad, rtol=0, atol=1e-12)
