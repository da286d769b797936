"""SIGKILL serm at random moments during ingest, annotate, update and promote; afterwards nothing may be amiss.

    python benchmarks/kills.py --kills 20

Two copies of one workspace run the same four commands. One is left alone; in the other each command is killed at random
moments, and then run to its end. Compared are the tables, the model's weights, and the stand-in LLM's own bill.
"""

import argparse
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from polars.testing import assert_frame_equal
from safetensors.torch import load_file
from transformers import AutoTokenizer, BertConfig, BertForSequenceClassification

from serm import registry
from serm.annotation.ledger import Ledger
from serm.evolution.update import update
from serm.ingest import ingest
from serm.mining import mine
from serm.records import TABLES
from serm.relevance.weights import resolve
from serm.simulate import simulate
from serm.simulate.llm_server import llm_server, running
from serm.workspace import Workspace

ROOT = Path(__file__).resolve().parents[1]
COMPARED = ("documents", "judgments", "impressions", "quarantine", "mined", "annotations")
CONFIG = """
relevance: {{base: "{base}", max_tokens: 48, precision: fp32, max_epochs: 1, evaluate_every: 50, checkpoint_every: 5}}
update: {{epochs: 4, new_share: 0.2, original_share: 0.8, earlier_share: 0.0}}
ingest: {{batch_rows: 1500}}
mining: {{budget: 300, quiet_share: 1.0, candidates: 2500, judged: 300}}
simulate: {{sessions: 1200, days: 10}}
annotation:
  batch_pairs: 8
  knowledge: false
  annotators:
    - {{name: ada, model: stand-in-a, base_url: "http://127.0.0.1:{port}/v1", concurrency: 2}}
    - {{name: ben, model: stand-in-b, base_url: "http://127.0.0.1:{port}/v1", concurrency: 2}}
"""


def main() -> None:
    """Prepare, run both copies, compare, print the result as JSON; exit code 1 on any difference."""
    parser = argparse.ArgumentParser(description="SIGKILL serm at random moments and compare with an undisturbed run.")
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        result = compare(Path(scratch), arguments.kills, arguments.seed)
    print(json.dumps(result, indent=2))
    sys.exit(0 if result["equal"] and not result["paths_billed_twice"] and not result["recorded_asked_again"] else 1)


def compare(scratch: Path, kills: int, seed: int) -> dict[str, Any]:
    """Run both copies and say what differed."""
    torch.set_num_threads(1)
    base, port = prepare(scratch)
    log = scratch / "log.parquet"
    quiet, killed = scratch / "quiet", scratch / "killed"
    shutil.copytree(base, quiet)
    shutil.copytree(base, killed)
    rng = np.random.default_rng(seed)
    usual, _, _, _ = run_all(quiet, log, port, rng, {})
    plan = dict(zip(usual, [len(part) for part in np.array_split(np.arange(kills), len(usual))], strict=True))
    _, landed, stats, asked_again = run_all(killed, log, port, rng, plan, usual)
    differences = [table for table in COMPARED if not same(quiet, killed, table)]
    if not same_champion(quiet, killed):
        differences.append("champion")
    return {
        "kills": landed,
        "equal": not differences,
        "differences": differences,
        "completed_answers": stats["completed"],
        "paths_billed_twice": stats["paths_billed_twice"],
        "keys_billed_twice": stats["keys_billed_twice"],
        "recorded_asked_again": asked_again,
    }


def prepare(scratch: Path) -> tuple[Path, int]:
    """A workspace with a first model and a mined round, and a log that is not ingested yet."""
    tiny, base = scratch / "tiny", scratch / "base"
    torch.manual_seed(0)
    shape = BertConfig(hidden_size=64, num_hidden_layers=2, num_attention_heads=2, intermediate_size=128)
    BertForSequenceClassification(shape).save_pretrained(tiny)
    AutoTokenizer.from_pretrained(resolve("embedded:minilm")).save_pretrained(tiny)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    workspace = Workspace.create(base, CONFIG.format(base=tiny, port=port))
    ingest(workspace, [str(ROOT / "data/demo/documents.parquet")], kind="documents")
    judgments = pl.read_parquet(ROOT / "data/demo/judgments.parquet")
    queries = sorted(set(judgments["query"]))[::6]
    for split, chosen in (("train", queries[:60]), ("hidden", queries[60:])):
        part = scratch / f"{split}.parquet"
        judgments.filter(pl.col("query").is_in(chosen)).write_parquet(part)
        ingest(workspace, [str(part)], kind="judgments", split=split)
    update(workspace)
    simulate(workspace, queries=queries[60:])
    mine(workspace, 1)
    frame = workspace.read("impressions").sort("ts", "session", "position")
    later = frame.with_columns(pl.col("ts") + pl.duration(days=30), session=pl.col("session") + "-later")
    bad = later.head(40).with_columns(position=pl.lit(-1, pl.Int32))
    pl.concat([later, bad]).write_parquet(scratch / "log.parquet")
    return base, port


