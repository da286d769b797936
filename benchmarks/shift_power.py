"""Power and false alarms of the shift check on streams of real movie searches (MSRD) with a known share of new intent.

    python benchmarks/shift_power.py embed cells           # every distinct query once, into cells/queries.parquet
    python benchmarks/shift_power.py run cells             # a line a trial into cells/*.jsonl; a rerun goes on
    python benchmarks/shift_power.py table cells

A trial is a stream of its own: two windows of 14 days, SESSIONS sessions each, one search a session, two results a
search. Old queries are those whose relevant movies all came out up to 2016, new intent those whose relevant movies all
came out later; no earlier window holds one of the latter. Popularity is Zipfian (exponent 1) over each group, in an
order drawn for the trial. The share of new intent is that of the current window's searches. Clicks and dwell do not
change, no scores are logged, and settings are the defaults. `--times 10` draws windows with ten times the sessions from
the same streams. `--intent animation` makes another new intent: searches for a genre that earlier windows lack.
"""

import argparse
import json
import time
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy.stats import binomtest

from serm.config import RelevanceSettings, ShiftSettings
from serm.shift import detect

DATA = Path(__file__).resolve().parents[2] / "shared/data/msrd"
SESSIONS, DAYS, RESULTS = 20_000, 14, 2
LAST_YEAR = 2016
SHARES = (0.0, 0.02, 0.05, 0.2)
START = datetime(2026, 1, 5, tzinfo=UTC)


def main() -> None:
    """Run one of the three steps."""
    parser = argparse.ArgumentParser(description="Power and false alarms of the shift check.")
    parser.add_argument("step", choices=["embed", "run", "table"])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--intent", default="years", help="years, or a genre such as animation")
    parser.add_argument("--trials", type=int, nargs=2, default=[0, 200], help="first trial, and the one after the last")
    parser.add_argument("--shares", type=float, nargs="+", default=list(SHARES))
    parser.add_argument("--times", type=int, default=1, help="how many times as long the windows are")
    asked = parser.parse_args()
    asked.folder.mkdir(parents=True, exist_ok=True)
    if asked.step == "embed":
        embed_all(asked.folder / "queries.parquet")
    elif asked.step == "run":
        run(asked.folder, asked.intent, range(*asked.trials), asked.shares, asked.times)
    else:
        table(asked.folder)


def embed_all(path: Path) -> None:
    """Embed every distinct query of MSRD."""
    from serm.relevance.embedding import embed

    queries = pl.read_parquet(DATA / "judgments.parquet")["query"].unique().sort()
    vectors = embed(queries.to_list(), RelevanceSettings())
    pl.DataFrame({"query": queries, "vector": pl.Series(vectors)}).write_parquet(path)


def run(folder: Path, intent: str, trials: range, shares: list[float], times: int) -> None:
    """One line a trial: the verdict, every view's effect and p-value, seconds."""
    known = pl.read_parquet(folder / "queries.parquet")
    row = {query: i for i, query in enumerate(known["query"])}
    vectors = known["vector"].to_numpy()
    old, new = groups(intent)
    path = folder / f"{intent}-{times}.jsonl"
    done = {(line["trial"], line["share"]) for line in lines(path)}
    for trial in trials:
        for share in shares:
            if (trial, share) in done:
                continue
            reference, current = stream(old, new, share, times, trial)
            began = time.perf_counter()
            report = detect(
                reference, current, ShiftSettings(), lambda texts: vectors[[row[text] for text in texts]], seed=trial
            )
            line = {
                "trial": trial, "share": share, "verdict": report.verdict,
                "seconds": round(time.perf_counter() - began, 2),
                "views": {view.name: [view.effect, view.p_value, view.significant] for view in report.views},
            }  # fmt: skip
            with path.open("a") as file:
                file.write(json.dumps(line) + "\n")


def groups(intent: str) -> tuple[NDArray[np.object_], NDArray[np.object_]]:
    """Old queries, and those of the new intent."""
    movies = pl.read_parquet(DATA / "corpus.parquet").select("year", doc_id="id", genres="genres")
    relevant = pl.read_parquet(DATA / "judgments.parquet").filter(pl.col("grade") > 0)
    dated = relevant.join(movies.filter(pl.col("year") > 1900), on="doc_id")
    late = pl.col("year") > LAST_YEAR if intent == "years" else pl.col("genres").list.contains(intent)
    kinds = dated.group_by("query").agg(every=late.all(), some=late.any()).sort("query")
    return kinds.filter(~pl.col("some"))["query"].to_numpy(), kinds.filter("every")["query"].to_numpy()


