"""Who is a demonstration, what happens at the edges, and what the IRL loss does with its coefficients."""

import math
from collections.abc import Hashable

import pytest
import torch

from sps.config import SteeringSettings
from sps.objectives.irl import Demonstrations, irl_loss, steering_coefficients, support


def small(log_probs: list[float], correct: list[bool], clusters: list[Hashable | None], texts: str) -> Demonstrations:
    n = len(log_probs)
    values = torch.tensor(log_probs, dtype=torch.float64)
    return Demonstrations(
        values,
        values,
        torch.full((n,), 2),
        torch.tensor(correct).double(),
        torch.tensor(correct),
        clusters,
        list(texts),
    )


def test_equal_texts_are_one_demonstration_the_first() -> None:
    twice = small([-1.0, -4.0, -1.0, -3.0], [True] * 4, [None] * 4, "abac")
    once = small([-1.0, -4.0, -3.0], [True] * 3, [None] * 3, "abc")
    found, expected = (steering_coefficients(d, SteeringSettings()) for d in (twice, once))
    a, b, again, c = found.coefficients.tolist()
    assert again == 0
    assert [a, b, c] == pytest.approx(expected.coefficients.tolist())
    assert found.distinct == 3
    assert support(twice, SteeringSettings()) == [0, 1, 3]


def test_a_wrong_completion_does_not_stand_for_a_right_one_of_the_same_text() -> None:
    given = small([-1.0, -4.0, -1.0], [False, True, True], [None] * 3, "aba")
    assert support(given, SteeringSettings()) == [1, 2]
    assert support(given, SteeringSettings(support="all")) == [0, 1]


@pytest.mark.parametrize(
    ("correct", "clusters", "texts", "distinct"),
    [
        ([False] * 3, [None] * 3, "abc", 0),
        ([True, False, False], [None] * 3, "abc", 1),
        ([True] * 3, [None] * 3, "aaa", 1),
        ([True] * 3, ["k"] * 3, "abc", 1),
    ],
    ids=["none right", "one right", "equal texts", "one cluster"],
)
def test_without_two_to_weigh_nothing_is_steered(
    correct: list[bool], clusters: list[Hashable | None], texts: str, distinct: int
) -> None:
    steering = steering_coefficients(small([-1.0, -2.0, -3.0], correct, clusters, texts), SteeringSettings())
    assert steering.coefficients.tolist() == [0.0] * 3
    assert not steering.steered
    assert (steering.kl, steering.distinct, steering.top_share) == (0.0, distinct, float(distinct))
    assert steering.effective == float(distinct)


def test_a_cluster_named_like_a_position_is_not_that_position() -> None:
    steering = steering_coefficients(small([-1.0, -2.0, -3.0], [True] * 3, [None, 0, 1], "abc"), SteeringSettings())
    assert steering.distinct == 3


def test_very_unlikely_completions_stay_exact() -> None:
    """Long completions have probabilities that underflow; only their differences count."""
    settings = SteeringSettings(length_exponent=0.0, alpha=1.0)
    near = steering_coefficients(small([-1.0, -2.5, -3.0], [True] * 3, [None, "k", "k"], "abc"), settings)
    far = steering_coefficients(small([-9001.0, -9002.5, -9003.0], [True] * 3, [None, "k", "k"], "abc"), settings)
    assert far.coefficients.tolist() == pytest.approx(near.coefficients.tolist(), abs=1e-9)
    hopeless = steering_coefficients(small([-1.0, -9000.0], [True] * 2, [None] * 2, "ab"), SteeringSettings())
    assert bool(hopeless.coefficients.isfinite().all())
    assert hopeless.coefficients.tolist() == pytest.approx([0.5, -0.5])
    assert math.isfinite(hopeless.kl)


def test_old_log_probs_may_be_unknown_where_alpha_is_zero() -> None:
    given = small([-1.0, -2.0], [True] * 2, [None] * 2, "ab")
    unknown = Demonstrations(**(vars(given) | {"old_log_probs": torch.full((2,), math.nan)}))
    assert bool(steering_coefficients(unknown, SteeringSettings()).coefficients.isfinite().all())


def test_coefficients_are_constants() -> None:
    """The gradient goes through the scores alone, never through p."""
    given = small([-1.0, -2.0], [True] * 2, [None] * 2, "ab")
    attached = Demonstrations(**(vars(given) | {"log_probs": given.log_probs.clone().requires_grad_()}))
    assert not steering_coefficients(attached, SteeringSettings()).coefficients.requires_grad


def test_a_completion_without_tokens_is_an_error() -> None:
    given = small([-1.0, -2.0], [True] * 2, [None] * 2, "ab")
    empty = Demonstrations(**(vars(given) | {"lengths": torch.tensor([3, 0])}))
    with pytest.raises(ValueError, match="without tokens"):
        steering_coefficients(empty, SteeringSettings())


def test_float32_gradients_are_within_a_millionth() -> None:
    coefficients = torch.tensor([0.4, -0.1, -0.3], dtype=torch.float64)
    lengths = torch.tensor([3, 700, 2])
    sequence = torch.repeat_interleave(torch.arange(3), lengths)
    logprobs = torch.full((705,), -1.5, requires_grad=True)
    irl_loss(logprobs, sequence, coefficients, lengths, 1.0, 16).backward()
    expected = [c / n / 16 for c, n in zip(coefficients.tolist(), lengths.tolist(), strict=True) for _ in range(n)]
    assert logprobs.grad is not None
    assert logprobs.grad.tolist() == pytest.approx(expected, rel=1e-6)


def test_a_step_that_steers_no_prompt_has_no_irl_loss() -> None:
    logprobs = torch.full((4,), -1.0, requires_grad=True)
    loss = irl_loss(logprobs, torch.zeros(4, dtype=torch.int64), torch.zeros(1), torch.tensor([4]), 1.0, 0)
    loss.backward()
    assert float(loss) == 0
    assert logprobs.grad is not None
    assert logprobs.grad.tolist() == [0.0] * 4
    with pytest.raises(ValueError, match="normaliser of 0"):
        irl_loss(logprobs, torch.zeros(4, dtype=torch.int64), torch.ones(1), torch.tensor([4]), 1.0, 0)
