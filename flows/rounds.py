"""Flows for a round and its steps; each calls one verb of serm and returns its summary as plain data."""

from dataclasses import asdict
from typing import Any

from prefect import flow

from serm.annotation.verbs import annotate as annotate_verb
from serm.evolution.round import evolve as evolve_verb
from serm.evolution.update import update as update_verb
from serm.mining import mine as mine_verb
from serm.workspace import Workspace


@flow(name="serm-mine")
def mine(workspace: str, round: int | None = None, budget: int | None = None) -> dict[str, Any]:
    """Look for shift and mine a round."""
    return asdict(mine_verb(Workspace.open(workspace), round, budget))


@flow(name="serm-annotate")
def annotate(workspace: str, round: int | None = None) -> dict[str, Any]:
    """Let the configured LLMs label a mined round."""
    return asdict(annotate_verb(Workspace.open(workspace), round))


@flow(name="serm-update")
def update(workspace: str, round: int | None = None) -> dict[str, Any]:
    """Train the round's candidate."""
    return asdict(update_verb(Workspace.open(workspace), round))


@flow(name="serm-evolve")
def evolve(workspace: str, rounds: int = 1) -> list[dict[str, Any]]:
    """Whole rounds, the gate and promotion included."""
    return [asdict(summary) for summary in evolve_verb(Workspace.open(workspace), rounds)]
