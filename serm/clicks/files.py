"""Fitted click models as plain files: pairs.parquet, parameters.npz and model.json in a folder, whole or absent."""

import json
import shutil
import uuid
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from serm.clicks.model import Pairs


def save(model: Any, folder: Path) -> None:
    """Write a fitted model (a data class of a name, pairs, arrays and numbers) into a new folder, in one step.

    Raises:
        ValueError: something is in the way.
    """
    if folder.exists():
        raise ValueError(f"{folder}: already there; a saved click model is never changed, choose another folder")
    staging = folder.with_name(f".{folder.name}.{uuid.uuid4().hex}")
    staging.mkdir(parents=True)
    try:
        values = {field.name: getattr(model, field.name) for field in fields(model)}
        name, pairs = values.pop("name"), values.pop("pairs")
        pairs.table.write_parquet(staging / "pairs.parquet")
        np.savez(staging / "parameters.npz", **values)
        (staging / "model.json").write_text(json.dumps({"model": name, "kind": type(model).__name__}), encoding="utf-8")
        staging.rename(folder)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def load(kinds: Sequence[Any], folder: Path) -> Any:
    """Read a model that `save` wrote; `kinds` are the data classes it may be of.

    Raises:
        ValueError: there is no such model, or it is of a kind that is not known.
    """
    try:
        about = json.loads((folder / "model.json").read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ValueError(f"{folder}: no click model here; fit one with: serm clicks fit") from error
    known = {kind.__name__: kind for kind in kinds}
    if about["kind"] not in known:
        raise ValueError(f"{folder}/model.json: kind {about['kind']!r} is not one of {', '.join(known)}")
    kind = known[about["kind"]]
    numeric = {field.name for field in fields(kind) if field.type is float}
    with np.load(folder / "parameters.npz", allow_pickle=False) as stored:
        values = {name: float(stored[name]) if name in numeric else stored[name] for name in stored.files}
    return kind(name=about["model"], pairs=Pairs(pl.read_parquet(folder / "pairs.parquet")), **values)
