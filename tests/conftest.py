"""Fixtures that several test files share."""

import faulthandler
import os
import tempfile
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from serm.workspace import Workspace

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"
TINY = """
labels: {{scale: [0, 1], names: {{0: bad, 1: good}}}}
relevance:
  {{base: "{base}", precision: fp32, max_tokens: 24, max_epochs: 1, evaluate_every: 20, batch_pairs: 16,
    learning_rate: 0.002}}
mining: {{budget: 40, quiet_share: 1.0, judged: 60, per_query: 8}}
update: {{minimum_labels: 5}}
annotation: {{knowledge: false, paths: 1}}
evaluation: {{minimum_queries: 5, resamples: 200}}
simulate: {{sessions: 300, days: 10}}
simulate_llm: {{confusion: [[1.0, 0.0], [0.0, 1.0]]}}
"""
COLOURS = ["red", "blue", "green", "yellow"]
THINGS = ["shoe", "hat", "coat", "scarf", "sock", "glove"]


def trace_of(run: str, worker: str) -> Path:
    """Where a process of a parallel run writes what it was doing when it died natively."""
    return Path(tempfile.gettempdir()) / f"died-{run}-{worker}.txt"


@pytest.hookimpl(trylast=True)
def pytest_configure(config: pytest.Config) -> None:
    """Each process of a parallel run keeps a file open for its trace; pytest's own goes to the middle of the log."""
    if worker := os.environ.get("PYTEST_XDIST_WORKER"):
        file = trace_of(os.environ["PYTEST_XDIST_TESTRUNUID"], worker).open("w")
        faulthandler.enable(file)
        config.add_cleanup(lambda: (faulthandler.disable(), file.close(), os.unlink(file.name)))


@pytest.hookimpl(optionalhook=True)
def pytest_handlecrashitem(report: Any) -> None:
    """A test whose process died natively fails, and shows the trace at the end of the run."""
    node = report.node.workerinput
    path = trace_of(node["testrunuid"], node["workerid"])
    text = path.read_text() if path.exists() else ""
    report.sections.append(("native trace", text or "none: killed from outside, perhaps for memory"))
    path.unlink(missing_ok=True)


@pytest.fixture
def shared_data() -> Path:
    """The folder of real data beside the checkout; tests that need it are skipped where it is absent."""
    if not SHARED.is_dir():
        pytest.skip(f"real data not found at {SHARED}")
    return SHARED


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    """A fresh workspace with the default configuration."""
    return Workspace.create(tmp_path / "workspace", "seed: 0\n")


@pytest.fixture
def space(tmp_path: Path) -> Workspace:
    """Products by colour and thing; a search is relevant to the product with its colour."""
    return products_by_colour(tmp_path, TINY)


def products_by_colour(folder: Path, settings: str) -> Workspace:
    """A workspace in `folder` with a tiny model beside it, whose place takes that of {base} in the settings."""
    import torch
    from transformers import AutoTokenizer, BertConfig, BertForSequenceClassification

    from serm.relevance.weights import resolve

    torch.manual_seed(0)
    config = BertConfig(hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64)
    BertForSequenceClassification(config).save_pretrained(folder / "tiny")
    AutoTokenizer.from_pretrained(resolve("embedded:minilm")).save_pretrained(folder / "tiny")
    workspace = Workspace.create(folder / "space", settings.format(base=folder / "tiny"))
    products = [(f"{c}-{t}", f"{c} {t}") for c in COLOURS for t in THINGS]
    workspace.upsert("documents", pl.DataFrame(products, schema=["doc_id", "text"], orient="row"))
    splits = {"train": "now", "dev": "today", "anchor": "cheap", "fresh": "new", "hidden": "novel"}
    rows = [
        (f"{c} {t} {word}", doc, int(doc.startswith(c)), split, "human")
        for split, word in splits.items()
        for c in COLOURS
        for t in THINGS
        for doc, _ in products
    ]
    judgments = pl.DataFrame(rows, schema=["query", "doc_id", "grade", "split", "judge"], orient="row")
    workspace.append("judgments", judgments)
    return workspace
