"""Puts the flows on a Prefect server: limits, the automation against zombies, a work pool, and what prefect.yaml says.

`deploy` is for workers; `serve` runs the same deployments in this process, for one machine.
"""

import os
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import yaml
from prefect import serve as prefect_serve
from prefect.automations import AutomationCore, EventTrigger, Posture
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.client.schemas.objects import ConcurrencyLimitConfig, StateType
from prefect.deployments.runner import EntrypointType, RunnerDeployment
from prefect.events.actions import ChangeFlowRunState
from prefect.events.schemas.deployment_triggers import DeploymentEventTrigger
from prefect.exceptions import ObjectNotFound
from prefect.flows import load_flow_from_entrypoint
from prefect.schedules import Interval
from prefect.settings import get_current_settings
from prefect.utilities.templating import apply_values

from flows.limits import create_limits

PACKAGE = Path(__file__).parent
POOL = "serm"  # of processes
ZOMBIES = "serm: a run without heartbeats has crashed"
HEARTBEAT_SECONDS = 30  # Prefect's minimum
SILENCE = timedelta(seconds=4 * HEARTBEAT_SECONDS)
BEAT = "prefect.flow-run.heartbeat"
ENDS = {f"prefect.flow-run.{name}" for name in ("Completed", "Failed", "Cancelled", "Crashed", "Suspended")}


@dataclass(frozen=True)
class DeploySummary:
    """What is on the server now."""

    server: str
    deployments: list[str]
    made: list[str]  # limits, automation and work pool that were not there before
    next: str


def deploy(workspace: str, name: str) -> DeploySummary:
    """Put every deployment of prefect.yaml on the server, for workers of its pool; again to change them.

    Raises:
        ValueError: there is no server, or a work pool is missing.
    """
    made = prepare()
    items = _filled(workspace, name)["deployments"]
    for pool in sorted({item["work_pool"]["name"] for item in items}):
        made += _create_pool(pool)
    deployments = [_deployment(item, item["work_pool"]) for item in items]
    for deployment in deployments:
        deployment.apply()
    names = [f"{deployment.flow_name}/{deployment.name}" for deployment in deployments]
    return DeploySummary(_server(), names, made, f"prefect worker start --pool {items[0]['work_pool']['name']}")


def serve(workspace: str, name: str, limit: int = 4) -> None:
    """Run every deployment of prefect.yaml in this process until it is stopped; its schedules pause with it.

    Raises:
        ValueError: there is no server.
    """
    prepare()
    deployments = [_deployment(item) for item in _filled(workspace, name)["deployments"]]
    prefect_serve(*deployments, limit=limit, heartbeat_seconds=HEARTBEAT_SECONDS)


def prepare() -> list[str]:
    """Make the concurrency limits and the automation that the flows count on; returns what was not there.

    Raises:
        ValueError: no server is configured, or it does not answer.
    """
    address = _server()
    try:
        return create_limits() + _create_automation()
    except (OSError, httpx.TransportError) as error:
        raise ValueError(f"{address}: no Prefect server answers there; start one: prefect server start") from error


def zombies() -> AutomationCore:
    """A run whose process died without a word sends no heartbeat for two minutes: mark it crashed."""
    trigger = EventTrigger(
        after={BEAT}, expect={BEAT} | ENDS, match={"prefect.resource.id": "prefect.flow-run.*"},
        for_each={"prefect.resource.id"}, posture=Posture.Proactive, threshold=1, within=SILENCE,
    )  # fmt: skip
    message = f"No heartbeat for {SILENCE.seconds} s: its process or machine is gone."
    crash = ChangeFlowRunState(state=StateType.CRASHED, message=message)
    return AutomationCore(name=ZOMBIES, description=message, trigger=trigger, actions=[crash])


def prefect_file() -> Path:
    """prefect.yaml: in the installed package, or in the checkout that the package is installed from."""
    inside = PACKAGE / "prefect.yaml"
    return inside if inside.exists() else PACKAGE.parent / "prefect.yaml"


def _deployment(item: dict[str, Any], pool: dict[str, Any] | None = None) -> RunnerDeployment:
    """One deployment of prefect.yaml: for the workers of a pool, or to be run in this process."""
    schedules = [
        Interval(
            timedelta(seconds=schedule["interval"]), anchor_date=datetime.fromisoformat(schedule["anchor_date"]),
            timezone=schedule["timezone"], slug=schedule["slug"],
        )
        for schedule in item.get("schedules", [])
    ]  # fmt: skip
    where = {} if pool is None else {"work_pool_name": pool["name"], "job_variables": pool["job_variables"]}
    deployment = load_flow_from_entrypoint(item["entrypoint"]).to_deployment(
        item["name"], schedules=schedules, parameters=item["parameters"], tags=item["tags"],
        description=item["description"], concurrency_limit=ConcurrencyLimitConfig(**item["concurrency_limit"]),
        triggers=[DeploymentEventTrigger(**trigger) for trigger in item.get("triggers", [])],
        entrypoint_type=EntrypointType.MODULE_PATH, **where,
    )  # fmt: skip
    assert isinstance(deployment, RunnerDeployment)  # a coroutine only where an event loop runs
    return deployment


def _create_automation() -> list[str]:
    with get_client(sync_client=True) as client:
        if client.read_automations_by_name(ZOMBIES):
            return []
        client.create_automation(zombies())
    return [ZOMBIES]


def _create_pool(name: str) -> list[str]:
    """Make the pool of processes; pools of containers need a template that only their own package has."""
    with get_client(sync_client=True) as client:
        try:
            client.read_work_pool(name)
        except ObjectNotFound as error:
            if name != POOL:
                make = f"prefect work-pool create {name} --type {name.removeprefix(f'{POOL}-')}"
                raise ValueError(f"there is no work pool {name!r}; make it with: {make}") from error
            client.create_work_pool(WorkPoolCreate(name=name, type="process"))
            return [name]
    return []


def _filled(workspace: str, name: str) -> dict[str, Any]:
    """prefect.yaml with {{ $VARIABLE }} replaced, by Prefect's own rules."""
    content = yaml.safe_load(prefect_file().read_text(encoding="utf-8"))
    before = dict(os.environ)
    os.environ.update(SERM_WORKSPACE=workspace, SERM_DEPLOYMENT=name)
    try:
        filled: Any = apply_values(content, {}, remove_notset=False)
    finally:
        os.environ.clear()
        os.environ.update(before)
    return dict(filled)


def _server() -> str:
    address = get_current_settings().api.url
    if not address:
        raise ValueError(
            "no Prefect server is configured; start one: prefect server start, and then: "
            "export PREFECT_API_URL=http://127.0.0.1:4200/api"
        )
    return str(address)
