"""Shared beginnings against brute force: every label after every prompt by itself, unpadded, in float64."""

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from serm.config import RelevanceSettings
from serm.relevance.batches import cut
from serm.relevance.generative import GenerativeModel
from serm.relevance.labels import assemble, contexts, label_tokens
from serm.relevance.prompts import Prompt
from serm.relevance.shared_prefix import label_logs, plan, shares
from tests.serm import tiny_models

SETTINGS = RelevanceSettings(family="generative", max_tokens=60, batch_tokens=900, device="cpu", precision="fp32")
QUERIES = ["red shoes"] * 7 + ["à la carte 🦜"] * 2 + ["", "q" * 90, "q" * 90, "blue shoe", "two words", "red shoes"]
DOCUMENTS = [
    "Red running shoes", "Menu", "", "d" * 200, "a red shoe", "x", "Red running shoes", "a menu", "nothing", "asked",
    "d" * 200, "d" * 200, "hat", "two", "one more shoe, and one that is a little longer",
]  # fmt: skip
KINDS = ["llama", "qwen2", "gemma3", "mistral", "gpt2", "mamba"]


@pytest.fixture(scope="module", params=KINDS)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of one architecture."""
    return tiny_models.save(tiny_models.network(request.param), tmp_path_factory.mktemp(request.param))


def brute_force(model: GenerativeModel, prompts: list[list[int]]) -> NDArray[np.float64]:
    """log Pr(label | prompt) from one pass over the whole text, its tokens' log-softmax in float64."""
    network = model.network
    rows = []
    for prompt in prompts:
        row = []
        for label in model.labels:
            with torch.inference_mode():
                logits = network(input_ids=torch.tensor([[*prompt, *label]]), use_cache=False).logits[0].double()
            logs = torch.log_softmax(logits, dim=-1)
            row.append(sum(float(logs[len(prompt) - 1 + step, token]) for step, token in enumerate(label)))
        rows.append(row)
    return np.array(rows)


def softmax(logs: NDArray[np.float64]) -> NDArray[np.float64]:
    weights = np.exp(logs - logs.max(axis=1, keepdims=True))
    return weights / weights.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("scale", [[0, 1, 2, 3], [-1, 0, 5, 10, 100]])
def test_shared_plain_padded_and_alone_agree(folder: Path, scale: list[int]) -> None:
    model = GenerativeModel(folder, SETTINGS, scale)
    assert max(map(len, model.labels)) > 1  # the tokenizer splits labels
    assert shares(model.network) == (folder.name.rstrip("0") != "mamba")
    prompts = model.prompts(QUERIES, DOCUMENTS)
    logs = brute_force(model, prompts)
    expected = softmax(logs)
    assert np.ptp(expected, axis=0).max() > 1e-3  # the pairs do get different answers; a state forgets
    np.testing.assert_allclose(model.probabilities(QUERIES, DOCUMENTS), expected, atol=1e-4)
    parts = model._form.parts(QUERIES, DOCUMENTS)
    np.testing.assert_allclose(label_logs(model.network, parts, model.labels, 900), logs, atol=1e-4)
    whole = [Prompt((), prompt, 0) for prompt in prompts]
    np.testing.assert_allclose(label_logs(model.network, whole, model.labels, 900), logs, atol=1e-4)
    with torch.inference_mode():
        np.testing.assert_allclose(model.label_log_probabilities(prompts), logs, atol=1e-4)
    alone = [model.probabilities([q], [d])[0] for q, d in zip(QUERIES, DOCUMENTS, strict=True)]
    np.testing.assert_allclose(alone, expected, atol=1e-4)


def test_the_order_of_pairs_and_the_size_of_batches_change_nothing(folder: Path) -> None:
    model = GenerativeModel(folder, SETTINGS, [0, 1, 2, 3])
    expected = model.probabilities(QUERIES, DOCUMENTS)
    order = np.random.default_rng(0).permutation(len(QUERIES))
    shuffled = model.probabilities([QUERIES[i] for i in order], [DOCUMENTS[i] for i in order])
    np.testing.assert_allclose(shuffled, expected[order], atol=1e-5)
    for tokens in (64, 300, 100_000):
        model.settings = SETTINGS.model_copy(update={"batch_tokens": tokens})
        np.testing.assert_allclose(model.probabilities(QUERIES, DOCUMENTS), expected, atol=1e-5)


