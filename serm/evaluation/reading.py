"""What evaluation reads of a workspace beside judgments and scores: queries' slices, titles and rationales."""

import polars as pl

from serm.evaluation.scoring import LLM_JUDGE
from serm.evaluation.slices import Slices, build
from serm.traffic import bands
from serm.workspace import Workspace


def read_slices(
    workspace: Workspace, split: str, measured: pl.Series, judgments_version: int | None = None
) -> tuple[Slices, pl.DataFrame]:
    """Slices of a split's `measured` queries, and their locales [query, locale].

    A query's locale is the one most often given with its judgments, else with its impressions. All impressions are
    read, as a stream, one row a distinct query kept.
    """
    settings = workspace.config.evaluation
    judged = workspace.scan("judgments", judgments_version).filter(
        (pl.col("split") == split) & ~pl.col("judge").str.starts_with(LLM_JUDGE)
    )
    queries = measured.rename("query").to_frame()
    log = workspace.scan("impressions")
    seen = log.group_by("query").agg(seen=pl.len(), first=pl.col("ts").min()).collect(engine="streaming")
    logged = _most_common_locale(log.join(queries.lazy(), on="query", how="semi")).rename({"locale": "logged"})
    frame = (
        queries.join(_most_common_locale(judged), on="query", how="left")
        .join(logged, on="query", how="left")
        .with_columns(locale=pl.coalesce("locale", "logged"))
        .join(bands(seen, "seen").select("query", "band"), on="query", how="left")
        .join(_dates(workspace, judged, seen), on="query", how="left")
        .select("query", "locale", "band", "dated", "date_label")
        .sort("query")
    )
    return build(frame, settings), frame.select("query", "locale")


def _most_common_locale(rows: pl.LazyFrame) -> pl.DataFrame:
    """[query, locale] of rows that have one; of equally common ones the first by name."""
    return (
        rows.filter(pl.col("locale").is_not_null())
        .group_by("query", "locale")
        .agg(rows=pl.len())
        .sort(["query", "rows", "locale"], descending=[False, True, False])
        .unique("query", keep="first", maintain_order=True)
        .select("query", "locale")
        .collect(engine="streaming")
    )


def _dates(workspace: Workspace, judged: pl.LazyFrame, seen: pl.DataFrame) -> pl.DataFrame:
    """[query, dated, date_label] of the queries that evaluation.era dates: a number to sort by, and its words."""
    attribute = workspace.config.evaluation.era
    if attribute == "log":
        return seen.select(
            "query", dated=pl.col("first").dt.timestamp().cast(pl.Float64), date_label=pl.col("first").dt.strftime("%F")
        )
    from serm.simulate.traffic import arrival_values

    documents = workspace.scan("documents").select("doc_id", "attributes").collect()
    try:
        found = arrival_values(judged.collect(), documents, attribute, workspace.config.labels.scale)
    except ValueError:  # no document has it: said with the slices that are missing
        return pl.DataFrame(schema={"query": pl.String, "dated": pl.Float64, "date_label": pl.String})
    label = pl.col("arrival").round(2).cast(pl.String).str.strip_suffix(".0")
    return found.select("query", dated=pl.col("arrival"), date_label=label)


def read_notes(workspace: Workspace, pairs: pl.DataFrame) -> pl.DataFrame:
    """[query, doc_id, title, rationale] of pairs [query, doc_id]; the newest rationale, null where there is none."""
    titles = workspace.scan("documents").select("doc_id", "title", "text").join(
        pairs.select("doc_id").unique().lazy(), on="doc_id", how="semi"
    )  # fmt: skip
    title = pl.coalesce("title", pl.col("text").str.slice(0, 80))
    rationales = (
        workspace.scan("annotations")
        .filter(pl.col("rationale").is_not_null() & (pl.col("rationale") != ""))
        .select("query", "doc_id", "round", "rationale")
        .join(pairs.select("query", "doc_id").lazy(), on=["query", "doc_id"], how="semi")
        .sort("round", descending=True)
        .unique(["query", "doc_id"], keep="first", maintain_order=True)
    )
    return (
        pairs.select("query", "doc_id").lazy()
        .join(titles.select("doc_id", title=title), on="doc_id", how="left")
        .join(rationales.select("query", "doc_id", "rationale"), on=["query", "doc_id"], how="left")
        .collect()
    )  # fmt: skip
