"""Distillation: the loss against float64 arithmetic, the pairs drawn, and students that come near their teachers."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from scipy.special import log_softmax, softmax

from serm import registry
from serm.config import DistillationSettings, RelevanceSettings
from serm.distillation.losses import fit, mixed_losses, teaching_losses
from serm.distillation.pairs import strata, stream_pairs
from serm.distillation.verb import distill
from serm.mining.cache import Remembering
from serm.relevance import load
from serm.relevance.cross_encoder import CrossEncoder
from serm.relevance.examples import Examples
from serm.relevance.generative import GenerativeModel
from serm.relevance.loop import Plan
from serm.workspace import Workspace, WorkspaceError
from tests.serm.serving_space import make
from tests.serm.tiny_generative import llama

RNG = np.random.default_rng(5)
LOGITS = RNG.normal(size=(40, 4)) * 3
TEACHER = softmax(RNG.normal(size=(40, 4)) * 4, axis=1)


def by_hand(logits: np.ndarray, teacher: np.ndarray, temperature: float) -> np.ndarray:
    """T² KL in float64, from its definition."""
    softened = teacher ** (1 / temperature)
    softened /= softened.sum(axis=1, keepdims=True)
    given = softmax(logits / temperature, axis=1)
    return temperature**2 * (softened * np.log(softened / given)).sum(axis=1)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0, 7.0])
def test_the_teaching_loss_is_the_scaled_divergence(temperature: float) -> None:
    logits = torch.tensor(LOGITS, dtype=torch.float32, requires_grad=True)
    losses = teaching_losses(logits, torch.tensor(TEACHER, dtype=torch.float32), temperature)
    np.testing.assert_allclose(losses.detach(), by_hand(LOGITS, TEACHER, temperature), rtol=1e-3, atol=1e-5)
    losses.sum().backward()
    softened = softmax(np.log(TEACHER) / temperature, axis=1)
    want = temperature * (softmax(LOGITS / temperature, axis=1) - softened)  # Hinton et al., equation 2, times T²
    np.testing.assert_allclose(logits.grad, want, atol=1e-4)


def test_the_teaching_losss_limits() -> None:
    teacher = torch.tensor(TEACHER)
    logits = torch.tensor(LOGITS)
    assert teaching_losses(teacher.log() + 3.0, teacher, 4.0).abs().max() < 1e-12  # a perfect student, shifted
    one_hot = torch.eye(4, dtype=torch.float64)[torch.arange(40) % 4]
    cross_entropy = -log_softmax(LOGITS, axis=1)[np.arange(40), np.arange(40) % 4]
    np.testing.assert_allclose(teaching_losses(logits, one_hot, 1.0), cross_entropy, atol=1e-9)
    centred = LOGITS - LOGITS.mean(axis=1, keepdims=True)
    wanted = np.log(TEACHER) - np.log(TEACHER).mean(axis=1, keepdims=True)
    high = ((wanted - centred) ** 2).mean(axis=1) / 2  # T to infinity: half the mean squared difference of the logits
    np.testing.assert_allclose(teaching_losses(logits, teacher, 1e4), high, rtol=1e-2)


def test_rows_with_labels_and_rows_of_the_teacher_keep_their_own_loss() -> None:
    logits, teacher = torch.tensor(LOGITS), torch.tensor(TEACHER)
    one_hot = torch.eye(4, dtype=torch.float64)[torch.arange(40) % 4]
    taught = torch.arange(40) % 3 == 0
    mixed = mixed_losses(logits, torch.where(taught[:, None], teacher, one_hot), taught, 3.0)
    want = np.where(
        taught, by_hand(LOGITS, TEACHER, 3.0), -log_softmax(LOGITS, axis=1)[np.arange(40), np.arange(40) % 4]
    )
    np.testing.assert_allclose(mixed, want, atol=1e-9)


# --- the pairs ------------------------------------------------------------------------------------------------------


def log() -> tuple[pl.DataFrame, pl.DataFrame]:
    """One query asked 30 times, three asked 10 times, thirty asked once; twelve documents each."""
    queries = [("head", 30)] + [(f"torso {i}", 10) for i in range(3)] + [(f"tail {i:02d}", 1) for i in range(30)]
    rows = [
        (f"{query} {session}", query, f"d{hash_of(query, position)}")
        for query, sessions in queries
        for session in range(sessions)
        for position in range(12)
    ]
    impressions = pl.DataFrame(rows, schema=["session", "query", "doc_id"], orient="row")
    documents = impressions.select("doc_id").unique().with_columns(text="text of " + pl.col("doc_id"))
    return impressions, documents


def hash_of(query: str, position: int) -> int:
    return sum(map(ord, query)) * 100 + position


def test_strata_are_thirds_of_the_searches() -> None:
    impressions, _ = log()
    found = strata(impressions.lazy())
    assert dict(found.group_by("stratum").agg(pl.col("searches").sum()).rows()) == {"head": 30, "torso": 30, "tail": 30}
    assert found.filter(stratum="torso")["query"].sort().to_list() == ["torso 0", "torso 1", "torso 2"]


def test_pairs_have_their_shares_and_do_not_depend_on_the_order_of_rows() -> None:
    impressions, documents = log()
    settings = DistillationSettings(pairs=60, head_share=0.1, torso_share=0.4, per_query=8)
    first = stream_pairs(impressions.lazy(), documents.lazy(), settings, seed=3)
    assert dict(first.group_by("stratum").len().rows()) == {"head": 6, "torso": 24, "tail": 30}
    assert first.group_by("query").len()["len"].max() <= 8
    assert first.height == first.unique(["query", "doc_id"]).height
    shuffled = impressions.sample(fraction=1, shuffle=True, seed=1)
    assert stream_pairs(shuffled.lazy(), documents.reverse().lazy(), settings, seed=3).equals(first)
    assert not stream_pairs(impressions.lazy(), documents.lazy(), settings, seed=4).equals(first)
    greedy = settings.model_copy(update={"head_share": 0.5, "torso_share": 0.0})  # the head has eight pairs only
    filled = stream_pairs(impressions.lazy(), documents.lazy(), greedy, seed=3)
    assert filled.height == 60
    assert filled.filter(stratum="head").height == 8


# --- the student ----------------------------------------------------------------------------------------------------


def test_a_generative_student_learns_the_teachers_distribution(tmp_path: Path) -> None:
    settings = RelevanceSettings(
        family="generative", base=str(llama(tmp_path / "llama", spread=0.2)), precision="fp32", device="cpu",
        max_tokens=24,
    )  # fmt: skip
    student = GenerativeModel.start(settings, [0, 1, 2], 0)
    queries, documents = ["red", "blue"] * 4, ["red hat", "blue hat"] * 4
    targets = np.tile(np.array([[0.7, 0.2, 0.1], [0.1, 0.3, 0.6]], dtype=np.float32), (4, 1))
    examples = Examples(queries, documents, targets, np.ones(8, np.float32), np.zeros(8, bool), [""] * 8)
    plan = Plan(60, 8, 3e-3, 0.0, 0.1, 1_000, 9, 1_000, seed=0)
    fit(student, examples, np.ones(8, dtype=bool), 2.0, plan)
    np.testing.assert_allclose(student.probabilities(queries[:2], documents[:2]), targets[:2], atol=0.05)


@pytest.fixture
def taught(tmp_path: Path) -> Workspace:
    """A workspace with a random teacher, a log and human judgments."""
    workspace = make(tmp_path, [0, 1, 2], ("teacher",))
    config = workspace.config
    config.seed = 9  # another beginning than the teacher's
    config.distillation = DistillationSettings(
        student=str(tmp_path / "tiny"), pairs=400, epochs=8, learning_rate=3e-3, labelled_share=0.0, temperature=1.5
    )
    config.relevance.evaluate_every = 1_000
    words = ["red", "blue", "green", "warm", "cheap", "new"]
    queries = [f"{one} {other} shoe" for one in words for other in words]
    rows = [(f"s{i}", query, f"d{j}") for i, query in enumerate(queries) for j in range(12)]
    frame = pl.DataFrame(rows, schema=["session", "query", "doc_id"], orient="row")
    fixed = [pl.lit(1, pl.Int32).alias("position"), pl.lit(False).alias("clicked")]
    moment = pl.datetime(2026, 1, 1, time_zone="UTC").alias("ts")
    workspace.append("impressions", frame.with_columns(moment, *fixed))
    judged = [(q, "d1", i % 3, "fresh" if i < 6 else "train", "human") for i, q in enumerate(queries)]
    workspace.append(
        "judgments", pl.DataFrame(judged, schema=["query", "doc_id", "grade", "split", "judge"], orient="row")
    )
    return workspace


def test_a_student_is_a_candidate_that_came_near_and_a_rerun_finds_it(
    taught: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    answers = Remembering.probabilities

    def noting(memory: Remembering, queries: list[str], documents: list[str]) -> np.ndarray:
        asked.extend(queries)
        return answers(memory, queries, documents)

    monkeypatch.setattr(Remembering, "probabilities", noting)
    summary = distill(taught)
    evaluated = set(taught.read("judgments").filter(split="fresh")["query"])
    assert len(asked) == sum(summary.taught.values()) == 360
    assert not evaluated & set(asked)
    assert (summary.teacher, summary.labelled, summary.reused) == ("teacher", 0, False)
    untrained = CrossEncoder.start(
        taught.config.relevance.model_copy(update={"base": taught.config.distillation.student}), [0, 1, 2], 9
    )
    texts = dict(taught.read("documents").select("doc_id", "text").rows())
    pairs = [(query, texts[f"d{j}"]) for query in sorted(set(asked)) for j in range(12)]
    teacher, student = (
        load(registry.folder(taught, version), taught.config.relevance, [0, 1, 2])
        for version in ("teacher", summary.version)
    )
    columns = list(zip(*pairs, strict=True))
    said = teacher.probabilities(*columns).astype(np.float64)
    far, near = (
        float((said * np.log(said / model.probabilities(*columns))).sum(axis=1).mean())
        for model in (untrained, student)
    )
    assert near < far / 2
    assert summary.divergence is not None
    assert summary.divergence < far
    assert registry.champion(taught) == "teacher"
    assert registry.read_manifest(taught, summary.version)["parent"] == "teacher"
    again = distill(taught)
    assert again.reused
    assert again.version == summary.version
    assert len(asked) == 360


def test_a_killed_run_goes_on_to_the_same_weights(taught: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    taught.config.distillation.pairs, taught.config.distillation.epochs = 64, 2
    taught.config.distillation.labelled_share = 0.3
    taught.config.relevance.checkpoint_every = 2
    whole = distill(taught)
    folder = registry.folder(taught, whole.version)
    want = (folder / "model.safetensors").read_bytes()
    folder.rename(folder.with_name(".elsewhere"))
    forward, calls = CrossEncoder.forward, 0

    def failing(model: CrossEncoder, encodings: list[object]) -> torch.Tensor:
        nonlocal calls
        calls += torch.is_grad_enabled()
        if calls == 4:
            calls += 1
            raise KeyboardInterrupt
        return forward(model, encodings)

    monkeypatch.setattr(CrossEncoder, "forward", failing)
    with pytest.raises(KeyboardInterrupt):
        distill(taught)
    resumed = distill(taught)
    assert resumed.version == whole.version
    assert calls == 5 + whole.steps - 2  # the first two steps were not taken again
    assert (registry.folder(taught, whole.version) / "model.safetensors").read_bytes() == want


def test_mixtures_and_teachers_from_elsewhere(taught: Workspace, tmp_path: Path) -> None:
    settings = taught.config.distillation
    settings.pairs, settings.epochs = 100, 0.2
    settings.labelled_share = 0.5
    half = distill(taught)
    assert sum(half.taught.values()) == 100
    assert half.labelled == 95  # as many as pairs of the teacher that are learned from
    settings.labelled_share = 1.0
    alone = distill(taught)
    assert (sum(alone.taught.values()), alone.labelled, alone.divergence) == (0, 30, None)
    settings.labelled_share = 0.0
    foreign = llama(tmp_path / "foreign", spread=0.2)
    outside = distill(taught, str(foreign))
    assert outside.teacher.startswith("foreign@")
    assert outside.family == "cross_encoder"
    (foreign / "model.safetensors").write_bytes(b"nothing")
    with pytest.raises(ValueError, match="foreign"):
        distill(taught, str(foreign))
    with pytest.raises(WorkspaceError, match="no model version 'nobody'"):
        distill(taught, "nobody")
    assert registry.champion(taught) == "teacher"


def test_without_a_log_there_is_nothing_to_teach(tmp_path: Path) -> None:
    with pytest.raises(WorkspaceError, match="no pairs for a teacher"):
        distill(make(tmp_path, [0, 1], ("teacher",)))
