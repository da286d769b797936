"""Annotate pairs without a workspace: many pair graphs at once on one event loop; for the verb and the backtest."""

import asyncio
from collections.abc import AsyncIterator, Coroutine, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import polars as pl

from serm.annotation.asking import Asker, Voting
from serm.annotation.breaker import Breaker
from serm.annotation.consensus import Consensus
from serm.annotation.dawid_skene import Reliability
from serm.annotation.graph import Work, annotation_row, pair_graph
from serm.annotation.guidelines import load_prompt
from serm.annotation.journal import Journal
from serm.annotation.knowledge import Knowledge
from serm.annotation.ledger import Ledger
from serm.annotation.llm import LLM
from serm.annotation.prompt import Prompt
from serm.config import AnnotationSettings, AnnotatorSettings
from serm.records import ANNOTATIONS

LEAST_IN_FLIGHT = 64  # pairs; each LLM limits its own calls, so waiting pairs cost only memory
ROWS_A_FRAME = 4_096  # finished rows are packed into columns at this number

Result = TypeVar("Result")
SCHEMA = pl.Schema({name: dtype for name, dtype in ANNOTATIONS.schema.items() if name != "round"})


def annotate_pairs(
    pairs: pl.DataFrame,
    documents: pl.DataFrame,
    llms: Mapping[str, LLM],
    settings: AnnotationSettings,
    scale: Sequence[int],
    ledger: Ledger | None = None,
    knowledge: Knowledge | None = None,
    names: Mapping[int, str] | None = None,
    reliability: Reliability | None = None,
) -> pl.DataFrame:
    """Annotate pairs (`query`, `doc_id`, `locale` if known) of `documents` (`doc_id`, `text`), in the order given.

    Returns one row a pair in the schema of the annotations table without `round`; status "failed" marks pairs that a
    provider or a missing document let down, with the reason. `names` are the grades' words in the prompt.
    `reliability` is what is known of the annotators, in the order of their names.

    Raises:
        ValueError: there is no LLM, or a pair comes twice.
    """
    askers = make_askers(llms, settings, scale, ledger)
    work = make_work(pairs, documents, askers, settings, scale, names or {}, ledger, knowledge, reliability)

    async def collect() -> list[pl.DataFrame]:
        frames: list[pl.DataFrame] = []
        rows: list[dict[str, Any]] = []
        try:
            async for pair, row in finished(work, settings):
                rows.append(row | {"pair": pair})
                if len(rows) == ROWS_A_FRAME:
                    frames.append(_frame(rows))
                    rows = []
        finally:
            await asyncio.gather(*(llm.close() for llm in llms.values()))
        return [*frames, _frame(rows)]

    return pl.concat(run(collect())).sort("pair").drop("pair")


def _frame(rows: list[dict[str, Any]]) -> pl.DataFrame:
    return pl.DataFrame(rows, schema=SCHEMA | {"pair": pl.UInt32()}, infer_schema_length=None)


def make_askers(
    llms: Mapping[str, LLM], settings: AnnotationSettings, scale: Sequence[int], ledger: Ledger | None
) -> dict[str, Asker]:
    """One Asker an LLM, with a bill of its own; create them where no event loop needs to run."""
    if not llms:
        raise ValueError("annotation: no annotator; give at least one in annotation.annotators")
    known = {annotator.name: annotator for annotator in settings.annotators}
    journal = None if ledger is None else Journal(ledger)
    askers = {}
    for name, llm in sorted(llms.items()):
        own = known.get(name) or AnnotatorSettings(name=name, model=llm.model)
        paths = own.paths or settings.paths
        voting = Voting(
            frozenset(scale), paths, settings.minimum_support, settings.adaptive, settings.vote, settings.ties
        )
        breaker = Breaker(own.give_up_after, own.breaker_pause, own.breaker_trials)
        askers[name] = Asker(name, llm, voting, journal, breaker)
    return askers


def make_work(
    pairs: pl.DataFrame,
    documents: pl.DataFrame,
    askers: Mapping[str, Asker],
    settings: AnnotationSettings,
    scale: Sequence[int],
    names: Mapping[int, str],
    ledger: Ledger | None,
    knowledge: Knowledge | None,
    reliability: Reliability | None = None,
) -> Work:
    """Bind texts and background to the pairs.

    Raises:
        ValueError: a pair comes twice.
    """
    if pairs.select("query", "doc_id").is_duplicated().any():
        twice = pairs.filter(pl.struct("query", "doc_id").is_duplicated()).row(0, named=True)
        raise ValueError(f"annotation: the pair ({twice['query']!r}, {twice['doc_id']!r}) comes twice; give it once")
    locale = pl.col("locale") if "locale" in pairs.columns else pl.lit(None, pl.String).alias("locale")
    joined = pairs.select("query", "doc_id", locale).join(
        documents.select("doc_id", "text").unique("doc_id"), on="doc_id", how="left", maintain_order="left"
    )
    if knowledge is not None:
        knowledge.prepare(joined["query"].unique().to_list(), ledger)
    files = load_prompt(settings.prompt, scale)

    def prompt(guidelines: str) -> Prompt:
        return Prompt(scale, names, guidelines, settings.max_document_characters, files, settings.guard)

    own = {
        annotator.name: prompt(f"{settings.guidelines}\n{annotator.guidelines}")
        for annotator in settings.annotators
        if annotator.guidelines
    }
    ordinal = settings.agreement_scale == "ordinal"
    consensus = Consensus(
        settings.agreement, ordinal, scale, settings.target_accuracy, tuple(sorted(askers)), reliability
    )
    return Work(
        joined["query"], joined["doc_id"], joined["text"], prompt(settings.guidelines), knowledge, askers, consensus,
        joined["locale"], settings.counterfactual, own,
    )  # fmt: skip


async def finished(work: Work, settings: AnnotationSettings) -> AsyncIterator[tuple[int, dict[str, Any]]]:
    """Run all pairs, a bounded number at once; yields (pair number, row) as each finishes."""
    graph = pair_graph()

    async def one(pair: int) -> tuple[int, dict[str, Any]]:
        if work.texts[pair] is None:
            return pair, _without_document(work, pair)
        return pair, annotation_row(await graph.ainvoke({"pair": pair}, context=work), work)

    width = max(LEAST_IN_FLIGHT, 2 * sum(annotator.concurrency for annotator in settings.annotators))
    running: set[asyncio.Task[tuple[int, dict[str, Any]]]] = set()
    waiting = iter(range(len(work.queries)))
    try:
        while True:
            for pair in waiting:
                running.add(asyncio.create_task(one(pair)))
                if len(running) >= width:
                    break
            if not running:
                return
            done, running = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                yield task.result()
    finally:
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)


def _without_document(work: Work, pair: int) -> dict[str, Any]:
    return {
        "query": work.queries[pair],
        "doc_id": work.doc_ids[pair],
        "status": "failed",
        "votes": "{}",
        "reason": f"document {work.doc_ids[pair]!r} is not in the documents table; ingest it",
        "calls": 0,
    }


def run(work: Coroutine[Any, Any, Result]) -> Result:
    """Run a coroutine to its end, also from a notebook, whose own event loop is running already."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(work)
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, work).result()
