"""Simulated traffic of an A/B test with a known effect: users who come back, each with habits of their own."""

from datetime import datetime

import numpy as np
import polars as pl
from numpy.typing import NDArray

CLICK, REFORMULATION, NEGATIVE = 0.15, 0.25, 0.02  # chances of an average user: a result, a search, a click
HELD_SECONDS = 40.0  # median dwell
QUERIES, RESULTS = 400, 4


def experiment(
    users: int,
    days: int,
    start: datetime,
    seed: int,
    lift: float = 0.0,
    pre_days: int = 0,
    spread: float = 20.0,
    sessions_a_day: float = 0.3,
    share: float = 0.5,
) -> pl.DataFrame:
    """Impressions of a test that begins at `start`: ts, user, session, query, doc_id, position, clicked, dwell,
    negative, variant (a or b; null before the test).

    In b clicks are 1 + `lift` times as likely, and reformulations and negative feedback 1 - `lift` times. Users arrive
    evenly over the days (from `pre_days` before the test on) and come back; the fewer `spread`, the more they differ
    (habits are Beta with that many pseudo-observations). `share` of them get b. Equal arguments give equal frames.
    """
    rng = np.random.default_rng(seed)
    click, reformulation, negative = (_habits(mean, users, spread, rng) for mean in (CLICK, REFORMULATION, NEGATIVE))
    treated = rng.random(users) < share
    arrived = rng.uniform(-pre_days, days, users)
    visits = 1 + rng.poisson(rng.gamma(2.0, sessions_a_day / 2, users) * (days - arrived))
    user = np.repeat(np.arange(users), visits)
    first = np.r_[True, user[1:] != user[:-1]] if user.size else np.empty(0, bool)
    when = np.where(first, arrived[user], rng.uniform(arrived[user], days))
    helped = np.where(treated[user] & (when >= 0), lift, 0.0)
    searches = rng.geometric(1 - np.minimum(reformulation[user] * (1 - helped), 0.9))  # a session ends in satisfaction
    session = np.repeat(np.arange(user.size), searches)
    nth = np.arange(session.size) - np.repeat(np.cumsum(searches) - searches, searches)
    popularity = 1.0 / np.arange(1, QUERIES + 1)
    query = rng.choice(QUERIES, session.size, p=popularity / popularity.sum())
    search = np.repeat(np.arange(session.size), RESULTS)
    position = np.tile(np.arange(1, RESULTS + 1), session.size)
    visit = session[search]
    by, better = user[visit], helped[visit]
    clicked = rng.random(search.size) < np.minimum(click[by] * (1 + better), 1.0)
    dwell = np.where(clicked, rng.lognormal(np.log(HELD_SECONDS), 1.0, search.size), np.nan)
    moment = (when[visit] * 86_400 + nth[search] * 60).astype(np.int64)
    variant = pl.Series(np.where(treated[by], "b", "a"))
    return pl.DataFrame(
        {
            "ts": pl.Series(moment * 1_000_000).cast(pl.Duration("us")) + start,
            "user": pl.Series(by).cast(pl.String),
            "session": pl.Series(visit).cast(pl.String),
            "query": "q" + pl.Series(query[search]).cast(pl.String),
            "doc_id": pl.Series(query[search] * RESULTS + position).cast(pl.String),
            "position": pl.Series(position, dtype=pl.Int32),
            "clicked": clicked,
            "dwell": pl.Series(dwell).fill_nan(None),
            "negative": rng.random(search.size) < negative[by] * (1 - better),
            "variant": pl.select(pl.when(pl.Series(moment >= 0)).then(variant)).to_series(),
        }
    ).sort("ts", "session", "position")


def _habits(mean: float, users: int, spread: float, rng: np.random.Generator) -> NDArray[np.float64]:
    return rng.beta(mean * spread, (1 - mean) * spread, users)
