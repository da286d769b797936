"""The verb annotate: the workspace's mined pairs in, annotations out, batch by batch.

A pair that failed is not written: whatever has no row is annotated by the next call, so a rerun completes the job.
Every answer that was had in the meantime waits in the ledger and is not paid for again.
"""

import asyncio
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import polars as pl

from serm.annotation.asking import Asker, Tally
from serm.annotation.core import SCHEMA, finished, make_askers, make_work, run
from serm.annotation.dawid_skene import Reliability
from serm.annotation.graph import Work
from serm.annotation.knowledge import Embed
from serm.annotation.ledger import Ledger
from serm.annotation.llm import LLM
from serm.annotation.measuring import measure
from serm.annotation.openai_compatible import OpenAICompatible
from serm.annotation.sources import workspace_knowledge
from serm.config import AnnotatorSettings, Config
from serm.workspace import Workspace, WorkspaceError
from sps import progress

REASONS_SHOWN = 5
FAILURES_NAMED = 100  # pairs
SLICE_PAIRS = 8_192  # whose texts are in memory at once
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
    cost: float = 0.0  # of this call's tokens, at the prices of the settings
    outcomes: dict[str, dict[str, int]] = field(default_factory=dict)  # annotator -> kind -> paths, reused included
    kept_rate: dict[str, float] = field(default_factory=dict)  # mining agent -> share of its annotated pairs kept
    lost: dict[str, str] = field(default_factory=dict)  # annotator -> why it was given up
    failures: list[dict[str, str]] = field(default_factory=list)  # the first 100: query, doc_id, reason
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
        return _summary(workspace, round, {}, _Done(), 0)
    chosen = dict(llms) if llms is not None else configured_llms(config)
    with workspace.run("annotate", round) as record:
        ledger = Ledger(config.annotation.ledger or workspace.local("ledger.sqlite"))
        try:
            askers = make_askers(chosen, config.annotation, config.labels.scale, ledger)
            texts = _Texts(workspace, round, ledger, embed, measure(workspace, round, sorted(askers)))
            done = run(_annotate(workspace, round, pairs, askers, texts, chosen))
        finally:
            ledger.close()
        summary = _summary(workspace, round, askers, done, pairs.height)
        record.result.update(vars(summary))
        if len(summary.lost) == len(askers):
            raise AnnotatorsLostError(
                f"no annotator is left: {'; '.join(f'{name}: {why}' for name, why in summary.lost.items())}. "
                f"{done.kept + done.review} of {pairs.height} pairs were annotated and kept; "
                "for the rest run serm annotate again"
            )
    return summary


def configured_llms(config: Config) -> dict[str, LLM]:
    """The LLM of every annotator of the settings; models in this process are loaded by their first call.

    Raises:
        ValueError: the environment variable of an API key is not set.
    """
    return {annotator.name: _llm(annotator, config) for annotator in config.annotation.annotators}


def _llm(annotator: AnnotatorSettings, config: Config) -> LLM:
    tokens = config.annotation.max_completion_tokens
    if annotator.provider == "transformers":
        from serm.annotation.local_transformers import TransformersLLM

        return TransformersLLM(annotator, tokens)
    if annotator.provider == "vllm":
        from serm.annotation.local_vllm import VllmLLM

        return VllmLLM(annotator, tokens, config.labels.scale)
    return OpenAICompatible(annotator, tokens, config.labels.scale)


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


@dataclass
class _Done:
    """What became of the pairs so far."""

    kept: int = 0
    review: int = 0
    reasons: Counter[str] = field(default_factory=Counter)  # why pairs failed -> how many
    failures: list[dict[str, str]] = field(default_factory=list)


class _Texts:
    """Makes the `Work` of one slice of pairs after another; reads only their documents."""

    def __init__(
        self, workspace: Workspace, round: int, ledger: Ledger, embed: Embed | None, reliability: Reliability | None
    ) -> None:
        self._workspace, self._ledger, self._reliability = workspace, ledger, reliability
        self._knowledge = workspace_knowledge(workspace, round, embed)
        if self._knowledge is not None:
            # All the round's queries together, whatever is left of it: other batches could give other neighbours.
            mined = workspace.scan("mined").filter(pl.col("round") == round)
            self._knowledge.prepare(mined.select(pl.col("query").unique()).collect()["query"].to_list(), ledger)

    def work(self, pairs: pl.DataFrame, askers: Mapping[str, Asker]) -> Work:
        """Bind texts and background to a slice of the pairs."""
        config = self._workspace.config
        wanted = pl.col("doc_id").is_in(pairs["doc_id"].unique().implode())
        documents = self._workspace.scan("documents").select("doc_id", "text").filter(wanted).collect()
        return make_work(
            pairs, documents, askers, config.annotation, config.labels.scale, config.labels.names, self._ledger,
            self._knowledge, self._reliability,
        )  # fmt: skip