def stream(
    old: NDArray[np.object_], new: NDArray[np.object_], share: float, times: int, trial: int
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """A stream's two windows; popularity depends on the trial alone, not on the share or the length."""
    taste = np.random.default_rng([trial, 1])
    old, new = taste.permutation(old), taste.permutation(new)
    rng = np.random.default_rng([trial, 2, times, round(1000 * share)])
    sessions = SESSIONS * times
    return window(old, new, 0.0, sessions, START, rng), window(
        old, new, share, sessions, START + timedelta(days=DAYS), rng
    )


def window(
    old: NDArray[np.object_], new: NDArray[np.object_], share: float, sessions: int, start: datetime,
    rng: np.random.Generator,
) -> pl.DataFrame:  # fmt: skip
    """Impressions of one window, at times uniform over its days."""
    queries = np.where(
        rng.random(sessions) < share, new[zipf(len(new), sessions, rng)], old[zipf(len(old), sessions, rng)]
    )
    shown = sessions * RESULTS
    position = np.tile(np.arange(1, RESULTS + 1), sessions)
    clicked = rng.random(shown) < 0.4 / position
    ts = pl.Series(rng.integers(0, DAYS * 86_400_000_000, sessions)).cast(pl.Duration("us")) + start
    return pl.DataFrame(
        {
            "ts": ts.gather(np.repeat(np.arange(sessions), RESULTS)),
            "session": pl.Series(np.repeat(np.arange(sessions), RESULTS)).cast(pl.String) + start.isoformat(),
            "query": pl.Series(queries, dtype=pl.String).gather(np.repeat(np.arange(sessions), RESULTS)),
            "doc_id": pl.Series(position).cast(pl.String),
            "position": pl.Series(position, dtype=pl.Int32),
            "clicked": clicked,
            "dwell": pl.Series(np.where(clicked, rng.lognormal(3, 1, shown), np.nan)).fill_nan(None),
        }
    )


def zipf(number: int, size: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """`size` ranks from 0, with chances in proportion to 1 / rank."""
    weights = np.cumsum(1 / np.arange(1, number + 1))
    return np.searchsorted(weights / weights[-1], rng.random(size), side="right").clip(max=number - 1)


def lines(path: Path) -> list[dict]:
    """What was run before."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def table(folder: Path) -> None:
    """Alarms with 95% intervals (Clopper and Pearson), verdicts, each view's share of alarms, agreement of lengths."""
    for path in sorted(folder.glob("*.jsonl")):
        found = lines(path)
        print(f"\n{path.stem}: {sum(line['seconds'] for line in found) / len(found):.1f} s a check")
        short = {(line["trial"], line["share"]): line["verdict"] for line in lines(folder / f"{path.stem[:-1]}.jsonl")}
        for share in sorted({line["share"] for line in found}):
            some = [line for line in found if line["share"] == share]
            alarms = sum(line["verdict"] != "none" for line in some)
            low, high = binomtest(alarms, len(some)).proportion_ci()
            verdicts = dict(Counter(line["verdict"] for line in some))
            print(f"{share:.0%}: {alarms}/{len(some)} = {alarms / len(some):.1%} [{low:.1%}, {high:.1%}] {verdicts}")
            for name in some[0]["views"]:
                view = [line["views"][name] for line in some if line["views"][name][0] is not None]
                if view:
                    effects = np.quantile([v[0] for v in view], [0.05, 0.5, 0.95]).round(3)
                    print(f"    {name}: significant {np.mean([v[2] for v in view]):.1%}, effect {effects}")
            if not path.stem.endswith("-1"):
                pairs = [
                    (line["verdict"], short[line["trial"], share]) for line in some if (line["trial"], share) in short
                ]
                print(f"    same verdict as the short windows: {sum(a == b for a, b in pairs)}/{len(pairs)}")


if __name__ == "__main__":
    main()
