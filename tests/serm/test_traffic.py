"""Head, torso and tail: against a plain loop, in any order of rows, and for every locale by itself."""

import numpy as np
import polars as pl

from serm.traffic import BANDS, bands


def stream() -> pl.DataFrame:
    """400 queries, a few asked very often."""
    seen = np.random.default_rng(0).zipf(1.6, 400).clip(max=2_000)
    locale = ["de" if i % 3 else "en" for i in range(400)]
    return pl.DataFrame({"query": [f"q{i:03}" for i in range(400)], "seen": seen, "locale": locale})


def by_hand(rows: pl.DataFrame) -> dict[str, str]:
    found, before, total = {}, 0, rows["seen"].sum()
    for query, seen in sorted(rows.select("query", "seen").rows(), key=lambda row: (-row[1], row[0])):
        found[query] = BANDS[3 * before // total]
        before += seen
    return found


def test_head_torso_and_tail_have_a_third_of_the_traffic_each() -> None:
    rows = stream()
    found = bands(rows, "seen")
    assert dict(found.select("query", "band").rows()) == by_hand(rows)
    total, largest = rows["seen"].sum(), rows["seen"].max()
    shares = dict(found.group_by("band").agg(pl.col("seen").sum()).rows())
    assert set(shares) == set(BANDS)
    assert all(abs(share - total / 3) <= largest for share in shares.values())


def test_the_order_of_rows_does_not_matter() -> None:
    rows = stream()
    assert bands(rows.sample(fraction=1.0, shuffle=True, seed=3), "seen").equals(bands(rows, "seen"))


def test_every_locale_has_its_own_head() -> None:
    rows = stream()
    found = bands(rows, "seen", within="locale")
    for (locale,), part in rows.group_by("locale"):
        assert dict(found.filter(locale=locale).select("query", "band").rows()) == by_hand(part)


def test_a_single_query_is_head_and_no_query_gives_no_row() -> None:
    rows = stream()
    assert bands(rows.head(1), "seen")["band"].to_list() == ["head"]
    assert bands(rows.clear(), "seen").height == 0
