"""The verb annotate: the workspace's mined pairs in, annotations out, batch by batch.

A pair that failed is not written: whatever has no row is annotated by the next call, so a rerun completes the job.
Every answer that was had in the meantime waits in the ledger and is not paid for again.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import polars as pl

from serm.annotation.asking import Asker, Tally
from serm.annotation.core import SCHEMA, finished, make_askers, make_work, run
from serm.annotation.graph import Work
from serm.annotation.knowledge import Embed
from serm.annotation.ledger import Ledger
from serm.annotation.llm import LLM
from serm.annotation.measuring import measure
from serm.annotation.openai_compatible import OpenAICompatible
from serm.annotation.sources import workspace_knowledge
from serm.config import Config
from serm.workspace import Workspace, WorkspaceError
from sps import progress

REASONS_SHOWN = 5
PAIR = ["query", "doc_id"]


class AnnotatorsLostError(ValueError):
    """Every annotator is out of reach; what was annotated before is kept."""


@dataclass(frozen=True)
class AnnotationSummary:
    """What one call of `annotate` did; `kept_rate` alone is about the whole round so far."""

    round: int
    pairs: int  # that had no annotation when the call began
    kept: int
    review: int
    failed: int  # not written; the next call tries them again
    calls: int  # requests answered and paid for in this call
    prompt_tokens: int
    completion_tokens: int
    reused: int  # requests answered in an earlier call, paid nothing
    kept_rate: dict[str, float] = field(default_factory=dict)  # mining agent -> share of its annotated pairs kept
    lost: dict[str, str] = field(default_factory=dict)  # annotator -> why it was given up
    notes: tuple[str, ...] = ()


def annotate(
    workspace: Workspace,
    round: int | None = None,
    llms: Mapping[str, LLM] | None = None,
    embed: Embed | None = None,
) -> AnnotationSummary:
    """Annotate the mined pairs of a round (default: the newest) that have no annotation yet.

    `llms` (annotator -> LLM) default to the configured endpoints, `embed` (texts -> unit vectors) to the configured
    embedder.

    Raises:
        WorkspaceError: nothing is mined, or not in this round.
        ValueError: an API key's variable is not set, or a plug-in or the ledger cannot be opened.
        AnnotatorsLostError: no annotator can be reached; finished pairs are kept, a rerun does the rest.
    """
    config = workspace.config
    round, pairs = _open_pairs(workspace, round)
    if pairs.is_empty():
        return _summary(workspace, round, {}, pl.DataFrame(schema=SCHEMA), 0, {})
    chosen = dict(llms) if llms is not None else configured_llms(config)
    with workspace.run("annotate", round) as record:
        ledger = Ledger(config.annotation.ledger or workspace.local("ledger.sqlite"))
        try:
            askers = make_askers(chosen, config.annotation, config.labels.scale, ledger)
            work = _work(workspace, round, pairs, askers, ledger, embed)
            rows, failures = run(_annotate(workspace, round, work, chosen))
        finally:
            ledger.close()
        summary = _summary(workspace, round, askers, rows, pairs.height, failures)
        record.result.update(vars(summary))
        if len(summary.lost) == len(askers):
            raise AnnotatorsLostError(
                f"no annotator is left: {'; '.join(f'{name}: {why}' for name, why in summary.lost.items())}. "
                f"{rows.height} of {pairs.height} pairs were annotated and kept; for the rest run serm annotate again"
            )
    return summary


def configured_llms(config: Config) -> dict[str, LLM]:
    """A client for every annotator of the settings.

    Raises:
        ValueError: the environment variable of an API key is not set.
    """
    settings = config.annotation
    return {
        annotator.name: OpenAICompatible(annotator, settings.max_completion_tokens, config.labels.scale)
        for annotator in settings.annotators
    }


def _open_pairs(workspace: Workspace, round: int | None) -> tuple[int, pl.DataFrame]:
    mined = workspace.scan("mined").select("round", *PAIR, "locale")
    newest = mined.select(pl.col("round").max()).collect().item()
    if newest is None:
        raise WorkspaceError("nothing is mined yet; run: serm mine")
    chosen = int(newest) if round is None else round
    pairs = mined.filter(pl.col("round") == chosen).collect()
    if pairs.is_empty():
        raise WorkspaceError(f"round {chosen} has no mined pairs; the newest round is {newest}")
    done = workspace.scan("annotations").filter(pl.col("round") == chosen).select(PAIR).collect()
    return chosen, pairs.join(done, on=PAIR, how="anti").select(*PAIR, "locale").sort(PAIR)


def _work(
    workspace: Workspace,
    round: int,
    pairs: pl.DataFrame,
    askers: Mapping[str, Asker],
    ledger: Ledger,
    embed: Embed | None,
) -> Work:
    config = workspace.config
    graded = pl.col("doc_id").is_in(pairs["doc_id"].unique().implode())
    documents = workspace.scan("documents").select("doc_id", "text").filter(graded).collect()
    knowledge = workspace_knowledge(workspace, round, embed)
    if knowledge is not None:
        queries = workspace.scan("mined").filter(pl.col("round") == round).select(pl.col("query").unique()).collect()
        knowledge.prepare(queries["query"].to_list(), ledger)
    return make_work(
        pairs, documents, askers, config.annotation, config.labels.scale, config.labels.names, ledger, knowledge,
        measure(workspace, round, sorted(askers)),
    )  # fmt: skip


async def _annotate(
    workspace: Workspace, round: int, work: Work, llms: Mapping[str, LLM]
) -> tuple[pl.DataFrame, dict[str, int]]:
    """Write kept and review rows batch by batch; returns them, and the failures' reasons with their counts."""
    settings = workspace.config.annotation
    frames: list[pl.DataFrame] = []
    batch: list[dict[str, Any]] = []
    failures: dict[str, int] = {}

    async def flush() -> None:
        frame = pl.DataFrame(batch, schema=SCHEMA, infer_schema_length=None)
        frames.append(frame.select(*PAIR, "status"))
        rows = frame.with_columns(pl.lit(round, pl.Int32).alias("round"))
        await asyncio.to_thread(workspace.append, "annotations", rows)
        batch.clear()

    with progress.track("annotating", len(work.queries)) as advance:
        try:
            async for _, row in finished(work, settings):
                advance(1)
                if row["status"] == "failed":
                    failures[row["reason"]] = failures.get(row["reason"], 0) + 1
                    continue
                batch.append(row)
                if len(batch) >= settings.batch_pairs:
                    await flush()
        finally:
            if batch:
                await flush()
            await asyncio.gather(*(llm.close() for llm in llms.values()))
    return pl.concat(frames) if frames else pl.DataFrame(schema=SCHEMA).select(*PAIR, "status"), failures


