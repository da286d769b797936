"""One million impressions: ingest, then mine with the log's own scores; peak memory of each, in processes of their own.

    python benchmarks/million.py

The log is simulated over the demo collection, in two windows of 14 days, with a logged model score for every row.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import polars as pl

from serm.configure import load
from serm.ingest import ingest
from serm.simulate.ranker import lexical_overlap
from serm.simulate.traffic import stream
from serm.workspace import Workspace

ROOT = Path(__file__).resolve().parents[1]
CONFIG = "mining: {scores: logged, budget: 1000, quiet_share: 1.0}\n"


def main() -> None:
    """Make the log, run both commands, print wall seconds and peak resident memory as JSON."""
    parser = argparse.ArgumentParser(description="Peak memory of ingesting and mining a million impressions.")
    parser.add_argument("--sessions", type=int, default=93_000, help="of about eleven impressions each")
    sessions = parser.parse_args().sessions
    with tempfile.TemporaryDirectory() as scratch:
        workspace = Workspace.create(Path(scratch) / "space", CONFIG)
        ingest(workspace, [str(ROOT / "data/demo/documents.parquet")], kind="documents")
        ingest(workspace, [str(ROOT / "data/demo/judgments.parquet")], kind="judgments", split="hidden")
        log = Path(scratch) / "log.parquet"
        rows = make_log(workspace, sessions, log)
        result = {
            "impressions": rows,
            "file_MiB": round(log.stat().st_size / 2**20, 1),
            "ingest": measured(["ingest", str(log), "-w", workspace.root]),
            "mine": measured(["mine", "-w", workspace.root]),
        }
        result["rows_in_table"] = workspace.scan("impressions").select(pl.len()).collect().item()
        result["mined"] = workspace.scan("mined").select(pl.len()).collect().item()
    print(json.dumps(result, indent=2))


def make_log(workspace: Workspace, sessions: int, path: Path) -> int:
    """Two windows of simulated searches, the second with queries that the first did not have."""
    judgments = workspace.read("judgments").select("query", "doc_id", "grade").sort("query", "doc_id")
    scale = workspace.config.labels.scale
    scores = lexical_overlap(judgments, workspace.read("documents")).with_columns(pl.col("score") * scale[-1])
    queries = judgments["query"].unique().sort()
    parts = []
    for number, part in enumerate((queries[: len(queries) // 2], queries[len(queries) // 4 :])):
        simulate = load(
            f"simulate: {{sessions: {sessions // 2}, days: 14, start: 2026-01-{5 + 14 * number:02d}T00:00:00Z}}"
        )
        seen = judgments.filter(pl.col("query").is_in(part.to_list()))
        known = scores.join(seen.select("query", "doc_id"), on=["query", "doc_id"], how="semi")
        parts.append(stream(seen, None, known, simulate.simulate, scale, number)[0])
    frame = pl.concat(parts)
    frame.write_parquet(path)
    return frame.height


def measured(arguments: list[str]) -> dict[str, float]:
    """Run one serm command; its wall seconds and its own peak resident memory in MiB."""
    began = time.monotonic()
    process = subprocess.Popen([sys.executable, "-m", "serm.cli", *arguments], stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"serm {arguments[0]} failed")
    return {"seconds": round(time.monotonic() - began, 1), "peak_MiB": round(usage.ru_maxrss / 1024)}


if __name__ == "__main__":
    main()
