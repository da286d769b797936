"""Seasons: a cycle alone raises no alarm, a drift under a cycle does, and short history falls back and says so."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from zlib import crc32

import numpy as np
import polars as pl
import pytest
from numpy.typing import NDArray

from serm.config import ShiftSettings
from serm.shift import detect
from serm.shift.sample import draw, draw_like, matched
from serm.shift.season import cell, possible

MONDAY = datetime(2026, 1, 5, tzinfo=UTC)
SMALL = ShiftSettings(sample=500, kernel_sample=300, words_sample=1_000, minimum=30, clusters=8)
PLAIN = SMALL.model_copy(update={"season": "none"})


def embed(texts: Sequence[str]) -> NDArray[np.float32]:
    """A unit vector near its topic's axis."""
    rows = []
    for text in texts:
        noise = np.random.default_rng(crc32(text.encode())).normal(scale=0.25, size=8)
        noise[int(text.split()[0].removeprefix("topic"))] += 1
        rows.append(noise / np.linalg.norm(noise))
    return np.array(rows, dtype=np.float32)


def stream(sessions: int, seed: int, start: datetime, days: float, new: float = 0.0) -> pl.DataFrame:
    """Searches whose topic and words follow the hour and the weekend, and a share `new` of another topic."""
    rng = np.random.default_rng(seed)
    ts = [start + timedelta(days=float(day)) for day in rng.random(sessions) * days]
    night = np.array([t.hour < 7 or t.hour >= 20 for t in ts])
    weekend = np.array([t.weekday() >= 5 for t in ts])
    lot = rng.random(sessions)
    topic = np.where(lot < 0.6, np.where(weekend, 2, 0) + night, 4)
    topic = np.where(rng.random(sessions) < new, 5, topic)
    word = rng.choice(100, sessions, p=(z := 1 / np.arange(1, 101)) / z.sum())
    return pl.DataFrame(
        {
            "ts": ts,
            "session": [f"{seed}-{i}" for i in range(sessions)],
            "query": [f"topic{t} word{w}of{t}" for t, w in zip(topic, word, strict=True)],
            "doc_id": "d",
            "position": 1,
            "clicked": rng.random(sessions) < 0.2 + 0.4 * night,  # people click more at night
        }
    )


def test_a_cycle_alone_stays_quiet_where_the_plain_comparison_alarms() -> None:
    quiet, plain = [], []
    for seed in range(6):
        history = stream(8_000, 2 * seed, MONDAY, 21)
        weekend = stream(1_000, 2 * seed + 1, MONDAY + timedelta(days=26), 2)  # Saturday and Sunday
        quiet.append(detect(history, weekend, SMALL, embed, seed=seed))
        plain.append(detect(history, weekend, PLAIN, embed, seed=seed))
    assert [report.verdict for report in plain] == ["strong"] * 6
    assert [report.verdict for report in quiet] == ["none"] * 6
    assert not any(report.note for report in quiet)


def test_a_night_against_a_week_of_days_and_nights() -> None:
    history = stream(6_000, 0, MONDAY, 14)
    night = stream(800, 1, MONDAY + timedelta(days=14), 7 / 24)
    assert detect(history, night, PLAIN, embed).verdict == "strong"
    assert detect(history, night, SMALL, embed).verdict == "none"


def test_new_intent_under_a_cycle_is_seen() -> None:
    history = stream(8_000, 0, MONDAY, 21)
    report = detect(history, stream(1_000, 1, MONDAY + timedelta(days=26), 2, new=0.2), SMALL, embed)
    assert report.verdict == "strong"
    planted = [cluster for cluster in report.changed if cluster.change == "new"]
    assert sum(cluster.share_current for cluster in planted) == pytest.approx(0.2, abs=0.06)
    assert all(query.startswith("topic5") for cluster in planted for query in cluster.examples)


def test_history_shorter_than_a_week_falls_back_and_says_so() -> None:
    today = MONDAY + timedelta(days=3)
    reports = [
        detect(stream(3_000, 2 * seed, MONDAY, 3), stream(1_000, 2 * seed + 1, today, 1), SMALL, embed)
        for seed in range(5)
    ]
    assert all("less than a week" in report.note for report in reports)
    # at a false discovery rate of 1% two alarms in five have a probability of 0.001
    assert sum(report.verdict != "none" for report in reports) <= 1
    hours = stream(2_000, 0, today - timedelta(hours=6), 0.25)
    season, note = possible(hours.lazy(), "week")
    assert season == "none"
    assert "less than a day" in note
    assert possible(stream(3_000, 0, MONDAY, 7).lazy(), "week") == ("week", "")
    assert possible(stream(3_000, 0, MONDAY, 7).lazy(), "none") == ("none", "")
    assert possible(hours.clear().lazy(), "week")[0] == "none"


def test_hours_without_history_leave_nothing_to_compare() -> None:
    """Ten days of history with an hour of the day that nobody ever searched at."""
    history = stream(4_000, 0, MONDAY, 10).filter(pl.col("ts").dt.hour() != 3)
    current = stream(9_000, 1, MONDAY + timedelta(days=10), 2).filter(pl.col("ts").dt.hour() == 3)
    report = detect(history, current, SMALL, embed)
    assert report.verdict == "unknown"
    assert "counterpart at the same hour" in report.note


def test_matched_samples_have_equal_cells() -> None:
    history, current = stream(5_000, 0, MONDAY, 14).lazy(), stream(900, 1, MONDAY + timedelta(days=19), 2).lazy()
    now = draw(current, 600, 3, "week")
    earlier = draw_like(history, now, 2, 3, "week")
    for times in (1, 2):
        *before, after = matched(earlier, now, 400, times)
        for side in before:
            assert side.searches["cell"].equals(after.searches["cell"])
        sessions = pl.concat([side.searches["session"] for side in (*before, after)])
        assert sessions.is_unique().all()
    times_of = history.select("session", "ts").collect()
    found = before[0].searches.join(times_of, on="session", maintain_order="left")
    assert (found["ts"].dt.weekday() >= 6).all()
    assert found.select(cell("week")).to_series().equals(found["cell"])
    # what is drawn of a cell is a random part of it: independent of the window's other cells, and the same again
    again = draw_like(history.collect().sample(fraction=1, shuffle=True, seed=1).lazy(), now, 2, 3, "week")
    assert again.searches.equals(earlier.searches)


def test_equal_reports_in_any_row_order_with_seasons() -> None:
    history, current = stream(4_000, 0, MONDAY, 14), stream(800, 1, MONDAY + timedelta(days=14), 2, new=0.1)
    one = detect(history, current, SMALL, embed, seed=3)
    other = detect(history.reverse(), current.sample(fraction=1, shuffle=True, seed=1), SMALL, embed, seed=3)
    assert one.to_dict() == other.to_dict()
