"""The ranker that users meet: a simple lexical score, and the noisy ten results it shows."""

from collections.abc import Iterator

import numpy as np
import polars as pl
from numpy.typing import NDArray

from serm.simulate.words import words

CELLS = 4_000_000  # most (search, candidate) cells in memory at once


def lexical_overlap(pairs: pl.DataFrame, documents: pl.DataFrame) -> pl.DataFrame:
    """The share of a query's words, weighted by rarity, that its document holds; columns query, doc_id, score in 0..1.

    A word's weight is log(1 + N / n) with n of the N documents holding it. `pairs` has query and doc_id, `documents`
    doc_id and text; a document that is not there scores 0. Row order is that of `pairs`.
    """
    holds = _bag(
        documents.select("doc_id", "text").unique("doc_id", keep="first", maintain_order=True), "doc_id", "text"
    )
    spread = holds.group_by("word").agg(pl.len().alias("n"))
    queries = pairs.select("query").unique(maintain_order=True)
    asks = _bag(queries.with_columns(text="query"), "query", "text").join(
        spread, on="word", how="left", maintain_order="left"
    )
    asks = asks.with_columns(weight=(1 + documents.height / pl.col("n").fill_null(1)).log()).drop("n")
    total = asks.group_by("query", maintain_order=True).agg(pl.col("weight").sum().alias("total"))
    found = (
        pairs.select("query", "doc_id")
        .unique(maintain_order=True)
        .join(asks, on="query", maintain_order="left")
        .join(holds, on=["doc_id", "word"], how="semi")
        .group_by("query", "doc_id", maintain_order=True)
        .agg(pl.col("weight").sum().alias("found"))
    )
    return (
        pairs.select("query", "doc_id")
        .join(total, on="query", how="left", maintain_order="left")
        .join(found, on=["query", "doc_id"], how="left", maintain_order="left")
        .select("query", "doc_id", score=(pl.col("found") / pl.col("total")).fill_null(0.0))
    )


def standardised(scores: NDArray[np.float64], starts: NDArray[np.int64]) -> NDArray[np.float64]:
    """Scores less their query's mean, over its deviation (0 where all are equal); queries begin at `starts`."""
    counts = np.diff(np.append(starts, scores.size))
    mean = np.add.reduceat(scores, starts) / counts
    centred = scores - np.repeat(mean, counts)
    deviation = np.repeat(np.sqrt(np.add.reduceat(centred**2, starts) / counts), counts)
    return np.divide(centred, deviation, out=np.zeros_like(centred), where=deviation > 1e-12)


def show(
    scores: NDArray[np.float64],
    starts: NDArray[np.int64],
    searched: NDArray[np.int64],
    results: int,
    noise: float,
    rng: np.random.Generator,
) -> NDArray[np.int64]:
    """What each search shows: candidate rows by falling noisy score; shape (S, results), -1 where there is no more.

    Query q's candidates are the rows from starts[q] on; `searched` (S,) names each search's query. Every search draws
    its own Gaussian noise, so the same query shows different lists.
    """
    counts = np.diff(np.append(starts, scores.size))
    shown = np.full((searched.size, results), -1, dtype=np.int64)
    for part in _parts(counts[searched]):
        width = int(counts[searched[part]].max())
        rows = starts[searched[part]][:, None] + np.arange(width)  # (s, width)
        absent = np.arange(width) >= counts[searched[part]][:, None]
        noisy = scores[np.where(absent, 0, rows)] + noise * rng.standard_normal(rows.shape)
        noisy[absent] = -np.inf
        best = np.argsort(-noisy, axis=1, kind="stable")[:, :results]
        top = np.take_along_axis(rows, best, axis=1)
        top[np.take_along_axis(absent, best, axis=1)] = -1
        shown[part, : top.shape[1]] = top
    return shown


def _parts(widths: NDArray[np.int64]) -> Iterator[slice]:
    """Consecutive slices whose length times greatest width stays within CELLS (one search at least)."""
    step = 8_192
    for block in range(0, widths.size, step):
        widest = int(widths[block : block + step].max())
        size = max(1, min(step, CELLS // widest))
        for begin in range(block, min(block + step, widths.size), size):
            yield slice(begin, min(begin + size, block + step, widths.size))


def _bag(frame: pl.DataFrame, key: str, text: str) -> pl.DataFrame:
    """The distinct words of each row's text: columns key, word."""
    bags = pl.Series("word", [sorted(set(words(value))) for value in frame[text]], dtype=pl.List(pl.String))
    return frame.select(key).with_columns(bags).explode("word").drop_nulls("word")
