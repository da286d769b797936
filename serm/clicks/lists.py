"""Result lists laid out rank by rank, so that walking down all lists at once is arithmetic on slices."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import polars as pl
from numpy.typing import NDArray

from serm.clicks.model import Codes


@dataclass(frozen=True)
class Lists:
    """The lists of a log: one per (session, query, ts), rows by position, longest list first.

    All first rows come first, one per list, then all second rows, and so on. So the k-th list that has an (r + 1)-th
    row stands k-th in that block as in the one before:

        lists [a b c], [d e], [f]  ->  order a d f | b e | c
    """

    order: Codes  # (n,): row of the log at each place
    blocks: list[slice]  # places of the first rows, of the second rows, ...
    gap: NDArray[np.int64]  # (n,): positions from the row above (for a first row: from just above the top)
    clicked: NDArray[np.bool_]  # (n,)

    @staticmethod
    def of(impressions: pl.DataFrame) -> "Lists":
        """Lay a log out; lists need not be whole, positions that are missing show as gaps."""
        key = ["session", "query", "ts"]
        rows = (
            impressions.select(*key, "position", "clicked")
            .with_row_index("row")
            .with_columns(length=pl.len().over(key), first=pl.col("row").min().over(key))
            .sort("first", "position", "row")
            .with_columns(
                nth=pl.int_range(pl.len()).over("first"),
                gap=pl.col("position") - pl.col("position").shift(1, fill_value=0).over("first"),
            )
            .sort("nth", "length", "first", descending=[False, True, False])
        )
        starts = np.append(np.flatnonzero(np.diff(rows["nth"].to_numpy(), prepend=-1)), rows.height)
        # A list's first row is `first` positions below the top: position 1 has no gap to bridge.
        gap = np.where(rows["nth"].to_numpy() == 0, rows["gap"].to_numpy() - 1, rows["gap"].to_numpy())
        return Lists(
            rows["row"].to_numpy().astype(np.int64),
            [slice(int(a), int(b)) for a, b in pairwise(starts)],
            gap.astype(np.int64),
            rows["clicked"].to_numpy(),
        )

    def steps(self) -> Iterator[tuple[slice, slice]]:
        """From the top down: the rows that have one below them, and those below; the slices are of equal length."""
        for above, below in pairwise(self.blocks):
            yield slice(above.start, above.start + below.stop - below.start), below

    def clicked_below(self) -> NDArray[np.bool_]:
        """Whether any lower row of the same list was clicked; shape (n,)."""
        later = np.zeros(self.clicked.size, dtype=bool)
        for above, below in reversed(list(self.steps())):
            later[above] = later[below] | self.clicked[below]
        return later
