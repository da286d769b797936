"""The verb export: a version as a folder for other programs, checked to score as it does here, whole or not at all."""

import os
import shutil
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from serm import registry
from serm.relevance.model import expected_label
from serm.relevance.stored import family, load_whole
from serm.serving import formats
from serm.workspace import Workspace
from sps import progress

TOLERANCE = 1e-4  # largest difference of a score, in fp32, as a share of the label scale
CHECKED = 48  # pairs of the workspace that both sides score
ODD = [("red shoes", "Red running shoes"), ("x", ""), ("été", "靴 " * 40), ("long", "word " * 2_000)]


@dataclass(frozen=True)
class ExportSummary:
    """What was exported, and how closely it scores like the original."""

    version: str
    format: str
    out: str
    pairs: int  # scored by both
    largest_difference: float  # of f(q, d)


def export(workspace: Workspace, format: str, version: str | None = None, out: Path | None = None) -> ExportSummary:
    """Write a version (the champion if none is named) as a folder for other programs.

    `format` is huggingface (either family), sentence-transformers or onnx (cross-encoders). Before the folder is put
    in its place, its own library loads it and scores pairs of the workspace.

    Raises:
        ValueError: the version is not whole or of a family that the format cannot hold, an extra is not installed, the
            folder is there already, or the scores differ.
    """
    version = version or registry.champion(workspace)
    folder, config = registry.folder(workspace, version), workspace.config
    kind = family(folder)
    if kind == "generative" and format != "huggingface":
        raise ValueError(
            f"{version} is a generative model, which {format} cannot hold; make a cross-encoder of it with: "
            f"serm distill {version}"
        )
    out = workspace.local("exports", f"{version}-{format}") if out is None else out
    if out.exists():
        raise ValueError(f"{out}: already there; remove it, or give another --out")
    exact = config.relevance.model_copy(update={"precision": "fp32", "device": "cpu"})
    model: Any = load_whole(folder, exact, config.labels.scale)
    if kind == "cross_encoder":
        _name_labels(model, config.labels.names)
    queries, documents = _pairs(workspace)
    want = expected_label(model.probabilities(queries, documents), model.scale)
    staging = out.absolute().with_name(f".{out.name}.{uuid.uuid4().hex}")
    staging.mkdir(parents=True)
    try:
        progress.note(f"writing {version} for {format}")
        got = formats.WRITERS[format](model, staging, queries, documents)
        apart = float(np.abs(got - want).max())
        if not apart <= TOLERANCE * (model.scale[-1] - model.scale[0]):
            raise ValueError(f"{out}: not written: {format} scores differ by {apart:.2g} from those of {version}")
        shutil.copy2(folder / "manifest.json", staging / "serm.json")
        os.rename(staging, out)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return ExportSummary(version, format, str(out), len(queries), apart)


def _name_labels(model: Any, names: dict[int, str]) -> None:
    """Give the network's outputs the labels' names; `label_scale` in config.json says what they are worth."""
    labels = [names.get(grade) or str(grade) for grade in model.scale]
    model.network.config.id2label = dict(enumerate(labels))
    model.network.config.label2id = {label: row for row, label in enumerate(labels)}
    model.network.config.label_scale = list(model.scale)


def _pairs(workspace: Workspace) -> tuple[list[str], list[str]]:
    """Pairs that both sides score: judged ones, first by name, and odd ones."""
    judged = workspace.scan("judgments").select("query", "doc_id").unique().sort("query", "doc_id").head(CHECKED)
    documents = workspace.scan("documents").select("doc_id", "text")
    known = judged.join(documents, on="doc_id", how="inner", maintain_order="left").collect()
    pairs = pl.concat([known.select("query", "text"), pl.DataFrame(ODD, schema=["query", "text"], orient="row")])
    return pairs["query"].to_list(), pairs["text"].to_list()
