"""The gate's refusals, its error rates under the null, and the verbs around it on a workspace with tiny models."""

import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from serm import registry
from serm.config import EvaluationSettings
from serm.evaluation import Verdict, decide, evaluate, gate
from serm.workspace import Workspace, WorkspaceError

SETTINGS = EvaluationSettings(resamples=400)
Frames = dict[str, pl.DataFrame]


def frame(values: np.ndarray | list[float]) -> pl.DataFrame:
    return pl.DataFrame({"query": [f"q{i}" for i in range(len(values))], "nDCG@10": np.asarray(values, np.float64)})


def both(fresh: np.ndarray, anchor: np.ndarray) -> Frames:
    return {"fresh": frame(fresh), "anchor": frame(anchor)}


RNG = np.random.default_rng(11)
OLD_FRESH, OLD_ANCHOR = RNG.uniform(0, 0.9, 200), RNG.uniform(0.1, 0.9, 150)
CHAMPION = both(OLD_FRESH, OLD_ANCHOR)
BETTER = np.clip(OLD_FRESH + RNG.normal(0.05, 0.1, 200), 0, 1)


def verdict(fresh: np.ndarray = BETTER, anchor: np.ndarray = OLD_ANCHOR, champion: Frames = CHAMPION) -> Verdict:
    return decide(champion, both(fresh, anchor), SETTINGS)


def test_a_better_candidate_passes_with_its_figures() -> None:
    found = verdict()
    assert found.accepted
    assert found.fresh is not None
    assert found.fresh.champion == pytest.approx(OLD_FRESH.mean())
    assert found.fresh.candidate == pytest.approx(BETTER.mean())
    assert found.fresh.difference.mean == pytest.approx(BETTER.mean() - OLD_FRESH.mean())
    assert 0 < found.fresh.difference.low < found.fresh.difference.mean < found.fresh.difference.high
    assert "better on fresh" in found.reasons[0]


def test_equal_and_worse_candidates_are_refused() -> None:
    for fresh in (OLD_FRESH, OLD_FRESH - 0.05, OLD_FRESH + RNG.normal(0, 0.1, 200) - 0.005):
        found = verdict(fresh)
        assert not found.accepted
        assert "not clearly better" in found.reasons[0]


def test_anchor_loss_is_let_pass_up_to_the_tolerance() -> None:
    assert verdict(anchor=OLD_ANCHOR - SETTINGS.anchor_tolerance).accepted
    found = verdict(anchor=OLD_ANCHOR - SETTINGS.anchor_tolerance - 0.001)
    assert not found.accepted
    assert "anchor" in found.reasons[0]
    assert verdict(anchor=OLD_ANCHOR + 0.1).accepted


@pytest.mark.parametrize("split", ["fresh", "anchor"])
@pytest.mark.parametrize("side", ["champion", "candidate"])
@pytest.mark.parametrize(
    ("spoil", "word"),
    [
        (lambda f: f.with_columns(pl.when(query="q3").then(math.nan).otherwise("nDCG@10").alias("nDCG@10")), "finite"),
        (lambda f: f.with_columns(pl.when(query="q3").then(math.inf).otherwise("nDCG@10").alias("nDCG@10")), "finite"),
        (lambda f: f.with_columns(pl.when(query="q3").then(None).otherwise("nDCG@10").alias("nDCG@10")), "finite"),
        (lambda f: f.clear(), "no human-judged"),
        (lambda f: f.with_columns(pl.col("query") + "x"), "different queries"),
        (lambda f: f[:-1], "different queries"),
        (lambda f: f.vstack(f[:1]), "twice"),
        (lambda f: f.rename({"nDCG@10": "RR"}), "not measured by nDCG@10"),
    ],
)
def test_what_cannot_be_compared_refuses(
    split: str, side: str, spoil: Callable[[pl.DataFrame], pl.DataFrame], word: str
) -> None:
    frames = {"champion": dict(CHAMPION), "candidate": both(BETTER, OLD_ANCHOR)}
    frames[side][split] = spoil(frames[side][split])
    found = decide(frames["champion"], frames["candidate"], SETTINGS)
    assert not found.accepted
    assert any(word in reason and reason.startswith(split) for reason in found.reasons)
    assert (found.fresh if split == "fresh" else found.anchor) is None


def test_too_few_queries_and_a_missing_split_refuse() -> None:
    n = SETTINGS.minimum_queries
    few = {"fresh": frame(np.zeros(n - 1)), "anchor": frame(OLD_ANCHOR)}
    better = {"fresh": frame(np.ones(n - 1)), "anchor": frame(OLD_ANCHOR)}
    assert f"{n - 1} judged queries" in decide(few, better, SETTINGS).reasons[0]
    enough = (
        {"fresh": frame(np.zeros(n)), "anchor": CHAMPION["anchor"]},
        {"fresh": frame(np.ones(n)), "anchor": CHAMPION["anchor"]},
    )
    assert decide(*enough, SETTINGS).accepted
    assert not decide({"fresh": frame(np.zeros(n))}, {"fresh": frame(np.ones(n))}, SETTINGS).accepted


@pytest.mark.parametrize("queries", [30, 200])
def test_equal_models_are_promoted_less_often_than_alpha(queries: int) -> None:
    # Differences as nDCG gives them: most queries unchanged, the rest moved either way; a mean of zero.
    settings = EvaluationSettings(resamples=200, alpha=0.1)
    rng = np.random.default_rng(queries)
    trials, promoted = 600, 0
    anchor = frame(np.full(40, 0.5))
    for _ in range(trials):
        moved = rng.choice([-0.37, -0.2, 0.0, 0.2, 0.37], queries, p=[0.1, 0.2, 0.4, 0.2, 0.1])
        old, new = frame(np.full(queries, 0.5)), frame(0.5 + moved)
        promoted += decide({"fresh": old, "anchor": anchor}, {"fresh": new, "anchor": anchor}, settings).accepted
    assert 0 < promoted / trials < settings.alpha


