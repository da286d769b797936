"""The clipped policy gradient against loops in plain Python, and its figures."""

import math

import pytest
import torch

from sps.config import ObjectiveSettings
from sps.objectives.policy_gradient import LossInputs, policy_loss

LENGTHS = [4, 1, 6, 3, 5]


def inputs(seed: int = 0, spread: float = 0.4) -> LossInputs:
    draw = torch.Generator().manual_seed(seed)
    size, lengths = sum(LENGTHS), torch.tensor(LENGTHS)
    sequence = torch.repeat_interleave(torch.arange(len(LENGTHS)), lengths)
    old = -2 * torch.rand(size, dtype=torch.float64, generator=draw) - 0.1
    noise = torch.randn(4, size, dtype=torch.float64, generator=draw)
    advantages = torch.randn(len(LENGTHS), dtype=torch.float64, generator=draw)[sequence]
    logprobs = (old + spread * noise[0]).requires_grad_()
    weights = noise[2].abs()
    return LossInputs(logprobs, old, old + noise[1], advantages, sequence, len(LENGTHS), weights)


def by_hand(given: LossInputs, settings: ObjectiveSettings, cap: float | None) -> tuple[float, list[float], int]:
    """The loss, its gradient by closed form, and how many tokens were clipped; one token after another."""
    logprobs, old, sampler = (t.tolist() for t in (given.logprobs, given.old_logprobs, given.sampler_logprobs))
    advantages, weights, rows = given.advantages.tolist(), given.weights.tolist(), given.sequence.tolist()
    members = {row: [t for t in range(len(rows)) if rows[t] == row] for row in rows}
    loss, gradient, clipped = 0.0, [0.0] * len(rows), 0
    for t, row in enumerate(rows):
        shared = members[row] if settings.ratio == "sequence" else [t]
        ratio = math.prod(math.exp(logprobs[u] - old[u]) for u in shared) ** (1 / len(shared))
        importance = math.prod(math.exp(old[u] - sampler[u]) for u in shared) ** (1 / len(shared))
        factor = 1.0 if cap is None else min(importance, cap)
        low, high, advantage = 1 - settings.clip_low, 1 + settings.clip_high, advantages[t]
        if (advantage > 0 and ratio > high) or (advantage < 0 and ratio < low):
            loss -= weights[t] * factor * advantage * (high if advantage > 0 else low)
            clipped += 1
            continue
        loss -= weights[t] * factor * advantage * ratio
        for u in shared:
            gradient[u] -= weights[t] * factor * advantage * ratio / len(shared)
    return loss, gradient, clipped


@pytest.mark.parametrize("cap", [None, 1.3])
@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize(
    "settings",
    [
        ObjectiveSettings(),
        ObjectiveSettings(preset="dapo"),
        ObjectiveSettings(preset="gspo", clip_low=0.02, clip_high=0.1),
    ],
    ids=["grpo", "dapo", "gspo"],
)
def test_loss_and_gradient_are_those_worked_by_hand(settings: ObjectiveSettings, seed: int, cap: float | None) -> None:
    given = inputs(seed)
    out = policy_loss(given, settings, cap)
    out.loss.backward()
    loss, gradient, clipped = by_hand(given, settings, cap)
    assert 0 < clipped < sum(LENGTHS)
    assert float(out.loss) == pytest.approx(loss, abs=1e-9)
    assert given.logprobs.grad is not None
    assert given.logprobs.grad.tolist() == pytest.approx(gradient, abs=1e-9)


def test_float32_is_within_a_millionth_of_float64() -> None:
    double = inputs()
    single = LossInputs(
        double.logprobs.detach().float().requires_grad_(),
        double.old_logprobs.float(),
        double.sampler_logprobs.float(),
        double.advantages.float(),
        double.sequence,
        double.rows,
        double.weights.float(),
    )
    for given in (double, single):
        policy_loss(given, ObjectiveSettings(preset="dapo"), 2.0).loss.backward()
    assert double.logprobs.grad is not None
    assert single.logprobs.grad is not None
    torch.testing.assert_close(single.logprobs.grad.double(), double.logprobs.grad, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("ratio", ["token", "sequence"])
def test_on_policy_it_is_reinforce(ratio: str) -> None:
    """With ratio 1 the gradient at a token is -w A, whatever the clip; with a completion's ratio w is its mean."""
    given = inputs(spread=0.0)
    policy_loss(given, ObjectiveSettings(ratio=ratio), None).loss.backward()
    weights = given.weights
    if ratio == "sequence":
        means = torch.tensor([part.mean() for part in weights.split(LENGTHS)], dtype=torch.float64)
        weights = means[given.sequence]
    assert given.logprobs.grad is not None
    torch.testing.assert_close(given.logprobs.grad, -weights * given.advantages)


def test_figures_are_means_over_tokens() -> None:
    given, settings = inputs(), ObjectiveSettings()
    out = policy_loss(given, settings, 1.3)
    weights = given.weights.tolist()
    old, sampler, advantages = (t.tolist() for t in (given.old_logprobs, given.sampler_logprobs, given.advantages))
    ratio = [math.exp(a - b) for a, b in zip(given.logprobs.tolist(), old, strict=True)]
    importance = [math.exp(a - b) for a, b in zip(old, sampler, strict=True)]
    clipped = [(a > 0 and r > 1.2) or (a < 0 and r < 0.8) for a, r in zip(advantages, ratio, strict=True)]
    capped = [c > 1.3 for c in importance]
    total = sum(weights)
    assert any(capped)
    assert not all(capped)
    figures: dict[str, list[float]] = {
        "ratio": ratio, "importance": importance, "clipped": [*map(float, clipped)], "capped": [*map(float, capped)]
    }  # fmt: skip
    for name, values in figures.items():
        mean = sum(w * v for w, v in zip(weights, values, strict=True)) / total
        assert float(out.sums[name] / out.sums["weight"]) == pytest.approx(mean), name
    assert float(out.maxima["ratio"]) == pytest.approx(max(ratio))
    assert float(out.maxima["importance"]) == pytest.approx(max(importance))
    assert not any(value.requires_grad for value in (*out.sums.values(), *out.maxima.values()))


def test_no_correction_still_measures_importance() -> None:
    given = inputs()
    none, never = policy_loss(given, ObjectiveSettings(), None), policy_loss(given, ObjectiveSettings(), 1e9)
    assert float(none.sums["importance"]) == pytest.approx(float(never.sums["importance"]))
    assert float(none.sums["capped"]) == 0
    assert float(none.loss) != pytest.approx(float(never.loss))


def test_a_token_of_no_weight_does_nothing_even_far_off_policy() -> None:
    given = inputs()
    far = given.logprobs.detach().clone().float()
    far[0] = 500.0  # exp of it is infinite in float32
    weights = given.weights.float()
    weights[0] = 0.0
    far.requires_grad_()
    old, sampler, advantages = given.old_logprobs.float(), given.sampler_logprobs.float(), given.advantages.float()
    changed = LossInputs(far, old, sampler, advantages, given.sequence, given.rows, weights)
    out = policy_loss(changed, ObjectiveSettings(), 2.0)
    out.loss.backward()
    assert far.grad is not None
    assert bool(far.grad.isfinite().all())
    assert float(far.grad[0]) == 0
    assert float(out.maxima["ratio"]) < 100
