"""Files of problems: JSONL, a JSON array, or Parquet, as rows with their numbers."""

import json
from pathlib import Path
from typing import Any

import polars as pl

from sps.config import TaskSettings

Row = tuple[int, dict[str, Any]]


def read_splits(settings: TaskSettings) -> list[tuple[str, Path, list[Row]]]:
    """Name, file and rows of "train" and "test"; no rows where no file is named.

    Raises:
        ValueError: neither is named, or a file is unusable.
    """
    if settings.train is None and settings.test is None:
        raise ValueError(f"task {settings.name} reads its problems from files: give task.train, task.test or both")
    named = {"train": settings.train, "test": settings.test}
    return [(split, Path(path or ""), read_rows(Path(path)) if path else []) for split, path in named.items()]


def read_rows(path: Path) -> list[Row]:
    """Numbered rows: of JSONL the line, of a JSON array or Parquet the element, counted from 1.

    Raises:
        ValueError: the file is missing, empty or of another kind, or a row is no object; names file and row.
    """
    if not path.is_file():
        raise ValueError(f"{path}: no such file; see task.train and task.test")
    rows = _parquet(path) if path.suffix == ".parquet" else _json(path)
    if not rows:
        raise ValueError(f"{path}: holds no problems")
    for number, row in rows:
        if not isinstance(row, dict):
            raise ValueError(
                f"{path}, row {number}: is {type(row).__name__}; every row must be an object with named fields"
            )
    return rows


def _parquet(path: Path) -> list[tuple[int, Any]]:
    try:
        return list(enumerate(pl.read_parquet(path).to_dicts(), 1))
    except (pl.exceptions.PolarsError, OSError) as error:
        raise ValueError(f"{path}: is no readable Parquet file: {error}") from error


def _json(path: Path) -> list[tuple[int, Any]]:
    """An array if the text begins with a bracket, else one value a line."""
    try:
        text = path.read_text("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{path}: is not UTF-8 text at byte {error.start}; give JSONL, a JSON array or Parquet"
        ) from error
    if text.lstrip().startswith("["):
        try:
            return list(enumerate(json.loads(text), 1))
        except ValueError as error:
            raise ValueError(f"{path}: begins like a JSON array and is not one: {error}") from error
    rows = []
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            try:
                rows.append((number, json.loads(line)))
            except ValueError as error:
                raise ValueError(f"{path}, row {number}: is not JSON: {error}") from error
    return rows
