"""serm update with a generative model: families side by side, and a command line that is killed while it trains."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from safetensors.numpy import load_file
from transformers import AutoTokenizer, BertConfig, BertForSequenceClassification

from serm import registry
from serm.config import SpsSettings
from serm.evaluation import gate
from serm.evolution.pairs import labelled_pairs
from serm.evolution.update import update
from serm.relevance import load
from serm.relevance.cross_encoder import CrossEncoder
from serm.relevance.generative import GenerativeModel
from serm.relevance.weights import resolve
from serm.workspace import Workspace, WorkspaceError
from tests.serm.tiny_generative import llama

CONFIG = """
labels: {{scale: [0, 1], names: {{0: bad, 1: good}}}}
relevance:
  {{base: "{base}", family: generative, precision: fp32, max_tokens: 24, max_epochs: 2, evaluate_every: 9,
    batch_pairs: 16, learning_rate: 0.005, checkpoint_every: 2, rationale_tokens: 12}}
update: {{minimum_labels: 5}}
evaluation: {{minimum_queries: 4, resamples: 200}}
"""
COLOURS = ["red", "blue", "tan", "jet"]


@pytest.fixture
def space(tmp_path: Path) -> Workspace:
    """A search is relevant to the products of its colour."""
    workspace = Workspace.create(tmp_path / "space", CONFIG.format(base=llama(tmp_path / "tiny")))
    documents = [(f"{colour}-{i}", f"{colour} {i}") for colour in COLOURS for i in range(2)]
    workspace.upsert("documents", pl.DataFrame(documents, schema=["doc_id", "text"], orient="row"))
    rows = [
        (f"{word} {colour}", doc, int(doc.startswith(colour)), split, "human")
        for split, word in {"train": "a", "dev": "b", "anchor": "c", "fresh": "d"}.items()
        for colour in COLOURS
        for doc, _ in documents
    ]
    judgments = pl.DataFrame(rows, schema=["query", "doc_id", "grade", "split", "judge"], orient="row")
    workspace.append("judgments", judgments)
    return workspace


def annotate(workspace: Workspace) -> None:
    """Round 1: kept labels with posteriors and rationales."""
    rows = [
        {
            "round": 1, "query": f"e {colour}", "doc_id": f"{other}-{i}", "status": "kept", "votes": "{}", "calls": 1,
            "label": int(colour == other), "rationale": "same" if colour == other else "other",
            "posterior": [0.1, 0.9] if colour == other else [0.8, 0.2],
        }
        for colour in COLOURS for other in COLOURS for i in range(2)
    ]  # fmt: skip
    workspace.append("annotations", pl.DataFrame(rows))


def test_a_generative_model_is_trained_and_evolves(space: Workspace) -> None:
    first = update(space)
    manifest = registry.read_manifest(space, first.version)
    assert manifest["family"] == "generative"
    assert registry.champion(space) == first.version
    model = load(registry.folder(space, first.version), space.config.relevance, [0, 1])
    assert isinstance(model, GenerativeModel)
    annotate(space)
    labels = labelled_pairs(space)
    assert labels["posterior"].to_list()[0] in ([0.1, 0.9], [0.8, 0.2])
    assert set(labels["rationale"]) == {"same", "other"}
    second = update(space)
    assert (second.parent, second.round, second.reused) == (first.version, 1, False)
    assert update(space).reused
    assert not list(space.local("checkpoints", "x").parent.glob("*"))


@pytest.fixture
def bert(tmp_path: Path) -> Path:
    """A tiny random BERT with MiniLM's tokenizer."""
    config = BertConfig(hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64)
    BertForSequenceClassification(config).save_pretrained(tmp_path / "bert")
    AutoTokenizer.from_pretrained(resolve("embedded:minilm")).save_pretrained(tmp_path / "bert")
    return tmp_path / "bert"


def test_families_live_side_by_side(space: Workspace, bert: Path) -> None:
    """A generative champion, a cross-encoder candidate: each is loaded as what it is, whatever the settings say."""
    first = update(space)
    with pytest.raises(WorkspaceError, match="no annotations to learn from"):
        update(space)
    space.config.relevance.family = "cross_encoder"
    space.config.relevance.base = str(bert)
    candidate = update(space)  # before any round: from human judgments alone, and promoted by no one
    assert candidate.parent is None
    assert registry.champion(space) == first.version
    for version, family in ((first.version, GenerativeModel), (candidate.version, CrossEncoder)):
        assert isinstance(load(registry.folder(space, version), space.config.relevance, [0, 1]), family)
    verdict = gate(space, candidate.version, first.version)
    assert verdict.fresh is not None
    annotate(space)
    second = update(space)  # starts from base weights: the champion is of another family
    assert second.parent == first.version
    assert registry.read_manifest(space, second.version)["family"] == "cross_encoder"


