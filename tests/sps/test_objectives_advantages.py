"""Advantages against their definitions, computed by brute force or by hand."""

import itertools
import statistics

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sps.config import ObjectiveSettings
from sps.objectives.advantages import equal_rewards, group_advantages, passk_advantages, soft_overlong

REWARDS = st.lists(st.floats(-10, 10).map(lambda value: round(value, 3)), min_size=1, max_size=9)


@given(REWARDS)
def test_standardised_and_centred_are_the_groups_own(rewards: list[float]) -> None:
    tensor, correct = torch.tensor(rewards, dtype=torch.float64), torch.zeros(len(rewards), dtype=torch.bool)
    mean, deviation = statistics.fmean(rewards), statistics.pstdev(rewards)
    centred = group_advantages(tensor, ObjectiveSettings(preset="dr_grpo"), correct)
    standardised = group_advantages(tensor, ObjectiveSettings(), correct)
    assert centred.tolist() == pytest.approx([r - mean for r in rewards], abs=1e-9)
    expected = [(r - mean) / deviation if deviation else 0.0 for r in rewards]
    assert standardised.tolist() == pytest.approx(expected, rel=1e-6, abs=1e-9)


@pytest.mark.parametrize("advantage", ["standardised", "centred", "passk"])
@pytest.mark.parametrize("rewards", [[1.0] * 4, [0.0] * 4, [0.7], [0.1 + 0.2, 0.3, 0.3], [-2e8] * 3])
def test_a_group_without_variance_has_exactly_no_advantage(advantage: str, rewards: list[float]) -> None:
    tensor = torch.tensor(rewards, dtype=torch.float64)
    settings = ObjectiveSettings(advantage=advantage, passk=2)
    assert equal_rewards(tensor)
    assert group_advantages(tensor, settings, tensor == 1.0).tolist() == [0.0] * len(rewards)


def test_small_but_real_differences_count() -> None:
    rewards = torch.tensor([1.0, 1.0 + 1e-6], dtype=torch.float64)
    assert not equal_rewards(rewards)
    advantages = group_advantages(rewards, ObjectiveSettings(), torch.ones(2, dtype=torch.bool))
    assert advantages.tolist() == pytest.approx([-1.0, 1.0])


@given(st.lists(st.booleans(), min_size=2, max_size=8), st.integers(1, 8))
def test_passk_is_the_mean_over_all_choices_of_k(correct: list[bool], k: int) -> None:
    """A completion's advantage is the mean of the standardised reward over the choices that hold it."""
    advantages = passk_advantages(torch.tensor(correct), k).tolist()
    choices = list(itertools.combinations(range(len(correct)), k))
    rewards = [float(any(correct[i] for i in choice)) for choice in choices]
    deviation = statistics.pstdev(rewards) if rewards else 0.0
    if deviation == 0:
        assert advantages == [0.0] * len(correct)
        return
    mean = statistics.fmean(rewards)
    for i, advantage in enumerate(advantages):
        own = [reward for choice, reward in zip(choices, rewards, strict=True) if i in choice]
        assert advantage == pytest.approx((statistics.fmean(own) - mean) / deviation, abs=1e-9)


def test_pass_at_1_is_grpo() -> None:
    correct = torch.tensor([True, False, False, True, False])
    passk = group_advantages(correct.double(), ObjectiveSettings(advantage="passk", passk=1), correct)
    torch.testing.assert_close(passk, group_advantages(correct.double(), ObjectiveSettings(), correct))


def test_passk_cares_less_for_a_problem_that_is_nearly_solved() -> None:
    """Where GRPO still gives right completions weight, Pass@k gives none once every choice holds a right one."""
    correct = torch.tensor([True] * 5 + [False] * 3)
    settings = ObjectiveSettings(preset="passk", passk=4)
    assert group_advantages(correct.float(), settings, correct).tolist() == [0.0] * 8


def test_signed_pushes_down_an_all_wrong_group() -> None:
    settings = ObjectiveSettings(preset="weighted_reinforce")
    rewards = torch.tensor([0.0, 0.0, 1.0])
    assert group_advantages(rewards, settings, rewards > 0).tolist() == pytest.approx([-1.0, -1.0, 0.1])
    assert group_advantages(rewards[:2], settings, rewards[:2] > 0).tolist() == [-1.0, -1.0]


def test_soft_overlong_is_the_papers_ramp() -> None:
    lengths = torch.tensor([1, 80, 85, 90, 100, 120])
    assert soft_overlong(lengths, max_tokens=100, ramp=20).tolist() == pytest.approx([0, 0, -0.25, -0.5, -1, -1])


def test_advantages_keep_the_rewards_type() -> None:
    rewards, correct = torch.tensor([0.0, 1.0, 1.0]), torch.tensor([False, True, True])
    for preset in ("grpo", "dr_grpo", "passk", "weighted_reinforce"):
        settings = ObjectiveSettings(preset=preset, passk=2)
        assert group_advantages(rewards, settings, correct).dtype == torch.float32
