"""The flow that looks at the stream daily; where a round is due early, or one died, it asks for a round by an event."""

from typing import Any

from prefect import flow
from prefect.artifacts import create_markdown_artifact
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowFilter, FlowFilterName, FlowRunFilter, FlowRunFilterState
from prefect.client.schemas.filters import FlowRunFilterStateType as StateTypes
from prefect.client.schemas.objects import StateType
from prefect.events import emit_event

from flows.artifacts import progress_shown
from flows.limits import GPU, slot
from flows.parameters import Address, Settings, Window, open_workspace, run_name
from serm.evolution.round import unfinished

DUE = "serm.round.due"
UNDER_WAY = [StateType.PENDING, StateType.RUNNING, StateType.PAUSED]


def resource(root: str) -> str:
    """A workspace's name in Prefect's events."""
    return f"serm.workspace.{root}"


@flow(name="serm-watch", flow_run_name=run_name, timeout_seconds=2 * 3_600.0, retries=2, retry_delay_seconds=60,
      persist_result=True, result_serializer="json")  # fmt: skip
def watch(
    workspace: Address,
    window: Window = None,
    settings: Settings = [],  # noqa: B006
) -> dict[str, Any]:
    """Did the searches shift? A strong shift, or a round that died, fires serm.round.due, which starts a round."""
    from serm.shift.verb import shift as verb

    space = open_workspace(workspace, window, settings)
    with progress_shown("shift"), slot(GPU):
        found = verb(space)
    create_markdown_artifact(found.report.describe(), "serm-shift", f"{space.root}: {found.reason}")
    reasons = [found.reason] if found.trigger else []
    left = unfinished(space)
    if left is not None and not under_way(workspace):
        reasons.append(f"Round {left} died before its verdict.")
    if reasons:
        payload = {"reasons": reasons, "verdict": found.report.verdict}
        emit_event(DUE, {"prefect.resource.id": resource(space.root)}, payload=payload)
    return {"workspace": space.root, "verdict": found.report.verdict, "due": reasons, "page": found.page}


def under_way(workspace: str) -> bool:
    """Whether a run of serm-evolve is at work on the workspace, or waits for a person."""
    with get_client(sync_client=True) as client:
        runs = client.read_flow_runs(
            flow_filter=FlowFilter(name=FlowFilterName(any_=["serm-evolve"])),
            flow_run_filter=FlowRunFilter(state=FlowRunFilterState(type=StateTypes(any_=UNDER_WAY))),
        )
    return any(run.parameters.get("workspace") == workspace for run in runs)
