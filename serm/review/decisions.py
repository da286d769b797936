"""A person's decisions on pairs: into the judgments table at once, and out of it again.

A decision is a judgment of the reviewer. Changing one's mind replaces the row by its key (query, doc_id, judge);
undoing takes the row out in a commit of its own, or puts the grade back that it replaced. The table's earlier Delta
versions hold what was undone, so nothing that a run was recorded with is lost.

Decisions may train, never evaluate (ours): pairs were mined because the model is weak there, and a gate on them would
be measured on what it learned. A query that was judged for evaluation (anchor, fresh) takes none. A query of the dev
split gets its decisions there: all of a query's judgments stay together.
"""

from dataclasses import dataclass, field

import polars as pl

from serm.evaluation.scoring import LLM_JUDGE
from serm.records import EVALUATED
from serm.review.queue import PAIR
from serm.workspace import Workspace

REVIEW_SPLITS = ("train", "dev")
MOST_NAME = 100  # characters of a reviewer's name


@dataclass(frozen=True)
class Decided:
    """What became of decisions: how many rows changed, and why others were refused."""

    written: int
    refused: dict[tuple[str, str, str], str] = field(default_factory=dict)  # (query, doc_id, judge) -> reason


def checked_reviewer(name: str) -> str:
    """The reviewer's name as it is stored.

    Raises:
        ValueError: it is empty, too long, or marks a machine.
    """
    name = name.strip()
    if not name or len(name) > MOST_NAME or not name.isprintable():
        raise ValueError(f"reviewer {name!r}: give a name of 1 to {MOST_NAME} printable characters with --reviewer")
    if name.startswith(LLM_JUDGE):
        raise ValueError(f"reviewer {name!r}: names that start with {LLM_JUDGE!r} are for machines; choose another")
    return name


def checked_split(split: str) -> str:
    """The split that decisions may go to.

    Raises:
        ValueError: it is one of evaluation, or none at all.
    """
    if split not in REVIEW_SPLITS:
        raise ValueError(f"split {split!r}: decisions on mined pairs may go to {' or '.join(REVIEW_SPLITS)} only")
    return split


def decide(workspace: Workspace, decisions: pl.DataFrame, split: str = "train") -> Decided:
    """Put decisions (query, doc_id, grade, judge, locale) into the judgments, in one atomic commit.

    The same decision again changes nothing; another grade of the same judge replaces the first.

    Raises:
        ValueError: a grade is not on the scale, or the split is not for decisions.
    """
    scale = workspace.config.labels.scale
    wrong = decisions.filter(~pl.col("grade").is_in(scale))
    if not wrong.is_empty():
        raise ValueError(f"grade {wrong['grade'][0]} is not on the scale {scale}")
    checked_split(split)
    queries = decisions["query"].unique().implode()
    known = workspace.scan("judgments").filter(pl.col("query").is_in(queries)).select(*PAIR, "judge", "split").collect()
    held_out = known.filter(pl.col("split").is_in(EVALUATED))["query"].unique().implode()
    dev = known.filter(pl.col("split") == "dev")["query"].unique().implode()
    elsewhere = known.filter(~pl.col("split").is_in(REVIEW_SPLITS)).select(*PAIR, "judge", taken="split")
    judged = decisions.join(elsewhere, on=[*PAIR, "judge"], how="left", maintain_order="left").with_columns(
        why=pl.when(pl.col("query").is_in(held_out))
        .then(pl.lit("the query was judged for evaluation (anchor or fresh); a decision on it may not train"))
        .when(pl.col("taken").is_not_null())
        .then(
            pl.format(
                "{} has judged this pair in split {}; that stays as it is, decide under another name", "judge", "taken"
            )
        )
    )
    accepted = judged.filter(pl.col("why").is_null())
    split_of = pl.when(pl.col("query").is_in(dev)).then(pl.lit("dev")).otherwise(pl.lit(split))
    rows = accepted.select(*PAIR, "grade", "judge", "locale", split=split_of)
    refused = judged.filter(pl.col("why").is_not_null()).select(*PAIR, "judge", "why")
    return Decided(
        written=workspace.upsert("judgments", rows),
        refused={(query, doc_id, judge): why for query, doc_id, judge, why in refused.iter_rows()},
    )


def own_grades(workspace: Workspace, pairs: pl.DataFrame, reviewer: str) -> pl.DataFrame:
    """The reviewer's grades on `pairs` (query, doc_id): columns query, doc_id, grade."""
    named = pl.col("query").is_in(pairs["query"].unique().implode())
    own = workspace.scan("judgments").filter(
        named & (pl.col("judge") == reviewer) & pl.col("split").is_in(REVIEW_SPLITS)
    )
    return own.join(pairs.lazy().select(PAIR), on=PAIR, how="semi").select(*PAIR, "grade").collect()


def withdraw(workspace: Workspace, query: str, doc_id: str, reviewer: str) -> int:
    """Take the reviewer's decision on a pair back; returns 1, or 0 if there is none."""
    pair = pl.DataFrame({"query": [query], "doc_id": [doc_id]})
    own = own_grades(workspace, pair, reviewer)
    return workspace.remove("judgments", own.with_columns(judge=pl.lit(reviewer)))
