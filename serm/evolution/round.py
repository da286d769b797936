"""The verb evolve: whole rounds, from the log to a champion that people's judgments say is better.

A round is finished when its verdict is recorded. Until then a rerun goes on with it: every step finds what an earlier
run left and pays for nothing twice.
"""

import json
from dataclasses import asdict, dataclass

import polars as pl

from serm import registry
from serm.annotation.verbs import annotate
from serm.evaluation import evaluate, gate
from serm.evolution.calibration import CALIBRATION, plan_calibration
from serm.evolution.update import update
from serm.mining import mine
from serm.workspace import Workspace


@dataclass(frozen=True)
class RoundSummary:
    """What one round of evolution did."""

    round: int
    shift: str
    mined: int
    kept: int
    review: int
    failed: int
    calls: int  # requests to the annotators, over all pairs of the round
    parent: str
    candidate: str | None  # none when too few labels were kept to train on
    promoted: bool
    reasons: list[str]
    before: float | None  # the gate's measure on fresh queries: champion before the round, and candidate
    after: float | None


def evolve(workspace: Workspace, rounds: int = 1) -> list[RoundSummary]:
    """Run rounds of mine, annotate, update, evaluate and gate; promote a candidate only if the gate accepts it.

    A first model is trained if there is none. An unfinished round is finished first and counts as one of `rounds`.

    Raises:
        WorkspaceError: there is nothing to mine, or nothing to train the first model on.
    """
    if registry.history(workspace).is_empty():
        update(workspace)
    return [_round(workspace, unfinished(workspace)) for _ in range(rounds)]


def unfinished(workspace: Workspace) -> int | None:
    """The mined round that has no verdict yet, if there is one."""
    last = workspace.scan("mined").select(pl.col("round").max()).collect().item()
    if last is None or last == CALIBRATION:
        return None
    done = workspace.scan("runs").filter(pl.col("verb") == "evolve", pl.col("status") == "finished", round=last)
    return int(last) if done.head(1).collect().is_empty() else None


def rounds_done(workspace: Workspace) -> list[RoundSummary]:
    """Every finished round, in order."""
    done = workspace.scan("runs").filter(pl.col("verb") == "evolve", pl.col("status") == "finished")
    return [RoundSummary(**json.loads(result)) for result in done.sort("round").collect()["result"]]


def _round(workspace: Workspace, number: int | None) -> RoundSummary:
    mined = mine(workspace, number)
    with workspace.run("evolve", mined.round) as run:
        if plan_calibration(workspace):
            annotate(workspace, CALIBRATION)
        failed = annotate(workspace, mined.round).failed
        labels = workspace.scan("annotations").filter(round=mined.round).collect()
        kept = labels.filter(pl.col("status") == "kept").height
        champion = registry.champion(workspace)
        candidate, promoted, before, after = None, False, None, None
        if kept < workspace.config.update.minimum_labels:
            reasons = [f"{kept} labels kept, fewer than update.minimum_labels: no candidate"]
        else:
            updated = update(workspace, mined.round)
            candidate, champion = updated.version, str(updated.parent)
            evaluate(workspace, candidate, round=mined.round)
            verdict = gate(workspace, candidate, champion)
            promoted, reasons = verdict.accepted, verdict.reasons
            if verdict.fresh:
                before, after = verdict.fresh.champion, verdict.fresh.candidate
            if promoted:
                registry.promote(workspace, candidate, "; ".join(reasons))
        summary = RoundSummary(
            mined.round, mined.verdict or "unknown", mined.mined, kept, labels.height - kept, failed,
            int(labels["calls"].sum()), champion, candidate, promoted, reasons, before, after,
        )  # fmt: skip
        run.result.update(asdict(summary))
    return summary
