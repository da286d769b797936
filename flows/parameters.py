"""What a person may give a flow: the types that Prefect's form is made of, and the workspace that they open."""

from datetime import timedelta
from typing import Annotated

import polars as pl
from prefect.runtime import flow_run
from pydantic import Field, TypeAdapter

from serm.config import WindowSettings
from serm.workspace import Workspace

SETTING = r"^[A-Za-z_][\w.\[\]]*=.*$"

Address = Annotated[str, Field(min_length=1, description="The workspace: a folder or an object-store URL.")]
Round = Annotated[int | None, Field(ge=1, description="Round number; what the command would take if absent.")]
Window = Annotated[WindowSettings | None, Field(description="The stream to read; the workspace's settings if absent.")]
Settings = Annotated[
    list[Annotated[str, Field(pattern=SETTING)]], Field(description="Overrides for this run: room.key=value.")
]
Pauses = Annotated[
    list[Annotated[float, Field(ge=0)]],
    Field(description="Minutes before pairs that failed are asked again, one for each further attempt."),
]


def open_workspace(workspace: str, window: WindowSettings | None, settings: list[str]) -> Workspace:
    """The workspace with a run's own window and settings.

    Raises:
        ValueError: there is none, or a setting is wrong.
    """
    given = [] if window is None else [f"window.{name}={value}" for name, value in window.model_dump().items()]
    return Workspace.open(workspace, [*given, *settings])


def run_name() -> str:
    """A flow run's name: what it does, which round, and the window of searches it reads."""
    given, verb = flow_run.parameters, str(flow_run.flow_name).removeprefix("serm-")
    try:
        window = TypeAdapter(WindowSettings | None).validate_python(given.get("window"))
        workspace = open_workspace(given["workspace"], window, given.get("settings") or [])
        return f"{verb} {_round(workspace, given.get('round'))}, {_dates(workspace)}"
    except (ValueError, OSError):  # the run itself says what is wrong with its workspace
        return f"{verb} {given.get('workspace')}"


def _round(workspace: Workspace, round: int | None) -> str:
    from serm.evolution.round import unfinished
    from serm.mining.mine import next_round

    return f"round {round or unfinished(workspace) or next_round(workspace)}"


def _dates(workspace: Workspace) -> str:
    newest = workspace.scan("impressions").select(pl.col("ts").max()).collect().item()
    if newest is None:
        return "no searches yet"
    return f"{newest - timedelta(days=workspace.config.window.days):%Y-%m-%d} to {newest:%Y-%m-%d}"
