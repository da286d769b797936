"""The review queue to Argilla or Label Studio, and decisions back; rows that do not fit are refused one by one."""

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl

from serm.records import QUARANTINE
from serm.review import argilla, label_studio
from serm.review.answers import Answer, RowError, grade_of
from serm.review.decisions import checked_reviewer, checked_split, decide
from serm.review.queue import PAIR, details, open_pairs, votes_of
from serm.workspace import Workspace

PAGE = 500  # pairs in memory while exporting
RAW_CHARACTERS = 1_000
REASONS_SHOWN = 20


@dataclass(frozen=True)
class ExportSummary:
    """What was written."""

    format: str
    pairs: int
    files: list[str]


@dataclass(frozen=True)
class ImportSummary:
    """What became of every row: rows = unanswered + answers' rows; answers = added + unchanged + refused."""

    format: str
    rows: int
    unanswered: int  # rows without a decision: not yet labelled, or skipped by the person
    answers: int
    added: int  # judgments new or changed
    unchanged: int  # there already
    refused: int
    reasons: dict[str, int] = field(default_factory=dict)  # why refused -> how many


def export_queue(workspace: Workspace, format: str, target: Path, round: int | None = None) -> ExportSummary:
    """Write the open pairs for a tool: Argilla's dataset folder, or Label Studio's tasks file and its set-up (.xml).

    Files are written whole or not at all; 500 pairs are in memory at a time.

    Raises:
        ValueError: the target is of the wrong kind, or Argilla's folder holds a dataset already.
    """
    pairs = open_pairs(workspace, round)
    labels = workspace.config.labels
    tool = argilla if format == "argilla" else label_studio
    files = tool.write(target, _items(workspace, pairs), labels, workspace.config.annotation.guidelines)
    return ExportSummary(format, pairs.height, [str(path) for path in files])


def _items(workspace: Workspace, pairs: pl.DataFrame) -> Iterator[dict[str, Any]]:
    names = workspace.config.labels.names
    for start in range(0, pairs.height, PAGE):
        for row in details(workspace, pairs.slice(start, PAGE)).iter_rows(named=True):
            yield row | {"votes": votes_of(row["votes"], names)}


def import_decisions(
    workspace: Workspace, source: Path, reviewer: str | None = None, split: str = "train"
) -> ImportSummary:
    """Read a tool's decisions into the judgments, in one atomic commit; refused rows go to quarantine with the reason.

    The judge is `reviewer`, or the person whom the file names. Where a person answered a pair more than once, the last
    answer counts.

    Raises:
        ValueError: the file is of neither tool, or the name or split is not one for reviews.
    """
    checked_split(split)
    name = None if reviewer is None else checked_reviewer(reviewer)
    path, format, rows = _read(source)
    tool = argilla if format == "argilla" else label_studio
    asked = _asked(workspace)
    labels = workspace.config.labels
    bad: list[tuple[int, str, str, str]] = []  # row, field, reason, raw
    taken: dict[tuple[str, str, str], tuple[int, int]] = {}  # query, doc_id, judge -> row, grade
    unanswered = answers = 0
    people: dict[tuple[str, str, str], str] = {}  # under one name: who answered
    for number, row in enumerate(rows, 1):
        raw = json.dumps(row, ensure_ascii=False)[:RAW_CHARACTERS]
        try:
            found = tool.answers(row)
        except RowError as error:
            answers += 1
            bad.append((number, error.field, error.reason, raw))
            continue
        unanswered += not found
        for answer in found:
            answers += 1
            try:
                grade = grade_of(answer.grade, labels)
                judge = name or _judge(answer)
                if (answer.query, answer.doc_id) not in asked:
                    raise RowError("doc_id", "this pair was never in this workspace's review queue")
                key = (answer.query, answer.doc_id, judge)
                if people.setdefault(key, answer.judge) != answer.judge:
                    raise RowError("judge", "another person answered this pair too; import without --reviewer")
            except RowError as error:
                bad.append((number, error.field, error.reason, raw))
                continue
            taken[key] = (number, grade)
    decisions = pl.DataFrame(
        [(*key, grade, asked[key[:2]]) for key, (_, grade) in taken.items()],
        schema={**dict.fromkeys([*PAIR, "judge"], pl.String), "grade": pl.Int32, "locale": pl.String}, orient="row",
    )  # fmt: skip
    outcome = decide(workspace, decisions, split)
    bad += [(taken[key][0], "split", reason, json.dumps(key[:2])) for key, reason in outcome.refused.items()]
    quarantine = pl.DataFrame(
        [("judgments", str(path), *entry) for entry in bad], schema=QUARANTINE.schema, orient="row"
    )
    workspace.append("quarantine", quarantine)
    reasons = Counter(f"{field}: {reason}" for _, field, reason, _ in bad)
    return ImportSummary(
        format, len(rows), unanswered, answers, outcome.written, answers - len(bad) - outcome.written, len(bad),
        dict(sorted(reasons.items(), key=lambda entry: (-entry[1], entry[0]))[:REASONS_SHOWN]),
    )  # fmt: skip


def _judge(answer: Answer) -> str:
    try:
        return checked_reviewer(answer.judge)
    except ValueError as error:
        raise RowError("judge", str(error)) from error


def _asked(workspace: Workspace) -> dict[tuple[str, str], str | None]:
    """Every pair that ever was in review, with its locale."""
    asked = workspace.scan("annotations").filter(pl.col("status") == "review").select(*PAIR, "round")
    mined = workspace.scan("mined").select("round", *PAIR, "locale")
    documents = workspace.scan("documents").select("doc_id", doc_locale="locale").unique("doc_id")
    rows = (
        asked.join(mined, on=["round", *PAIR], how="left")
        .join(documents, on="doc_id", how="left")
        .sort("round")
        .select(*PAIR, locale=pl.coalesce("locale", "doc_locale"))
        .collect()
    )
    return {(query, doc_id): locale for query, doc_id, locale in rows.iter_rows()}


def _read(source: Path) -> tuple[Path, str, list[Any]]:
    """The rows of a file, and whose format they are in."""
    path = source / argilla.RECORDS if source.is_dir() else source
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ValueError(f"{path}: there is no such file") from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(
            f"{path}: not JSON ({error}); give Label Studio's JSON export or Argilla's records.json"
        ) from error
    if not isinstance(rows, list):
        raise ValueError(f"{path}: a JSON list of records or tasks is wanted, this is {type(rows).__name__}")
    known = [row for row in rows if isinstance(row, dict)]
    if any("fields" in row and "responses" in row for row in known):
        return path, "argilla", rows
    if not rows or any("data" in row for row in known):
        return path, "label-studio", rows
    raise ValueError(
        f"{path}: neither Argilla's records (fields, responses) nor Label Studio's tasks (data, annotations)"
    )
