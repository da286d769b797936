"""The verb evolve: whole rounds, from the log to a champion that people's judgments say is better.

A round is finished when its verdict is recorded. Until then a rerun goes on with it: every step finds what an earlier
run left and pays for nothing twice. The steps are functions of their own for schedulers that run them apart.
"""

import json
from dataclasses import asdict, dataclass

import polars as pl

from serm import registry
from serm.annotation.verbs import AnnotationSummary, annotate
from serm.evaluation import Verdict, evaluate, gate
from serm.evolution.calibration import CALIBRATION, plan_calibration
from serm.evolution.update import UpdateSummary, update
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
    failed: int  # pairs without an answer from every annotator; the next round leaves them
    calls: int  # requests to the annotators, over all pairs of the round
    parent: str
    candidate: str | None  # none when too few labels were kept to train on
    promoted: bool
    reasons: list[str]
    before: float | None  # the gate's measure on fresh queries: champion before the round, and candidate
    after: float | None


@dataclass(frozen=True)
class Trial:
    """A candidate before the gate."""

    candidate: str
    parent: str
    verdict: Verdict


def evolve(workspace: Workspace, rounds: int = 1) -> list[RoundSummary]:
    """Run rounds of mine, annotate, update, evaluate and gate; promote a candidate only if the gate accepts it.

    A first model is trained if there is none. An unfinished round is finished first and counts as one of `rounds`.

    Raises:
        WorkspaceError: there is nothing to mine, or nothing to train the first model on.
    """
    begin(workspace)
    return [_round(workspace, unfinished(workspace)) for _ in range(rounds)]


def unfinished(workspace: Workspace) -> int | None:
    """The mined round that has no verdict yet, if there is one."""
    last = last_mined(workspace)
    return None if last is None or recorded(workspace, last) else last


def last_mined(workspace: Workspace) -> int | None:
    """The newest mined round, if there is one."""
    mined = workspace.scan("mined").filter(pl.col("round") != CALIBRATION)
    last = mined.select(pl.col("round").max()).collect().item()
    return None if last is None else int(last)


def recorded(workspace: Workspace, round: int) -> RoundSummary | None:
    """The verdict of a finished round."""
    return next((summary for summary in rounds_done(workspace) if summary.round == round), None)


def rounds_done(workspace: Workspace) -> list[RoundSummary]:
    """Every finished round, in order."""
    done = workspace.scan("runs").filter(pl.col("verb") == "evolve", pl.col("status") == "finished")
    return [RoundSummary(**json.loads(result)) for result in done.sort("round").collect()["result"]]


# --- the steps, in order; each may be repeated -----------------------------------------------------------------------


def begin(workspace: Workspace) -> UpdateSummary | None:
    """Train the first model, if there is no champion yet."""
    return update(workspace) if registry.history(workspace).is_empty() else None


def label(workspace: Workspace, round: int) -> list[AnnotationSummary]:
    """Annotate the calibration pairs, once, and the round's pairs; returns what each brought, the round's last."""
    numbers = [CALIBRATION, round] if plan_calibration(workspace) else [round]
    return [annotate(workspace, number) for number in numbers]


def train(workspace: Workspace, round: int) -> UpdateSummary | None:
    """Train the round's candidate, if enough labels were kept."""
    kept = workspace.scan("annotations").filter(round=round, status="kept").select(pl.len()).collect().item()
    return update(workspace, round) if kept >= workspace.config.update.minimum_labels else None


def judge(workspace: Workspace, candidate: str, parent: str, round: int) -> Trial:
    """Measure the candidate on human judgments and ask the gate whether it may replace its parent."""
    evaluate(workspace, candidate, round=round)
    return Trial(candidate, parent, gate(workspace, candidate, parent))


def summarise(workspace: Workspace, round: int, trial: Trial | None, refused: str | None = None) -> RoundSummary:
    """What the round comes to, from the tables; `refused` is why a person does not want the accepted candidate."""
    labels = workspace.scan("annotations").filter(round=round).select("status", "calls").collect()
    mined = workspace.scan("mined").filter(round=round).select(pl.len()).collect().item()
    kept = labels.filter(pl.col("status") == "kept").height
    promoted, before, after = False, None, None
    if trial is None:
        parent, candidate = registry.champion(workspace), None
        reasons = [f"{kept} labels kept, fewer than update.minimum_labels: no candidate"]
    else:
        parent, candidate, verdict = trial.parent, trial.candidate, trial.verdict
        promoted = verdict.accepted and refused is None
        reasons = verdict.reasons if refused is None else [*verdict.reasons, refused]
        if verdict.fresh:
            before, after = verdict.fresh.champion, verdict.fresh.candidate
    return RoundSummary(
        round, _shift(workspace, round), mined, kept, labels.height - kept, mined - labels.height,
        int(labels["calls"].sum()), parent, candidate, promoted, reasons, before, after,
    )  # fmt: skip


def promote(workspace: Workspace, summary: RoundSummary) -> None:
    """Put the round's candidate in charge, if that is what the round came to."""
    if summary.promoted and summary.candidate:
        registry.promote(workspace, summary.candidate, "; ".join(summary.reasons))


def withdraw(workspace: Workspace, summary: RoundSummary, reason: str) -> None:
    """Undo `promote`: the champion before the round's candidate is back in charge."""
    if summary.promoted and registry.champion(workspace) == summary.candidate:
        registry.rollback(workspace, reason)


def record(workspace: Workspace, summary: RoundSummary) -> None:
    """Record the round's verdict, which finishes it; a round is finished once."""
    if recorded(workspace, summary.round) is None:
        with workspace.run("evolve", summary.round) as run:
            run.result.update(asdict(summary))


def _round(workspace: Workspace, number: int | None) -> RoundSummary:
    round = mine(workspace, number).round
    with workspace.run("evolve", round) as run:
        label(workspace, round)
        updated = train(workspace, round)
        trial = None if updated is None else judge(workspace, updated.version, str(updated.parent), round)
        summary = summarise(workspace, round, trial)
        promote(workspace, summary)
        run.result.update(asdict(summary))
    return summary


def _shift(workspace: Workspace, round: int) -> str:
    """The verdict on shift when the round was mined; a run that was killed right after mining did not record it."""
    runs = workspace.scan("runs").filter(pl.col("verb") == "mine", pl.col("status") == "finished", round=round)
    results = runs.sort("ts").collect()["result"]
    return str(json.loads(results[-1])["verdict"] or "unknown") if len(results) else "unknown"
