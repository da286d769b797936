"""What the relevance model says of candidates: scores once for all, sampled judgments for those worth their cost."""

from collections.abc import Sequence

import numpy as np
import polars as pl
from numpy.typing import NDArray

from serm.relevance.model import RelevanceModel, expected_label


def entropy(probabilities: NDArray[np.float32]) -> NDArray[np.float64]:
    """MU(q, d) = -sum_y Pr(y | q, d) log Pr(y | q, d) (SERM, uncertainty agent), in nats: (n, |Y|) -> (n,)."""
    p = np.asarray(probabilities, dtype=np.float64)
    return -(p * np.log(np.clip(p, 1e-300, None))).sum(axis=1)


def share_of_scale(scores: pl.Expr, scale: Sequence[int]) -> pl.Expr:
    """A score on the label scale as a share of its range, 0..1."""
    return ((scores - scale[0]) / (scale[-1] - scale[0])).clip(0, 1)


def with_logged_scores(candidates: pl.DataFrame, scale: Sequence[int]) -> pl.DataFrame:
    """Add score and level (score as a share of the scale) from the log's mean score.

    Raises:
        ValueError: the window's impressions carry no score at all.
    """
    if candidates.height and candidates["logged"].null_count() == candidates.height:
        raise ValueError(
            "impressions: column 'score' is null throughout the window; log scores there, or set mining.scores=model"
        )
    return candidates.with_columns(score=pl.col("logged"), level=share_of_scale(pl.col("logged"), scale))


def with_model_scores(candidates: pl.DataFrame, model: RelevanceModel) -> pl.DataFrame:
    """Add score f(q, d), level, probabilities (an array column) and entropy; `candidates` has `text`."""
    probabilities = model.probabilities(candidates["query"].to_list(), candidates["text"].to_list())
    return candidates.with_columns(
        pl.Series("score", expected_label(probabilities, model.scale), dtype=pl.Float64),
        pl.Series("probabilities", probabilities, dtype=pl.Array(pl.Float64, len(model.scale))),
        pl.Series("entropy", entropy(probabilities), dtype=pl.Float64),
    ).with_columns(level=share_of_scale(pl.col("score"), model.scale))


def with_judgments(candidates: pl.DataFrame, model: RelevanceModel, passes: int, limit: int, seed: int) -> pl.DataFrame:
    """Add lowest and highest of K sampled judgments for the most uncertain half, `limit` pairs at most; null elsewhere.

    K passes cost K scorings, and passes over a pair that the model is sure of hardly ever differ (ours).
    """
    number = min(limit, -(-candidates.height // 2))
    chosen = (
        candidates.with_row_index("row")
        .sort("entropy", "row", descending=[True, False])
        .head(number)
        .sort("row")
    )  # fmt: skip
    low = np.full(candidates.height, np.nan)
    high = np.full(candidates.height, np.nan)
    if number:
        judgments = model.judgments(chosen["query"].to_list(), chosen["text"].to_list(), passes, seed)  # (number, K)
        rows = chosen["row"].to_numpy()
        low[rows], high[rows] = judgments.min(axis=1), judgments.max(axis=1)
    return candidates.with_columns(pl.Series("lowest", low).fill_nan(None), pl.Series("highest", high).fill_nan(None))
