"""A stream of searches made from judged pairs: queries that arrive over time, ten noisy results, users and bots."""

import hashlib
import math
from collections.abc import Sequence
from datetime import UTC, datetime

import numpy as np
import polars as pl
from numpy.typing import NDArray

from serm.config import SimulateSettings
from serm.records import IMPRESSIONS, Timestamp
from serm.simulate import ranker, users
from serm.simulate.standin import true_grades

BOT_PAUSE_SECONDS = 3.0
DAY_MICROSECONDS = 86_400 * 1_000_000


def stream(
    judgments: pl.DataFrame,
    arrival: pl.DataFrame | None,
    scores: pl.DataFrame | None,
    settings: SimulateSettings,
    scale: Sequence[int],
    seed: int,
    log_scores: bool = True,
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Simulate `settings.sessions` sessions over the judged pairs; returns (impressions, truth), row for row aligned.

    `judgments` has query, doc_id, grade (on `scale`) and optionally locale; `arrival` has query, arrival; `scores` has
    query, doc_id, score, by which results are ranked (absent: at random) and which impressions carry if `log_scores`.
    Queries enter in order of arrival, at an even pace: a query whose value exceeds a share s of all queries' values
    enters when the share s of the time is over. One without a value is there from the start, unless
    `settings.arrival_from` is set: then it never enters.

    Impressions fit the impressions table and hold nothing that a log would not. The truth has ts, session, query,
    doc_id, position, grade, examined, is_bot. Equal arguments give equal frames.

    Raises:
        ValueError: no query is left, a pair lacks a score, a grade is off the scale, or `settings.start` is no time.
    """
    begin = _instant(settings.start)
    enters = _entry_times(judgments, arrival, settings)
    pairs = true_grades(judgments, scale).join(enters, on="query").sort("enters", "query", "doc_id")
    if pairs.is_empty():
        raise ValueError("simulate: no judged query enters the stream; check simulate.arrival_from and the judgments")
    rng = np.random.default_rng(seed)
    starts = np.flatnonzero(pairs["query"].ne_missing(pairs["query"].shift(1)).to_numpy())
    targeted = pairs["doc_id"].is_in(settings.bot_targets).to_numpy()

    is_bot = rng.random(settings.sessions) < settings.bots
    began = np.sort(rng.random(settings.sessions)) * settings.days
    searches = np.where(is_bot, settings.bot_searches, 1)
    session = np.repeat(np.arange(settings.sessions), searches)
    nth = np.arange(session.size) - np.repeat(np.cumsum(searches) - searches, searches)
    time = began[session] + nth * BOT_PAUSE_SECONDS / 86_400
    order = np.argsort(time, kind="stable")
    session, time, bot = session[order], time[order], is_bot[session[order]]

    entered = np.searchsorted(pairs["enters"].to_numpy()[starts], time, side="right")  # queries there by then
    popularity = np.asarray((1.0 + rng.permutation(starts.size)) ** -settings.zipf, dtype=np.float64)
    draw = rng.random(session.size)
    searched = _pick(popularity, entered, draw)
    if settings.bot_targets:
        pushed = np.where(np.logical_or.reduceat(targeted, starts), popularity, 0.0)
        possible = np.cumsum(pushed)[entered - 1] > 0
        searched = np.where(bot & possible, _pick(pushed, entered, draw), searched)

    score = _ranking_scores(pairs, scores)
    ranked = ranker.standardised(score, starts)
    rows = ranker.show(ranked, starts, searched, settings.results, settings.ranker_noise, rng)  # (S, R)
    shown = rows >= 0
    relevance = ((pairs["grade"].to_numpy() - scale[0]) / (scale[-1] - scale[0]))[rows]
    human = users.people(relevance, shown, settings, rng)
    robot = users.bots(targeted[rows], shown, settings, rng)
    mine = bot[:, None]

    search, rank = np.nonzero(shown)
    row = pairs.select("query", "doc_id", "grade", "locale", pl.Series("score", score))[rows[shown]]
    names = _session_names(settings, scale, seed, pairs["query"])
    moment = begin + (time * DAY_MICROSECONDS).astype(np.int64)
    common = row.select(
        pl.Series("ts", moment[search]).cast(pl.Datetime("us")).dt.replace_time_zone("UTC").cast(Timestamp),
        names.gather(session[search]).alias("session"),
        "query",
        "doc_id",
        pl.Series("position", (rank + 1).astype(np.int32)),
    )
    impressions = common.with_columns(
        pl.Series("clicked", np.where(mine, robot.clicked, human.clicked)[shown]),
        pl.Series("dwell", np.where(mine, robot.dwell, human.dwell)[shown]).fill_nan(None),
        row["locale"],
        row["score"] if log_scores and scores is not None else pl.lit(None, pl.Float64).alias("score"),
    )
    truth = common.with_columns(
        row["grade"],
        pl.Series("examined", np.where(mine, robot.examined, human.examined)[shown]),
        pl.Series("is_bot", bot[search]),
    )
    return IMPRESSIONS.conform(impressions), truth


def arrival_values(
    judgments: pl.DataFrame, documents: pl.DataFrame, attribute: str, scale: Sequence[int]
) -> pl.DataFrame:
    """When each query arrives: the median of a numeric document attribute over its best documents (query, arrival).

    The best documents are those with the query's highest grade, which must be above the lowest of the scale; a query
    without any, or whose best documents lack the attribute, is left out. `documents` has doc_id and attributes (JSON).

    Raises:
        ValueError: no document has the attribute as a number.
    """
    path = f"$[{_quoted(attribute)}]"
    numbers = documents.select(
        "doc_id", value=pl.col("attributes").str.json_path_match(path).cast(pl.Float64, strict=False)
    ).drop_nulls("value")
    if numbers.is_empty():
        raise ValueError(f"documents: no attribute {attribute!r} that is a number; set simulate.arrival to another")
    top = pl.col("grade") == pl.col("grade").max().over("query")
    return (
        true_grades(judgments, scale)
        .filter(top & (pl.col("grade") > scale[0]))
        .join(numbers, on="doc_id")
        .group_by("query")
        .agg(arrival=pl.col("value").median())
        .sort("query")
    )


def _entry_times(judgments: pl.DataFrame, arrival: pl.DataFrame | None, settings: SimulateSettings) -> pl.DataFrame:
    """The day, counted from the start, on which each query enters (query, enters)."""
    queries = judgments.select("query").unique().sort("query")
    if arrival is None:
        return queries.with_columns(enters=pl.lit(0.0))
    valued = queries.join(arrival.select("query", "arrival").unique("query"), on="query", how="left")
    if settings.arrival_from is not None:
        valued = valued.filter(pl.col("arrival") > settings.arrival_from)
    smaller = (pl.col("arrival").rank("min") - 1) / pl.col("arrival").count()
    return valued.select("query", enters=(smaller * settings.days).fill_null(0.0))


def _pick(weights: NDArray[np.float64], entered: NDArray[np.int64], draw: NDArray[np.float64]) -> NDArray[np.int64]:
    """For each search, one of the first `entered` queries with chance proportional to its weight."""
    cumulative = np.cumsum(weights)
    return np.minimum(np.searchsorted(cumulative, draw * cumulative[entered - 1], side="right"), entered - 1)


def _ranking_scores(pairs: pl.DataFrame, scores: pl.DataFrame | None) -> NDArray[np.float64]:
    if scores is None:
        return np.zeros(pairs.height)
    known = scores.select("query", "doc_id", "score").unique(["query", "doc_id"], keep="first", maintain_order=True)
    joined = pairs.join(known, on=["query", "doc_id"], how="left", maintain_order="left")
    usable = joined["score"].is_not_null() & joined["score"].is_finite()
    if not usable.all():
        query, doc_id = joined.filter(~usable).select("query", "doc_id").row(0)
        raise ValueError(f"simulate: no finite score for ({query!r}, {doc_id!r}); score every judged pair")
    return joined["score"].cast(pl.Float64).to_numpy()


def _session_names(settings: SimulateSettings, scale: Sequence[int], seed: int, queries: pl.Series) -> pl.Series:
    """Session ids that differ between streams, so that two simulations in one log never share a session."""
    told = hashlib.blake2b(f"{seed} {list(scale)} {settings.model_dump_json()}".encode(), digest_size=4)
    told.update("\n".join(queries.unique(maintain_order=True)).encode("utf-8", "surrogatepass"))
    return pl.select(
        pl.format("{}-{}", pl.lit(told.hexdigest()), pl.int_range(settings.sessions)).alias("session")
    ).to_series()


def _instant(text: str) -> int:
    """Microseconds since 1970 of an ISO 8601 time; without a zone it is UTC."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise ValueError(f"simulate.start: {text!r} is not an ISO 8601 time such as 2026-01-05T00:00:00Z") from error
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return math.floor(moment.timestamp()) * 1_000_000 + moment.microsecond


def _quoted(name: str) -> str:
    return "'" + name.replace("\\", "\\\\").replace("'", "\\'") + "'"
