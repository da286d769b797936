"""What a model learns from: target distributions over the label scale, weights and rationales, as aligned columns."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray

SUM_TOLERANCE = 1e-3  # of a posterior's sum: it went through JSON and float32 on its way


class TrainingError(RuntimeError):
    """Training cannot go on; the model in charge is untouched."""


@dataclass(frozen=True)
class Examples:
    """Aligned rows of one training set.

    Attributes:
        queries, documents: texts, n of each.
        targets: (n, |Y|) float32. A row is a distribution over the labels, or, where `seen` is true, the likelihood
            P(the label that was seen | y) of every true label y.
        weights: (n,) float32, above 0.
        seen: (n,) boolean.
        rationales: why, in words; "" where nothing was said. Cross-encoders pass over them.
    """

    queries: list[str]
    documents: list[str]
    targets: NDArray[np.float32]
    weights: NDArray[np.float32]
    seen: NDArray[np.bool_]
    rationales: list[str]

    def tensors(self, rows: Sequence[int], device: torch.device) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Targets, `seen` and weights of some rows."""
        targets, seen, weights = (
            torch.from_numpy(column[rows]).to(device) for column in (self.targets, self.seen, self.weights)
        )
        return targets, seen, weights


def examples_of(
    pairs: pl.DataFrame, scale: Sequence[int], confusion: NDArray[np.float64] | None = None, balance: float = 0.0
) -> Examples:
    """Examples of pairs [query, text, label, weight] and, where they are there, [agreed, posterior, rationale].

    A pair's target is its `posterior` over the scale where it has one, else its label. With `confusion` (|Y|, |Y|),
    the annotators' P(label | truth), labels that are `agreed` and without a posterior become likelihoods: the forward
    correction of Patrini et al. (2017), so that a label that errs at a known rate cannot overrule what the model is
    sure of (ours to use it here). Pairs of weight 0 are left out.

    Args:
        balance: 0 to 1; weights are multiplied by the label's frequency to the power −balance, with mean 1: at 1
            all labels weigh the same in all.

    Raises:
        TrainingError: there are no pairs, all weights are 0, or a label, weight or posterior cannot be used.
    """
    if pairs.is_empty():
        raise TrainingError("no pairs to learn from")
    index = {label: position for position, label in enumerate(scale)}
    unknown = set(pairs["label"].unique()) - set(index)
    if unknown:
        raise TrainingError(f"labels off the scale {list(scale)}: {sorted(unknown, key=str)}; mend labels.scale")
    weights = pairs["weight"].to_numpy().astype(np.float64)
    if not np.isfinite(weights).all() or (weights < 0).any():
        row = int(np.flatnonzero(~(np.isfinite(weights) & (weights >= 0)))[0])
        raise TrainingError(f"weight {weights[row]} of query {pairs['query'][row]!r}: give a number of at least 0")
    if not weights.any():
        raise TrainingError("the weights of all pairs are 0; raise one of update's weights")
    pairs, weights = pairs.filter(pl.Series(weights > 0)), weights[weights > 0]
    labels = np.array([index[label] for label in pairs["label"]])
    targets = np.eye(len(index))[labels]
    posterior = _posteriors(pairs, len(index))
    known = np.isfinite(posterior[:, 0])
    targets[known] = posterior[known]
    weights = weights * _balance(targets, weights, balance)
    seen = np.zeros(len(labels), dtype=bool)
    if confusion is not None:
        seen = pairs["agreed"].to_numpy() & ~known
        targets[seen] = confusion[:, labels[seen]].T
    rationales = pairs["rationale"].fill_null("").to_list() if "rationale" in pairs.columns else [""] * len(labels)
    return Examples(
        pairs["query"].to_list(), pairs["text"].to_list(), targets.astype(np.float32), weights.astype(np.float32),
        seen, rationales,
    )  # fmt: skip


def _posteriors(pairs: pl.DataFrame, classes: int) -> NDArray[np.float64]:
    """P(y) of the pairs that have one, rows that sum to 1; NaN for the others: (n, |Y|)."""
    result = np.full((pairs.height, classes), np.nan)
    if "posterior" not in pairs.columns:
        return result
    rows = pairs["posterior"].is_not_null().arg_true()
    given = pairs["posterior"].drop_nulls()
    wrong = given.list.len() != classes
    if not wrong.any() and len(given):
        values = np.stack(given.to_list()).astype(np.float64)
        sums = values.sum(axis=1)
        wrong = pl.Series(~(np.isfinite(sums) & (values.min(axis=1) >= 0) & (np.abs(sums - 1) < SUM_TOLERANCE)))
        if not wrong.any():
            result[rows.to_numpy()] = values / sums[:, None]
    if wrong.any():
        row = int(rows[int(wrong.arg_true()[0])])
        raise TrainingError(
            f"query {pairs['query'][row]!r}: posterior {pairs['posterior'][row].to_list()} is no distribution over "
            f"{classes} labels; annotate the pair again, or leave posteriors out: update.soft_labels=false"
        )
    return result


def _balance(targets: NDArray[np.float64], weights: NDArray[np.float64], power: float) -> NDArray[np.float64]:
    """Factors by label frequency, whose weighted mean is 1: (n,)."""
    shares = weights @ targets / weights.sum()
    factors = targets @ np.where(shares > 0, np.maximum(shares, 1e-12) ** -power, 0.0)
    return np.asarray(factors * weights.sum() / (factors @ weights))