def test_a_base_that_cannot_be_used_names_the_mend(
    space: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    for base, message in (
        ("embedded:minilm", "needs a causal language model: a folder or a hub name"),
        (str(tmp_path / "absent"), r"holds no config\.json; give a model's folder or a hub name"),
        ("nobody/no-such-model", "no readable causal language model"),
    ):
        space.config.relevance.base = base
        with pytest.raises(ValueError, match=message):
            update(space)
    assert registry.versions(space) == []


def test_sigkill_in_training_changes_nothing_in_the_end(space: Workspace, tmp_path: Path) -> None:
    straight = Workspace.create(tmp_path / "straight", space.read_text("config.yaml"))
    for table in ("documents", "judgments"):
        straight.append(table, space.read(table))
    expected = update(straight)
    command = [sys.executable, "-m", "serm.cli", "update", "--workspace", space.root, "--json"]
    environment = os.environ | {"HF_HUB_OFFLINE": "1"}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, env=environment)
    while not list(Path(space.root).glob("checkpoints/*/*.pt")):
        assert process.poll() is None, "it ended before its first checkpoint"
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert registry.versions(space) == []
    result = json.loads(subprocess.run(command, stdout=subprocess.PIPE, env=environment, check=True).stdout)
    assert result["version"] == expected.version
    weights = load_file(registry.folder(straight, expected.version) / "model.safetensors")
    resumed = load_file(registry.folder(space, expected.version) / "model.safetensors")
    for name, weight in weights.items():
        np.testing.assert_array_equal(weight, resumed[name])


SPS = {"steps": 6, "prompts": 4, "group": 4, "learning_rate": 1e-3, "held_out": 8}


def test_methods_that_do_not_fit_are_refused(space: Workspace) -> None:
    with pytest.raises(WorkspaceError, match=r"here: --method sft\+sps"):
        update(space, method="sps")
    space.config.relevance.family = "cross_encoder"
    with pytest.raises(WorkspaceError, match=r"needs relevance\.family generative, not cross_encoder"):
        update(space, method="sft+sps")


def test_sigkill_in_the_half_by_sps_changes_nothing_in_the_end(space: Workspace, tmp_path: Path) -> None:
    """Before any round sps learns from human pairs; afterwards sft+sps runs through the command line, and is killed."""
    settings = [f"update.sps.{name}={value}" for name, value in SPS.items()]
    first = update(space)
    annotate(space)
    straight = tmp_path / "straight"
    shutil.copytree(space.root, straight)
    straight_space = Workspace.open(straight, settings)
    expected = update(straight_space, method="sft+sps")
    manifest = registry.read_manifest(straight_space, expected.version)
    assert (manifest["method"], expected.parent, expected.round) == ("sft+sps", first.version, 1)
    assert len(manifest["training"]["sps"]["reward"]) == 6
    assert isinstance(
        load(registry.folder(straight_space, expected.version), space.config.relevance, [0, 1]), GenerativeModel
    )
    assert not list(straight.glob("checkpoints/*"))
    command = [sys.executable, "-m", "serm.cli", "update", "--method", "sft+sps", "--workspace", space.root, "--json"]
    command += [word for setting in settings for word in ("--set", setting)]
    environment = os.environ | {"HF_HUB_OFFLINE": "1"}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, env=environment)
    while not list(Path(space.root).glob("checkpoints/*/sps/checkpoints/step-*/state.pt")):
        assert process.poll() is None, "it ended before its first checkpoint"
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert registry.versions(space) == [first.version]
    assert registry.champion(space) == first.version
    resumed_version = update(Workspace.open(space.root, settings), method="sft+sps").version
    assert resumed_version == expected.version
    weights = load_file(registry.folder(straight_space, expected.version) / "model.safetensors")
    resumed = load_file(registry.folder(space, expected.version) / "model.safetensors")
    for name, weight in weights.items():
        np.testing.assert_array_equal(weight, resumed[name])


def test_sps_before_any_round_learns_from_people(space: Workspace) -> None:
    first = update(space)
    space.config.update.sps = SpsSettings(**SPS)
    second = update(space, method="sps")
    assert (second.parent, second.round, second.steps) == (first.version, 0, 6)
    registry.promote(space, second.version, "asked for")
    assert update(space, method="sps").version == second.version  # not another one on top of itself
