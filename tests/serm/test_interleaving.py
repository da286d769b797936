"""Team-draft interleaving: the draft's rules, credit by hand, a test that finds a real preference and no other."""

import json
import math
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from typer.testing import CliRunner

from serm.cli import app
from serm.config import OnlineSettings
from serm.online import assign, compare, credit
from serm.workspace import Workspace

RANKINGS = st.lists(st.integers(0, 12).map(str), unique=True, max_size=9)


@settings(max_examples=200, deadline=None)
@given(first=RANKINGS, second=RANKINGS, key=st.text(), length=st.integers(1, 12))
def test_a_draft_is_fair_round_by_round_and_the_same_again(
    first: list[str], second: list[str], key: str, length: int
) -> None:
    drafted = assign(first, second, key, length=length)
    assert drafted == assign(first, second, key, length=length)
    docs = [each.doc_id for each in drafted]
    assert len(set(docs)) == len(docs) == min(length, len({*first, *second}))
    shown: set[str] = set()
    picks: Counter[str] = Counter()
    for each in drafted:
        own, other = (first, second) if each.team == "a" else (second, first)
        assert each.doc_id == next(doc for doc in own if doc not in shown)  # the best that is left
        exhausted = all(doc in shown for doc in other)
        others = picks["b" if each.team == "a" else "a"]
        assert picks[each.team] <= others or exhausted  # nobody picks twice in a round
        shown.add(each.doc_id)
        picks[each.team] += 1


def test_the_coin_is_fair_and_depends_on_key_and_seed() -> None:
    first, second = list("abcdef"), list("uvwxyz")
    starts = [assign(first, second, f"query {i}")[0].team for i in range(2_000)]
    assert stats.binomtest(starts.count("a"), 2_000).pvalue > 0.001
    again = [assign(first, second, f"query {i}", seed=1)[0].team for i in range(2_000)]
    same = sum(x == y for x, y in zip(starts, again, strict=True))
    assert stats.binomtest(same, 2_000).pvalue > 0.001
    with pytest.raises(ValueError, match="twice"):
        assign(["x", "x"], ["y"], "k")
    with pytest.raises(ValueError, match="different names"):
        assign(["x"], ["y"], "k", teams=("a", "a"))


def frame(rows: list[tuple[str, str, str, int | None, bool]]) -> pl.LazyFrame:
    return pl.LazyFrame(rows, schema=["unit", "session", "query", "team", "clicked"], orient="row")


def test_credit_goes_to_the_team_with_more_clicks() -> None:
    rows = frame(
        [("u", "s", "q", 0, True), ("u", "s", "q", 1, False), ("u", "s", "q", 0, True), ("u", "s", "q", 1, True),
         ("u", "s", "r", 0, True), ("u", "s", "r", 1, True), ("v", "t", "q", 1, True), ("v", "t", "q", None, True),
         ("w", "x", "q", 0, False), ("w", "x", "q", None, True)]
    )  # fmt: skip
    found = credit(rows).sort("unit", "query").collect()
    assert found.select("unit", "query", "clicks_first", "clicks_second", "wins").rows() == [
        ("u", "q", 2, 1, 1), ("u", "r", 1, 1, 0), ("v", "q", 0, 1, -1),
    ]  # fmt: skip
    result = compare(credit(rows), ("a", "b"), OnlineSettings())
    assert (result.wins_first, result.wins_second, result.ties, result.searches, result.units) == (1, 1, 1, 3, 2)
    assert result.delta == pytest.approx((1 + 0.5) / 3 - 0.5)
    assert result.verdict == "early"
    with pytest.raises(ValueError, match="no search"):
        compare(credit(frame([("u", "s", "q", 0, False)])), ("a", "b"), OnlineSettings())


