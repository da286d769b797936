"""A workspace with two recorded rounds, written straight into the tables from the demo's shop: no model, no LLM."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from unittest.mock import patch
from zlib import crc32

import numpy as np
import polars as pl

from serm import registry
from serm.evaluation import evaluate, gate
from serm.workspace import Workspace

DATA = Path(__file__).resolve().parents[2] / "data" / "demo"
HOSTILE = [
    "<script>alert('query')</script>",
    "</script><img src=x onerror=alert(1)>",
    "unbreakable" * 40,
    "شاشة حاسوب محمول <b>رخيصة</b>",
    "👩‍👩‍👧‍👦 zelt 🏕️ für vier \u202eflipped",
]
SETTINGS = """
annotation:
  annotators:
    - {name: ada, model: a, prompt_price: 0.5, completion_price: 1.5}
    - {name: "ben o'<b>", model: b, prompt_price: 0.5, completion_price: 1.5}
evaluation: {minimum_queries: 30, resamples: 200, measures: [nDCG@10, nDCG@1]}
"""
ANNOTATORS = ("ada", "ben o'<b>")
COMBINATIONS = {
    ("uncertainty",): 0.3, ("feedback", "click"): 0.25, ("disagreement", "uncertainty"): 0.2, ("disagreement",): 0.1,
    ("feedback", "click", "uncertainty"): 0.06, ("random",): 0.05,
    ("feedback", "click", "disagreement", "uncertainty"): 0.03, ("click",): 0.01,
}  # fmt: skip


def empty(folder: Path) -> Workspace:
    """A workspace with its settings alone."""
    return Workspace.create(folder, SETTINGS)


def first_model(folder: Path) -> Workspace:
    """Documents, judgments and a champion that no round has challenged."""
    workspace = empty(folder)
    documents = pl.read_parquet(DATA / "documents.parquet").head(600)
    workspace.append(
        "documents",
        documents.select("doc_id", "title", text=pl.col("title") + ". " + pl.col("description"), locale="language"),
    )
    hostile = {"doc_id": [f"evil-{i}" for i in range(len(HOSTILE))], "title": HOSTILE, "text": HOSTILE}
    workspace.append("documents", pl.DataFrame(hostile))
    judgments = pl.read_parquet(DATA / "judgments.parquet")
    judgments = judgments.filter(pl.col("doc_id").is_in(documents["doc_id"].to_list()))
    queries = judgments["query"].unique().sort().head(300)
    split = pl.Series("split", np.resize(["train", "dev", "anchor", "fresh", "fresh", "hidden"], len(queries)))
    judgments = judgments.join(pl.DataFrame([queries, split]), on="query")
    evil = [
        {"query": query, "doc_id": f"evil-{i}", "grade": grade, "locale": "en", "split": "fresh"}
        for query in HOSTILE
        for i, grade in enumerate((0, 3, 1))
    ]
    judgments = pl.concat([judgments, pl.DataFrame(evil)], how="diagonal_relaxed")
    workspace.append("judgments", judgments.with_columns(judge=pl.lit("human")))
    model(workspace, "r000-first", 0, None)
    registry.promote(workspace, "r000-first", "the first model")
    with asking(workspace):
        evaluate(workspace, "r000-first")
    return workspace


def evolved(folder: Path, pairs: int = 300, rounds: int = 2) -> Workspace:
    """Rounds of `pairs` mined pairs; the gate promotes the first one's model, the others are no better."""
    workspace = first_model(folder)
    start = datetime(2026, 1, 5, tzinfo=UTC)
    log = {"ts": [start, start + timedelta(days=14 * (rounds + 1))], "session": ["a", "b"], "query": ["x", "y"],
           "doc_id": ["p00001", "p00002"], "position": [1, 1], "clicked": [True, False]}  # fmt: skip
    workspace.append("impressions", pl.DataFrame(log))
    _calibrate(workspace)
    for number in range(1, rounds + 1):
        annotations = _mine_and_annotate(workspace, number, pairs)
        candidate, champion = f"r{number:03d}-candidate", registry.champion(workspace)
        model(workspace, candidate, number, champion)
        with asking(workspace):
            evaluate(workspace, candidate, round=number)
            verdict = gate(workspace, candidate, champion)
        if verdict.accepted:
            registry.promote(workspace, candidate, "; ".join(verdict.reasons))
        kept = annotations.filter(pl.col("status") == "kept").height
        with workspace.run("evolve", number) as run:
            run.result.update(round=number, candidate=candidate, promoted=verdict.accepted, kept=kept)
    return workspace