def test_each_beginning_is_read_once_and_memory_is_bounded(tmp_path: Path) -> None:
    model = GenerativeModel(tiny_models.save(tiny_models.network("llama"), tmp_path), SETTINGS, [0, 1])
    parts = model._form.parts(QUERIES, DOCUMENTS)
    fed: list[tuple[int, int]] = []  # rows, tokens of each call

    def count(_module: object, arguments: object, keywords: dict[str, torch.Tensor]) -> None:
        fed.append(tuple(keywords["input_ids"].shape))

    hook = model.network.register_forward_pre_hook(count, with_kwargs=True)
    label_logs(model.network, parts, model.labels, 600)
    hook.remove()
    shared = {part.shared for part in parts if [p.shared for p in parts].count(part.shared) > 1}
    single = [part for part in parts if part.shared not in shared]
    assert len(shared) == 3
    assert len(single) == 3
    once = sum(len(beginning) for beginning in shared) + parts[0].instructions
    own = sum(len(part.own) for part in parts) + sum(len(part.shared) - part.instructions for part in single)
    least = once + own + len(parts)  # and the first token of each label
    read = sum(rows * tokens for rows, tokens in fed)
    assert least <= read <= least + 64 * len(fed)  # what is more is padding
    assert read < 0.7 * sum(len(part.ids) for part in parts)
    assert all(rows * tokens <= 600 for rows, tokens in fed)


def test_blocks_hold_every_row_once_and_equally_long_prefixes() -> None:
    rng = np.random.default_rng(3)
    instructions = (1, 2, 3)
    prompts = [
        Prompt((*instructions, *rng.integers(4, 6, rng.integers(1, 4)).tolist()), [9] * int(rng.integers(1, 9)), 3)
        for _ in range(200)
    ]
    blocks = list(plan(prompts, 20, True))
    assert sorted(row for block in blocks for row in block.rows) == list(range(200))
    for block in blocks:
        assert len({len(prefix) for prefix in block.prefixes}) == 1
        assert len(block.prefixes) * len(block.prefixes[0]) <= 20
        for row, number in zip(block.rows, block.source, strict=True):
            prefix = block.prefixes[number]
            assert prompts[row].shared[: len(prefix)] == prefix
    assert [block.prefixes for block in plan(prompts, 20, False)] == [[()]]


def test_batches_are_full_and_little_padded() -> None:
    rng = np.random.default_rng(1)
    lengths = rng.integers(1, 90, 500).tolist()
    for tokens, cost, beside in ((400, 30, 0), (400, 10_000, 25), (50, 0, 0)):
        batches = list(cut(lengths, tokens, cost, beside))
        assert sorted(row for batch in batches for row in batch) == list(range(500))
        for batch in batches:
            longest = max(lengths[row] for row in batch)
            assert len(batch) == 1 or (longest + beside) * len(batch) <= tokens
            assert sum(longest - lengths[row] for row in batch) <= cost
    assert list(cut([], 10, 10)) == []


def test_contexts_name_every_step_that_labels_do_not_share() -> None:
    labels = [[5, 1], [5, 2], [5, 3, 9], [5, 3, 7, 7]]
    assert contexts(labels) == {(5,): [1, 2, 3], (5, 3): [7, 9], (5, 3, 7): [7]}
    assert contexts([[4], [7]]) == {(): [4, 7]}
    rng = np.random.default_rng(0)
    found = {c: {t: np.log(rng.random(3)) for t in tokens} for c, tokens in contexts(labels).items()}
    logs = assemble(labels, found)
    np.testing.assert_allclose(logs[:, 0], found[(5,)][1])
    np.testing.assert_allclose(logs[:, 3], found[(5,)][3] + found[(5, 3)][7] + found[(5, 3, 7)][7])


def test_labels_that_cannot_be_told_apart_are_refused() -> None:
    class Blind:
        def __call__(self, text: str, add_special_tokens: bool) -> object:
            return type("Encoding", (), {"input_ids": [3 for _ in text.strip()]})()

    with pytest.raises(ValueError, match="labels 0 and 1 apart"):
        label_tokens(Blind(), [0, 1])
