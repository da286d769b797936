"""When a step steers, and its learning rate."""

import itertools

import pytest
import torch
from transformers import get_cosine_schedule_with_warmup

from sps.config import OptimiserSettings, SteeringSettings
from sps.schedule import learning_rate, steers


def steered(settings: SteeringSettings, steps: int = 12) -> list[int]:
    return [step for step in range(1, steps + 1) if steers(step, settings, None)]


def test_periodic_steering_alternates_after_the_warm_up() -> None:
    assert steered(SteeringSettings(coefficient=1)) == [2, 4, 6, 8, 10, 12]
    assert steered(SteeringSettings(coefficient=1, period=3)) == [3, 6, 9, 12]
    assert steered(SteeringSettings(coefficient=1, period=1, warmup=9)) == [10, 11, 12]
    assert steered(SteeringSettings(coefficient=1, period=4, warmup=3)) == [7, 11]


@pytest.mark.parametrize("trigger", ["periodic", "squeezing"])
def test_without_a_coefficient_nothing_is_steered(trigger: str) -> None:
    settings = SteeringSettings(trigger=trigger, period=1)
    assert not any(steers(step, settings, 1.0) for step in range(1, 9))


def test_squeezing_steers_while_the_top_share_is_above_the_bound() -> None:
    settings = SteeringSettings(coefficient=1, trigger="squeezing", bound=0.6, warmup=2)
    shares = [0.9, 0.9, 0.9, 0.6, None, 0.61, 0.2, 1.0]
    assert [steers(step, settings, share) for step, share in enumerate(shares, 1)] == [
        False, False, True, False, False, True, False, True,
    ]  # fmt: skip


def test_the_warm_up_is_linear_and_no_step_is_idle() -> None:
    settings = OptimiserSettings(learning_rate=8e-4, warmup=4)
    rates = [learning_rate(step, 10, settings) for step in range(1, 11)]
    assert rates == pytest.approx([2e-4, 4e-4, 6e-4, 8e-4] + [8e-4] * 6)


def test_the_cosine_is_transformers_own() -> None:
    steps, warmup = 20, 5
    settings = OptimiserSettings(learning_rate=3e-4, schedule="cosine", warmup=warmup)
    optimiser = torch.optim.SGD([torch.zeros(1)], lr=3e-4)
    schedule = get_cosine_schedule_with_warmup(optimiser, warmup, steps)
    theirs = []
    for _ in range(steps):
        theirs.append(schedule.get_last_lr()[0])
        optimiser.step()
        schedule.step()
    ours = [learning_rate(step, steps, settings) for step in range(1, steps + 1)]
    assert ours[warmup:] == pytest.approx(theirs[warmup:])
    assert ours[warmup - 1] == ours[warmup] == 3e-4
    assert all(later < earlier for earlier, later in itertools.pairwise(ours[warmup:]))
    assert ours[-1] > 0


def test_a_run_may_be_all_warm_up() -> None:
    settings = OptimiserSettings(learning_rate=1.0, schedule="cosine", warmup=10)
    assert [learning_rate(step, 4, settings) for step in (1, 4)] == pytest.approx([0.1, 0.4])
    assert learning_rate(10, 10, settings) == 1.0


@pytest.mark.parametrize("step", [0, 11, -1])
def test_a_step_outside_the_run_is_an_error(step: int) -> None:
    with pytest.raises(ValueError, match=f"step {step} is not among"):
        learning_rate(step, 10, OptimiserSettings())