def run_all(
    folder: Path, log: Path, port: int, rng: np.random.Generator, plan: dict[str, int],
    usual: dict[str, tuple[float, float]] | None = None,
) -> tuple[dict[str, tuple[float, float]], dict[str, int], dict[str, Any], int]:  # fmt: skip
    """Run the four commands, each killed as often as `plan` says, then to its end, and once more for nothing.

    Returns each command's seconds with work and without, the kills that landed, the LLM's bill, and how many answers
    that the ledger held were asked for again.
    """
    workspace = Workspace.open(folder)
    server = llm_server(workspace)
    spent: dict[str, tuple[float, float]] = {}
    landed: dict[str, int] = {}
    asked_again = 0
    with running(server, "127.0.0.1", port):
        for verb in ("ingest", "annotate", "update", "promote"):
            landed[verb], kills = 0, plan.get(verb, 0)
            for _ in range(4 * kills):  # a command may end before its kill; then it is started again
                if landed[verb] == kills:
                    break
                work, idle = (usual or {})[verb]
                recorded = answered(workspace)
                before = dict(server.bill.by_key)
                process = start(verb, folder, log)
                time.sleep(float(rng.uniform(0.3, 1)) * idle + float(rng.uniform(0, 1)) * max(0, work - idle) / kills)
                landed[verb] += process.poll() is None
                process.send_signal(signal.SIGKILL)
                process.wait()
                asked_again += sum(server.bill.by_key[key] > before.get(key, 0) for key in recorded)
            spent[verb] = (finish(verb, folder, log), finish(verb, folder, log))
    return spent, landed, server.bill.stats(), asked_again


def finish(verb: str, folder: Path, log: Path) -> float:
    """Run a command to its end; returns its seconds."""
    began = time.monotonic()
    process = start(verb, folder, log)
    errors = process.communicate()[1]
    if process.returncode:
        raise SystemExit(f"{verb} failed: {errors.decode()}")
    return time.monotonic() - began


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


def start(verb: str, folder: Path, log: Path) -> subprocess.Popen[bytes]:
    """One serm command as a process of its own."""
    arguments = {
        "ingest": ["ingest", str(log)],
        "annotate": ["annotate", "--round", "1"],
        "update": ["update", "--round", "1"],
        "promote": ["promote", candidate(folder)] if verb == "promote" else [],
    }[verb]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "OPENAI_API_KEY": "loopback"}
    command = [sys.executable, "-m", "serm.cli", *arguments, "--workspace", str(folder), "--debug"]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=environment)


def candidate(folder: Path) -> str:
    """The version that round 1 made."""
    return next(name for name in registry.versions(Workspace.open(folder)) if name.startswith("r001"))


def same(one: Path, other: Path, table: str) -> bool:
    """Whether two workspaces hold the same rows of a table."""
    frames = []
    for folder in (one, other):
        key = list(TABLES[table].key)
        frames.append(Workspace.open(folder).read(table).sort(key))
    try:
        assert_frame_equal(*frames)
    except AssertionError as error:
        sys.stderr.write(f"{table}: {error}\n")
        return False
    return True


def same_champion(one: Path, other: Path) -> bool:
    """Whether two workspaces have the same versions, history of champions, and weights."""
    spaces = [Workspace.open(one), Workspace.open(other)]
    columns = ["version", "previous", "action", "sequence"]
    names, rows, weights = ([], [], [])
    for space in spaces:
        names.append(registry.versions(space))
        rows.append(registry.history(space).select(columns).rows())
        weights.append(load_file(registry.folder(space, registry.champion(space)) / "model.safetensors"))
    unequal = [name for name, tensor in weights[0].items() if not torch.equal(tensor, weights[1][name])]
    sys.stderr.write(f"versions {names}\nchampions {rows}\nunequal weights {unequal}\n")
    return names[0] == names[1] and rows[0] == rows[1] and not unequal


if __name__ == "__main__":
    main()
