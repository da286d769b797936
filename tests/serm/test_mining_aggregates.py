"""The log's sums: against plain Python on small random logs, however the log is cut and its rows are ordered."""

import math
import os
import statistics
import time
from collections import Counter, defaultdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from serm.config import MiningSettings
from serm.mining import partitions
from serm.mining.aggregates import FRAMES, Sums, believed, bucket_seconds, dwell_bucket, keys, merged, sums
from serm.mining.candidates import SCHEMA, gather
from serm.mining.partitions import Cache, Part, add_up, cut
from serm.records import IMPRESSIONS

START = datetime(2026, 1, 5, 22, tzinfo=UTC)
PHASES = (Phase.explicit, Phase.reuse, Phase.generate)  # shrinking a failure would take minutes
SETTINGS = MiningSettings(per_session=2, per_document=1e9, spread=1e9)
NOTHING = pl.LazyFrame(schema={"query": pl.String, "doc_id": pl.String})
DOCUMENTS = pl.LazyFrame({"doc_id": [f"d{i}" for i in range(4)]})

Row = tuple[int, str, str, str, int, bool, float | None, str | None, float | None]
shown = st.tuples(
    st.integers(0, 50), st.sampled_from("abc"), st.sampled_from("pq"), st.sampled_from(["d0", "d1", "d2", "d3"]),
    st.integers(1, 60), st.booleans(), st.none() | st.floats(0.1, 500), st.sampled_from(["de", "en", None]),
    st.none() | st.sampled_from([0.25, 1.5, 3.0]),
)  # fmt: skip


def frame(rows: list[Row]) -> pl.DataFrame:
    """Rows an hour apart at most; a row that was not clicked has no dwell time."""
    names = ["hour", "session", "query", "doc_id", "position", "clicked", "dwell", "locale", "score"]
    schema = dict(zip(names, [pl.Int64, *[pl.String] * 3, pl.Int32, pl.Boolean, pl.Float64, pl.String, pl.Float64],
                      strict=True))  # fmt: skip
    table = pl.DataFrame(rows, schema=schema, orient="row")
    table = table.with_columns(ts=pl.lit(START) + pl.duration(hours="hour"), dwell=pl.when("clicked").then("dwell"))
    return IMPRESSIONS.conform(table.drop("hour")).unique(list(IMPRESSIONS.key), maintain_order=True)


def by_hand(log: pl.DataFrame, rules: MiningSettings) -> dict[tuple[str, str], dict[str, Any]]:
    """What `gather` promises, row by row, without the cap per document."""
    visits = defaultdict(list)
    for row in log.to_dicts():
        visits[row["session"], row["ts"].date()].append(row)
    pairs: dict[tuple[str, str], dict[str, Any]] = {}
    clicks = []
    for rows in visits.values():
        clicked = [row for row in rows if row["clicked"]]
        known = [row["dwell"] for row in clicked if row["dwell"] is not None]
        read = statistics.median(known) if known else None
        greedy = len(clicked) >= rules.bot_clicks and len(clicked) >= rules.bot_share * len(rows)
        restless = len(clicked) >= 2 * rules.bot_clicks and read is not None and read < rules.bot_dwell
        if restless or (greedy and (read or 0) < rules.bot_dwell):
            continue
        seen, heard = set(), {}
        for row in rows:
            pair = row["query"], row["doc_id"]
            entry = pairs.setdefault(pair, {"impressions": 0, "sessions": 0, "positions": 0, "scores": []})
            entry["impressions"] += 1
            entry["sessions"] += pair not in seen
            seen.add(pair)
            entry["positions"] += row["position"]
            entry["scores"] += [] if row["score"] is None else [row["score"]]
            if row["clicked"] and (row["dwell"] is None or row["dwell"] >= rules.bot_dwell):
                heard.setdefault(pair, []).append(row)
        order = sorted(heard, key=lambda pair: earliest(pair, heard[pair]))
        documents: list[str] = []
        for pair in order:
            if pair[1] not in documents and len(documents) < rules.per_session:
                dwell = [r["dwell"] for r in heard[pair] if r["dwell"] is not None]
                place = min(r["locale"] or "" for r in heard[pair]), min(min(r["position"], 50) for r in heard[pair])
                clicks.append((pair, place, bucket(max(dwell)) if dwell else None))
                documents.append(pair[1])
    medians = {place: low_median([b for _, p, b in clicks if p == place]) for _, place, _ in clicks}
    overall = low_median([b for *_, b in clicks])
    for pair, entry in pairs.items():
        mine = [(place, b) for p, place, b in clicks if p == pair]
        entry["click_sessions"] = len(mine)
        entry["dwell"] = low_median([b for _, b in mine])
        entry["engagement"] = 0.0
        for place, b in mine:
            number = sum(1 for _, p, x in clicks if p == place and x is not None)
            usual = medians[place]
            tilt = math.log(usual / overall) * number / (number + 50) if usual is not None and overall else 0.0
            tau = rules.dwell * math.exp(tilt)
            entry["engagement"] += 0.5 if b is None else min(1.0, middle(b) / tau)
    return pairs


