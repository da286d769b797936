"""The generative model against unpadded, one-at-a-time arithmetic on tiny random networks over bytes."""

from pathlib import Path

import numpy as np
import pytest
import torch

from serm.config import RelevanceSettings
from serm.relevance import expected_label, load
from serm.relevance.generative import GenerativeModel
from tests.serm import tiny_models

SETTINGS = RelevanceSettings(family="generative", max_tokens=60, batch_tokens=700, device="cpu", precision="fp32")
QUERIES = ["red shoes", "à la carte 🦜", "", "q" * 90, "two words", "red shoes"]
DOCUMENTS = ["Red running shoes", "Menu", "nothing was asked", "d" * 200, "", "Red running shoes"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama of two layers."""
    return tiny_models.save(tiny_models.network("llama"), tmp_path_factory.mktemp("llama"))


@pytest.fixture(scope="module")
def folder_with_absolute_positions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A GPT-2, which unlike Llama answers otherwise when padding shifts the positions."""
    return tiny_models.save(tiny_models.network("gpt2"), tmp_path_factory.mktemp("gpt2"))


def one_at_a_time(model: GenerativeModel, prompt: list[int], label: list[int]) -> float:
    """log Pr(label | prompt): token after token, no padding, whole logits."""
    total, ids = 0.0, list(prompt)
    for token in label:
        with torch.inference_mode():
            logits = model.network(input_ids=torch.tensor([ids])).logits[0, -1]
        total += float(torch.log_softmax(logits.double(), dim=-1)[token])
        ids.append(token)
    return total


@pytest.mark.parametrize(
    ("scale", "lengths"),
    [
        ([0, 1], [2, 2]),  # a space and a digit: two bytes, one shared beginning
        ([0, 1, 2, 3], [2] * 4),
        ([0, 5, 10, 12], [2, 2, 3, 3]),
        ([-1, 0, 2, 20], [4, 3, 3, 4]),
    ],
)
def test_padded_batches_agree_with_one_at_a_time(folder: Path, scale: list[int], lengths: list[int]) -> None:
    model = GenerativeModel(folder, SETTINGS, scale)
    assert [len(label) for label in model.labels] == lengths
    prompts = model.prompts(QUERIES, DOCUMENTS)
    assert len({len(prompt) for prompt in prompts}) > 3  # so that there is something to pad
    logs = np.array([[one_at_a_time(model, prompt, label) for label in model.labels] for prompt in prompts])
    found = model.probabilities(QUERIES, DOCUMENTS)
    expected = np.exp(logs - logs.max(axis=1, keepdims=True))
    expected /= expected.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert np.ptp(expected, axis=0).max() > 0.05  # the pairs do get different answers
    whole = model.label_log_probabilities(prompts).detach().numpy()  # every prompt in one padded batch
    np.testing.assert_allclose(whole, logs, rtol=1e-5, atol=1e-5)


def test_positions_count_from_the_first_real_token(folder_with_absolute_positions: Path) -> None:
    model = GenerativeModel(folder_with_absolute_positions, SETTINGS, [0, 1, 2, 3])
    prompts = model.prompts(QUERIES, DOCUMENTS)
    logs = [[one_at_a_time(model, prompt, label) for label in model.labels] for prompt in prompts]
    whole = model.label_log_probabilities(prompts).detach().numpy()
    np.testing.assert_allclose(whole, logs, rtol=1e-5, atol=1e-5)


def test_labels_that_begin_each_other_are_told_apart(folder: Path) -> None:
    model = GenerativeModel(folder, SETTINGS, [1, 10])
    texts = [model.tokenizer.decode(label) for label in model.labels]
    assert texts == [" 1\n", " 10\n"]
    prompt = model.prompts(["q"], ["d"])[0]
    logs = [one_at_a_time(model, prompt, label) for label in model.labels]
    expected = 1 / (1 + np.exp(logs[1] - logs[0]))
    assert model.probabilities(["q"], ["d"])[0, 0] == pytest.approx(expected, abs=1e-5)


def test_the_longer_text_is_cut_first(folder: Path) -> None:
    model = GenerativeModel(folder, SETTINGS, [0, 1])
    frame = model.tokenizer.decode(model.prompts([""], [""])[0])
    for query, document, kept in (
        ("q" * 20, "d" * 30, (20, 30)),  # fits
        ("q" * 20, "d" * 99, (20, 40)),
        ("q" * 99, "d" * 10, (50, 10)),
        ("q" * 99, "d" * 99, (30, 30)),
    ):
        text = model.tokenizer.decode(model.prompts([query], [document])[0])
        assert (text.count("q") - frame.count("q"), text.count("d") - frame.count("d")) == kept
        assert len(text) == len(frame) + sum(kept)


def test_the_prompt_shows_query_document_and_scale(folder: Path) -> None:
    model = GenerativeModel(folder, SETTINGS, [0, 1, 2])
    text = model.tokenizer.decode(model.prompts(["red shoes"], ["Running shoes"])[0])
    assert text.index("red shoes") < text.index("Running shoes") < text.index("from 0 (worst) to 2 (best):")


def test_batch_size_and_order_do_not_matter(folder: Path) -> None:
    whole = GenerativeModel(folder, SETTINGS, [0, 1, 2, 3]).probabilities(QUERIES, DOCUMENTS)
    single = GenerativeModel(folder, SETTINGS.model_copy(update={"batch_tokens": 64}), [0, 1, 2, 3])
    np.testing.assert_allclose(single.probabilities(QUERIES, DOCUMENTS), whole, atol=1e-5)
    np.testing.assert_allclose(single.probabilities(QUERIES[::-1], DOCUMENTS[::-1])[::-1], whole, atol=1e-5)
    np.testing.assert_allclose(whole.sum(axis=1), 1, atol=1e-6)
    assert single.probabilities([], []).shape == (0, 4)


def test_judgments_are_draws_from_the_probabilities(folder: Path) -> None:
    model = GenerativeModel(folder, SETTINGS, [0, 1, 3])
    draws = model.judgments(QUERIES, DOCUMENTS, 4_000, seed=1)
    assert draws.shape == (6, 4_000)
    probabilities = model.probabilities(QUERIES, DOCUMENTS)
    for column, grade in enumerate(model.scale):
        frequency = (draws == grade).mean(axis=1)
        error = 4.5 * np.sqrt(probabilities[:, column] * (1 - probabilities[:, column]) / 4_000)
        assert (np.abs(frequency - probabilities[:, column]) <= error + 1e-3).all()
    np.testing.assert_allclose(draws.mean(axis=1), expected_label(probabilities, model.scale), atol=0.12)
    assert (model.judgments(QUERIES, DOCUMENTS, 4_000, seed=1) == draws).all()
    assert (model.judgments(QUERIES, DOCUMENTS, 4_000, seed=2) != draws).any()


def test_a_saved_copy_loads_through_the_package(folder: Path, tmp_path: Path) -> None:
    GenerativeModel(folder, SETTINGS, [0, 1]).save(tmp_path / "copy")
    copy = load(tmp_path / "copy", SETTINGS, [0, 1])
    expected = GenerativeModel(folder, SETTINGS, [0, 1]).probabilities(QUERIES, DOCUMENTS)
    np.testing.assert_array_equal(copy.probabilities(QUERIES, DOCUMENTS), expected)
    with pytest.raises(ValueError, match="no readable causal language model"):
        GenerativeModel(tmp_path / "absent", SETTINGS, [0, 1])
