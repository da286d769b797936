"""What every click model can do, and the integer-coded pairs it is fitted on."""

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import polars as pl
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Codes = NDArray[np.int64]

COLUMNS = ("ts", "session", "query", "doc_id", "position", "clicked")
SMALLEST = 1e-9  # the least chance that a model gives to anything: what it holds impossible costs 20.7 nats, not all


class ClickModel(Protocol):
    """Click probabilities taken apart into what the place gave and what the document earned.

    A gap in a list (positions that were not logged) is crossed as if nothing there could be clicked.
    """

    @property
    def name(self) -> str:
        """As in the setting `clicks.model`."""
        ...

    def attractiveness(self, pairs: pl.DataFrame) -> pl.Series:
        """P(click | examined) of each row (query, doc_id), 0..1; the prior's mean for a pair that was never shown."""
        ...

    def examination(self) -> pl.DataFrame:
        """P(examined) at each position, mean over the log that was fitted: position, examination."""
        ...

    def examined(self, impressions: pl.DataFrame) -> pl.Series:
        """P(examined | the other clicks of its list, not attracted) of each row, 0..1.

        The h for which a skip has likelihood proportional to 1 - alpha * h in the row's own alpha, all else given.
        """
        ...

    def predict(self, impressions: pl.DataFrame) -> pl.Series:
        """P(click) of each row before any click of its list is known."""
        ...

    def predict_conditional(self, impressions: pl.DataFrame) -> pl.Series:
        """P(click | the clicks above it in its list) of each row."""
        ...

    def log_likelihood(self, impressions: pl.DataFrame) -> float:
        """The natural logarithm of the probability of all these clicks: the chain rule over `predict_conditional`."""
        ...

    def save(self, folder: Path) -> None:
        """Write the model into a new folder, whole or not at all; `serm.clicks.load` reads it.

        Raises:
            ValueError: something is in the way.
        """
        ...


def chain_rule(conditional: pl.Series, clicked: pl.Series) -> float:
    """The sum over rows of log P(what happened | the clicks above); chances are kept within 1e-9 and 1 - 1e-9."""
    chance = np.clip(conditional.to_numpy(), SMALLEST, 1 - SMALLEST)
    return float(np.log(np.where(clicked.to_numpy(), chance, 1 - chance)).sum())


def checked(impressions: pl.DataFrame) -> pl.DataFrame:
    """The impressions, if a click model can read them.

    Raises:
        ValueError: a column is absent or has nulls, a position is below 1, or there are no rows.
    """
    demand_columns(impressions.columns)
    for column in COLUMNS:
        if impressions[column].null_count():
            raise ValueError(f"impressions: column {column!r} holds nulls; drop those rows first")
    if impressions.is_empty():
        raise ValueError("impressions: no rows, so there is nothing to learn clicks from; ingest a log first")
    if (impressions["position"] < 1).any():
        raise ValueError("impressions: a position is below 1; the top result has position 1")
    return impressions


def demand_columns(present: list[str]) -> None:
    """Refuse a log that lacks a column.

    Raises:
        ValueError: it does.
    """
    for column in COLUMNS:
        if column not in present:
            raise ValueError(f"impressions: column {column!r} is absent; click models need {', '.join(COLUMNS)}")


@dataclass(frozen=True)
class Pairs:
    """The pairs a model was fitted on, in order of query and document; `codes` turns rows into their numbers."""

    table: pl.DataFrame  # query, doc_id, pair (0..n-1)

    @staticmethod
    def of(impressions: pl.DataFrame | pl.LazyFrame) -> "Pairs":
        """Number the distinct pairs; memory is that of the pairs."""
        found = impressions.lazy().select("query", "doc_id").unique().collect(engine="streaming")
        return Pairs(found.sort("query", "doc_id").with_row_index("pair").select("query", "doc_id", "pair"))

    @property
    def size(self) -> int:
        """How many there are."""
        return self.table.height

    def codes(self, rows: pl.DataFrame) -> Codes:
        """The number of each row's pair; `size` for a pair that is not there."""
        keys = rows.select("query", "doc_id")
        joined = keys.join(self.table, on=["query", "doc_id"], how="left", maintain_order="left")
        return joined["pair"].fill_null(self.size).cast(pl.Int64).to_numpy()


def places(known: Codes, positions: Codes) -> Codes:
    """Index into `known` (ascending) of each position; one that is not there counts as the next above it that is."""
    return np.maximum(np.searchsorted(known, positions, side="right") - 1, 0)


def shrunk(successes: Floats, trials: Floats, prior: tuple[float, float]) -> Floats:
    """Posterior mean of a rate under a Beta prior of (pseudo-successes, pseudo-failures)."""
    return (successes + prior[0]) / (trials + prior[0] + prior[1])
