"""KL estimators: values and gradients in expectation, by enumeration over a whole vocabulary."""

import pytest
import torch
from torch import Tensor

from sps.objectives.kl import k1, k2, k3, kl_loss

LOGITS = torch.tensor([0.3, -1.2, 0.8, 0.1, -0.4], dtype=torch.float64)
REFERENCE = torch.tensor([0.9, 0.2, -0.7, -0.3, 0.5], dtype=torch.float64).log_softmax(0)


def exact(logits: Tensor, reverse: bool) -> Tensor:
    """KL(π ‖ ref) if reverse, otherwise KL(ref ‖ π)."""
    policy = logits.log_softmax(0)
    return (policy.exp() * (policy - REFERENCE)).sum() if reverse else (REFERENCE.exp() * (REFERENCE - policy)).sum()


def gradients(estimator: str) -> tuple[Tensor, Tensor, Tensor]:
    """The estimator's expected gradient for tokens drawn from π, and those of the reverse and the forward KL."""
    found = []
    for loss in (
        lambda logits: kl_loss(logits.log_softmax(0), REFERENCE, LOGITS.softmax(0), estimator),  # type: ignore[arg-type]
        lambda logits: exact(logits, True),
        lambda logits: exact(logits, False),
    ):
        logits = LOGITS.clone().requires_grad_()
        loss(logits).backward()
        assert logits.grad is not None
        found.append(logits.grad)
    return found[0], found[1], found[2]


def test_k1_in_the_loss_is_noise() -> None:
    estimated, reverse, _ = gradients("k1")
    assert float(estimated.abs().max()) < 1e-15
    assert float(reverse.abs().max()) > 0.1


def test_k2_has_the_gradient_of_the_reverse_kl() -> None:
    estimated, reverse, forward = gradients("k2")
    torch.testing.assert_close(estimated, reverse, rtol=0, atol=1e-12)
    assert float((estimated - forward).abs().max()) > 0.05


def test_k3_has_the_gradient_of_the_forward_kl() -> None:
    estimated, reverse, forward = gradients("k3")
    torch.testing.assert_close(estimated, forward, rtol=0, atol=1e-12)
    assert float((estimated - reverse).abs().max()) > 0.05


def test_values_k1_and_k3_are_unbiased_and_k2_is_not() -> None:
    policy, kl = LOGITS.log_softmax(0), float(exact(LOGITS, True))
    means = {f.__name__: float((policy.exp() * f(policy, REFERENCE)).sum()) for f in (k1, k2, k3)}
    assert means["k1"] == pytest.approx(kl, abs=1e-12)
    assert means["k3"] == pytest.approx(kl, abs=1e-12)
    assert abs(means["k2"] - kl) > 0.01
    assert float(k3(policy, REFERENCE).min()) >= 0


@pytest.mark.parametrize("estimator", ["k1", "k2", "k3"])
def test_the_reference_is_not_trained_and_weights_count(estimator: str) -> None:
    draw = torch.Generator().manual_seed(0)
    logprobs, reference, weights = torch.rand(3, 6, dtype=torch.float64, generator=draw) - 1
    logprobs.requires_grad_()
    reference.requires_grad_()
    kl_loss(logprobs, reference, weights, estimator).backward()  # type: ignore[arg-type]
    ratio = (reference - logprobs).exp()
    closed = {"k1": torch.ones(6), "k2": logprobs - reference, "k3": 1 - ratio}[estimator]
    assert reference.grad is None
    assert logprobs.grad is not None
    torch.testing.assert_close(logprobs.grad, (weights * closed).detach(), rtol=0, atol=1e-12)


def test_k3_stays_finite_where_the_policy_gave_a_token_up() -> None:
    logprobs = torch.tensor([-300.0], requires_grad=True)
    loss = kl_loss(logprobs, torch.tensor([-0.1]), torch.ones(1), "k3")
    loss.backward()
    assert logprobs.grad is not None
    assert bool(loss.isfinite())
    assert bool(logprobs.grad.isfinite())
