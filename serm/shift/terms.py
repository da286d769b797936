"""Distinctive terms: which words set one group of searches apart from the others."""

import numpy as np
import polars as pl

from serm.shift.words import tokens

PRIOR_WORDS = 500.0  # alpha_0: how many words the prior weighs as much as
SHOWN = 5
CLEAR = 1.96  # z from which a term is distinctive


def distinctive_terms(queries: pl.DataFrame) -> dict[int, tuple[str, ...]]:
    """Up to five terms a group, the most distinctive first, from [query, searches, group].

    A term's z is its log-odds ratio between the group and all others with an informative Dirichlet prior, over its
    standard deviation; the prior is the words' frequency in all groups (Monroe, Colaresi and Quinn, 2008, equations 16
    and 18 to 22). A word counts once a search.
    """
    scores = log_odds(queries).filter(pl.col("z") >= CLEAR)
    best = (
        scores.sort("group", "z", "word", descending=[False, True, False])
        .group_by("group", maintain_order=True)
        .agg(pl.col("word").head(SHOWN))
    )
    return {group: tuple(words) for group, words in best.iter_rows()}


def log_odds(queries: pl.DataFrame) -> pl.DataFrame:
    """[group, word, z] for every word of every group; see `distinctive_terms`."""
    counts = (
        queries.with_columns(word=tokens(queries["query"].to_list()))
        .explode("word", empty_as_null=False)
        .group_by("group", "word")
        .agg(inside=pl.col("searches").sum().cast(pl.Float64))
        .with_columns(everywhere=pl.col("inside").sum().over("word"), size=pl.col("inside").sum().over("group"))
    )
    total = float(counts["inside"].sum())
    inside, everywhere, size = (counts[name].to_numpy() for name in ("inside", "everywhere", "size"))
    prior = PRIOR_WORDS * everywhere / total
    here, there = inside + prior, everywhere - inside + prior
    # a word that is all there is would have infinite odds
    odds = [np.log(y / np.maximum(n + PRIOR_WORDS - y, 0.5)) for y, n in ((here, size), (there, total - size))]
    z = (odds[0] - odds[1]) / np.sqrt(1 / here + 1 / there)
    return counts.select("group", "word", z=pl.Series(z, dtype=pl.Float64))
