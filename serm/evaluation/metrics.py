"""Per-query ranking measures by ir_measures, from judged and scored pairs held in frames.

Ties are broken here, before any provider sees the run: trec_eval orders tied documents by their identifier, and keeps
scores in single precision, so a model that scores every pair alike would be graded on how identifiers were given out.
We order ties by a hash of query and document, the same on every machine, and hand the providers ranks (ours).

nDCG takes the grade itself as gain, sum_i grade_i / log2(1 + i), as trec_eval does; grades below zero gain nothing.
For the exponential gain name another measure, such as nDCG(dcg='exp-log2')@10, where ir_measures has a provider.
"""

import ast
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

import ir_measures
import polars as pl


@dataclass(frozen=True)
class PerQuery:
    """Measures of one run, query by query.

    `values` has the column `query` and one Float64 column per measure, ordered by query. A query with a score that is
    not a finite number has NaN in every measure. `excluded` counts queries without any positive judged document: no
    ranking could do well or badly on them.
    """

    values: pl.DataFrame
    excluded: int


def parse_measures(names: Sequence[str]) -> list[ir_measures.Measure]:
    """The measures that these ir_measures names stand for, such as nDCG@10, RR or P(rel=2)@5.

    Raises:
        ValueError: a name is not a measure, or none is given.
    """
    if not names:
        raise ValueError("evaluation.measures: give at least one measure, such as nDCG@10")
    return [_parse(name) for name in names]


def _parse(name: str) -> ir_measures.Measure:
    # Not ir_measures.parse_measure: it needs syntax-tree classes that Python 3.14 no longer has.
    try:
        node: ast.expr = ast.parse(name, mode="eval").body
        arguments: dict[str, Any] = {}
        cutoff = None
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.MatMult):
            cutoff = ast.literal_eval(node.right)
            node = node.left
            if not isinstance(cutoff, int) or cutoff < 1:
                raise ValueError("the cutoff is a whole number from 1")
        if isinstance(node, ast.Call) and not node.args:
            arguments = {str(keyword.arg): ast.literal_eval(keyword.value) for keyword in node.keywords}
            node = node.func
        if not isinstance(node, ast.Name):
            raise ValueError(f"expected Measure(name=value)@cutoff, found {name!r}")
        measure = ir_measures.measures.registry[node.id](**arguments)
        measure = measure if cutoff is None else measure @ cutoff
        if not ir_measures.DefaultPipeline.supports(measure):
            raise ValueError("no provider that is installed computes it")
    except (ValueError, KeyError, SyntaxError, TypeError, AssertionError) as error:
        raise ValueError(
            f"evaluation: {name!r} is not a measure we can compute ({error}); try nDCG@10 or RR"
        ) from error
    return measure


def per_query(judgments: pl.DataFrame, scores: pl.DataFrame, measures: Sequence[str]) -> PerQuery:
    """Each measure for each query that has a positive judged document.

    Args:
        judgments: query, doc_id, grade (integer); one row per pair.
        scores: query, doc_id, score; higher is better. Judged pairs without a score count as not retrieved, scored
            pairs without a judgment as not relevant, as in trec_eval. Null, NaN and infinity make the query's
            measures NaN.
        measures: ir_measures names; they become the columns' names.

    Raises:
        ValueError: a pair is judged or scored twice, or a measure is unknown.
    """
    parsed = parse_measures(measures)
    for name, frame in (("judgments", judgments), ("scores", scores)):
        twice = frame.filter(frame.select("query", "doc_id").is_duplicated())
        if not twice.is_empty():
            query, doc_id = twice.select("query", "doc_id").row(0)
            raise ValueError(f"{name}: the pair ({query!r}, {doc_id!r}) is there twice; keep one row per pair")

    judged = judgments.filter((pl.col("grade") > 0).any().over("query"))
    queries = judged.select(pl.col("query").unique().sort()).with_row_index("number")
    run = scores.join(queries, on="query")
    finite = run.group_by("query").agg((pl.col("score").is_finite().all() & ~pl.col("score").has_nulls()).alias("ok"))
    scored = queries.join(finite, on="query", how="left", maintain_order="left").with_columns(
        pl.col("ok").fill_null(True)  # nothing retrieved: zero, not unknown
    )
    good = scored.filter("ok").select("query", "number")

    ordered = ranked(run.join(good.select("query"), on="query", how="semi"))
    retrieved: dict[str, dict[str, float]] = {str(number): {} for number in good["number"]}
    for number, document, rank in ordered.select("number", "doc_id", "rank").iter_rows():
        retrieved[str(number)][document] = -float(rank)
    qrels: dict[str, dict[str, int]] = {}
    for number, document, grade in (
        judged.join(good, on="query").select(pl.col("number").cast(pl.String), "doc_id", "grade").iter_rows()
    ):
        qrels.setdefault(number, {})[document] = max(int(grade), 0)

    result = scored.select("query")
    if qrels:
        found = ir_measures.iter_calc(parsed, qrels, retrieved)
        long = pl.DataFrame(
            [(int(metric.query_id), str(metric.measure), float(metric.value)) for metric in found],
            schema={"number": pl.UInt32, "measure": pl.String, "value": pl.Float64},
            orient="row",
        )
    else:
        long = pl.DataFrame(schema={"number": pl.UInt32, "measure": pl.String, "value": pl.Float64})
    for name, measure in zip(measures, parsed, strict=True):
        column = long.filter(pl.col("measure") == str(measure)).select("number", pl.col("value").alias(name))
        joined = scored.join(column, on="number", how="left", maintain_order="left")
        value = pl.when("ok").then(pl.col(name).fill_null(0.0)).otherwise(float("nan"))
        result = result.with_columns(joined.select(value.alias(name)).to_series())
    return PerQuery(result, judgments["query"].n_unique() - queries.height)


def ranked(run: pl.DataFrame) -> pl.DataFrame:
    """A run [query, doc_id, score, ...] with each document's `rank` (from 1, no ties), by query and rank."""
    tie = pl.Series(
        "tie",
        [
            blake2b(f"{query}\x00{doc_id}".encode(), digest_size=8).digest()
            for query, doc_id in run.select("query", "doc_id").iter_rows()
        ],
        dtype=pl.Binary,
    )
    return (
        run.with_columns(tie)
        .sort("query", -pl.col("score"), "tie")
        .with_columns(pl.int_range(1, pl.len() + 1).over("query").alias("rank"))
        .drop("tie")
    )
