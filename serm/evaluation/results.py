"""What the verbs evaluate and compare found, for programs, pages and JSON."""

import math
from dataclasses import dataclass
from typing import Any

from serm.evaluation.calibration import Calibration
from serm.evaluation.changes import Changes
from serm.evaluation.comparison import SliceComparison
from serm.evaluation.paired import Interval
from serm.evaluation.slices import SliceFigure

FOLDER = "evaluations"  # of the workspace: pages and their figures as JSON


@dataclass(frozen=True)
class SplitResult:
    """One split's means over queries, and what could not be measured."""

    split: str
    queries: int
    excluded: int  # judged queries without a positive document
    without_document: int  # judged pairs whose document is not in the documents table
    measures: dict[str, Interval]


@dataclass(frozen=True)
class EvaluationSummary:
    """What `evaluate` measured; `splits` is also in the metrics table, and all of it in `page` and `json`."""

    model: str
    judgments_version: int
    splits: list[SplitResult]
    slices: list[SliceFigure]
    calibration: list[Calibration]
    notes: list[str]  # what could not be sliced, and why
    page: str
    json: str


@dataclass(frozen=True)
class ModelComparison:
    """B against A: paired tests by slice, and the queries and pairs on which they differ most; also in page and json.

    `changes` has an entry a split. P-values of `tests` are corrected by `correction`, overall ones and those
    of slices each by themselves.
    """

    a: str
    b: str
    judgments_version: int
    correction: str
    level: float
    tests: list[SliceComparison]
    changes: dict[str, Changes]
    notes: list[str]
    page: str
    json: str


def written(value: Any) -> Any:
    """A result as JSON holds it: numbers that are not finite become null."""
    if isinstance(value, dict):
        return {str(name): written(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [written(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
