"""The verb resume: what a dead round has done, what is left of it, and the rest of it done."""

from dataclasses import dataclass

import polars as pl

from serm import registry
from serm.evolution.calibration import CALIBRATION
from serm.evolution.round import RoundSummary, evolve, unfinished
from serm.workspace import Workspace


@dataclass(frozen=True)
class Step:
    """One step of a round."""

    step: str
    done: bool
    found: str  # what an earlier run left


@dataclass(frozen=True)
class Resumed:
    """A round that died, step by step as it was found, and what it came to; nothing where none was dead."""

    round: int | None
    steps: list[Step]
    summary: RoundSummary | None


def resume(workspace: Workspace, dry_run: bool = False) -> Resumed:
    """Continue a round that has no verdict from its last finished step; nothing that is done is paid for again.

    `dry_run` only tells the steps. Where no round is unfinished, nothing happens.
    """
    round = unfinished(workspace)
    if round is None:
        return Resumed(None, [], None)
    steps = steps_of(workspace, round)
    return Resumed(round, steps, None if dry_run else evolve(workspace)[0])


def steps_of(workspace: Workspace, round: int) -> list[Step]:
    """What the tables and the registry hold of a mined round, in the order of its steps."""
    mined = _count(workspace, "mined", round)
    calibration = _count(workspace, "mined", CALIBRATION), _count(workspace, "annotations", CALIBRATION)
    labelled = _count(workspace, "annotations", round)
    candidate = _candidate(workspace, round)
    checkpoints = workspace.local("checkpoints", "x").parent.glob(f"r{round:03d}-*.pt")
    training = "a checkpoint to go on from" if any(checkpoints) else "not begun"
    judged = None if candidate is None else _gate(workspace, candidate)
    return [
        Step("mine", True, f"{mined:,} pairs"),
        Step("calibrate", calibration[0] == calibration[1], f"{calibration[1]:,} of {calibration[0]:,} pairs labelled"),
        Step("annotate", labelled == mined, f"{labelled:,} of {mined:,} pairs labelled"),
        Step("update", candidate is not None, candidate or training),
        Step("gate", judged is not None, "not asked" if judged is None else "accepted" if judged else "refused"),
        Step("verdict", False, "not recorded"),
    ]


def _count(workspace: Workspace, table: str, round: int) -> int:
    return int(workspace.scan(table).filter(round=round).select(pl.len()).collect().item())


def _candidate(workspace: Workspace, round: int) -> str | None:
    """The newest version that was trained for the round."""
    names = [name for name in registry.versions(workspace) if name.startswith(f"r{round:03d}-")]
    return names[-1] if names else None


def _gate(workspace: Workspace, candidate: str) -> bool | None:
    """What the gate last said of the candidate; None before it was asked."""
    runs = workspace.scan("runs").filter(verb="gate")
    asked = runs.filter(
        pl.col("config").str.json_path_match("$.parameters.candidate") == candidate, status="started"
    ).select("run_id")
    said = runs.filter(status="finished").join(asked, on="run_id", how="semi").sort("ts").collect()["result"]
    return None if said.is_empty() else '"accepted": true' in str(said[-1])
