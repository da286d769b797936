"""Click models: a million sessions in a minute, whose users they recognise, and which estimate of a pair to believe.

    python benchmarks/click_models.py fit                 # seconds and peak memory of every model, a process each
    python benchmarks/click_models.py recognise           # held-out perplexity of every model on users of every model
    python benchmarks/click_models.py estimates           # rank correlation with the truth, of several estimates
    python benchmarks/click_models.py window              # estimates of 20,000 pairs from the whole log

The logs are simulated (serm/clicks/users.py): ten results a session, Zipfian queries, 20 documents each.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import polars as pl
from scipy.stats import spearmanr
from sklearn.metrics import roc_auc_score

from serm import clicks
from serm.clicks import BASELINES, MODELS, evidence
from serm.clicks.compare import best, compare
from serm.clicks.patterns import Patterns
from serm.clicks.slices import sampled
from serm.clicks.users import World
from serm.config import ClickSettings
from serm.mining.attraction import attractiveness

CHUNK = 100_000
TRIALS = 3
QUERIES = 50_000
PRIOR = (ClickSettings().prior_clicks, ClickSettings().prior_skips)


def main() -> None:
    """Run what was asked for and print tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["fit", "recognise", "estimates", "window", "one", "bare"])
    parser.add_argument("--sessions", type=int, default=1_000_000)
    parser.add_argument("--user", default="dbn")
    parser.add_argument("--log", help="internal: folder of the log")
    parser.add_argument("--model", help="internal: the one model that this process measures")
    given = parser.parse_args()
    if given.what in ("one", "bare"):
        print(json.dumps(measure(given)))
    elif given.what == "recognise":
        recognise()
    elif given.what == "estimates":
        estimates()
    else:
        with tempfile.TemporaryDirectory() as scratch:
            rows, size = make_log(Path(scratch), given.user, given.sessions)
            print(
                f"{rows:,} rows, {given.sessions:,} sessions, users: {given.user}; {size / 2**20:,.0f} MiB of Parquet"
            )
            names = [*MODELS, *BASELINES] if given.what == "fit" else ["bare", "window"]
            print(f"{'model':>10} {'seconds':>8} {'CPU s':>6} {'peak MiB':>9}")
            for name in names:
                found = in_process(name, scratch)
                print(
                    f"{name:>10} {found['seconds']:8.1f} {found['cpu']:6.1f} {found['MiB']:9,.0f}  {found['about']}",
                    flush=True,
                )


def make_log(folder: Path, user: str, sessions: int) -> tuple[int, int]:
    """Write the log in files of a million rows, in order of time; rows and bytes."""
    world = World.of(QUERIES, 20, 1.0, 0)
    for part, first in enumerate(range(0, sessions, CHUNK)):
        frame = world.log(user, min(CHUNK, sessions - first), seed=part, first=first)
        frame.write_parquet(folder / f"{part:05}.parquet")
    files = list(folder.glob("*.parquet"))
    return sessions * 10, sum(file.stat().st_size for file in files)


def in_process(name: str, log: str) -> dict:
    """What a fresh process measures for one model."""
    command = [sys.executable, __file__, "one", "--model", name, "--log", log]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    result: dict = json.loads(done.stdout)
    return result


def measure(given: argparse.Namespace) -> dict:
    """Seconds from the log's files to the result, and this process's peak resident memory."""
    log, began, busy = pl.scan_parquet(Path(given.log) / "*.parquet"), time.monotonic(), time.process_time()
    settings = ClickSettings()
    if given.model == "bare":
        found = log.group_by("query", "doc_id").agg(pl.len(), pl.col("clicked").sum(), pl.col("position").mean())
        about = f"scan and group-by: {found.collect(engine='streaming').height:,} pairs"
    elif given.model == "window":
        pairs = log.filter("clicked").group_by("query", "doc_id").len().top_k(20_000, by="len").collect()
        began, busy = time.monotonic(), time.process_time()
        found = attractiveness(log.with_columns(dwell=pl.lit(None, pl.Float64)), pairs, settings, 30.0)
        about = f"estimates of {len(found):,} pairs, mean {found.mean():.3f}"
    else:
        patterns = Patterns.of(log)
        read = time.monotonic() - began
        model = clicks.fit(given.model, settings, patterns)
        kept = sum(batch.lists.times.size for batch in patterns.batches)
        seen = model.examination()["examination"]
        about = (
            f"read in {read:.1f} s: {patterns.lists:,} lists, {kept:,} distinct, {patterns.pairs.size:,} pairs; "
            f"examined at 2 and 10: {seen[1]:.3f}, {seen[9]:.3f}"
        )
    seconds, used = time.monotonic() - began, resource.getrusage(resource.RUSAGE_SELF)
    worked = used.ru_utime + used.ru_stime - busy
    return {"seconds": seconds, "cpu": worked, "MiB": used.ru_maxrss / 1024, "about": about}


