"""Texts and folders that no one should give, and what is said about them."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoTokenizer, BertConfig, BertForSequenceClassification

from serm.config import RelevanceSettings
from serm.relevance.cross_encoder import CrossEncoder
from serm.relevance.generative import GenerativeModel
from serm.relevance.weights import resolve
from tests.serm import tiny_models

SETTINGS = RelevanceSettings(max_tokens=40, batch_tokens=900, device="cpu", precision="fp32")
Model = type[CrossEncoder] | type[GenerativeModel]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[Model, Path]:
    """A model of each family, both on the scale 0, 1, 2."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("bert")
    config = BertConfig(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64, num_labels=3
    )  # fmt: skip
    BertForSequenceClassification(config).save_pretrained(folder)
    AutoTokenizer.from_pretrained(resolve("embedded:minilm")).save_pretrained(folder)
    llama = tiny_models.save(tiny_models.network("llama"), tmp_path_factory.mktemp("llama"))
    return {CrossEncoder: folder, GenerativeModel: llama}


FAMILIES = pytest.mark.parametrize("family", [CrossEncoder, GenerativeModel])


@FAMILIES
def test_odd_texts_are_scored(folders: dict[Model, Path], family: Model) -> None:
    model = family(folders[family], SETTINGS, [0, 1, 2])
    long = "a shoe " * 15_000
    odd = ["", " ", "\x00\x07", "\ud800 lone", "🦜" * 50, "‮reversed", long, "<s>[SEP][CLS]</s>", "\n" * 999, "red"]
    queries = [*odd, *(["red shoe"] * len(odd))]
    documents = [*(["red shoe"] * len(odd)), *odd]
    found = model.probabilities(queries, documents)
    assert np.isfinite(found).all()
    np.testing.assert_allclose(found.sum(axis=1), 1, atol=1e-5)
    alone = [model.probabilities([q], [d])[0] for q, d in zip(queries, documents, strict=True)]
    np.testing.assert_allclose(found, alone, atol=1e-5)
    # What is cut away has no say.
    np.testing.assert_allclose(
        model.probabilities(["red shoe"], [long]), model.probabilities(["red shoe"], [long[:2_000]]), atol=1e-6
    )


def truncate(folder: Path) -> None:
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1_000])


def empty(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(b"")


def scramble(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(b"\xff" * 5_000)


def without_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()


def broken_configuration(folder: Path) -> None:
    (folder / "config.json").write_text("{")


def no_configuration(folder: Path) -> None:
    (folder / "config.json").unlink()


def broken_tokenizer(folder: Path) -> None:
    (folder / "tokenizer.json").write_text("{}")


def a_layer_more(folder: Path) -> None:
    values = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(values | {"num_hidden_layers": 3}))


def another_width(folder: Path) -> None:
    values = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(values | {"intermediate_size": 96}))


@FAMILIES
@pytest.mark.parametrize(
    "damage",
    [
        truncate, empty, scramble, without_weights, broken_configuration, no_configuration, broken_tokenizer,
        a_layer_more, another_width,
    ],
)  # fmt: skip
def test_a_damaged_folder_is_named(
    folders: dict[Model, Path], family: Model, damage: Callable[[Path], None], tmp_path: Path
) -> None:
    folder = tmp_path / "damaged"
    shutil.copytree(folders[family], folder)
    family(folder, SETTINGS, [0, 1, 2])
    damage(folder)
    with pytest.raises(ValueError, match=r"damaged: .*(whole|no such)"):
        family(folder, SETTINGS, [0, 1, 2])


def test_a_folder_of_the_other_family_is_told_apart(folders: dict[Model, Path]) -> None:
    with pytest.raises(ValueError, match=r"set relevance\.family to cross_encoder"):
        GenerativeModel(folders[CrossEncoder], SETTINGS, [0, 1, 2])
    with pytest.raises(ValueError, match=r"set relevance\.family to generative"):
        CrossEncoder(folders[GenerativeModel], SETTINGS, [0, 1, 2])
    for family in (CrossEncoder, GenerativeModel):
        with pytest.raises(ValueError, match=r"/nowhere/at/all: .*no such folder"):
            family("/nowhere/at/all", SETTINGS, [0, 1, 2])


def test_a_head_of_another_scale_is_refused_and_only_a_start_draws_one(folders: dict[Model, Path]) -> None:
    with pytest.raises(ValueError, match=r"3 outputs and labels\.scale 2 labels"):
        CrossEncoder(folders[CrossEncoder], SETTINGS, [0, 1])
    base = SETTINGS.model_copy(update={"base": str(folders[CrossEncoder])})
    assert CrossEncoder.start(base, [0, 1], seed=0).probabilities(["q"], ["d"]).shape == (1, 2)


def test_a_prompt_that_the_context_cannot_hold_is_refused(folders: dict[Model, Path]) -> None:
    with pytest.raises(ValueError, match=r"context is 1024; lower relevance\.max_tokens"):
        GenerativeModel(folders[GenerativeModel], SETTINGS.model_copy(update={"max_tokens": 1_000}), [0, 1])
    model = GenerativeModel(folders[GenerativeModel], SETTINGS.model_copy(update={"rationale_tokens": 900}), [0, 1])
    with pytest.raises(ValueError, match=r"relevance\.rationale_tokens"):
        model.rationales(["q"], ["d"])
