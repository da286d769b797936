"""What every click model can do, the integer-coded columns it is fitted on, and how its fit is judged."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import polars as pl
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Codes = NDArray[np.int64]

COLUMNS = ("ts", "session", "query", "doc_id", "position", "clicked")


class ClickModel(Protocol):
    """Click probabilities taken apart into what the place gave and what the document earned."""

    def attractiveness(self, pairs: pl.DataFrame) -> pl.Series:
        """P(click | examined) of each row (query, doc_id), 0..1; the prior's mean for a pair that was never shown."""
        ...

    def examination(self) -> pl.DataFrame:
        """P(examined) at each position of the log that was fitted: position, examination."""
        ...

    def predict(self, impressions: pl.DataFrame) -> pl.Series:
        """P(click) of each row before any click of its list is known."""
        ...

    def log_likelihood(self, impressions: pl.DataFrame) -> float:
        """The natural logarithm of the probability of all these clicks."""
        ...


@dataclass(frozen=True)
class Perplexity:
    """2 to the cross-entropy of clicks, in bits: 1 is a perfect forecast, 2 a coin's."""

    overall: float
    per_rank: pl.DataFrame  # position, perplexity, impressions


def perplexity(model: ClickModel, impressions: pl.DataFrame) -> Perplexity:
    """How well `model.predict` foretells the clicks; overall over rows, and at each position.

    Raises:
        ValueError: there are no impressions.
    """
    chance = np.clip(model.predict(impressions).to_numpy(), 1e-12, 1 - 1e-12)
    bits = -np.log2(np.where(checked(impressions)["clicked"].to_numpy(), chance, 1 - chance))
    per_rank = (
        impressions.select("position", pl.Series("bits", bits))
        .group_by("position")
        .agg(perplexity=2 ** pl.col("bits").mean(), impressions=pl.len())
        .sort("position")
    )
    return Perplexity(float(2 ** bits.mean()), per_rank)


def checked(impressions: pl.DataFrame) -> pl.DataFrame:
    """The impressions, if a click model can read them.

    Raises:
        ValueError: a column is absent or has nulls, a position is below 1, or there are no rows.
    """
    for column in COLUMNS:
        if column not in impressions.columns:
            raise ValueError(f"impressions: column {column!r} is absent; click models need {', '.join(COLUMNS)}")
        if impressions[column].null_count():
            raise ValueError(f"impressions: column {column!r} holds nulls; drop those rows first")
    if impressions.is_empty():
        raise ValueError("impressions: no rows, so there is nothing to learn clicks from; ingest a log first")
    if (impressions["position"] < 1).any():
        raise ValueError("impressions: a position is below 1; the top result has position 1")
    return impressions


@dataclass(frozen=True)
class Pairs:
    """The pairs a model was fitted on, in order of query and document; `codes` turns rows into their numbers."""

    table: pl.DataFrame  # query, doc_id, pair (0..n-1)

    @staticmethod
    def of(impressions: pl.DataFrame) -> "Pairs":
        """Number the distinct pairs."""
        return Pairs(impressions.select("query", "doc_id").unique().sort("query", "doc_id").with_row_index("pair"))

    @property
    def size(self) -> int:
        """How many there are."""
        return self.table.height

    def codes(self, rows: pl.DataFrame) -> Codes:
        """The number of each row's pair; `size` for a pair that is not there."""
        keys = rows.select("query", "doc_id")
        joined = keys.join(self.table, on=["query", "doc_id"], how="left", maintain_order="left")
        return joined["pair"].fill_null(self.size).cast(pl.Int64).to_numpy()


def sums(pair: Codes, weights: Floats, size: int) -> Floats:
    """Sum of `weights` per pair; shape (size,)."""
    return np.bincount(pair, weights, size).astype(np.float64)


def shrunk(successes: Floats, trials: Floats, prior: tuple[float, float]) -> Floats:
    """Posterior mean of a rate under a Beta prior of (pseudo-successes, pseudo-failures)."""
    return (successes + prior[0]) / (trials + prior[0] + prior[1])
