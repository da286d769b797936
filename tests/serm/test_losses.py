"""Losses on label distributions, and what pairs become, against closed forms and scipy."""

import numpy as np
import polars as pl
import pytest
import torch
from scipy.stats import wasserstein_distance

from serm.relevance.examples import examples_of
from serm.relevance.losses import label_losses, ordinal_losses

RNG = np.random.default_rng(0)
PROBABILITIES, TARGETS = RNG.dirichlet(np.ones(4), 20), RNG.dirichlet(np.ones(4), 20)


def log(values: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(values).log()


def test_soft_labels_cost_the_divergence_up_to_the_entropy() -> None:
    losses = label_losses(log(PROBABILITIES), torch.from_numpy(TARGETS), torch.zeros(20, dtype=torch.bool))
    divergence = (TARGETS * np.log(TARGETS / PROBABILITIES)).sum(axis=1)
    entropy = -(TARGETS * np.log(TARGETS)).sum(axis=1)
    np.testing.assert_allclose(losses, divergence + entropy, rtol=1e-9)


def test_at_a_one_hot_target_both_kinds_are_equal() -> None:
    targets = torch.eye(4, dtype=torch.float64)[RNG.integers(0, 4, 20)]
    kinds = [label_losses(log(PROBABILITIES), targets, torch.full((20,), seen)) for seen in (False, True)]
    torch.testing.assert_close(*kinds)


def test_the_ordinal_loss_is_the_area_between_two_cumulative_distributions_squared() -> None:
    scale = [0, 5, 10, 12]
    losses = ordinal_losses(log(PROBABILITIES), torch.from_numpy(TARGETS), scale)
    steps = np.linspace(0, 12, 12_001)[:-1]
    for loss, chances, target in zip(losses, PROBABILITIES, TARGETS, strict=True):
        apart = sum((p - t) * (steps >= y) for p, t, y in zip(chances, target, scale, strict=True))
        assert float(loss) == pytest.approx((apart**2).mean(), abs=1e-6)
    # Of one-hot targets it grows with the distance, as the earth mover's distance itself does.
    sure = np.full((3, 4), 1e-9) + np.eye(4)[[1, 2, 3]]
    values = ordinal_losses(log(sure), torch.eye(4, dtype=torch.float64)[[0, 0, 0]], scale)
    expected = [wasserstein_distance(scale, scale, row, np.eye(4)[0]) / 12 for row in sure]
    np.testing.assert_allclose(values, expected, atol=1e-6)


def test_for_two_labels_the_ordinal_loss_is_the_brier_score() -> None:
    chance, truth = RNG.random(9), RNG.integers(0, 2, 9)
    losses = ordinal_losses(
        log(np.stack([1 - chance, chance], axis=1)), torch.eye(2, dtype=torch.float64)[truth], [0, 1]
    )
    np.testing.assert_allclose(losses, (chance - truth) ** 2, rtol=1e-9)


def test_balance_gives_every_label_the_same_weight_in_all() -> None:
    pairs = pl.DataFrame({"query": "q", "text": "t", "label": [0] * 6 + [1] * 3 + [3], "weight": [2.0] * 6 + [1.0] * 4})
    for power in (0.0, 0.5, 1.0):
        examples = examples_of(pairs, [0, 1, 2, 3], balance=power)
        totals = examples.weights @ examples.targets
        shares = np.array([12, 3, 1])
        expected = shares ** (1 - power)
        np.testing.assert_allclose(totals[[0, 1, 3]], expected * 16 / expected.sum(), rtol=1e-5)
        assert totals[2] == 0