def earliest(pair: tuple[str, str], clicks: list[dict[str, Any]]) -> tuple[Any, ...]:
    """When a pair was first clicked in a visit; ties go by the highest place, then by the pair's keys."""
    pair_keys = pl.DataFrame([pair], schema=["query", "doc_id"], orient="row").select(keys()).row(0)
    return min(row["ts"] for row in clicks), min(row["position"] for row in clicks), *pair_keys


def bucket(seconds: float) -> int:
    return min(128, max(0, math.floor((math.log2(seconds) + 1) * 8)))


def middle(number: int) -> float:
    return float(2 ** ((number + 0.5) / 8 - 1))


def low_median(buckets: list[int | None]) -> float | None:
    known = [b for b in buckets if b is not None]
    return middle(statistics.median_low(known)) if known else None


@settings(max_examples=30, deadline=None, phases=PHASES)
@given(st.lists(shown, min_size=1, max_size=40))
def test_pairs_equal_plain_python(rows: list[Row]) -> None:
    log = frame(rows)
    found = {(r["query"], r["doc_id"]): r for r in gather(log.lazy(), DOCUMENTS, NOTHING, SETTINGS).to_dicts()}
    expected = by_hand(log, SETTINGS)
    assert found.keys() == expected.keys()
    for pair, row in found.items():
        want = expected[pair]
        for name in ("impressions", "sessions", "click_sessions"):
            assert row[name] == want[name], (pair, name)
        assert row["position"] == pytest.approx(want["positions"] / want["impressions"])
        assert row["logged"] == (pytest.approx(statistics.mean(want["scores"])) if want["scores"] else None)
        assert row["dwell"] == (pytest.approx(want["dwell"]) if want["dwell"] else None)
        assert row["engagement"] == pytest.approx(want["engagement"], abs=1e-4)


@settings(max_examples=15, deadline=None, phases=PHASES)
@given(st.lists(shown, min_size=1, max_size=40), st.randoms(use_true_random=False), st.integers(1, 4))
def test_sums_are_the_same_however_the_log_is_cut(rows: list[Row], lot: Any, heaps: int) -> None:
    """Parts of one visit each, thrown on heaps, heaps merged, merged again; against the whole log at once."""
    log = frame(rows)
    whole = sums(believed(log.lazy(), SETTINGS), SETTINGS)
    visits = [part for _, part in log.group_by("session", pl.col("ts").dt.date())]
    lot.shuffle(visits)
    merged_heaps = [
        merged(together([sums(believed(v.lazy(), SETTINGS), SETTINGS) for v in heap]))
        for heap in (visits[i::heaps] for i in range(heaps))
        if heap
    ]
    once = merged(together(merged_heaps))
    for name in FRAMES:
        left, right = (getattr(side, name).collect() for side in (whole, once))
        columns = right.columns
        assert left.select(columns).sort(columns).equals(right.sort(columns)), name


def together(parts: list[Sums]) -> Sums:
    return Sums(*(pl.concat([getattr(part, name) for part in parts]) for name in FRAMES))


def many(seed: int = 0) -> pl.DataFrame:
    """Four days of 40 sessions, some of which go on past midnight."""
    import random

    lot = random.Random(seed)
    rows = [
        (lot.randrange(90), f"s{lot.randrange(40)}", lot.choice("pqrst"), f"d{lot.randrange(4)}", lot.randrange(1, 11),
         lot.random() < 0.3, lot.lognormvariate(3, 1), lot.choice(["de", "en"]), lot.random())
        for _ in range(2_000)
    ]  # fmt: skip
    return frame(rows)


def test_candidates_do_not_depend_on_parts_rows_or_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = many()
    rules = MiningSettings()
    whole = gather(log.lazy(), DOCUMENTS, NOTHING, rules)
    assert whole["click_sessions"].sum() > 100
    shuffled = log.sample(fraction=1, shuffle=True, seed=3)
    assert gather(shuffled.lazy(), DOCUMENTS, NOTHING, rules).equals(whole)
    monkeypatch.setattr(partitions, "PART_ROWS", 150)
    monkeypatch.setattr("serm.mining.pairs.RANGE_ROWS", 7)
    assert len(cut(log.lazy())) > 10
    cache = Cache(tmp_path / "sums", "v1")
    for _ in range(2):
        assert gather(shuffled.lazy(), DOCUMENTS, NOTHING, rules, cache).equals(whole)


