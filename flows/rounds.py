"""Flows of a round: mine, annotate, update, and evolve, which runs them as sub-flows and ends with the gate.

Every step is a verb of serm that finds what an earlier run left, so a run that died is continued by running the same
flow with the same parameters. What goes from step to step, and what Prefect keeps, are numbers, names and addresses;
rows and models stay in the workspace.
"""

from dataclasses import asdict
from typing import Annotated, Any

from prefect import flow, task
from prefect.cache_policies import NO_CACHE
from prefect.flow_runs import pause_flow_run
from prefect.input import RunInput
from prefect.runtime import task_run
from prefect.transactions import Transaction, transaction
from pydantic import Field

from flows.artifacts import progress_shown, show_round, verdict_words
from flows.limits import GPU, LLM, slot
from flows.parameters import Address, Pauses, Round, Settings, Window, open_workspace, run_name
from serm import registry
from serm.evolution import round as rounds
from serm.workspace import Workspace, WorkspaceError

HOUR = 3_600.0
PAUSES = [1.0, 10.0, 60.0]  # minutes

step: Any = task(cache_policy=NO_CACHE, persist_result=False)  # the workspace remembers; Prefect need not


class Approval(RunInput):
    """What a person says before a candidate becomes champion."""

    promote: Annotated[bool, Field(description="Whether the candidate becomes champion.")]
    who: Annotated[str, Field(min_length=1, description="Your name; it is kept with the verdict.")]
    why: Annotated[str, Field(description="The reason, if you refuse.")] = ""


@flow(name="serm-mine", flow_run_name=run_name, timeout_seconds=6 * HOUR, retries=1, retry_delay_seconds=60,
      persist_result=True, result_serializer="json")  # fmt: skip
def mine(
    workspace: Address,
    round: Round = None,
    budget: Annotated[int | None, Field(ge=1, description="Pairs to mine.")] = None,
    window: Window = None,
    settings: Settings = [],  # noqa: B006
) -> dict[str, Any]:
    """Look for shift and mine a round's pairs; a round that is mined is left as it is."""
    from serm.mining import mine as verb

    space = open_workspace(workspace, window, settings)
    with progress_shown("mine"), slot(GPU):
        found = verb(space, round, budget)
    return {"workspace": space.root, "round": found.round, "mined": found.mined, "by_agent": found.by_agent}


@flow(name="serm-annotate", flow_run_name=run_name, timeout_seconds=96 * HOUR,
      persist_result=True, result_serializer="json")  # fmt: skip
def annotate(
    workspace: Address,
    round: Round = None,
    window: Window = None,
    settings: Settings = [],  # noqa: B006
    pauses: Pauses = PAUSES,
) -> dict[str, Any]:
    """Let the configured LLMs label a mined round; what failed is asked again, and what was answered is not."""
    space = open_workspace(workspace, window, settings)
    number = _newest(space) if round is None else round
    asked = _label.with_options(retries=len(pauses), retry_delay_seconds=[60 * pause for pause in pauses])
    return {"workspace": space.root, "round": number} | asked(space, number, len(pauses))


@flow(name="serm-update", flow_run_name=run_name, timeout_seconds=96 * HOUR, retries=1, retry_delay_seconds=60,
      persist_result=True, result_serializer="json")  # fmt: skip
def update(
    workspace: Address,
    round: Round = None,
    window: Window = None,
    settings: Settings = [],  # noqa: B006
) -> dict[str, Any]:
    """Train a round's candidate, or the first model where there is none; it goes on from its last checkpoint."""
    space = open_workspace(workspace, window, settings)
    with progress_shown("update"), slot(GPU):
        trained = rounds.begin(space) or rounds.train(space, _newest(space) if round is None else round)
    return {"workspace": space.root} | ({"version": None} if trained is None else asdict(trained))