class Shout:
    """A model that believes the number at the end of a document's text, times a factor."""

    def __init__(self, factor: float) -> None:
        self.factor = factor
        self.scale = [0, 1, 2, 3]

    def probabilities(self, queries: list[str], documents: list[str]) -> np.ndarray:
        belief = np.array([[1.0, float(text[-1]) * self.factor, 0, 0] for text in documents], np.float32)
        return belief / belief.sum(axis=1, keepdims=True)

    def judgments(self, queries: list[str], documents: list[str], passes: int, seed: int) -> np.ndarray:
        raise NotImplementedError


@pytest.fixture
def judged(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> tuple[Workspace, list[str]]:
    """60 queries of two documents per split; `good` ranks all right, `poor` all wrong, `broken` gives NaN."""
    loads: list[str] = []

    def load(folder: Path, settings: object, scale: object) -> Shout:
        loads.append(folder.name)
        return Shout(float((folder / "factor").read_text()))

    monkeypatch.setattr("serm.relevance.load", load)
    for name, factor in (("good", 1.0), ("poor", -0.1), ("broken", math.nan)):
        registry.publish(
            workspace, name, lambda to, f=factor: (to / "factor").write_text(str(f)) and None, {"round": 2}
        )
    workspace.append("documents", pl.DataFrame({"doc_id": ["yes", "no"], "text": ["text 1", "text 0"]}))
    rows = [
        {"query": f"{split} {i}", "doc_id": doc, "grade": 3 * (doc == "yes"), "split": split, "judge": "ann"}
        for split in ("fresh", "anchor")
        for i in range(60)
        for doc in ("yes", "no")
    ]
    workspace.append("judgments", pl.DataFrame(rows))
    return workspace, loads


def test_evaluate_writes_the_metrics_once(judged: tuple[Workspace, list[str]]) -> None:
    workspace, loads = judged
    summary = evaluate(workspace, "poor")
    fresh = summary.splits[0]
    assert (fresh.split, fresh.queries, fresh.excluded, fresh.without_document) == ("fresh", 60, 0, 0)
    assert fresh.measures["nDCG@1"].mean == 0.0
    assert fresh.measures["RR"].mean == 0.5
    assert fresh.measures["nDCG@10"].mean == pytest.approx(1 / math.log2(3))
    table = workspace.read("metrics")
    assert table.height == 2 * len(workspace.config.evaluation.measures)
    assert set(table["round"]) == {2}
    before = workspace.version("metrics")
    assert evaluate(workspace, "poor") == summary
    assert workspace.version("metrics") == before
    assert loads == ["poor", "poor"]  # one per split: the second call read its scores from the cache


def test_the_champion_is_evaluated_when_none_is_named(judged: tuple[Workspace, list[str]]) -> None:
    workspace, _ = judged
    with pytest.raises(WorkspaceError, match="no champion"):
        evaluate(workspace)
    registry.promote(workspace, "good", "test")
    assert evaluate(workspace).model == "good"
    with pytest.raises(WorkspaceError, match="nowhere"):
        evaluate(workspace, "nowhere")


def test_gate_verb_reads_people_only(judged: tuple[Workspace, list[str]]) -> None:
    workspace, loads = judged
    assert gate(workspace, "good", "poor").accepted
    assert not gate(workspace, "poor", "good").accepted
    assert not gate(workspace, "good", "good").accepted
    assert sorted(loads) == ["good", "good", "poor", "poor"]
    # A machine that judges everything the other way round changes nothing.
    flipped = workspace.read("judgments").with_columns(grade=3 - pl.col("grade"), judge=pl.lit("llm:ada"))
    workspace.append("judgments", flipped)
    assert gate(workspace, "good", "poor").accepted
    last = workspace.read("runs").filter(verb="gate", status="finished").sort("ts")["result"][-1]
    assert json.loads(last)["accepted"] is True


def test_a_broken_model_is_refused_not_crashed_on(judged: tuple[Workspace, list[str]]) -> None:
    workspace, _ = judged
    found = gate(workspace, "broken", "poor")
    assert not found.accepted
    assert all("not finite" in reason for reason in found.reasons)
    assert math.isnan(evaluate(workspace, "broken").splits[0].measures["RR"].mean)


def test_new_judgments_and_new_texts_are_scored_again(judged: tuple[Workspace, list[str]]) -> None:
    workspace, _ = judged
    assert evaluate(workspace, "good").splits[0].measures["RR"].mean == 1.0
    workspace.upsert("documents", pl.DataFrame({"doc_id": ["yes", "no"], "text": ["text 0", "text 1"]}))
    assert evaluate(workspace, "good").splits[0].measures["RR"].mean == 0.5
    extra = {"query": ["fresh 0", "late"], "doc_id": ["gone", "no"], "grade": [3, 3], "split": "fresh", "judge": "ann"}
    workspace.append("judgments", pl.DataFrame(extra))
    fresh = evaluate(workspace, "good").splits[0]
    assert (fresh.queries, fresh.without_document) == (61, 1)
    assert fresh.measures["RR"].mean == pytest.approx((60 * 0.5 + 1) / 61)


def test_without_human_judgments_evaluate_says_what_to_do(workspace: Workspace) -> None:
    registry.publish(workspace, "v1", lambda to: None, {})
    with pytest.raises(WorkspaceError, match="no human-judged query"):
        evaluate(workspace, "v1")
    verdict = gate(workspace, "v1", "v1")
    assert not verdict.accepted
    assert verdict.fresh is None
