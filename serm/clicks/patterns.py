"""A log as it is fitted: read slice by slice, equal lists counted once, kept in batches that fit a processor's cache.

A pattern is a list's pairs, positions and clicks. Two lists with equal 64-bit signatures are taken for one pattern: of
a hundred million patterns, a pair of different ones is confused with a chance of 3 in 10,000 (ours).
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from serm.clicks.lists import Lists, by_list, lay_out
from serm.clicks.model import Codes, Floats, Pairs, checked
from serm.clicks.slices import slices

BATCH_ROWS = 200_000  # a float per row is 1.6 MB
U64 = np.uint64


@dataclass(frozen=True)
class Batch:
    """Lists of neighbouring queries, whose pairs are `size` numbers from `base` on: sums over pairs touch few."""

    lists: Lists
    base: int
    size: int

    def sums(self, weights: Floats) -> Floats:
        """Sum of `weights` (one a row) per pair from `base` on; shape (size,)."""
        return np.bincount(self.lists.pair - self.base, weights, self.size).astype(np.float64)

    @property
    def span(self) -> slice:
        """The pairs of this batch."""
        return slice(self.base, self.base + self.size)


@dataclass(frozen=True)
class Patterns:
    """The distinct lists of a log, in an order that does not depend on the order of its rows."""

    pairs: Pairs
    batches: list[Batch]
    lists: int  # of the log, counted with their repetitions
    rows: int

    @staticmethod
    def of(log: pl.DataFrame | pl.LazyFrame) -> "Patterns":
        """Read a log of [ts, session, query, doc_id, position, clicked]; extra columns are ignored.

        Memory is that of the pairs and the distinct lists (9 bytes a row), and of one slice of the log.

        Raises:
            ValueError: a column is absent or has nulls, a position is below 1, or there are no rows.
        """
        parts, pairs = [], None
        for frame in slices(log.lazy()):
            pairs = Pairs.of(log) if pairs is None else pairs
            parts.append(_Flat.of(checked(frame), pairs).distinct())
        if pairs is None:
            raise ValueError("impressions: no rows, so there is nothing to learn clicks from; ingest a log first")
        flat = _Flat.joined(parts).distinct()
        del parts
        lists, rows = int(flat.times.sum()), int(flat.times @ flat.lengths)
        return Patterns(pairs, list(_batches(flat)), lists, rows)

    def positions(self) -> Codes:
        """The distinct positions, ascending."""
        return np.unique(np.concatenate([np.unique(batch.lists.position) for batch in self.batches]))


@dataclass(frozen=True)
class _Flat:
    """Lists one after the other."""

    lengths: Codes  # (lists,)
    times: Floats  # (lists,)
    signature: NDArray[np.uint64]  # (lists,)
    pair: NDArray[np.int32]  # (rows,)
    position: NDArray[np.int32]  # (rows,)
    clicked: NDArray[np.bool_]  # (rows,)

    @staticmethod
    def of(impressions: pl.DataFrame, pairs: Pairs) -> "_Flat":
        pair = pairs.codes(impressions)
        order, lengths = by_list(impressions, pair)
        pair = pair[order]
        position = impressions["position"].to_numpy()[order].astype(np.int32)
        clicked = impressions["clicked"].to_numpy()[order]
        starts = np.cumsum(lengths) - lengths
        nth = np.arange(pair.size) - np.repeat(starts, lengths)
        row = _mixed(_mixed(pair.astype(U64) * U64(2) + clicked) + (position.astype(U64) << U64(32)) + nth.astype(U64))
        signature = np.add.reduceat(row, starts)
        return _Flat(lengths, np.ones(lengths.size), signature, pair.astype(np.int32), position, clicked)

    @staticmethod
    def joined(parts: list["_Flat"]) -> "_Flat":
        names = ("lengths", "times", "signature", "pair", "position", "clicked")
        return _Flat(*(np.concatenate([vars(part)[name] for part in parts]) for name in names))

    def distinct(self) -> "_Flat":
        """Each pattern once, by first pair (so by query) and signature."""
        starts = np.cumsum(self.lengths) - self.lengths
        order = np.lexsort((self.signature, self.pair[starts]))
        new = np.flatnonzero(np.diff(self.signature[order], prepend=~self.signature[order[:1]]))
        kept = order[new]
        lengths = self.lengths[kept]
        offset = np.arange(int(lengths.sum())) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        row = np.repeat(starts[kept], lengths) + offset
        times = np.add.reduceat(self.times[order], new)
        return _Flat(lengths, times, self.signature[kept], self.pair[row], self.position[row], self.clicked[row])


def _mixed(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The finaliser of SplitMix64: every bit of the input moves every bit of the output."""
    x = (x ^ (x >> U64(30))) * U64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> U64(27))) * U64(0x94D049BB133111EB)
    return x ^ (x >> U64(31))


def _batches(flat: _Flat) -> Iterator[Batch]:
    ends = np.cumsum(flat.lengths)
    cut = np.searchsorted(ends, np.arange(BATCH_ROWS, int(ends[-1]) + BATCH_ROWS, BATCH_ROWS), side="left") + 1
    begin = 0
    for stop in np.unique(np.minimum(cut, flat.lengths.size)):
        rows = slice(int(ends[begin - 1]) if begin else 0, int(ends[stop - 1]))
        pair = flat.pair[rows]
        clicked, times = flat.clicked[rows], flat.times[begin:stop]
        position = flat.position[rows].astype(np.int64)
        lists = lay_out(flat.lengths[begin:stop], pair.astype(np.int64), position, clicked, times)
        yield Batch(lists, int(pair.min()), int(pair.max() - pair.min()) + 1)
        begin = int(stop)
