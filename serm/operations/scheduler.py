"""What Prefect's server says of a workspace's deployments, asked over its plain HTTP API."""

import os
import time
from collections.abc import Iterator
from email.utils import parsedate_to_datetime
from typing import Any, Literal

import httpx

Found = tuple[Literal["ok", "warn", "fail"], str, str, str]  # level, what was looked at, what was found, what mends it
TIMEOUT = 10.0  # seconds
LIMITS = ("serm-llm", "serm-gpu")
DEPLOY = "serm deploy"


def ask_prefect(root: str, tolerance: float) -> Iterator[Found]:
    """Server, its clock, deployments for this workspace, limits, a worker; `tolerance` in seconds for the clock."""
    address = os.environ.get("PREFECT_API_URL", "").rstrip("/")
    if not address:
        yield "warn", "prefect", "PREFECT_API_URL is not set: nothing is scheduled from here", "see docs/operations.md"
        return
    with httpx.Client(base_url=address, timeout=TIMEOUT) as client:
        try:
            health = client.get("/health")
            health.raise_for_status()
        except httpx.HTTPError as error:
            yield "fail", "prefect", f"{address}: {error}", "prefect server start"
            return
        yield "ok", "prefect", f"{address} answers", ""
        yield _clock(health, tolerance)
        yield from _limits(client)
        yield from _deployments(client, root)


def _clock(health: httpx.Response, tolerance: float) -> Found:
    said = health.headers.get("date")
    apart = 0.0 if said is None else abs(parsedate_to_datetime(said).timestamp() - time.time())
    if apart > tolerance:
        return "warn", "prefect's clock", f"{apart:,.0f} s from this machine's", "set the clocks of both by NTP"
    return "ok", "prefect's clock", f"within {tolerance:g} s of this machine's", ""


def _limits(client: httpx.Client) -> Iterator[Found]:
    for name in LIMITS:
        reply = client.get(f"/v2/concurrency_limits/{name}")
        if reply.status_code == httpx.codes.NOT_FOUND:
            yield "fail", "prefect's limits", f"there is no limit {name}; strict flows fail without it", DEPLOY
        else:
            limit = reply.json()
            yield "ok", "prefect's limits", f"{name}: {limit['active_slots']} of {limit['limit']} slots in use", ""


def _deployments(client: httpx.Client, root: str) -> Iterator[Found]:
    found = client.post("/deployments/filter", json={"limit": 200}).json()
    ours = [d for d in found if d["parameters"].get("workspace") == root and d["entrypoint"] == "flows.rounds.evolve"]
    if not ours:
        yield "warn", "deployments", "no evolve of this workspace is deployed", DEPLOY
    for deployment in ours:
        if deployment["paused"]:
            yield (
                "warn",
                "deployments",
                f"{deployment['name']} is paused",
                "resume it in Prefect, or: serm deploy --serve",
            )
        else:
            yield "ok", "deployments", f"{deployment['name']} is scheduled", ""
        yield from _stuck(client, deployment)
        if pool := deployment.get("work_pool_name"):
            yield _worker(client, pool)


def _stuck(client: httpx.Client, deployment: dict[str, Any]) -> Iterator[Found]:
    """A slot that is held while nothing runs: the server was restarted and forgot the lease, and cancels every run."""
    limit = deployment.get("global_concurrency_limit")
    if not limit or limit["active_slots"] < limit["limit"]:
        return
    states = {"state": {"type": {"any_": ["PENDING", "RUNNING", "CANCELLING"]}}}
    chosen = {"deployments": {"id": {"any_": [deployment["id"]]}}, "flow_runs": states}
    if not client.post("/flow_runs/count", json=chosen).json():
        mend = f"prefect gcl update '{limit['name']}' --active-slots 0"
        yield "fail", "deployments", f"{deployment['name']}: its slot is held, though nothing runs", mend


def _worker(client: httpx.Client, pool: str) -> Found:
    workers = client.post(f"/work_pools/{pool}/workers/filter", json={"limit": 200}).json()
    if any(worker["status"] == "ONLINE" for worker in workers):
        return "ok", "worker", f"one is online for the pool {pool}", ""
    return "fail", "worker", f"none is online for the pool {pool}", f"prefect worker start --pool {pool}"