async def _annotate(
    workspace: Workspace,
    round: int,
    pairs: pl.DataFrame,
    askers: Mapping[str, Asker],
    texts: _Texts,
    llms: Mapping[str, LLM],
) -> _Done:
    """Annotate slice by slice and write kept and review rows batch by batch."""
    settings = workspace.config.annotation
    done = _Done()
    batch: list[dict[str, Any]] = []

    async def flush() -> None:
        rows = pl.DataFrame(batch, schema=SCHEMA, infer_schema_length=None)
        rows = rows.with_columns(pl.lit(round, pl.Int32).alias("round"))
        batch.clear()
        await asyncio.to_thread(workspace.append, "annotations", rows)
        done.kept += rows.filter(pl.col("status") == "kept").height
        done.review += rows.filter(pl.col("status") == "review").height

    with progress.track("annotating", pairs.height) as advance:
        try:
            for part in pairs.iter_slices(SLICE_PAIRS):
                async for _, row in finished(texts.work(part, askers), settings):
                    advance(1)
                    if row["status"] == "failed":
                        done.reasons[row["reason"]] += 1
                        if len(done.failures) < FAILURES_NAMED:
                            done.failures.append({name: row[name] for name in (*PAIR, "reason")})
                        continue
                    batch.append(row)
                    if len(batch) >= settings.batch_pairs:
                        await flush()
        finally:
            if batch:
                await flush()
            await asyncio.gather(*(llm.close() for llm in llms.values()))
    return done


def _summary(
    workspace: Workspace, round: int, askers: Mapping[str, Asker], done: _Done, pairs: int
) -> AnnotationSummary:
    tallies: list[Tally] = [asker.tally for asker in askers.values()]
    failed = sum(done.reasons.values())
    lost = {name: asker.breaker.lost for name, asker in askers.items() if asker.breaker.lost is not None}
    reasons = sorted(done.reasons.items(), key=lambda entry: (-entry[1], entry[0]))
    notes = [f"{_pairs(count)} failed: {reason}" for reason, count in reasons[:REASONS_SHOWN]]
    if len(reasons) > REASONS_SHOWN:
        notes.append(f"{_pairs(sum(count for _, count in reasons[REASONS_SHOWN:]))} failed for other reasons")
    notes += [f"{name} was given up; pairs that lack it wait for the next run" for name in lost]
    if failed:
        notes.append("failed pairs are not written; run serm annotate again to complete the round")
    return AnnotationSummary(
        round=round,
        pairs=pairs,
        kept=done.kept,
        review=done.review,
        failed=failed,
        calls=sum(tally.calls for tally in tallies),
        prompt_tokens=sum(tally.prompt_tokens for tally in tallies),
        completion_tokens=sum(tally.completion_tokens for tally in tallies),
        reused=sum(tally.reused for tally in tallies),
        cost=sum(
            annotator.cost(askers[annotator.name].tally.prompt_tokens, askers[annotator.name].tally.completion_tokens)
            for annotator in workspace.config.annotation.annotators
            if annotator.name in askers
        ),
        outcomes={name: dict(sorted(asker.tally.outcomes.items())) for name, asker in askers.items()},
        kept_rate=_kept_rate(workspace, round),
        lost={name: f"{askers[name].llm.address}: {why}" for name, why in lost.items()},
        failures=done.failures,
        notes=tuple(notes),
    )


def _pairs(count: int) -> str:
    return "1 pair" if count == 1 else f"{count} pairs"


def _kept_rate(workspace: Workspace, round: int) -> dict[str, float]:
    this_round = pl.col("round") == round
    status = workspace.scan("annotations").filter(this_round).select(*PAIR, kept=pl.col("status") == "kept")
    agents = workspace.scan("mined").filter(this_round).select(*PAIR, agent="agents").explode("agent")
    rates = agents.join(status, on=PAIR).group_by("agent").agg(pl.col("kept").mean()).sort("agent").collect()
    return dict(rates.drop_nulls("agent").iter_rows())
