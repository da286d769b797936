"""What a model may learn from, read from the workspace: human pairs, labels of the rounds, raw texts."""

import polars as pl

from serm.evaluation.scoring import LLM_JUDGE, human, with_texts
from serm.evolution.calibration import CALIBRATION
from serm.workspace import Workspace


def original_pairs(workspace: Workspace) -> pl.DataFrame:
    """The human train split as [query, doc_id, text, label]."""
    return human_texts(workspace, "train").rename({"grade": "label"})


def labelled_pairs(workspace: Workspace) -> pl.DataFrame:
    """Every label of the rounds as [round, query, doc_id, text, label, agreed, posterior, rationale]: what was kept, or
    what a person said.

    A person's judgment wins over the annotators', and one of the train split labels a pair that went to review; it is
    not `agreed`, so it trains as truth. The annotators' rationale stays where they said the same.
    """
    of_a_round = pl.col("status").is_in(["kept", "review"]) & (pl.col("round") > CALIBRATION)
    kept = (
        workspace.scan("annotations")
        .filter(of_a_round)
        .select("round", "query", "doc_id", "label", "status", "posterior", "rationale")
    )
    people = (
        workspace.scan("judgments")
        .filter(pl.col("split").is_in(["train", "dev"]) & ~pl.col("judge").str.starts_with(LLM_JUDGE))
        .group_by("query", "doc_id")
        .agg(pl.col("grade").median().floor().cast(pl.Int32), train=(pl.col("split") == "train").any())
    )
    documents = workspace.scan("documents").select("doc_id", "text")
    return (
        kept.join(people, on=["query", "doc_id"], how="left")
        .filter((pl.col("status") == "kept") | pl.col("train"))
        .with_columns(
            label=pl.coalesce("grade", "label"),
            agreed=pl.col("grade").is_null(),
            posterior=pl.when(pl.col("grade").is_null()).then("posterior"),
            rationale=pl.when(pl.col("grade").is_null() | (pl.col("grade") == pl.col("label"))).then("rationale"),
        )
        .join(documents, on="doc_id", how="inner")
        .select("round", "query", "doc_id", "text", "label", "agreed", "posterior", "rationale")
        .sort("round", "query", "doc_id")
        .collect()
    )


def domain_texts(workspace: Workspace) -> pl.DataFrame:
    """What a generative model reads before it learns labels: documents, and queries of the log and the train split.

    A column `text`, at most `relevance.pretrain_texts` of either, drawn by the seed; empty where nothing is to be read.
    """
    settings = workspace.config.relevance
    if settings.family != "generative" or not settings.pretrain_epochs:
        return pl.DataFrame(schema={"text": pl.String})
    asked = [
        workspace.scan("impressions").select(text="query"),
        workspace.scan("judgments").filter(pl.col("split") == "train").select(text="query"),
    ]
    drawn = []
    for source in (workspace.scan("documents").select("text"), pl.concat(asked)):
        texts = source.filter(pl.col("text").str.strip_chars() != "").unique().sort("text").collect()
        amount = min(settings.pretrain_texts, texts.height)
        drawn.append(texts.sample(amount, seed=workspace.config.seed))
    return pl.concat(drawn)


def human_texts(workspace: Workspace, split: str) -> pl.DataFrame:
    """The human pairs of a split as [query, doc_id, grade, text]."""
    return with_texts(human(workspace.read("judgments"), split), workspace.read("documents"))[0]


def newest_round(workspace: Workspace) -> int | None:
    """The newest annotated round; None before the first."""
    newest = workspace.scan("annotations").select(pl.col("round").max()).collect().item()
    return None if newest is None or newest == CALIBRATION else int(newest)
