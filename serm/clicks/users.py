"""Users who click exactly as a click model says, with parameters that are known: for tests and benchmarks (ours)."""

from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from serm.clicks.model import Floats

RANKS = 10
GAMMA = 0.9  # dbn
ONWARD = np.linspace(0.9, 0.4, RANKS)  # dcm: P(goes on | click at rank)
EXAMINED = 1 / np.arange(1, RANKS + 1)  # pbm
SECOND = 1_000_000


def browsing() -> Floats:
    """ubm: P(examined) by rank and by 1 + rank of the last click above (0 = none), both from 0; shape (10, 11)."""
    rank, last = np.arange(RANKS)[:, None], np.arange(RANKS + 1)[None, :]
    after = 0.9 * 0.6 ** np.maximum(rank - last, 0) * (1 - 0.02 * rank)
    return np.asarray(np.where(last == 0, 1 / (1 + 0.2 * rank), after))


@dataclass(frozen=True)
class World:
    """Queries, their documents, and what is true of them; arrays are (queries, documents)."""

    alpha: Floats  # P(click | examined), 0.05..0.85
    sigma: Floats  # P(satisfied | click), 0.1..0.8; dbn and sdbn
    popularity: Floats  # (queries,), adds up to 1

    @staticmethod
    def of(queries: int, documents: int, zipf: float, seed: int) -> "World":
        """Drawn uniformly; query k is searched in proportion to 1 / k ** zipf."""
        rng = np.random.default_rng(seed)
        shape, weights = (queries, documents), np.arange(1, queries + 1) ** -float(zipf)
        return World(rng.uniform(0.05, 0.85, shape), rng.uniform(0.1, 0.8, shape), weights / weights.sum())

    def pairs(self) -> pl.DataFrame:
        """[query, doc_id, alpha, sigma] of every pair."""
        query, document = np.indices(self.alpha.shape)
        numbers = {"q": query.ravel(), "d": document.ravel(), "alpha": self.alpha.ravel(), "sigma": self.sigma.ravel()}
        return pl.DataFrame(numbers).select(_query(), _document(), "alpha", "sigma")

    def log(self, model: str, sessions: int, seed: int, noise: float = 1.0, first: int = 0) -> pl.DataFrame:
        """Impressions of one search of ten results a session, a second apart, from session number `first` on.

        Results are ranked by alpha with normal `noise`, whose unit is the spread of alpha: 0 ranks perfectly.
        """
        rng = np.random.default_rng(seed)
        query = rng.choice(self.popularity.size, sessions, p=self.popularity)
        merit = self.alpha[query] + 0.23 * noise * rng.standard_normal((sessions, self.alpha.shape[1]))
        shown = np.argsort(-merit, axis=1)[:, :RANKS]
        clicked = clicks(model, self.alpha[query[:, None], shown], self.sigma[query[:, None], shown], rng)
        number = np.repeat(np.arange(first, first + sessions), RANKS)
        columns = {
            "n": number, "q": np.repeat(query, RANKS), "d": shown.ravel(), "clicked": clicked.ravel(),
            "position": np.tile(np.arange(1, RANKS + 1, dtype=np.int32), sessions),
        }  # fmt: skip
        moment = (pl.col("n") * SECOND).cast(pl.Datetime("us", "UTC"))
        return pl.DataFrame(columns).select(
            moment.alias("ts"), pl.format("s{}", "n").alias("session"), _query(), _document(), "position", "clicked"
        )


def clicks(model: str, alpha: Floats, sigma: Floats, rng: np.random.Generator) -> NDArray[np.bool_]:
    """Clicks on lists of ten results, (lists, 10), by users of pbm, ubm, cascade, dcm, sdbn or dbn."""
    attracted, satisfied = rng.random(alpha.shape) < alpha, rng.random(alpha.shape) < sigma
    draw = rng.random(alpha.shape)
    clicked, table = np.zeros(alpha.shape, dtype=bool), browsing()
    going, last = np.ones(len(alpha), dtype=bool), np.zeros(len(alpha), dtype=np.int64)
    for rank in range(RANKS):
        chance = {"pbm": EXAMINED[rank], "ubm": table[rank, last]}
        looks = draw[:, rank] < chance[model] if model in chance else going
        click = looks & attracted[:, rank]
        stays = {
            "cascade": ~click, "dcm": ~click | (draw[:, rank] < ONWARD[rank]),
            "sdbn": ~(click & satisfied[:, rank]),
            "dbn": ~(click & satisfied[:, rank]) & (draw[:, rank] < GAMMA),
        }.get(model, going)  # fmt: skip
        clicked[:, rank], last, going = click, np.where(click, rank + 1, last), going & stays
    return clicked


def _query() -> pl.Expr:
    return pl.format("q{}", pl.col("q").cast(pl.String).str.zfill(6)).alias("query")


def _document() -> pl.Expr:
    return pl.format("d{}-{}", pl.col("q").cast(pl.String).str.zfill(6), "d").alias("doc_id")
