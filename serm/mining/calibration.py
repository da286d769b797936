"""One scale for all agents: the probability that the champion is wrong about a pair, given an agent's value for it."""

from collections.abc import Mapping

import numpy as np
import polars as pl
from numpy.typing import NDArray

UNKNOWN = 0.5  # the mean of rank strengths, and so what an agent's precision is taken for before there are labels


def chances(
    value: NDArray[np.float64],
    strength: NDArray[np.float64],
    seen: NDArray[np.float64],
    wrong: NDArray[np.bool_],
    prior_labels: float,
    mean: float = UNKNOWN,
) -> NDArray[np.float64]:
    """P(wrong | value), rising with the value, of the pairs that an agent would take: (n,).

    Isotonic regression (Barlow et al., 1972; scikit-learn) of the labels that earlier rounds found, shrunk to a prior:
    the pairs at hand join it with their rank strength 1 - r / (n + 1), scaled to `mean`, as if it were their label,
    and weigh `prior_labels` labels together. Without labels the strengths themselves come back; with many the prior
    fades, but for values beyond all that was labelled (ours).

    Args:
        value: (n,) the agent's values of the pairs at hand.
        strength: (n,) their rank strengths, which rise with the value and are a half in the mean.
        seen, wrong: (m,) the agent's values of labelled pairs, and whether the champion had them wrong.
        prior_labels: the prior's weight, above 0.
        mean: what share of its pairs the agent gets right; see `mean_chance`.
    """
    if not len(seen) or not len(value):
        return strength
    from sklearn.isotonic import IsotonicRegression

    prior = np.minimum(1.0, strength * mean / UNKNOWN)
    weights = np.concatenate([np.full(len(value), prior_labels / len(value)), np.ones(len(seen))])
    curve = IsotonicRegression(y_min=0.0, y_max=1.0, out_of_bounds="clip")
    curve.fit(np.concatenate([value, seen]), np.concatenate([prior, wrong.astype(np.float64)]), weights)
    return np.asarray(curve.predict(value))


def labelled_values(history: pl.DataFrame, agent: str) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """The agent's values of labelled pairs, and whether the champion had them wrong: (m,), (m,).

    Of its own pairs and the random ones. What only others took says nothing of the agent: they took it for being
    wrong, whatever its value here.
    """
    own = pl.col("agents").list.contains(agent) | pl.col("agents").list.contains("random")
    known = history.filter(own).select(f"{agent}_value", "wrong").drop_nulls()
    return known[f"{agent}_value"].to_numpy(), known["wrong"].to_numpy()


def mean_chance(history: pl.DataFrame, agent: str, prior_labels: float) -> float:
    """The share of an agent's labelled pairs that were wrong, shrunk to a half by `prior_labels` imagined labels."""
    own = history.filter(pl.col("agents").list.contains(agent))["wrong"]
    return float((int(own.sum()) + UNKNOWN * prior_labels) / (own.count() + prior_labels))


def noisy_or(chance: Mapping[str, pl.Expr]) -> pl.Expr:
    """1 - prod_a (1 - p_a) over agents, in 0..1."""
    missed = pl.lit(1.0)
    for expression in chance.values():
        missed = missed * (1 - expression)
    return 1 - missed
