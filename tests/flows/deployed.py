"""What tests of deployed flows share: settings of a small workspace, annotators that can fail, asking and comparing.

Every disturbed workspace must end as the undisturbed one does: tables, models, champions, verdict, and bill.
"""

import asyncio
import shutil
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
import torch
from polars.testing import assert_frame_equal
from safetensors.torch import load_file
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from serm import registry
from serm.annotation.ledger import Ledger
from serm.evolution import round as rounds
from serm.simulate.llm_server import Server
from serm.workspace import Workspace
from tests.flows import prefect_server
from tests.flows.prefect_server import until

# A tiny model whose updates take a few seconds with many checkpoints: time to be killed in.
SETTINGS = """
relevance: {{base: "{base}", precision: fp32, max_tokens: 24, max_epochs: 0.2, batch_pairs: 16, learning_rate: 0.002,
  checkpoint_every: 20}}
labels: {{scale: [0, 1], names: {{0: bad, 1: good}}}}
mining: {{budget: 40, quiet_share: 1.0, judged: 60, per_query: 8}}
update: {{minimum_labels: 5, calibration_pairs: 40, learning_rate: 0.003, epochs: 20, new_share: 0.1,
  original_share: 0.9, earlier_share: 0.0}}
evaluation: {{minimum_queries: 5, resamples: 200}}
simulate: {{sessions: 300, days: 10}}
simulate_llm: {{confusion: [[1.0, 0.0], [0.0, 1.0]]}}
annotation:
  knowledge: false
  paths: 1
  batch_pairs: 4
  annotators:
    - {{name: ada, model: stand-in-a, base_url: "{url}", concurrency: 2, {patience}}}
    - {{name: ben, model: stand-in-b, base_url: "{url}", concurrency: 2, {patience}}}
"""
PATIENCE = "retries: 0, breaker_trials: 0, give_up_after: 2"
TABLES = ("mined", "annotations", "judgments", "documents", "impressions")


class Slow(Server):
    """The stand-in with a delay, and times at which it answers nobody."""

    delay = 0.0
    failures = 0  # requests to be refused from now on

    async def chat(self, request: Request) -> Response:
        await asyncio.sleep(self.delay)
        if self.failures > 0:
            self.failures -= 1
            return JSONResponse({"error": {"message": "down"}}, 503)
        return await super().chat(request)


@dataclass
class Place:
    """A Prefect server with everything deployed, and where a worker's log goes."""

    environment: dict[str, str]
    folder: Path

    def worker(self) -> AbstractContextManager[Any]:
        """A worker while the block runs."""
        return prefect_server.worker(self.environment, self.folder / "worker.log")


def copy_of(base: Workspace, folder: Path, url: str) -> Workspace:
    shutil.copytree(base.root, folder)
    text = (folder / "config.yaml").read_text().replace("http://127.0.0.1:1/v1", url)
    (folder / "config.yaml").write_text(text)
    return Workspace.open(folder)


def same_state(space: Workspace, calm: Workspace, server: Slow) -> None:
    """Everything that a round leaves is as the undisturbed run left it, and nothing was paid for twice."""
    for table in TABLES:
        one, other = (w.read(table).sort(pl.all().exclude("agents", "posterior")) for w in (space, calm))
        # A posterior knows of the calibration pairs that had answered by then: after a fault, of one fewer.
        assert_frame_equal(one, other, abs_tol=1e-3 if table == "annotations" else 1e-8)
    columns = ["version", "previous", "action", "sequence"]
    assert registry.versions(space) == registry.versions(calm)
    assert registry.history(space).select(columns).equals(registry.history(calm).select(columns))
    weights = [load_file(registry.folder(w, registry.champion(w)) / "model.safetensors") for w in (space, calm)]
    assert all(torch.equal(tensor, weights[1][name]) for name, tensor in weights[0].items())
    assert rounds.rounds_done(space) == rounds.rounds_done(calm)
    paid_once(space, server)


def paid_once(space: Workspace, server: Slow) -> None:
    ledger = Ledger(space.local("ledger.sqlite"))
    try:
        answered = ledger.answered_keys()
    finally:
        ledger.close()
    stats = server.bill.stats()
    assert stats["paths_billed_twice"] == stats["keys_billed_twice"] == 0
    assert {key.removesuffix("-plain") for key in server.bill.by_key} == answered
    assert stats["completed"] == len(answered)


def request(space: Workspace, flow: str = "serm-evolve", name: str = "main", **parameters: Any) -> str:
    """Ask the server for a run now; returns its id."""
    from prefect.deployments import run_deployment

    run = run_deployment(f"{flow}/{name}", parameters={"workspace": space.root} | parameters, timeout=0)
    return str(run.id)


def state(run: str) -> str:
    from prefect.client.orchestration import get_client

    with get_client(sync_client=True) as client:
        found = client.read_flow_run(run).state  # type: ignore[arg-type]
    return "" if found is None else found.type.value


def ended(run: str) -> str:
    """Wait for a run's end and return how it ended."""
    final = ("COMPLETED", "FAILED", "CANCELLED", "CRASHED")
    return str(until(lambda: (now := state(run)) in final and now, pause=0.5))
