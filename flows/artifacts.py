"""What a person sees of a run on Prefect's pages: progress, tables, the gate's verdict in words."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from uuid import UUID

import polars as pl
from prefect.artifacts import (
    create_markdown_artifact,
    create_progress_artifact,
    create_table_artifact,
    update_progress_artifact,
)

from serm.annotation.quality import report_annotations
from serm.evolution.round import RoundSummary, Trial
from serm.report import gather, markdown, report
from serm.workspace import Workspace
from sps import progress

EVERY_SECONDS = 5.0  # between two reports of progress


@contextmanager
def progress_shown(what: str) -> Iterator[None]:
    """Report the progress of the verb in the block, a few times a minute."""
    shown = create_progress_artifact(0.0, key="serm-progress", description=what)
    assert isinstance(shown, UUID)  # a coroutine only where an event loop runs
    last = time.monotonic()

    def listen(description: str, done: int, total: int | None) -> None:
        nonlocal last
        if total and time.monotonic() - last >= EVERY_SECONDS:
            last = time.monotonic()
            update_progress_artifact(shown, min(100.0, 100.0 * done / total), f"{what}: {description}")

    with progress.heard_by(listen):
        yield
    update_progress_artifact(shown, 100.0, what)


def show_round(workspace: Workspace, summary: RoundSummary, trial: Trial | None) -> None:
    """Tables of who mined and who labelled what, the verdict, and the report: its first screen, and where it lies."""
    round, where = summary.round, workspace.root
    create_table_artifact(agent_rows(workspace, round), "serm-agents", f"round {round} of {where}: who mined what")
    quality = report_annotations(workspace, round)
    create_table_artifact(
        agreement_rows(workspace, round, quality), "serm-agreement", f"round {round} of {where}: on what they agreed"
    )
    create_markdown_artifact(verdict_words(summary, trial), "serm-gate", f"round {round} of {where}: the gate")
    facts = gather(workspace)
    lies = report(workspace, facts=facts).path
    create_markdown_artifact(f"{markdown(facts)}\nThe whole page: `{lies}`\n", "serm-report", f"{where}: the report")


def agent_rows(workspace: Workspace, round: int) -> list[dict[str, Any]]:
    """A row an agent: pairs that it mined, alone or with others, and how many of them got a label."""
    key = ["query", "doc_id"]
    status = workspace.scan("annotations").filter(round=round).select(*key, kept=pl.col("status") == "kept")
    mined = workspace.scan("mined").filter(round=round).select(*key, "agents", alone=pl.col("agents").list.len() == 1)
    rows = mined.explode("agents").join(status, on=key, how="left").group_by(agent="agents")
    counted = rows.agg(mined=pl.len(), alone=pl.col("alone").sum(), kept=pl.col("kept").sum())
    return counted.with_columns(kept_rate=pl.col("kept") / pl.col("mined")).sort("agent").collect().to_dicts()


def agreement_rows(workspace: Workspace, round: int, quality: dict[str, Any]) -> list[dict[str, Any]]:
    """A row an outcome of agreement, and one an annotator with its accuracy against people's grades."""
    outcomes = workspace.scan("annotations").filter(round=round).group_by("status", "reason").agg(pairs=pl.len())
    rows = [
        {"who": "all annotators", "outcome": row["status"], "pairs": row["pairs"], "why": row["reason"] or ""}
        for row in outcomes.sort("status", "pairs", "reason", descending=[False, True, False]).collect().to_dicts()
    ]
    return rows + [
        {
            "who": row["annotator"], "outcome": "right where people judged", "pairs": row["judged"],
            "why": "" if row["accuracy"] is None else f"{row['accuracy']:.0%}",
        }
        for row in quality["annotators"]
    ]  # fmt: skip


def verdict_words(summary: RoundSummary, trial: Trial | None) -> str:
    """The round's end in words that a search lead can read."""
    if summary.candidate is None or trial is None:
        return f"# Round {summary.round}: no new model\n\n{'; '.join(summary.reasons)}.\n"
    outcome = f"{summary.candidate} is the champion now" if summary.promoted else f"{summary.parent} stays champion"
    lines = [
        f"# Round {summary.round}: {outcome}", "",
        f"From the searches (shift: {summary.shift}) {summary.mined:,} pairs were mined; the annotators agreed on "
        f"{summary.kept:,}, {summary.review:,} wait for a person.", "",
        f"| people's judgments ({trial.verdict.measure}) | before | after | difference | 95% interval | queries |",
        "|---|---|---|---|---|---|",
    ]  # fmt: skip
    for words, found in (("new searches", trial.verdict.fresh), ("old searches", trial.verdict.anchor)):
        if found is None:
            lines.append(f"| {words} | – | – | – | – | – |")
            continue
        by = found.difference
        lines.append(
            f"| {words} | {found.champion:.4f} | {found.candidate:.4f} | {by.mean:+.4f} | "
            f"{by.low:+.4f} to {by.high:+.4f} | {by.queries} |"
        )
    return "\n".join([*lines, "", *(f"- {reason}" for reason in summary.reasons), ""])