def test_parts_hold_whole_visits_and_every_row_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(partitions, "PART_ROWS", 150)
    log = many().lazy()
    parts = cut(log)
    rows = [part.of(log).collect() for part in parts]
    assert sum(part.height for part in rows) == log.collect().height
    homes = Counter(v for part in rows for v in set(part.select("session", pl.col("ts").dt.date()).rows()))
    assert set(homes.values()) == {1}


def test_a_killed_run_computes_only_the_missing_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = many().lazy()
    computed: list[Part] = []
    fuse = [3]
    real = partitions.compute

    def dying(rows: pl.LazyFrame, part: Part, rules: MiningSettings) -> list[pl.DataFrame]:
        if len(computed) == fuse[0]:
            raise KeyboardInterrupt
        computed.append(part)
        return real(rows, part, rules)

    monkeypatch.setattr(partitions, "compute", dying)
    with pytest.raises(KeyboardInterrupt):
        add_up(log, SETTINGS, tmp_path)
    fuse[0] = 1_000
    add_up(log, SETTINGS, tmp_path)
    assert len(computed) > 4
    assert computed == cut(log)  # none twice


def test_a_cache_of_another_log_or_other_rules_is_not_read(tmp_path: Path) -> None:
    one = Cache(tmp_path, "v1").parts(SETTINGS)
    (one / "mark").touch()
    assert (Cache(tmp_path, "v1").parts(MiningSettings(per_session=2, budget=7)) / "mark").exists()
    assert not (Cache(tmp_path, "v1").parts(MiningSettings(per_session=3)) / "mark").exists()
    assert not (Cache(tmp_path, "v2").parts(SETTINGS) / "mark").exists()
    assert (one / "mark").exists()  # a miner of the other log may be at work


def test_a_cache_that_nobody_asked_for_in_days_goes(tmp_path: Path) -> None:
    old, recent = Cache(tmp_path, "v1").parts(SETTINGS), Cache(tmp_path, "v2").parts(SETTINGS)
    os.utime(old, (0, time.time() - partitions.UNUSED_SECONDS - 60))
    now = Cache(tmp_path, "v3").parts(SETTINGS)
    assert set(tmp_path.iterdir()) == {recent, now}


def test_a_log_without_rows_has_no_pairs() -> None:
    found = gather(IMPRESSIONS.empty().lazy(), DOCUMENTS, NOTHING, SETTINGS)
    assert (found.height, found.schema) == (0, SCHEMA)


def test_dwell_buckets_hold_their_seconds() -> None:
    seconds = pl.DataFrame({"s": [0.55, 1.0, 1.1, 30.0, 31.9, 600.0, 30_000.0]})
    middles = seconds.select(s=bucket_seconds(dwell_bucket(pl.col("s"))))["s"]
    assert (middles / seconds["s"]).log().abs().max() <= math.log(2) / 16 + 1e-9
    assert seconds.select(dwell_bucket(pl.col("s")))["s"].to_list() == [bucket(s) for s in seconds["s"]]


# --- caps by hand -------------------------------------------------------------------------------------------------


def pushed(sessions: int, clicked: int, document: str = "d1") -> list[Row]:
    """`sessions` that were shown the document third, of whom so many clicked it."""
    return [(i % 20, f"{document}-{i}", "q", document, 3, i < clicked, 60.0, "en", 0.5) for i in range(sessions)]


def test_a_session_speaks_for_a_document_once_and_for_so_many_documents() -> None:
    clicks = [(0, "p", "d0", 9), (1, "q", "d0", 1), (1, "q", "d1", 2), (1, "q", "d2", 3), (1, "q", "d3", 4)]
    rows: list[Row] = [(hour, "s", query, doc, rank, True, 60.0, "en", 0.5) for hour, query, doc, rank in clicks]
    found = gather(frame(rows).lazy(), DOCUMENTS, NOTHING, MiningSettings(per_session=3, spread=1e9))
    assert found.select("query", "doc_id", "click_sessions").rows() == [
        ("p", "d0", 1), ("q", "d0", 0), ("q", "d1", 1), ("q", "d2", 1), ("q", "d3", 0),
    ]  # fmt: skip


def test_a_documents_clicks_are_capped_by_what_its_showings_explain() -> None:
    quiet = [row for d in ("d0", "d2", "d3") for row in pushed(400, 40, d)]  # one click in ten showings
    rules = MiningSettings(per_document=2, spread=1e9)
    honest = gather(frame([*quiet, *pushed(50, 8)]).lazy(), DOCUMENTS, NOTHING, rules)
    assert honest.filter(doc_id="d1")["click_sessions"].item() == 8
    loud = gather(frame([*quiet, *pushed(50, 50)]).lazy(), DOCUMENTS, NOTHING, rules).filter(doc_id="d1")
    rate = (120 + 50 + 200 * 170 / 1250) / (1250 + 200)  # all were shown third, in one locale
    assert loud["click_sessions"].item() == math.floor(2 * 50 * rate + 3) < 20
    assert loud["engagement"].item() == pytest.approx(2 * 50 * rate + 3, abs=1e-3)
    assert loud["sessions"].item() == 50


