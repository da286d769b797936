"""Shares of distinct correct solutions against hand computation, in exact probabilities."""

import math

import pytest
import torch

from sps.config import SteeringSettings
from sps.objectives.irl import Demonstrations
from sps.squeezing import squeezing_means, squeezing_sums

PLAIN = SteeringSettings(length_exponent=0.0)


def group(*rollouts: tuple[str, float, bool], clusters: list[int | None] | None = None) -> Demonstrations:
    texts, chances, correct = zip(*rollouts, strict=True)
    log_probs = torch.tensor([math.log(chance) for chance in chances], dtype=torch.float64)
    return Demonstrations(
        log_probs=log_probs,
        old_log_probs=log_probs,
        lengths=torch.tensor([len(text) for text in texts]),
        rewards=torch.tensor([float(right) for right in correct]),
        correct=torch.tensor(correct),
        clusters=clusters or [None] * len(texts),
        texts=texts,
    )


def test_share_and_effective_number_by_hand() -> None:
    # Correct and distinct: a 0.3, b 0.1, c 0.1, so shares 3/5, 1/5, 1/5; the second a and the wrong d do not count.
    one = group(("a", 0.3, True), ("b", 0.1, True), ("a", 0.3, True), ("c", 0.1, True), ("d", 0.4, False))
    found = squeezing_means(squeezing_sums([one], [["x", "y", "x", "y", "z"]], PLAIN))
    assert found["top_share"] == pytest.approx(0.6)
    assert found["effective_number"] == pytest.approx((5 / 3) ** 0.6 * 5**0.4)
    assert found["distinct_correct"] == 3
    assert found["distinct_keys"] == 2


def test_clusters_are_what_is_counted_as_one() -> None:
    one = group(("a", 0.3, True), ("b", 0.1, True), ("c", 0.1, True), clusters=[0, 1, 0])
    found = squeezing_means(squeezing_sums([one], [[None] * 3], PLAIN))
    assert found["top_share"] == pytest.approx(0.8)
    assert found["distinct_keys"] == 3  # without keys, texts


def test_the_length_exponent_of_steering_does_not_matter() -> None:
    one = group(("aaaa", 0.1, True), ("b", 0.1, True))
    found = squeezing_means(squeezing_sums([one], [[None] * 2], SteeringSettings(length_exponent=1.0)))
    assert found["top_share"] == pytest.approx(0.5)  # 0.1 a token, both


def test_hard_problems_are_not_squeezed_ones_and_repeated_ones_are() -> None:
    hard = group(("a", 0.1, True), ("b", 0.1, False))
    none = group(("a", 0.1, False), ("b", 0.1, False))
    repeated = group(("a", 0.9, True), ("a", 0.9, True))
    even = group(("a", 0.2, True), ("b", 0.2, True))
    found = squeezing_means(squeezing_sums([hard, none, repeated, even], [[None] * 2] * 4, PLAIN))
    assert found["top_share"] == pytest.approx((1 + 0.5) / 2)  # repeated and even alone
    assert found["effective_number"] == pytest.approx((1 + 2) / 2)
    assert found["distinct_correct"] == pytest.approx((1 + 0 + 1 + 2) / 4)


def test_the_support_is_the_correct_ones_whatever_is_steered() -> None:
    one = group(("a", 0.2, True), ("b", 0.2, True), ("c", 0.5, False))
    every = SteeringSettings(length_exponent=0.0, support="all")
    assert squeezing_means(squeezing_sums([one], [[None] * 3], every))["top_share"] == pytest.approx(0.5)


def test_sums_of_processes_add_up_and_nothing_measured_is_none() -> None:
    groups = [group(("a", 0.3, True), ("b", 0.1, True)), group(("a", 0.2, True), ("b", 0.2, True))]
    whole = squeezing_sums(groups, [[None] * 2] * 2, PLAIN)
    parts = [squeezing_sums([one], [[None] * 2], PLAIN) for one in groups]
    assert {name: parts[0][name] + parts[1][name] for name in whole} == pytest.approx(whole)
    nothing = squeezing_means(squeezing_sums([], [], PLAIN))
    assert set(nothing.values()) == {None}
