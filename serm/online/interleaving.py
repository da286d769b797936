"""Team-draft interleaving: two rankings in one list, clicks as votes, and whether one ranking is preferred.

Radlinski, Kurup, Joachims, "How does clickthrough data reflect retrieval quality?", CIKM 2008 (the draft); Chapelle,
Joachims, Radlinski, Yue, "Large-scale validation and analysis of interleaved search evaluation", ACM TOIS 2012 (the
summary, with ties).
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
from scipy.stats import binomtest, norm

from serm.config import OnlineSettings
from serm.online.ratio import arm
from serm.online.sequential import factor, p_value


@dataclass(frozen=True)
class Drafted:
    """One result of an interleaved list and the team that gave it."""

    doc_id: str
    team: str


@dataclass(frozen=True)
class Preference:
    """Which of two rankings users prefer. `delta` in [-1/2, 1/2] is above 0 where it is `first`."""

    first: str
    second: str
    searches: int  # with a click on a drafted result
    units: int
    wins_first: int
    wins_second: int
    ties: int
    delta: float
    low: float  # bootstrap over units, for one planned look
    high: float
    safe_low: float | None  # for any look; None with too few units
    safe_high: float | None
    p: float  # sign test over units, ties left out
    safe_p: float | None
    verdict: str  # first, second, open, or early
    headline: str


def assign(
    first: Sequence[str], second: Sequence[str], key: str, seed: int = 0, length: int = 10,
    teams: tuple[str, str] = ("a", "b"),
) -> list[Drafted]:  # fmt: skip
    """Draft up to `length` results from two rankings of document ids, the best first.

    In each round a coin says which team picks first, and each picks its best result that is not there yet. The coins
    depend on `key` (of the query or the impression) and `seed` alone: the same search gets the same list again.

    Raises:
        ValueError: a ranking names a document twice, or the teams have one name.
    """
    if len(set(first)) < len(first) or len(set(second)) < len(second):
        raise ValueError("a ranking names a document twice; drafting needs each once")
    if teams[0] == teams[1]:
        raise ValueError("give the two teams different names")
    digest = hashlib.blake2b(f"{seed} {key}".encode("utf-8", "surrogatepass"), digest_size=16).digest()
    coins = np.random.default_rng(int.from_bytes(digest)).integers(0, 2, length)
    left = [iter(first), iter(second)]
    picks = [0, 0]
    drafted: dict[str, str] = {}
    for coin in coins:
        team = int(coin) if picks[0] == picks[1] else int(picks[0] > picks[1])
        for turn in (team, 1 - team):  # a team with nothing left to give passes
            pick = next((doc for doc in left[turn] if doc not in drafted), None)
            if pick is not None:
                drafted[pick] = teams[turn]
                picks[turn] += 1
                break
        else:
            break
    return [Drafted(doc, team) for doc, team in drafted.items()]


def credit(rows: pl.LazyFrame) -> pl.LazyFrame:
    """Which team won each search: unit, session, query, clicks_first, clicks_second, wins (+1, -1, or 0 for a tie).

    `rows` has unit, session, query, team (0 first, 1 second; null: nobody's) and clicked. Searches without a click on
    a team's result say nothing and are left out.
    """
    mine = pl.col("clicked").fill_null(False)
    clicks = rows.group_by("unit", "session", "query").agg(
        clicks_first=(mine & (pl.col("team") == 0)).sum(), clicks_second=(mine & (pl.col("team") == 1)).sum()
    )
    difference = pl.col("clicks_first").cast(pl.Int64) - pl.col("clicks_second").cast(pl.Int64)
    return clicks.filter((pl.col("clicks_first") > 0) | (pl.col("clicks_second") > 0)).with_columns(
        wins=difference.sign()
    )


def compare(credits: pl.LazyFrame, teams: tuple[str, str], settings: OnlineSettings, seed: int = 0) -> Preference:
    """Test credited searches by unit.

    delta = (wins of first + ties / 2) / (all wins and ties) - 1/2 (Chapelle et al. 2012, equation 1), over searches.
    Units are what is drawn again and what the sign test counts: one unit's searches are not independent.

    Raises:
        ValueError: no search has a click on a team's result.
    """
    wins = pl.col("wins")
    units = (
        credits.group_by("unit")
        .agg(n=wins.sum() / 2, d=pl.len(), first=(wins > 0).sum(), second=(wins < 0).sum(), ties=(wins == 0).sum())
        .collect(engine="streaming")
    )
    if units.is_empty():
        raise ValueError("no search of the log has a click on a team's result; there is nothing to compare")
    cells = units.group_by("n", "d").agg(count=pl.len()).sort("n", "d")
    n, d, count = (cells[c].cast(pl.Float64).to_numpy() for c in ("n", "d", "count"))
    found = arm(
        {"units": count.sum(), "n": count @ n, "d": count @ d, "nn": count @ n**2, "nd": count @ (n * d),
         "dd": count @ d**2}
    )  # fmt: skip
    low, high = _bootstrap(n, d, count, settings, seed)
    plus, minus = int(count[n > 0].sum()), int(count[n < 0].sum())
    p = float(binomtest(plus, plus + minus).pvalue) if plus + minus else 1.0
    few = units.height < settings.minimum_units or not found.variance > 0
    width = factor(found.units, settings.alpha, settings.tightest_units) * found.variance**0.5 if not few else None
    safe_p = None
    if not few:
        safe_p = p_value(found.value / found.variance**0.5, found.units, settings.alpha, settings.tightest_units)
    verdict = (
        "early" if safe_p is None else "open" if safe_p > settings.alpha else "first" if found.value > 0 else "second"
    )
    return Preference(
        teams[0], teams[1], int(units["d"].sum()), units.height,
        int(units["first"].sum()), int(units["second"].sum()), int(units["ties"].sum()),
        found.value, low, high,
        None if width is None else found.value - width, None if width is None else found.value + width,
        p, safe_p, verdict, _headline(verdict, teams, found.value, found.variance, found.units, settings),
    )  # fmt: skip


def _bootstrap(
    n: np.ndarray, d: np.ndarray, count: np.ndarray, settings: OnlineSettings, seed: int
) -> tuple[float, float]:
    """Percentile interval of sum n / sum d over units drawn again; units alike are drawn as one multinomial cell."""
    total = int(count.sum())
    drawn = np.random.default_rng(seed).multinomial(total, count / total, settings.resamples)
    low, high = np.quantile((drawn @ n) / (drawn @ d), [settings.alpha / 2, 1 - settings.alpha / 2])
    return float(low), float(high)


def _headline(
    verdict: str, teams: tuple[str, str], delta: float, variance: float, units: int, settings: OnlineSettings
) -> str:
    if verdict in ("first", "second"):
        winner = teams[0] if verdict == "first" else teams[1]
        return (
            f"Users prefer {winner}: it wins {50 + 100 * abs(delta):.1f}% of searches, ties split. The evidence holds "
            "however often you looked; you may stop."
        )
    if verdict == "early":
        return f"Too early: fewer than {settings.minimum_units:,} users or sessions clicked, or all searches tied."
    reach = float(norm.ppf(settings.power)) + factor(units, settings.alpha, settings.tightest_units)
    seen = 100 * reach * variance**0.5
    return f"No evidence yet: so many searches would show a preference of {50 + seen:.1f}% to {50 - seen:.1f}%."