def searches(rng: np.random.Generator, users: int, chance: float, alike: float) -> pl.LazyFrame:
    """Credited searches: a user's taste is near the chance, and all of one user's searches share it."""
    taste = rng.beta(chance * alike, (1 - chance) * alike, users)
    number = 1 + rng.poisson(4, users)
    unit = np.repeat(np.arange(users), number)
    wins = np.where(rng.random(unit.size) < 0.2, 0, np.where(rng.random(unit.size) < taste[unit], 1, -1))
    return pl.LazyFrame({"unit": unit, "wins": wins.astype(np.int64)})


def test_intervals_cover_and_alarms_are_as_rare_as_promised() -> None:
    rng = np.random.default_rng(1)
    trials, chance = 300, 0.55
    quick = OnlineSettings(resamples=400, tightest_units=400)
    hits, alarms, signs = 0, 0, 0
    for seed in range(trials):
        found = compare(searches(rng, 300, chance, 2.0), ("a", "b"), quick, seed)
        hits += found.low <= (chance - 0.5) * 0.8 <= found.high
        none = compare(searches(rng, 300, 0.5, 2.0), ("a", "b"), quick, seed)
        alarms += none.verdict != "open"
        signs += none.p < 0.05
    assert stats.binomtest(hits, trials, 0.95).pvalue > 0.001
    assert alarms <= 0.02 * trials
    assert stats.binom.sf(signs - 1, trials, 0.05) > 0.001
    clear = compare(searches(rng, 3_000, 0.6, 2.0), ("new", "old"), quick)
    assert clear.verdict == "first"
    assert clear.headline.startswith("Users prefer new")
    assert clear.safe_low is not None
    assert 0 < clear.safe_low < clear.low < clear.delta


def test_the_sign_test_is_the_binomial_one_over_units() -> None:
    rows = pl.LazyFrame({"unit": [f"u{i}" for i in range(200)], "wins": [1] * 120 + [-1] * 60 + [0] * 20})
    found = compare(rows, ("a", "b"), OnlineSettings())
    assert found.p == pytest.approx(sum(math.comb(180, k) for k in range(120, 181)) * 2 / 2**180)
    assert found.delta == pytest.approx(0.15)
    spread = np.array([0.5] * 120 + [-0.5] * 60 + [0.0] * 20).std(ddof=1) / math.sqrt(200)
    assert (found.high - found.low) / 2 == pytest.approx(1.96 * spread, rel=0.1)


def test_command(tmp_path: Path) -> None:
    """Users click what is good; the new ranking puts it on top more often."""
    rng = np.random.default_rng(2)
    rows = []
    for search in range(600):
        docs = [f"d{i}" for i in rng.permutation(8)]
        good = docs[int(rng.integers(0, 8))]
        better = [good, *(d for d in docs if d != good)] if rng.random() < 0.5 else docs
        for position, each in enumerate(assign(better, docs, str(search), teams=("new", "old"), length=6), start=1):
            clicked = each.doc_id == good or rng.random() < 0.05
            rows.append((datetime(2026, 3, 2, tzinfo=UTC), f"s{search}", f"q{search}", each.doc_id, position, clicked,
                         each.team))  # fmt: skip
    log = pl.DataFrame(rows, schema=["ts", "session", "query", "doc_id", "position", "clicked", "side"], orient="row")
    log.write_csv(tmp_path / "log.csv")
    workspace = Workspace.create(tmp_path / "w")
    runner = CliRunner()
    here = ["interleave", str(tmp_path / "log.csv"), "-w", workspace.root]
    assert "team" in str(runner.invoke(app, here).exception)
    found = json.loads(runner.invoke(app, [*here, "--column", "team=side", "--json"]).stdout)
    assert (found["first"], found["second"], found["verdict"]) == ("new", "old", "first")
    assert "Users prefer new" in runner.invoke(app, [*here, "--column", "team=side"]).stdout
    one = log.with_columns(side=pl.lit("new"))
    one.write_csv(tmp_path / "log.csv")
    assert "two teams" in str(runner.invoke(app, [*here, "--column", "team=side"]).exception)
