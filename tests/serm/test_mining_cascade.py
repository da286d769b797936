"""The cascade: evidence first, then a sample that reaches the tail of the queries in every locale."""

import polars as pl
import pytest

from serm.config import MiningSettings
from serm.mining.aggregates import MICRO
from serm.mining.cascade import cascade, fair_places, strata, worth

SCALE = [0, 1, 2, 3]


def pairs(clicked: int = 30) -> pl.DataFrame:
    """1,000 pairs of 100 queries, query q shown 1000 // (q + 1) times; the first `clicked` pairs clicked, ever more."""
    number = pl.int_range(1_000, eager=True)
    return pl.DataFrame(
        {
            "query_key": (number % 100).cast(pl.UInt64),
            "doc_key": (number // 100).cast(pl.UInt64),
            "locale": ["de" if i % 100 % 4 == 0 else "en" for i in number],
            "impressions": [100 // (i % 100 + 1) + 1 for i in number],
            "sessions": [10] * 1_000,
            "scores": [0] * 1_000,
            "scored": [0] * 1_000,
            "click_sessions": [int(i < clicked) for i in number],
            "engagement": [int(i < clicked) * (i + 1) * MICRO // max(clicked, 1) for i in number],
        }
    )


def settings(limit: int) -> MiningSettings:
    return MiningSettings(candidates=limit)


def test_evidence_comes_first_and_by_strength() -> None:
    kept = cascade(pairs().lazy(), 1_000, settings(100), SCALE, 1)
    assert kept.height == 100
    assert kept["click_sessions"].sum() == 30
    scarce = cascade(pairs().lazy(), 1_000, settings(20), SCALE, 1)
    assert scarce["click_sessions"].sum() == 15  # a quarter is kept for the rest
    assert scarce.filter(click_sessions=1)["engagement"].min() == 16 * MICRO // 30


def test_everything_is_kept_where_there_is_room() -> None:
    assert cascade(pairs().lazy(), 1_000, settings(1_000), SCALE, 1).height == 1_000


def test_the_order_of_rows_does_not_matter_and_the_seed_does() -> None:
    one = cascade(pairs().lazy(), 1_000, settings(70), SCALE, 1).sort("query_key", "doc_key")
    shuffled = pairs().sample(fraction=1, shuffle=True, seed=4)
    assert one.equals(cascade(shuffled.lazy(), 1_000, settings(70), SCALE, 1).sort("query_key", "doc_key"))
    assert not one.equals(cascade(pairs().lazy(), 1_000, settings(70), SCALE, 2).sort("query_key", "doc_key"))


def test_strata_cut_the_traffic_of_each_locale_in_three() -> None:
    frame = pairs()
    found = strata(frame.lazy(), pl.col("click_sessions") == 0)
    for locale in ("de", "en"):
        rows = frame.filter(locale=locale).group_by("query_key").agg(pl.col("impressions").sum()).rows()
        total, above, expected = sum(shown for _, shown in rows), 0, {}
        for query, shown in sorted(rows, key=lambda row: (-row[1], row[0])):
            expected[query] = ("head", "torso", "tail")[3 * above // total]
            above += shown
        assert dict(found.filter(locale=locale).select("query_key", "band").rows()) == expected
    assert found["rest"].sum() == 970


def test_the_sample_reaches_the_tail_in_every_locale() -> None:
    frame = pairs(clicked=0)
    traffic = strata(frame.lazy(), pl.col("click_sessions") == 0)
    kept = cascade(frame.lazy(), 1_000, settings(60), SCALE, 3).join(traffic, on="query_key")
    counts = kept.group_by("locale", "band").len().sort("locale", "band")["len"].to_list()
    available = traffic.group_by("locale", "band").agg(pl.col("rest").sum()).sort("locale", "band")["rest"].to_list()
    assert counts == fair_places(available, 60)
    assert min(counts) >= 9  # six strata
    tail = kept.filter(pl.col("band") == "tail")
    assert tail["query_key"].is_unique().all()  # a pair of every query before a second of any


def test_fair_places_fill_what_there_is() -> None:
    assert fair_places([100, 100, 100], 30) == [10, 10, 10]
    assert fair_places([2, 100, 100], 32) == [2, 15, 15]
    assert fair_places([1, 1], 10) == [1, 1]
    assert fair_places([5, 5, 5], 4) == [2, 1, 1]
    assert fair_places([], 4) == []


def test_a_logged_score_that_is_high_leaves_nothing_to_learn() -> None:
    row = pairs().head(1).with_columns(engagement=pl.lit(4 * MICRO), scored=pl.lit(2))
    values = [
        row.with_columns(scores=pl.lit(2 * score * MICRO)).select(worth(MiningSettings(low_score=0.5), SCALE)).item()
        for score in (0.0, 0.75, 1.5, 3.0)
    ]
    assert values == pytest.approx([4 / 12, 4 / 12 / 2, 0, 0])
