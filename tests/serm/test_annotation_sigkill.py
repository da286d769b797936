"""Killed at random moments and run again: the same table, and nothing that the ledger knew is asked for again."""

import inspect
import random
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import polars as pl

from serm.annotation.verbs import annotate
from serm.workspace import Workspace
from tests.serm.annotation_server import CountingServer, serving
from tests.serm.test_annotation_verbs import SCALE, config, letters

PAIRS = 60
KILLS = 4
PROGRAM = """
from collections.abc import Sequence
import numpy as np
from numpy.typing import NDArray
from serm.annotation.verbs import annotate
from serm.workspace import Workspace
{letters}
annotate(Workspace.open({root!r}), embed=letters)
"""


def filled(root: Path, url: str) -> Workspace:
    workspace = Workspace.create(root, config(url, url))
    numbers = range(PAIRS)
    texts = [f"Text of number {i * 37}." for i in numbers]
    workspace.append("documents", pl.DataFrame({"doc_id": [f"d{i}" for i in numbers], "text": texts}))
    pairs = {"query": [f"query {i % 9}" for i in numbers], "doc_id": [f"d{i}" for i in numbers]}
    fixed = [pl.lit(1, pl.Int32).alias("round"), pl.lit("r").alias("reason"), pl.lit(["click"]).alias("agents")]
    workspace.append("mined", pl.DataFrame(pairs).with_columns(fixed))
    return workspace


def table(workspace: Workspace) -> pl.DataFrame:
    return workspace.read("annotations").sort("query", "doc_id")


def answered(workspace: Workspace) -> set[str]:
    path = workspace.local("ledger.sqlite")
    if not path.exists():
        return set()
    with sqlite3.connect(path) as connection:
        if not connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'calls'").fetchone():
            return set()
        return {key for (key,) in connection.execute("SELECT request_key FROM calls WHERE answers IS NOT NULL")}


def test_killed_runs_resume_and_pay_for_nothing_twice(tmp_path: Path) -> None:
    chance = random.Random(11)
    with serving(CountingServer(SCALE)) as calm:
        undisturbed = filled(tmp_path / "calm", calm.url)
        annotate(undisturbed, embed=letters)
    with serving(CountingServer(SCALE, delay=0.03)) as server:
        workspace = filled(tmp_path / "killed", server.url)
        command = [sys.executable, "-c", PROGRAM.format(root=workspace.root, letters=inspect.getsource(letters))]
        known: dict[str, int] = {}  # keys answered in the ledger -> how often the server had seen them by then
        killed = 0
        while True:
            before = sum(server.asked.values())
            process = subprocess.Popen(command)
            # Let it come to its work (a share of what is left), then kill it a random moment later.
            goal = before + chance.randrange(1, 25)
            while killed < KILLS and process.poll() is None and sum(server.asked.values()) < goal:
                time.sleep(0.002)
            if killed < KILLS and process.poll() is None:
                time.sleep(chance.random() * 0.06)
                process.send_signal(signal.SIGKILL)
            status = process.wait(timeout=60)
            assert all(server.asked[key] == count for key, count in known.items())
            if status == 0:
                break
            assert status == -signal.SIGKILL
            killed += 1
            time.sleep(0.1)  # requests that were on their way reach the server's count
            known = {key: server.asked[key] for key in answered(workspace)}
        assert killed >= 3
        assert set(server.billed.values()) == {1}
        assert set(server.billed) == answered(workspace)
    assert table(workspace).height == PAIRS
    assert table(workspace).equals(table(undisturbed))
    assert set(calm.billed) == set(server.billed)
