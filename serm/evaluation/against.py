"""The verb compare: any two versions or model folders on the same human judgments."""

import json
from collections.abc import Sequence
from dataclasses import asdict

import polars as pl

from serm.evaluation.changes import Changes, both, changes
from serm.evaluation.compare_page import page
from serm.evaluation.comparison import compare_slices
from serm.evaluation.judged import Subject, answers, file_name, find
from serm.evaluation.metrics import parse_measures, per_query
from serm.evaluation.reading import read_notes, read_slices
from serm.evaluation.results import FOLDER, ModelComparison, written
from serm.evaluation.slices import Slices
from serm.workspace import Workspace, WorkspaceError


def compare(workspace: Workspace, a: str, b: str, splits: Sequence[str] = ("fresh", "anchor")) -> ModelComparison:
    """Compare version or folder `b` with `a` on human judgments; promotes nothing. Leaves a page and JSON.

    Raises:
        WorkspaceError: one is neither a version nor a model's folder, both are the same weights, or no split has a
            human-judged query with a positive document.
        ValueError: a measure is unknown.
    """
    settings = workspace.config.evaluation
    measures = list(dict.fromkeys([*settings.measures, settings.gate_measure]))
    parse_measures(measures)
    sides = find(workspace, a), find(workspace, b)
    if sides[0].identity == sides[1].identity and sides[0].folder == sides[1].folder:
        raise WorkspaceError(f"{a} and {b} are the same model; give two different versions or folders")
    with workspace.run("compare", a=a, b=b, splits=list(splits)) as run:
        judgments_version = workspace.version("judgments")
        parts = {split: _split(workspace, sides, split, measures, judgments_version) for split in splits}
        found = {split: part for split, part in parts.items() if part is not None}
        if not found:
            raise WorkspaceError(
                f"no human-judged query with a positive document in {' or '.join(splits)}; "
                "ingest judgments whose judge does not start with 'llm:'"
            )
        tests = compare_slices(
            {split: part[0] for split, part in found.items()},
            {split: part[1] for split, part in found.items()},
            {split: part[2] for split, part in found.items()},
            measures, settings, workspace.config.seed,
        )  # fmt: skip
        notes = [f"{split}: no human-judged query with a positive document" for split in splits if split not in found]
        notes += [f"{split}, {note}" for split, part in found.items() for note in part[2].notes]
        name = file_name(a, b)
        result = ModelComparison(
            a, b, judgments_version, settings.correction, settings.alpha, tests,
            {split: part[3] for split, part in found.items()}, notes,
            workspace.url(FOLDER, f"{name}.html"), workspace.url(FOLDER, f"{name}.json"),
        )  # fmt: skip
        workspace.write_text(FOLDER, f"{name}.html", page(result, settings))
        workspace.write_text(FOLDER, f"{name}.json", json.dumps(written(asdict(result)), indent=1))
        run.result.update({"page": result.page, "tests": [asdict(row) for row in tests if row.dimension == "all"]})
    return result


def _split(
    workspace: Workspace, sides: tuple[Subject, Subject], split: str, measures: Sequence[str], judgments_version: int
) -> tuple[pl.DataFrame, pl.DataFrame, Slices, Changes] | None:
    """Both models' per-query measures on a split, its slices, and its wins and losses; None if nobody judged it."""
    settings = workspace.config.evaluation
    a, b = (answers(workspace, side, split, judgments_version).pairs for side in sides)
    first, second = (per_query(one.select("query", "doc_id", "grade"), one, measures).values for one in (a, b))
    if first.is_empty():
        return None
    slices, locales = read_slices(workspace, split, first["query"], judgments_version)
    pairs = both(a, b, read_notes(workspace, a), workspace.config.labels.scale)
    found = changes(split, first, second, pairs, locales, settings.gate_measure, settings.examples)
    return first, second, slices, found