def recognise() -> None:
    """Held-out perplexities, plain / conditional, of every model on users of every model: means of 3 logs."""
    print(f"{'users':>8}", *(f"{name:>17}" for name in MODELS), "  chosen, | on logs of 2,000 sessions")
    world = World.of(200, 15, 0.5, 0)
    for user in MODELS:
        rows = [compare(ClickSettings(), world.log(user, 20_000, seed), seed, MODELS) for seed in range(TRIALS)]
        few = [best(compare(ClickSettings(), world.log(user, 2_000, seed), seed, MODELS)) for seed in range(TRIALS)]
        means = [np.mean([(row[i].perplexity, row[i].conditional) for row in rows], axis=0) for i in range(len(MODELS))]
        print(f"{user:>8}", *(f"{plain:8.4f}/{known:8.4f}" for plain, known in means),
              " ", " ".join(best(row) for row in rows), "|", " ".join(few), flush=True)  # fmt: skip


def estimates() -> None:
    """Spearman's correlation, area under the curve (alpha above 0.6) and root mean squared error; means of 3 logs."""
    for noise, user in [(1.0, "dbn"), (1.0, "pbm"), (10.0, "dbn"), (10.0, "pbm")]:
        for sessions, fitted in [(3_000, 3_000), (20_000, 20_000), (20_000, 4_000)]:
            world = World.of(600, 15, 0.0, 0)
            found: dict[str, list] = {}
            for seed in range(TRIALS):
                log = world.log(user, sessions, seed, noise)
                for name, estimate in estimated(user, log, fitted, world.pairs(), seed).items():
                    found.setdefault(name, []).append(quality(world.pairs()["alpha"].to_numpy(), estimate))
            print(f"users {user}, noise {noise:g}, {sessions:,} sessions, fitted on {fitted:,}")
            for name, values in found.items():
                print(f"{name:>34}", *(f"{value:7.3f}" for value in np.mean(values, axis=0)), flush=True)


def estimated(user: str, log: pl.DataFrame, fitted: int, pairs: pl.DataFrame, seed: int) -> dict[str, np.ndarray]:
    """Estimates of the pairs by the true family of model: its own, clicks over expected examination, ours, rates."""
    settings = ClickSettings()
    sample = sampled(log.lazy(), fitted, seed).collect()
    model = clicks.fit(user, settings, sample)
    by_position = log.select("position").join(model.examination(), on="position", how="left", maintain_order="left")
    alpha = model.attractiveness(log).to_numpy()
    above = model.predict_conditional(log).to_numpy() / alpha
    return {
        "EM on all rows": clicks.fit(user, settings, log).attractiveness(pairs).to_numpy(),
        "EM on the sample": model.attractiveness(pairs).to_numpy(),
        "COEC, by position": over_expected(log, by_position["examination"].to_numpy(), pairs),
        "COEC, given the clicks above": over_expected(log, above, pairs),
        "given the other clicks (ours)": evidence.estimate(model, sample, log.lazy(), pairs, settings).to_numpy(),
        "click rate": over_expected(log, np.ones(log.height), pairs),
    }


def over_expected(log: pl.DataFrame, examined: np.ndarray, pairs: pl.DataFrame) -> np.ndarray:
    """Clicks over expected examinations of each pair, with the prior."""
    key = ["query", "doc_id"]
    sums = log.with_columns(examined=pl.Series(examined)).group_by(key).agg(pl.col("clicked", "examined").sum())
    joined = pairs.join(sums, on=key, how="left", maintain_order="left").fill_null(0)
    rate = (joined["clicked"].to_numpy() + PRIOR[0]) / (joined["examined"].to_numpy() + sum(PRIOR))
    return np.minimum(rate, 1.0)


def quality(truth: np.ndarray, estimate: np.ndarray) -> tuple[float, float, float]:
    """Spearman's correlation, area under the curve, root mean squared error."""
    rank = float(spearmanr(truth, estimate).statistic)
    return rank, float(roc_auc_score(truth > 0.6, estimate)), float(np.sqrt(np.mean((truth - estimate) ** 2)))


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
