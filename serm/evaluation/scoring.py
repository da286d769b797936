"""Human judgments and a model's scores for them, as frames; knows no workspace."""

import numpy as np
import polars as pl

from serm.relevance.model import RelevanceModel, expected_label

LLM_JUDGE = "llm:"  # judge names that start so are machines; they never enter an evaluation


def human(judgments: pl.DataFrame, split: str) -> pl.DataFrame:
    """One grade per pair of a split from people alone: query, doc_id, grade; ordered by query and document.

    Where several people judged a pair, the grade is their median, rounded down: doubt counts against relevance (ours).
    """
    return (
        judgments.filter((pl.col("split") == split) & ~pl.col("judge").str.starts_with(LLM_JUDGE))
        .group_by("query", "doc_id")
        .agg(pl.col("grade").median().floor().cast(pl.Int32))
        .sort("query", "doc_id")
    )


def with_texts(judgments: pl.DataFrame, documents: pl.DataFrame) -> tuple[pl.DataFrame, int]:
    """The judged pairs with their document's `text`, and how many pairs name a document that is not there."""
    known = judgments.join(documents.select("doc_id", "text"), on="doc_id", how="inner", maintain_order="left")
    return known, judgments.height - known.height


def score_judged(model: RelevanceModel, judgments: pl.DataFrame, documents: pl.DataFrame) -> pl.DataFrame:
    """f(q, d) of the model for every judged pair whose document is there.

    Args:
        judgments: has query and doc_id; one row per pair.
        documents: doc_id and text, as in the documents table.

    Returns:
        query, doc_id, score (Float64), in the order of `judgments`; a score may be NaN if the model is broken.
    """
    known, _ = with_texts(judgments, documents)
    return with_probabilities(model, known).select("query", "doc_id", "score")


def with_probabilities(model: RelevanceModel | None, pairs: pl.DataFrame) -> pl.DataFrame:
    """Pairs [query, text, ...] with `score` (f(q, d), Float64) and `probabilities` (a list over the scale).

    Without pairs no model is asked, and there may be none.
    """
    if model is None or pairs.is_empty():
        return pairs.clear().with_columns(
            pl.lit(None, pl.Float64).alias("score"), pl.lit(None, pl.List(pl.Float32)).alias("probabilities")
        )
    probabilities = model.probabilities(pairs["query"].to_list(), pairs["text"].to_list())
    return pairs.with_columns(
        pl.Series("score", expected_label(probabilities, model.scale), pl.Float64),
        pl.Series("probabilities", np.asarray(probabilities, dtype=np.float32)).cast(pl.List(pl.Float32)),
    )