def model(workspace: Workspace, version: str, round: int, parent: str | None) -> None:
    """A version without weights; `asking` gives it a voice."""
    manifest = {"round": round, "parent": parent, "pairs": 1_000 + 300 * round, "training": {"steps": 50},
                "metrics": {"dev": 0.9}}  # fmt: skip
    registry.publish(workspace, version, lambda path: (path / "weights").write_text("none"), manifest)


class Knowing:
    """A model that reads people's grades through a noise of its own: the first one's is the largest."""

    def __init__(self, version: str, grades: dict[tuple[str, str], int], scale: list[int]) -> None:
        self.scale, self.grades, self.seed = scale, grades, crc32(version.encode())
        self.noise = 1.4 if version == "r000-first" else 1.0

    def probabilities(self, queries: Sequence[str], documents: Sequence[str]) -> Any:
        """Weights around the grade that it believes to see."""
        rng = np.random.default_rng(self.seed)
        seen = [self.grades[pair] for pair in zip(queries, documents, strict=True)] + rng.normal(
            0, self.noise, len(queries)
        )
        weights = np.exp(-((np.array(self.scale) - seen[:, None]) ** 2))
        return (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)


@contextmanager
def asking(workspace: Workspace) -> Iterator[None]:
    """Every version of the registry is a `Knowing` model meanwhile."""
    judged = workspace.read("judgments").join(workspace.read("documents").select("doc_id", "text"), on="doc_id")
    grades = {(query, text): grade for query, text, grade in judged.select("query", "text", "grade").iter_rows()}

    def load(folder: Path, settings: Any, scale: list[int]) -> Knowing:
        return Knowing(folder.name, grades, scale)

    with patch("serm.relevance.load", load):
        yield


def _calibrate(workspace: Workspace) -> None:
    """Round 0: pairs that people judged, labelled by both annotators."""
    chosen = workspace.read("judgments").filter(split="train").sort("query", "doc_id").head(120)
    pairs = chosen.select(
        "query", "doc_id", round=pl.lit(0, pl.Int32), agents=pl.lit(["calibration"]), reason=pl.lit("")
    )
    workspace.append("mined", pairs)
    truth = chosen["grade"].to_numpy()
    workspace.append("annotations", _annotations(pairs, truth, np.random.default_rng(5)))


def _mine_and_annotate(workspace: Workspace, number: int, pairs: int) -> pl.DataFrame:
    rng = np.random.default_rng(number)
    words = pl.read_parquet(DATA / "judgments.parquet")["query"].unique().sort().to_numpy()
    documents = workspace.read("documents")["doc_id"].sort().to_numpy()
    chosen = rng.choice(len(COMBINATIONS), pairs, p=np.array(list(COMBINATIONS.values())) / sum(COMBINATIONS.values()))
    agents = [list(list(COMBINATIONS)[i]) for i in chosen]
    queries = [f"{words[i % len(words)]} {number} {i}" for i in rng.permutation(pairs)]
    doc_ids = rng.choice(documents, pairs).tolist()
    priority = rng.random(pairs) * 0.9
    for i, text in enumerate(HOSTILE):
        queries[i], doc_ids[i], priority[i] = text, f"evil-{i}", 0.95
    mined = pl.DataFrame(
        {
            "round": pl.Series([number] * pairs, dtype=pl.Int32), "query": queries, "doc_id": doc_ids, "agents": agents,
            "score": rng.random(pairs) * 3, "priority": priority, "cluster": pl.Series([0] * pairs, dtype=pl.Int32),
            "reason": [f"uncertainty: entropy {e:.2f}; <b>2 clicks in 3</b>" for e in rng.random(pairs)],
        }
    )  # fmt: skip
    with workspace.run("mine", number) as run:
        workspace.append("mined", mined)
        run.result.update(round=number, mined=pairs, candidates=10 * pairs, verdict="strong", report=shift(number))
    with workspace.run("annotate", number) as run:
        annotations = _annotations(mined, rng.integers(0, 4, pairs), rng)
        workspace.append("annotations", annotations)
        outcomes = {name: {"label": 3 * pairs} for name in ANNOTATORS}
        run.result.update(round=number, cost=1.25, calls=int(annotations["calls"].sum()), outcomes=outcomes)
    return annotations