def test_a_document_clicked_for_whatever_shows_it_is_not_heard() -> None:
    """Ten queries show d0 and d1 four times each: d0 is liked for two of them, d1 is clicked once for every one."""
    rows: list[Row] = []
    for query in range(10):
        for showing in range(4):
            session = f"{query}-{showing}"
            liked, pushed = query < 2, showing == 0
            rows += [(showing, session, f"q{query}", "d0", 1, liked, 60.0, "en", 0.5),
                     (showing, session, f"q{query}", "d1", 2, pushed, 60.0, "en", 0.5)]  # fmt: skip
            rows += [(showing, session, f"q{query}", f"d{n}", n + 1, False, None, "en", 0.5) for n in (2, 3)]
    heard = gather(frame(rows).lazy(), DOCUMENTS, NOTHING, MiningSettings(spread=1.0))
    clicks = dict(heard.group_by("doc_id").agg(pl.col("click_sessions").sum()).rows())
    assert (clicks["d0"], clicks["d1"]) == (8, 0)
    open_ = gather(frame(rows).lazy(), DOCUMENTS, NOTHING, MiningSettings(spread=1e9))
    assert dict(open_.group_by("doc_id").agg(pl.col("click_sessions").sum()).rows())["d1"] > 0


def test_what_a_visits_cap_leaves_out_still_shows_who_is_pushed() -> None:
    """A bot that clicks d1 in ten searches of one visit is heard once, and known by all ten."""
    quiet = [
        (showing, f"s{query}-{showing}", f"q{query}", document, 1, showing == 0, 60.0, "en", 0.5)
        for query in range(10) for showing in range(10) for document in ("d0", "d1")
    ]  # fmt: skip
    people = [row for row in quiet if row[3] == "d0" or not row[5]]  # nobody has clicked d1
    visit = [(query, "bot", f"q{query}", "d1", 1, True, 90.0, "en", 0.5) for query in range(10)]
    rules = MiningSettings(spread=1.2, per_session=1, per_document=1e9)
    found = gather(frame([*people, *visit]).lazy(), DOCUMENTS, NOTHING, rules).filter(doc_id="d1")
    assert found["click_sessions"].sum() == 0
    heard = gather(frame([*people, *visit[:1]]).lazy(), DOCUMENTS, NOTHING, rules).filter(doc_id="d1")
    assert heard["click_sessions"].sum() == 1


def test_a_click_on_what_was_hardly_ever_shown_is_not_heard_yet() -> None:
    """One in forty showings is clicked: a click on d1 counts when it was shown three times, not once."""
    quiet = [(i % 20, f"s{i}", "p", "d0", 1, i % 40 == 0, 60.0, "en", 0.5) for i in range(1_600)]
    for showings, counted in ((1, 0), (3, 1)):
        rare = [(i, f"r{i}", "q", "d1", 1, i == 0, 60.0, "en", 0.5) for i in range(showings)]
        found = gather(frame([*quiet, *rare]).lazy(), DOCUMENTS, NOTHING, MiningSettings()).filter(doc_id="d1")
        assert found["click_sessions"].item() == counted


def test_reading_is_relative_to_rank_and_locale() -> None:
    """Where people usually read for 10 s, 15 s is long; where they read for 90 s it is not."""
    rows: list[Row] = [
        (i % 20, f"{locale}{i}", "p", "d0", 1, True, usual, locale, 0.5)
        for locale, usual in (("de", 10.0), ("en", 90.0))
        for i in range(400)
    ]
    rows += [(1, f"x{locale}", f"q {locale}", "d1", 1, True, 15.0, locale, 0.5) for locale in ("de", "en")]
    found = gather(frame(rows).lazy(), DOCUMENTS, NOTHING, MiningSettings(per_document=100, spread=1e9)).filter(
        doc_id="d1"
    )
    short, long = found.sort("query")["engagement"].to_list()
    assert short > 0.5 > long
    assert short / long == pytest.approx((90 / 10) ** (400 / 450), rel=0.15)


def test_days_are_utc_days() -> None:
    log = frame([(1, "s", "q", "d1", 1, True, 60.0, "en", 0.5), (3, "s", "q", "d1", 1, True, 60.0, "en", 0.5)])
    assert [ts.day for ts in log["ts"]] == [5, 6]
    found = gather(log.lazy(), DOCUMENTS, NOTHING, MiningSettings())
    assert found.select("sessions", "click_sessions").row(0) == (2, 2)
    assert log["ts"][1] - log["ts"][0] == timedelta(hours=2)