@flow(name="serm-evolve", flow_run_name=run_name, persist_result=True, result_serializer="json")
def evolve(
    workspace: Address,
    window: Window = None,
    settings: Settings = [],  # noqa: B006
    approval: Annotated[bool, Field(description="Wait for a person before an accepted candidate is promoted.")] = False,
    approval_hours: Annotated[float, Field(gt=0, description="How long to wait; then the run fails.")] = 72.0,
    pauses: Pauses = PAUSES,
) -> dict[str, Any]:
    """One whole round: mine, annotate, update, evaluate, gate, promote; an unfinished one is finished first."""
    space = open_workspace(workspace, window, settings)
    given: dict[str, Any] = {"workspace": workspace, "window": window, "settings": settings}
    if registry.history(space).is_empty():
        update(**given)
    number = int(mine(**given, round=rounds.unfinished(space))["round"])
    annotate(**given, round=number, pauses=pauses)
    trained = update(**given, round=number)
    trial = _judge(space, trained["version"], trained["parent"], number) if trained["version"] else None
    summary = rounds.summarise(space, number, trial)
    if approval and summary.promoted and registry.champion(space) != summary.candidate:
        summary = rounds.summarise(space, number, trial, _ask(summary, trial, approval_hours))
    with transaction() as promotion:  # no retries inside: the first failure undoes the promotion
        promotion.set("address", (workspace, window, settings))
        promotion.set("summary", summary)
        _promote(space, summary)
        _check(space)
        _record(space, summary)
    show_round(space, summary, trial)
    return {"workspace": space.root} | asdict(summary)


# --- the steps between the verbs -------------------------------------------------------------------------------------


@step(name="label pairs", tags=[LLM])
def _label(space: Workspace, round: int, attempts: int) -> dict[str, Any]:
    """Label what has no label; pairs that failed are worth another attempt while there is one."""
    with progress_shown("annotate"), slot(LLM):
        found = rounds.label(space, round)
    failed = sum(summary.failed for summary in found)
    if failed and task_run.run_count <= attempts:
        notes = "; ".join(note for summary in found for note in summary.notes)
        raise RuntimeError(f"{failed} pairs failed: {notes}")
    cost = sum(summary.cost for summary in found)
    return {"kept": found[-1].kept, "review": found[-1].review, "failed": failed, "cost": cost}


@step(name="evaluate and gate", retries=1, retry_delay_seconds=60, timeout_seconds=12 * HOUR, tags=[GPU])
def _judge(space: Workspace, candidate: str, parent: str, round: int) -> rounds.Trial:
    with slot(GPU):
        return rounds.judge(space, candidate, parent, round)


@step(name="promote")
def _promote(space: Workspace, summary: rounds.RoundSummary) -> None:
    rounds.promote(space, summary)


@_promote.on_rollback
def _withdraw(promotion: Transaction) -> None:
    """A later step of the transaction failed: the earlier champion comes back, the round stays unfinished."""
    space = open_workspace(*promotion.get("address"))
    rounds.withdraw(space, promotion.get("summary"), "a step after the promotion failed")


@step(name="the champion answers")
def _check(space: Workspace) -> None:
    from serm.operations.champion import ask_champion

    ask_champion(space)


@step(name="record the verdict")
def _record(space: Workspace, summary: rounds.RoundSummary) -> None:
    rounds.record(space, summary)


def _ask(summary: rounds.RoundSummary, trial: rounds.Trial | None, hours: float) -> str | None:
    """Pause until a person has said yes or no; returns the refusal, if it is one."""
    question = f"May {summary.candidate} replace {summary.parent}?\n\n{verdict_words(summary, trial)}"
    form = Approval.with_initial_data(description=question)
    said = pause_flow_run(wait_for_input=form, timeout=int(hours * HOUR), key="approval")
    if said.promote:
        return None
    return f"refused by {said.who}" + (f": {said.why}" if said.why else "")


def _newest(space: Workspace) -> int:
    newest = rounds.last_mined(space)
    if newest is None:
        raise WorkspaceError("nothing is mined yet; run the flow serm-mine first")
    return newest
