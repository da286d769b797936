"""The annotator on a server that fails, killed again and again: does every pair end somewhere, and is the bill right?

    python benchmarks/annotator_faults.py --pairs 2000 --kills 20

The stand-in refuses 10% of requests with 429 and 5% with 500, lets 2% hang, cuts 3% of answers off and spoils 3%.
`serm annotate` runs against it as a process of its own, is killed at random moments, and then run until no pair fails.
Compared are the annotations table, the ledger, the command's own summaries and the server's bill. Exit code 1 where
they do not add up.
"""

import argparse
import json
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import polars as pl

from serm.annotation.ledger import Ledger
from serm.config import SimulateLLMSettings
from serm.simulate.llm_server import Server, running
from serm.simulate.standin import StandIn
from serm.workspace import Workspace

SCALE = [0, 1, 2, 3]
FAULTS = SimulateLLMSettings(
    rate_limited=0.10, server_error=0.05, hang=0.02, truncated=0.03, malformed=0.03, retry_after=0.2, hang_seconds=4
)
ANNOTATORS = ("ada", "ben")
MOST_RUNS = 10  # after the kills


def main() -> None:
    """Run it and print what was found as JSON."""
    parser = argparse.ArgumentParser(description="Faults and SIGKILLs against the annotator.")
    parser.add_argument("--pairs", type=int, default=2_000)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--retries", type=int, default=1, help="Few, so that some pairs fail and must be named.")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        result = trial(Path(scratch), arguments.pairs, arguments.kills, arguments.retries, arguments.seed)
    print(json.dumps(result, indent=2))
    sys.exit(0 if all(result["holds"].values()) else 1)


