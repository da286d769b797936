"""1, 10 and 100 million impressions mined on logged scores, beside a bare Polars scan and group-by of the same columns.

    python benchmarks/scale.py --millions 1 10 100

The log is generated (queries and documents by Zipf's law, ten results a search, some 95 bytes an impression as text) as
a Delta table in 28 days. Each step is a process of its own: wall and processor seconds, and peak resident memory.
*mine* is the log's part of a round: sums, pairs, cascade, feedback agent, union, and the budget filled with a cap per
query; *verb* is the whole of `serm mine`: shift check, click model and embeddings too.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import polars as pl
from deltalake import write_deltalake
from numpy.typing import NDArray

from serm.mining.agents import OPINIONS
from serm.mining.candidates import shortlist
from serm.mining.scoring import with_logged_scores
from serm.mining.selection import Basket, pick
from serm.mining.union import turns, unite
from serm.records import IMPRESSIONS
from serm.workspace import Workspace

DAYS, RESULTS, SEARCHES_A_SESSION = 28, 10, 2
QUERIES, DOCUMENTS, POOL = 2_000_000, 1_000_000, 23  # POOL documents compete for each query
SCALE = [0, 1, 2, 3]
BYTES_NEEDED = 40  # free disk an impression; the table takes about a half
START = np.datetime64("2026-01-05", "us").astype(np.int64)
DAY_MICROSECONDS = 86_400_000_000


def main() -> None:
    """Generate, scan and mine each size; print a line of JSON for each step."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--millions", type=float, nargs="+", default=[1, 10, 100])
    parser.add_argument("--scratch", default=tempfile.gettempdir())
    parser.add_argument("--step", nargs=2, metavar=("STEP", "FOLDER"), help="one step, in this process")
    arguments = parser.parse_args()
    if arguments.step:
        step, folder = arguments.step
        steps = {"bare": bare, "mine": mine, "verb": verb}
        print(steps[step](folder) if step in steps else generate(folder, round(arguments.millions[0] * 1e6)))
        return
    for millions in arguments.millions:
        needed, free = millions * 1e6 * BYTES_NEEDED, shutil.disk_usage(arguments.scratch).free
        if free < needed:
            raise SystemExit(
                f"{arguments.scratch}: {free / 1e9:.0f} GB free, {needed / 1e9:.0f} needed; give --scratch"
            )
        with tempfile.TemporaryDirectory(dir=arguments.scratch) as folder:
            for step in ("generate", "bare", "mine", "verb"):
                print(json.dumps({"millions": millions, "step": step} | measured(step, folder, millions)), flush=True)