def _annotations(pairs: pl.DataFrame, truth: Any, rng: np.random.Generator) -> pl.DataFrame:
    """Two annotators who each say the truth on four pairs of five and a grade beside it, or nothing, on the others."""
    said = []
    for _ in ANNOTATORS:
        off = rng.random(len(truth)) < 0.2
        beside = np.clip(truth + rng.choice([-1, 1], len(truth)), 0, 3)
        own: list[int | None] = [int(label) for label in np.where(off, beside, truth)]
        said.append([None if rng.random() < 0.04 else label for label in own])
    rows = []
    for (query, doc_id, number), a, b in zip(pairs.select("query", "doc_id", "round").iter_rows(), *said, strict=True):
        votes = {name: {"stable": vote, "paths": [{"outcome": "label", "label": vote}] * 3}
                 for name, vote in zip(ANNOTATORS, (a, b), strict=True)}  # fmt: skip
        kept = a is not None and a == b
        rows.append(
            {"round": number, "query": query, "doc_id": doc_id, "status": "kept" if kept else "review",
             "label": a if kept else None, "rationale": "The <i>title</i> names the thing." if kept else None,
             "votes": json.dumps(votes), "reason": None if kept else f"ada: {a}; ben: {b}", "calls": 5,
             "prompt_tokens": 1_000, "completion_tokens": 200}
        )  # fmt: skip
    return pl.DataFrame(rows, schema_overrides={"label": pl.Int32}, infer_schema_length=None)


def shift(number: int) -> dict[str, Any]:
    """A shift report as data: four views, three changed clusters and a steady one."""
    told = [("text", 0.31, 0.002), ("words", 0.12, 0.002), ("clusters", 0.24, 0.002), ("ctr", 0.01, 0.4)]
    views = [
        {"name": name, "effect": effect, "p_value": p, "reference": 800, "current": 800,
         "text": f"a classifier tells the windows apart on {effect:.0%}", "significant": p < 0.05}
        for name, effect, p in told
    ] + [{"name": "dwell", "effect": None, "p_value": None, "reference": 0, "current": 0,
          "text": "no dwell times are logged", "significant": False}]  # fmt: skip
    groups = [
        ("new", 0.0, 0.14, ("nimbo", HOSTILE[0]), ("nimbo kestrova black sippo", HOSTILE[0], HOSTILE[2])),
        ("grown", 0.05, 0.16, ("origami", "decke"), ("decke origami waschbar", "origami polarhug decke", HOSTILE[3])),
        ("shrunk", 0.2, 0.08, ("lantern",), ("solar lantern brown", "foldable lantern")),
        ("steady", 0.3, 0.31, ("tastatur",), ("tastatur faltbar leicht",)),
    ]
    clusters = [
        {"id": i, "share_reference": before, "share_current": now, "p_value": 0.001 if change != "steady" else 0.6,
         "grown": change in ("new", "grown"), "examples": list(examples), "change": change, "effect": now - before,
         "terms": list(terms)}
        for i, (change, before, now, terms, examples) in enumerate(groups)
    ]  # fmt: skip
    return {"verdict": "strong" if number == 1 else "mild", "note": "", "views": views, "clusters": clusters}
