"""A workspace's tables as the annotators' knowledge: documents in batches, train judgments, believable clicks."""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial

import numpy as np
import polars as pl
from numpy.typing import NDArray

from serm.annotation.evidence import Judged, co_clicked
from serm.annotation.knowledge import Knowledge
from serm.annotation.retrieval import Embed, Index, embed_documents
from serm.workspace import Workspace

BATCH_DOCUMENTS = 50_000
JUDGED_ROUND = 0  # pairs that people judged, annotated to learn how the annotators err (see serm.evolution.calibration)


def workspace_knowledge(workspace: Workspace, round: int, embed: Embed | None = None) -> Knowledge | None:
    """What this workspace can say about queries; None where the settings ask for nothing.

    `embed` (texts -> unit vectors) defaults to the configured embedder. For the round of judged pairs, a query's own
    judgments are left out: the stream's pairs have none, and the annotators would look better than they are.
    """
    settings = workspace.config.annotation
    wanted = (
        settings.knowledge_documents, settings.knowledge_judged, settings.knowledge_clicked, settings.knowledge_plugins
    )  # fmt: skip
    if not settings.knowledge or not any(wanted):
        return None
    if embed is None:
        from serm.relevance.embedding import embed as embed_texts

        embed = partial(embed_texts, settings=workspace.config.relevance)
    judged = None
    if settings.knowledge_judged:
        train = workspace.scan("judgments").filter(pl.col("split") == "train")
        rows = train.select("query", "doc_id", "grade", "split").collect()
        judged = Judged(rows, partial(_cached, workspace, embed), own=round != JUDGED_ROUND)
    return Knowledge(
        Index(_batches(workspace, embed) if settings.knowledge_documents else ()),
        partial(_texts, workspace),
        embed,
        settings.knowledge_documents,
        settings.knowledge_tokens,
        settings.knowledge_plugins,
        judged,
        settings.knowledge_judged,
        partial(_clicked, workspace) if settings.knowledge_clicked else None,
        settings.knowledge_clicked,
    )


def _batches(workspace: Workspace, embed: Embed) -> Iterator[tuple[pl.DataFrame, NDArray[np.float32]]]:
    """Documents in the order of doc_id, a bounded number at once, with their vectors."""
    documents = workspace.scan("documents").select("doc_id", "text")
    ids = documents.select("doc_id").sort("doc_id").collect(engine="streaming")["doc_id"]
    for start in range(0, len(ids), BATCH_DOCUMENTS):
        part = ids[start : start + BATCH_DOCUMENTS].to_frame().lazy()
        batch = (
            documents.join(part, on="doc_id", how="semi").collect(engine="streaming").unique("doc_id").sort("doc_id")
        )
        yield batch, _cached(workspace, embed, batch["text"])


def _cached(workspace: Workspace, embed: Embed, texts: pl.Series | Sequence[str]) -> NDArray[np.float32]:
    return embed_documents(pl.Series("text", texts, pl.String), embed, workspace.local("cache"))


def _texts(workspace: Workspace, doc_ids: Sequence[str]) -> Mapping[str, str]:
    asked = pl.LazyFrame({"doc_id": doc_ids}, schema={"doc_id": pl.String})
    found = workspace.scan("documents").select("doc_id", "text").join(asked, on="doc_id", how="semi")
    return dict(found.collect(engine="streaming").iter_rows())


def _clicked(workspace: Workspace, queries: Sequence[str], count: int) -> Mapping[str, list[str]]:
    return co_clicked(workspace.scan("impressions"), queries, workspace.config.mining, count)