def _summary(
    workspace: Workspace,
    round: int,
    askers: Mapping[str, Asker],
    rows: pl.DataFrame,
    pairs: int,
    failures: Mapping[str, int],
) -> AnnotationSummary:
    tallies: list[Tally] = [asker.tally for asker in askers.values()]
    failed = sum(failures.values())
    common = sorted(failures.items(), key=lambda entry: (-entry[1], entry[0]))[:REASONS_SHOWN]
    notes = [f"{count} pairs failed: {reason}" for reason, count in common]
    if failed:
        notes.append("failed pairs are not written; run serm annotate again to complete the round")
    return AnnotationSummary(
        round=round,
        pairs=pairs,
        kept=rows.filter(pl.col("status") == "kept").height,
        review=rows.filter(pl.col("status") == "review").height,
        failed=failed,
        calls=sum(tally.calls for tally in tallies),
        prompt_tokens=sum(tally.prompt_tokens for tally in tallies),
        completion_tokens=sum(tally.completion_tokens for tally in tallies),
        reused=sum(tally.reused for tally in tallies),
        kept_rate=_kept_rate(workspace, round),
        lost={name: f"{asker.llm.address}: {asker.lost}" for name, asker in askers.items() if asker.lost is not None},
        notes=tuple(notes),
    )


def _kept_rate(workspace: Workspace, round: int) -> dict[str, float]:
    this_round = pl.col("round") == round
    status = workspace.scan("annotations").filter(this_round).select(*PAIR, kept=pl.col("status") == "kept")
    agents = workspace.scan("mined").filter(this_round).select(*PAIR, agent="agents").explode("agent")
    rates = agents.join(status, on=PAIR).group_by("agent").agg(pl.col("kept").mean()).sort("agent").collect()
    return dict(rates.drop_nulls("agent").iter_rows())
