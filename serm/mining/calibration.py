"""One scale for all agents: the probability that the champion is wrong about a pair, given what agents say of it."""

from collections.abc import Mapping, Sequence

import numpy as np
import polars as pl
from numpy.typing import NDArray

PENALTY = 0.1  # of the stacked weights' squares, per label
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


def combined(
    united: pl.DataFrame, independent: pl.Series, history: pl.DataFrame, agents: Sequence[str], prior_labels: float
) -> pl.Series:
    """P(wrong) of pairs that one agent or more would take, all agents' say combined: (n,).

    Stacking (Wolpert, 1992): logistic regression, on the labels of earlier rounds, of every agent's value and of
    whether it took the pair. It learns which agents say the same, and what a value below an agent's threshold means.
    Its answer is blended with `independent`, n labels against `prior_labels`: without labels `independent` comes back
    (ours).

    Args:
        united: [agents, <agent>_value, ...] of the pairs at hand.
        independent: (n,) their `noisy_or`, as if agents erred independently.
        history: earlier rounds' pairs, columns as in `serm.mining.history.SCHEMA`.
        agents: those at work.
        prior_labels: the weight of `independent`, above 0.
    """
    known = history.filter(~pl.col("agents").list.contains("random"), pl.col("wrong").is_not_null())
    if known["wrong"].n_unique() < 2 or united.is_empty():
        return independent
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(C=1 / PENALTY, max_iter=1_000).fit(_say(known, agents), known["wrong"].to_numpy())
    trust = known.height / (known.height + prior_labels)
    chance = pl.Series(model.predict_proba(_say(united, agents))[:, 1])
    return trust * chance + (1 - trust) * independent


def _say(pairs: pl.DataFrame, agents: Sequence[str]) -> NDArray[np.float64]:
    """Each agent's value (0 where unknown), then whether it took the pair: (n, 2 x agents)."""
    values = [pl.col(f"{agent}_value").fill_null(0.0) for agent in agents]
    takes = [pl.col("agents").list.contains(agent).cast(pl.Float64).alias(agent) for agent in agents]
    return pairs.select(*values, *takes).to_numpy()
