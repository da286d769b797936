"""An offline experiment cut from a judged collection: old searches to start from, newer ones that arrive later."""

from dataclasses import dataclass

import numpy as np
import polars as pl

from serm.config import BacktestSettings, Config
from serm.evaluation.scoring import with_texts
from serm.simulate.ranker import lexical_overlap
from serm.simulate.traffic import arrival_values, stream, true_grades


@dataclass(frozen=True)
class Scenario:
    """Disjoint sets of queries with their human grades.

    `start`, `dev` and `old` arrive up to the cut; `fresh` and the `eras` after it. `old` and `fresh` are held out for
    evaluation. Frames hold query, doc_id, grade, text; `eras` are in order of arrival, one per round.
    """

    documents: pl.DataFrame
    start: pl.DataFrame
    dev: pl.DataFrame
    old: pl.DataFrame
    fresh: pl.DataFrame
    eras: list[pl.DataFrame]


def cut(judgments: pl.DataFrame, documents: pl.DataFrame, config: Config, seed: int) -> Scenario:
    """Cut a scenario out of human judgments by each query's arrival value.

    The held-out queries depend on `config.seed` alone, so that every `seed` is measured on the same ones; the queries
    of start, dev and stream are drawn anew by `seed`.

    Raises:
        ValueError: there are too few old or new queries.
    """
    settings = config.backtest
    arrival = arrival_values(judgments, documents, settings.arrival, config.labels.scale)
    truth = true_grades(judgments, config.labels.scale).select("query", "doc_id", "grade")
    pairs, _ = with_texts(truth, documents)
    before = _shuffled(arrival.filter(pl.col("arrival") <= settings.arrival_from), config.seed)
    after = _shuffled(arrival.filter(pl.col("arrival") > settings.arrival_from), config.seed)
    needed_old = settings.old_queries + settings.start_queries + settings.dev_queries
    needed_new = settings.fresh_queries + settings.rounds * settings.stream_queries
    for name, have, need in (("up to", before.height, needed_old), ("after", after.height, needed_new)):
        if have < need:
            raise ValueError(
                f"{have} judged queries arrive {name} {settings.arrival} {settings.arrival_from:g}, {need} are needed; "
                "lower backtest.*_queries or move backtest.arrival_from"
            )
    old, rest = before[: settings.old_queries], _shuffled(before[settings.old_queries :], seed + 1)
    start, dev = rest[: settings.start_queries], rest[settings.start_queries : needed_old - settings.old_queries]
    fresh, newer = after[: settings.fresh_queries], _shuffled(after[settings.fresh_queries :], seed + 2)
    newer = newer[: settings.rounds * settings.stream_queries].sort("arrival", "query")
    eras = [newer[i * settings.stream_queries : (i + 1) * settings.stream_queries] for i in range(settings.rounds)]
    start_, dev_, old_, fresh_, *eras_ = (
        pairs.join(queries.select("query"), on="query", how="semi", maintain_order="left")
        for queries in (start, dev, old, fresh, *eras)
    )
    return Scenario(documents, start_, dev_, old_, fresh_, eras_)


def windows(scenario: Scenario, settings: BacktestSettings, config: Config, seed: int) -> list[pl.DataFrame]:
    """What the logs hold: a window of impressions before the first round, then one per round.

    Results are ranked by word overlap with noise, so that the log does not depend on the model under test, and every
    strategy mines the same log.
    """
    simulate = config.simulate.model_copy(update={"sessions": settings.sessions, "arrival": None, "arrival_from": None})
    logs = []
    for number, era in enumerate([scenario.start, *scenario.eras]):
        scores = lexical_overlap(era.select("query", "doc_id"), scenario.documents)
        judged = era.select("query", "doc_id", "grade")
        log, _ = stream(judged, None, scores, simulate, config.labels.scale, seed * 101 + number, log_scores=False)
        logs.append(log)
    return logs


def _shuffled(frame: pl.DataFrame, seed: int) -> pl.DataFrame:
    frame = frame.sort("query")
    return frame[np.random.default_rng(seed).permutation(frame.height)]