def measured(step: str, folder: str, millions: float) -> dict[str, object]:
    """Run one step in a process of its own: what it printed, its wall and processor seconds, its own peak memory."""
    began = time.monotonic()
    command = [sys.executable, __file__, "--step", step, folder, "--millions", str(millions)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    said = process.stdout.read().strip()
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{step} failed")
    return {
        "seconds": round(time.monotonic() - began, 1),
        "processor_seconds": round(usage.ru_utime + usage.ru_stime, 1),
        "peak_MiB": round(usage.ru_maxrss / 1024),
        "said": said,
    }


def generate(folder: str, impressions: int) -> str:
    """Write the log a day at a time, and a table of documents."""
    workspace = Workspace.create(folder, "mining: {scores: logged}\n")
    i = pl.int_range(QUERIES, eager=True).alias("i")
    words = pl.format("w{} w{} w{}", (i * 7_919) % 9_973, (i * 104_729) % 99_991, i)
    queries = pl.select(words).to_series()
    names = pl.select(pl.format("doc-{}", pl.int_range(DOCUMENTS).cast(pl.String).str.zfill(7)).alias("d")).to_series()
    write_deltalake(
        workspace.url("tables", "documents"),
        pl.DataFrame({"doc_id": names, "title": names, "text": names, "locale": "en", "attributes": "{}"}).to_arrow(),
    )
    sample = ""
    for day in range(DAYS):
        frame = one_day(day, impressions // RESULTS // DAYS, queries, names)
        sample = sample or frame.head(100_000).write_csv()
        write_deltalake(workspace.url("tables", "impressions"), IMPRESSIONS.conform(frame).to_arrow(), mode="append")
    disk = sum(path.stat().st_size for path in Path(folder).rglob("*.parquet"))
    return f"{len(sample.encode()) / min(100_000, frame.height):.0f} bytes a row as text, {disk / 1e6:.0f} MB on disk"


def one_day(day: int, searches: int, queries: pl.Series, names: pl.Series) -> pl.DataFrame:
    """A day's impressions, in order of time; what a pair is worth depends on the pair alone."""
    rng = np.random.default_rng([0, day])
    seconds = np.sort(rng.random(searches) * 86_400)
    query = zipf(rng.random(searches), QUERIES)
    first, step = rng.integers(0, POOL, searches), rng.integers(1, POOL, searches)
    slot = (first[:, None] + step[:, None] * np.arange(RESULTS)) % POOL  # distinct: POOL is prime
    pair = query[:, None] * 64 + slot
    document = zipf(fixed(pair * 2 + 1), DOCUMENTS)
    worth = fixed(pair * 3 + 77)
    score = np.clip(SCALE[-1] * worth + 1.5 * (fixed(pair * 5 + 9) - 0.5), *SCALE[:: len(SCALE) - 1])
    clicked = rng.random(pair.shape) < 0.85 ** np.arange(RESULTS) * (0.03 + 0.5 * worth**3)
    dwell = np.where(clicked, 10 * 8**worth * np.exp(0.8 * rng.standard_normal(pair.shape)), np.nan)
    session = mixed((day << 40) + np.arange(searches) // SEARCHES_A_SESSION)
    moment = START + day * DAY_MICROSECONDS + (seconds * 1e6).astype(np.int64)
    return pl.DataFrame(
        {
            "ts": pl.Series(np.repeat(moment, RESULTS)).cast(pl.Datetime("us")).dt.replace_time_zone("UTC"),
            "session": pl.Series(session).cast(pl.String).gather(np.repeat(np.arange(searches), RESULTS)),
            "query": queries.gather(np.repeat(query, RESULTS)),
            "doc_id": names.gather(document.ravel()),
            "position": np.tile(np.arange(1, RESULTS + 1, dtype=np.int32), searches),
            "clicked": clicked.ravel(),
            "dwell": pl.Series(dwell.ravel()).fill_nan(None),
            "locale": pl.Series(["de", "en", "fr", "nl"]).gather(np.repeat(query % 4, RESULTS)),
            "score": score.ravel().round(3),
        }
    )


def zipf(lot: NDArray[np.float64], size: int) -> NDArray[np.int64]:
    """Ranks 0..size-1 by Zipf's law with exponent 1, from numbers in 0..1."""
    return np.minimum(np.exp(lot * np.log(size + 1)).astype(np.int64) - 1, size - 1)


def mixed(numbers: NDArray[np.int64]) -> NDArray[np.uint64]:
    """Each number's own 64 random-looking bits (the finaliser of SplitMix64)."""
    x = numbers.astype(np.uint64)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray(x ^ (x >> np.uint64(31)), dtype=np.uint64)


def fixed(numbers: NDArray[np.int64]) -> NDArray[np.float64]:
    """Each number's own place in 0..1."""
    return (mixed(numbers) >> np.uint64(11)).astype(np.float64) / 2**53


def bare(folder: str) -> str:
    """The cheapest group-by that reads the same columns: one sum, mean or extreme of each, a row a pair."""
    pairs = (
        Workspace.open(folder)
        .scan("impressions")
        .group_by("query", "doc_id")
        .agg(
            pl.len(), pl.col("ts").max(), pl.col("session", "locale").min(),
            pl.col("position", "score", "dwell").mean(), pl.col("clicked").sum(),
        )
        .collect(engine="streaming")
    )  # fmt: skip
    return f"{pairs.height} pairs"


def mine(folder: str) -> str:
    """The log's part of a round on logged scores."""
    workspace = Workspace.open(folder)
    settings = workspace.config.mining
    chosen, count = shortlist(
        workspace.scan("impressions"), workspace.scan("documents"), _nothing(), settings, SCALE, workspace.config.seed
    )
    scored = with_logged_scores(chosen, SCALE)
    united = unite(scored, {"feedback": OPINIONS["feedback"](scored, settings, SCALE)}, settings, 1 - settings.quantile)
    apart = [np.zeros(0, dtype=np.int64)] * united.height
    basket = Basket(united["query"].to_list(), None, apart, settings.per_query, settings.budget)
    pick(basket, turns(united, {"feedback": 1.0}).to_list(), settings.budget, {})
    return f"{count} pairs, {chosen.height} shortlisted, {len(basket.taken)} mined"


def verb(folder: str) -> str:
    """`serm mine` as a person runs it."""
    from serm.verbs import mine as whole

    result = whole(Workspace.open(folder))
    return f"{result.candidates} pairs, {result.mined} mined, {result.verdict} shift, {result.by_agent}"


def _nothing() -> pl.LazyFrame:
    return pl.LazyFrame(schema={"query": pl.String, "doc_id": pl.String})


if __name__ == "__main__":
    main()