def trial(scratch: Path, pairs: int, kills: int, retries: int, seed: int) -> dict[str, Any]:
    """Kill, finish, and compare table, ledger, summaries and bill."""
    numbers = pl.DataFrame({"i": range(pairs)})
    mined = numbers.select(query=pl.format("query {}", pl.col("i") // 10), doc_id=pl.format("d{}", "i"))
    truth = mined.with_columns(grade=pl.Series([i % 4 for i in range(pairs)], dtype=pl.Int32))
    server = Server(StandIn(truth, SCALE, FAULTS, seed), {})
    draw = random.Random(seed)
    with running(server) as url:
        workspace = filled(scratch / "w", mined, url, retries)
        killed, asked_again = kill(workspace, server, kills, pairs, draw)
        runs: list[dict[str, Any]] = []
        codes: list[int] = []
        while len(runs) < MOST_RUNS and (not runs or runs[-1]["failed"]):
            process = start(workspace)
            output, _ = process.communicate()
            runs.append(json.loads(output))
            codes.append(process.returncode)
    table = workspace.read("annotations")
    ledger = Ledger(workspace.local("ledger.sqlite"))
    totals = ledger.totals()
    ledger.close()
    bill = server.bill.stats()
    said = Counter(
        path["outcome"] for votes in table["votes"] for vote in json.loads(votes).values() for path in vote["paths"]
    )
    sums = {
        name: sum(getattr(total, name) for total in totals.values())
        for name in ("calls", "open", "answers", "prompt_tokens", "completion_tokens")
    }
    counted = [
        sum(int(note.split()[0]) for note in run["notes"] if re.match(r"\d+ pairs? failed", note)) for run in runs
    ]
    holds = {
        "each run's pairs are kept, in review or failed": all(
            run["pairs"] == run["kept"] + run["review"] + run["failed"] for run in runs
        ),
        "each failed pair is named with its reason": all(
            len({(f["query"], f["doc_id"]) for f in run["failures"] if f["reason"]}) == min(run["failed"], 100)
            for run in runs
        ),
        "the reasons add up": counted == [run["failed"] for run in runs],
        "a run with failures exits with 1, one without with 0": codes == [int(run["failed"] > 0) for run in runs],
        "each pair is in the table once": table.height == table.unique(["query", "doc_id"]).height == pairs,
        "each path of the table is in the bill once": said.total() == bill["choices"],
        "the ledger holds the bill's requests": (sums["calls"], sums["open"]) == (bill["completed"], 0),
        "the ledger holds the bill's answers": sums["answers"] == bill["choices"],
        "the ledger holds the bill's tokens": (sums["prompt_tokens"], sums["completion_tokens"])
        == (bill["prompt_tokens"], bill["completion_tokens"]),
        "no path was billed twice": bill["paths_billed_twice"] == bill["keys_billed_twice"] == 0,
        "nothing that the ledger knew was asked again": asked_again == 0,
        "all kills landed": killed == kills,
    }
    return {
        "pairs": pairs,
        "kills": killed,
        "statuses": dict(table["status"].value_counts().iter_rows()),
        "outcomes": dict(sorted(said.items())),
        "failed_by_run": [run["failed"] for run in runs],
        "reasons_of_the_first": [note[:160] for note in runs[0]["notes"]],
        "bill": {name: value for name, value in bill.items() if name != "completions_by_key"},
        "ledger": sums,
        "holds": holds,
    }


def filled(root: Path, mined: pl.DataFrame, url: str, retries: int) -> Workspace:
    """A workspace with one mined round and two annotators at `url`."""
    annotators = [
        {
            "name": name, "model": f"stand-in-{name}", "base_url": url, "retries": retries, "backoff": 0.05,
            "timeout": 1.0, "concurrency": 8, "breaker_pause": 1.0, "give_up_after": 20,
        }
        for name in ANNOTATORS
    ]  # fmt: skip
    settings = {"annotators": annotators, "knowledge": False, "batch_pairs": 32, "max_completion_tokens": 200}
    workspace = Workspace.create(root, json.dumps({"labels": {"scale": SCALE}, "annotation": settings}))
    workspace.append("documents", mined.select("doc_id", text=pl.format("Text of {}.", "doc_id")))
    fixed = [pl.lit(1, pl.Int32).alias("round"), pl.lit("r").alias("reason"), pl.lit(["click"]).alias("agents")]
    workspace.append("mined", mined.with_columns(fixed))
    return workspace


def kill(workspace: Workspace, server: Server, kills: int, pairs: int, draw: random.Random) -> tuple[int, int]:
    """SIGKILL `serm annotate` `kills` times, each a random moment after a random share of the work that is left.

    Returns the kills that landed and how many requests whose answer the ledger held were sent again.
    """
    landed = asked_again = 0
    share = 2 * pairs // (kills + 2)  # of about two requests a pair
    while landed < kills:
        before = {key: server.bill.asked_by_key[key] for key in answered(workspace)}
        goal = server.bill.completed + draw.randrange(1, share)
        process = start(workspace)
        while process.poll() is None and server.bill.completed < goal:
            time.sleep(0.01)
        time.sleep(draw.random() * 0.1)
        if process.poll() is not None:
            break
        process.send_signal(signal.SIGKILL)
        process.communicate()
        landed += 1
        asked_again += sum(server.bill.asked_by_key[key] > count for key, count in before.items())
    return landed, asked_again


def answered(workspace: Workspace) -> set[str]:
    """The keys of requests whose answer the ledger holds."""
    path = workspace.local("ledger.sqlite")
    if not path.exists():
        return set()
    ledger = Ledger(path)
    try:
        return ledger.answered_keys()
    finally:
        ledger.close()


def start(workspace: Workspace) -> subprocess.Popen[bytes]:
    """`serm annotate --json` as a process of its own."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "OPENAI_API_KEY": "loopback"}
    command = [sys.executable, "-m", "serm.cli", "annotate", "--workspace", str(workspace.root), "--json"]
    return subprocess.Popen(command, stdout=subprocess.PIPE, env=environment)


if __name__ == "__main__":
    main()
