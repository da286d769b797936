"""sps on relevance: the reward, and that it moves the probabilities which scores are read from."""

import shutil
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

from serm.config import RelevanceSettings, SpsSettings
from serm.relevance.examples import TrainingError
from serm.relevance.generative import GenerativeModel
from serm.relevance.reinforcement import RelevanceTask, read_label, reinforce
from serm.relevance.training import Plan, train
from sps.records import Example
from tests.serm.tiny_generative import llama

SETTINGS = RelevanceSettings(family="generative", max_tokens=24, device="cpu", precision="fp32", checkpoint_every=5)
SCALE = [0, 1, 2]
COLOURS = ["red", "blue"]
PAIRS = pl.DataFrame(
    [(a, b, 2 if a == b else 0) for a in COLOURS for b in COLOURS], schema=["query", "text", "label"], orient="row"
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that has learnt to answer with a label, drawn at random."""
    base = llama(tmp_path_factory.mktemp("llama"))
    model = GenerativeModel(base, SETTINGS, SCALE)
    uniform = [[1 / 3] * 3] * PAIRS.height
    pairs = PAIRS.with_columns(weight=pl.lit(1.0), posterior=pl.Series(uniform))
    train(model, pairs, Plan(40, 4, 5e-3, 0.0, 0.1, 99, 1, 10**9, 0))
    model.save(base / "asked")
    return base / "asked"


@pytest.mark.parametrize(
    ("text", "label"),
    [
        (" 2", 2), (" 0\nbecause", 0), (" 2x", 2),
        ("", None), ("2", None), ("  2", None), ("\n2", None), (" 3", None), (" 22", None), (" -2", None),
        (" 02", None),        (" two", None), (" \u0662", None), (" 9" * 99, None),
    ],
)  # fmt: skip
def test_a_label_counts_where_scoring_reads_it_and_nowhere_else(text: str, label: int | None) -> None:
    assert read_label(text, SCALE) == label


def test_rewards_by_hand() -> None:
    example = Example("0", [1], 5)
    for reward, expected in (("exact", {10: 0.2, 5: 1.0, 0: 0.2}), ("ordinal", {10: 0.6, 5: 1.0, 0: 0.6})):
        task = RelevanceTask([], [], [0, 5, 10], reward, 0.2)
        for label, value in expected.items():
            verdict = task.judge(f" {label}\nwords", example)
            assert verdict.reward == pytest.approx(value)
            assert verdict.correct == (label == 5)
        assert task.judge(" 5", Example("0", [1], 10)).reward == pytest.approx(0.6 if reward == "ordinal" else 0.2)
        assert task.judge("5", example).reward == 0


def expected_reward(model: GenerativeModel) -> float:
    """Mean probability of the agreed label among all texts, not only among labels."""
    with torch.inference_mode():
        logs = model.label_log_probabilities(model.prompts(PAIRS["query"].to_list(), PAIRS["text"].to_list()))
    places = [SCALE.index(label) for label in PAIRS["label"]]
    return float(logs.exp()[np.arange(PAIRS.height), places].mean())


def test_sps_raises_the_probability_of_agreed_labels_where_scores_read_it(folder: Path, tmp_path: Path) -> None:
    before = expected_reward(GenerativeModel(folder, SETTINGS, SCALE))
    sps = SpsSettings(steps=40, prompts=4, group=16, learning_rate=2e-3, format_weight=0.1, held_out=4)
    model, facts = reinforce(folder, SETTINGS, SCALE, PAIRS, PAIRS, sps, 0, tmp_path / "run")
    after = expected_reward(model)
    assert before == pytest.approx(1 / 3, abs=0.12)
    assert after > 0.8
    assert np.mean(facts["reward"][-5:]) > np.mean(facts["reward"][:5]) + 0.25
    assert facts["passk"]["1"]["after"] > 0.75
    probabilities = model.probabilities(PAIRS["query"].to_list(), PAIRS["text"].to_list())
    assert (np.asarray(SCALE)[probabilities.argmax(axis=1)] == PAIRS["label"].to_numpy()).all()


def test_what_cannot_be_used_is_named(folder: Path, tmp_path: Path) -> None:
    sps = SpsSettings(steps=1)
    with pytest.raises(TrainingError, match=r"off the scale \[0, 1, 2\]: \[7\]"):
        reinforce(folder, SETTINGS, SCALE, PAIRS.with_columns(label=pl.lit(7)), PAIRS, sps, 0, tmp_path / "run")
    with pytest.raises(TrainingError, match="no pairs"):
        reinforce(folder, SETTINGS, SCALE, PAIRS.clear(), PAIRS, sps, 0, tmp_path / "run")
    wrong = SpsSettings(steps=1, settings={"rollout": {"grup": 3}})
    with pytest.raises(ValueError, match=r"update\.sps\.settings: rollout\.grup: no such setting"):
        reinforce(folder, SETTINGS, SCALE, PAIRS, PAIRS, wrong, 0, tmp_path / "run")


def test_a_truncated_checkpoint_is_named_and_without_it_the_run_goes_on(folder: Path, tmp_path: Path) -> None:
    sps = SpsSettings(steps=2, prompts=2, group=2, learning_rate=1e-3, held_out=2)
    settings = SETTINGS.model_copy(update={"checkpoint_every": 1})

    def run(output: Path) -> dict[str, torch.Tensor]:
        model, _ = reinforce(folder, settings, SCALE, PAIRS, PAIRS, sps, 0, output)
        weights: dict[str, torch.Tensor] = model.network.state_dict()
        return weights

    expected = run(tmp_path / "run")
    newest = tmp_path / "run" / "checkpoints" / "step-000002"
    content = (newest / "state.pt").read_bytes()
    (newest / "state.pt").write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match=r"step-000002 cannot be read .* remove this folder"):
        run(tmp_path / "run")
    shutil.rmtree(newest)
    assert all(torch.equal(weight, expected[name]) for name, weight in run(tmp_path / "run").items())
