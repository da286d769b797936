"""Result lists laid out rank by rank, so that walking down all lists at once is arithmetic on slices."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import polars as pl
from numpy.typing import NDArray

from serm.clicks.model import Codes, Floats

KEY = ["session", "query", "ts"]


@dataclass(frozen=True)
class Lists:
    """Lists of a log, one per (session, query, ts), rows by position, longest list first.

    All first rows come first, one per list, then all second rows, and so on. So the k-th list that has an (r + 1)-th
    row stands k-th in that block as in the one before:

        lists [a b c], [d e], [f]  ->  order a d f | b e | c
    """

    order: Codes  # (n,): row of what was laid out at each place
    blocks: list[slice]  # places of the first rows, of the second rows, ...
    pair: Codes  # (n,)
    position: Codes  # (n,), 1 = top
    clicked: NDArray[np.bool_]  # (n,)
    times: Floats  # (lists,): how often the log holds each list

    @staticmethod
    def of(impressions: pl.DataFrame, pair: Codes) -> "Lists":
        """Lay a log out; lists need not be whole, positions that are missing show as gaps."""
        order, lengths = by_list(impressions, pair)
        position = impressions["position"].to_numpy()[order]
        clicked = impressions["clicked"].to_numpy()[order]
        lists = lay_out(lengths, pair[order], position, clicked, np.ones(lengths.size))
        return Lists(order[lists.order], lists.blocks, lists.pair, lists.position, lists.clicked, lists.times)

    @property
    def weight(self) -> Floats:
        """How often each row's list occurred; shape (n,)."""
        return np.concatenate([self.times[: block.stop - block.start] for block in self.blocks])

    @property
    def gap(self) -> Codes:
        """Positions from the row above (for a first row: from the top, so that position 1 has no gap); shape (n,)."""
        gap = self.position - 1
        for above, under in self.steps():
            gap[under] = self.position[under] - self.position[above]
        return gap

    def steps(self) -> Iterator[tuple[slice, slice]]:
        """From the top down: the rows that have one below them, and those below; the slices are of equal length."""
        for above, below in pairwise(self.blocks):
            yield slice(above.start, above.start + below.stop - below.start), below

    def followed(self) -> NDArray[np.bool_]:
        """Whether a row of the same list stands below each row; shape (n,)."""
        found = np.zeros(self.clicked.size, dtype=bool)
        for above, _ in self.steps():
            found[above] = True
        return found

    def clicked_below(self) -> NDArray[np.bool_]:
        """Whether any lower row of the same list was clicked; shape (n,)."""
        later = np.zeros(self.clicked.size, dtype=bool)
        for above, below in reversed(list(self.steps())):
            later[above] = later[below] | self.clicked[below]
        return later

    def last_click(self) -> Codes:
        """Position of the lowest click above each row in its list, 0 if there is none; shape (n,)."""
        last = np.zeros(self.clicked.size, dtype=np.int64)
        for above, under in self.steps():
            last[under] = np.where(self.clicked[above], self.position[above], last[above])
        return last

    def scatter(self, values: Floats) -> Floats:
        """Values per place, put back in the order of the rows that were laid out."""
        back = np.empty_like(values)
        back[self.order] = values
        return back


def by_list(impressions: pl.DataFrame, pair: Codes) -> tuple[Codes, Codes]:
    """The order of rows that puts lists one after the other, each by position, and the lists' lengths.

    Rows of one list at one position stand in order of their pairs, so that the order of the log does not matter.
    """
    number = impressions.select(*KEY).with_row_index("row").select(pl.col("row").min().over(KEY))["row"].to_numpy()
    order = np.lexsort((pair, impressions["position"].to_numpy(), number))
    starts = np.flatnonzero(np.diff(number[order].astype(np.int64), prepend=-1))
    return order, np.diff(np.append(starts, order.size))


def lay_out(lengths: Codes, pair: Codes, position: Codes, clicked: NDArray[np.bool_], times: Floats) -> Lists:
    """Lay out lists that stand one after the other."""
    longest_first = np.argsort(-lengths, kind="stable")
    starts = (np.cumsum(lengths) - lengths)[longest_first]
    sizes = np.searchsorted(-lengths[longest_first], -np.arange(int(lengths.max())), side="left")
    order = np.concatenate([starts[:size] + rank for rank, size in enumerate(sizes)])
    ends = np.cumsum(sizes)
    blocks = [slice(int(end - size), int(end)) for size, end in zip(sizes, ends, strict=True)]
    return Lists(
        order, blocks, pair[order].astype(np.int64), position[order].astype(np.int64), clicked[order],
        times[longest_first],
    )  # fmt: skip
