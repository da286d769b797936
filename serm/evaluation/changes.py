"""Wins and losses: the queries and pairs on which two models differ most, with what each of them said. Pure.

A query is won by the model with the higher measure; a pair by the one that gave more probability to the human grade.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from serm.evaluation.metrics import ranked

SHOWN = 5  # best ranked documents of each model that a query's entry shows
POSITIVES = 3  # ... and so many of its best graded ones
PAIR = ["query", "doc_id"]


@dataclass(frozen=True)
class Document:
    """A judged document of a query as both models see it; `rationale` is the annotators', where there is one."""

    doc_id: str
    title: str
    grade: int
    rank_a: int
    rank_b: int
    probabilities_a: list[float]  # Pr(y | q, d) over the scale
    probabilities_b: list[float]
    rationale: str | None


@dataclass(frozen=True)
class QueryChange:
    """A query on which B is better (difference > 0) or worse than A, and its documents by A's rank."""

    split: str
    query: str
    locale: str | None
    measure: str
    a: float
    b: float
    difference: float
    documents: list[Document]


@dataclass(frozen=True)
class PairChange:
    """A pair to whose human grade B gives more (difference > 0) or less probability than A."""

    split: str
    query: str
    doc_id: str
    title: str
    grade: int
    a: float
    b: float
    difference: float
    rationale: str | None


@dataclass(frozen=True)
class Changes:
    """B's wins and losses, the largest first."""

    query_wins: list[QueryChange]
    query_losses: list[QueryChange]
    pair_wins: list[PairChange]
    pair_losses: list[PairChange]


def both(a: pl.DataFrame, b: pl.DataFrame, known: pl.DataFrame, scale: Sequence[int]) -> pl.DataFrame:
    """Judged pairs with both models' answers: query, doc_id, grade, title, rationale, probabilities_*, rank_*, sure_*.

    `a` and `b` are `Answers.pairs` of one split, `known` has query, doc_id, title and rationale (null for none).
    sure_* is the probability of the human grade; null where that is off the scale.
    """
    frame = a.select(*PAIR, "grade")
    place = pl.col("grade").replace_strict({grade: k for k, grade in enumerate(scale)}, default=None)
    for name, side in (("a", a), ("b", b)):
        ranks = ranked(side.select(*PAIR, "score")).select(*PAIR, pl.col("rank").alias(f"rank_{name}"))
        said = side.select(*PAIR, pl.col("probabilities").alias(f"probabilities_{name}"))
        frame = frame.join(said, on=PAIR).join(ranks, on=PAIR)
        sure = pl.col(f"probabilities_{name}").list.get(place.cast(pl.Int64), null_on_oob=True)
        frame = frame.with_columns(sure.cast(pl.Float64).alias(f"sure_{name}"))
    return frame.join(known, on=PAIR, how="left")


def changes(
    split: str, a: pl.DataFrame, b: pl.DataFrame, pairs: pl.DataFrame, locales: pl.DataFrame, measure: str, number: int
) -> Changes:
    """The `number` largest wins and losses of each kind.

    Args:
        a, b: query and `measure`, as `metrics.per_query` gives them.
        pairs: as `both` gives them.
        locales: query, locale.
    """
    queries = (
        a.select("query", a=measure)
        .join(b.select("query", b=measure), on="query")
        .with_columns(difference=pl.col("b") - pl.col("a"))
        .filter(pl.col("difference").is_finite())
        .join(locales, on="query", how="left")
    )
    sides = pairs.rename({"sure_a": "a", "sure_b": "b"}).with_columns(difference=pl.col("b") - pl.col("a"))
    sides = sides.filter(pl.col("difference").is_finite())
    wins, losses = _ends(queries, number, ["query"])
    better, worse = _ends(sides, number, PAIR)
    return Changes(
        [_query(split, measure, row, pairs) for row in wins],
        [_query(split, measure, row, pairs) for row in losses],
        [_pair(split, row) for row in better],
        [_pair(split, row) for row in worse],
    )


def _ends(frame: pl.DataFrame, number: int, names: Sequence[str]) -> list[list[dict[str, Any]]]:
    """Rows with the largest differences above zero, and with the smallest below."""
    up = frame.filter(pl.col("difference") > 0).sort("difference", *names, descending=[True, *(False for _ in names)])
    down = frame.filter(pl.col("difference") < 0).sort("difference", *names)
    return [up.head(number).to_dicts(), down.head(number).to_dicts()]


def _query(split: str, measure: str, row: dict[str, Any], pairs: pl.DataFrame) -> QueryChange:
    own = pairs.filter(query=row["query"]).sort("rank_a")
    best = pl.col("grade").rank("ordinal", descending=True) <= POSITIVES
    shown = own.filter((pl.col("rank_a") <= SHOWN) | (pl.col("rank_b") <= SHOWN) | (best & (pl.col("grade") > 0)))
    documents = [
        Document(
            each["doc_id"], each["title"] or "", each["grade"], each["rank_a"], each["rank_b"],
            each["probabilities_a"], each["probabilities_b"], each["rationale"],
        )
        for each in shown.iter_rows(named=True)
    ]  # fmt: skip
    return QueryChange(
        split, row["query"], row["locale"], measure, row["a"], row["b"], row["difference"], documents
    )  # fmt: skip


def _pair(split: str, row: dict[str, Any]) -> PairChange:
    return PairChange(
        split, row["query"], row["doc_id"], row["title"] or "", row["grade"], row["a"], row["b"], row["difference"],
        row["rationale"],
    )  # fmt: skip
