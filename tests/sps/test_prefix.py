"""Prompts read once for their whole group: the same values and gradients, fewer tokens."""

import pytest
import torch
from torch import Tensor

from sps.policy import Policy, collate
from sps.prefix import hidden_before
from tests.sps.conftest import random_rows

ROWS = [
    ([5, 6, 7], [8, 9, 2]),
    ([4], [3]),
    ([5, 6, 7], [2]),
    ([5, 6], [7, 8, 9, 2]),  # another prompt, though the first one begins alike
    ([4], [5, 6, 7, 8, 2]),
    ([5, 6, 7], [8, 9, 9, 9, 9, 2]),
]


def scored(policy: Policy, rows: list[tuple[list[int], list[int]]], share: bool) -> tuple[Tensor, dict[str, Tensor]]:
    policy.zero_grad()
    hidden = hidden_before(policy.network.base_model, *collate(rows, 0, "cpu"), share)
    weights = torch.linspace(-1, 2, hidden.numel()).view_as(hidden)
    (weights * hidden.tanh()).sum().backward()
    return hidden.detach(), {name: p.grad.clone() for name, p in policy.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("rows", [ROWS, [([7, 8], [2]), ([7, 8], [9])]])
def test_values_and_gradients_are_those_of_whole_rows(policy: Policy, rows: list[tuple[list[int], list[int]]]) -> None:
    whole, whole_gradients = scored(policy, rows, share=False)
    shared, shared_gradients = scored(policy, rows, share=True)
    assert shared.shape == (sum(len(completion) for _, completion in rows), 32)
    torch.testing.assert_close(shared, whole, atol=1e-5, rtol=1e-5)
    assert whole_gradients.keys() == shared_gradients.keys()
    scale = max(float(gradient.abs().max()) for gradient in whole_gradients.values())
    for name, gradient in whole_gradients.items():
        torch.testing.assert_close(shared_gradients[name], gradient, atol=1e-5 * scale, rtol=1e-4)


def test_a_prompt_is_read_once_and_last_tokens_never(policy: Policy) -> None:
    read = []
    handle = policy.model.get_input_embeddings().register_forward_hook(
        lambda _, inputs, __: read.append(inputs[0].shape)
    )
    rows = [(row.prompt_ids, row.completion_ids) for row in random_rows(3, 8)]
    longest = max(len(completion) for _, completion in rows)
    hidden_before(policy.network.base_model, *collate(rows, 0, "cpu"), True)
    handle.remove()
    assert read == [(3, max(len(prompt) for prompt, _ in rows)), (24, longest - 1)]


def test_poisoned_padding_changes_nothing(policy: Policy) -> None:
    """Neither what pads the batch nor the hole between a short prompt and its completion."""
    ids, mask, targets = collate(ROWS, 0, "cpu")
    expected = hidden_before(policy.network.base_model, ids, mask, targets, True)
    garbage = torch.randint(3, 20, ids.shape, generator=torch.Generator().manual_seed(1))
    found = hidden_before(policy.network.base_model, torch.where(mask == 0, garbage, ids), mask, targets, True)
    assert torch.equal(found, expected)
    with torch.no_grad():
        policy.model.get_input_embeddings().weight[0] += 1e4  # what holes and padding are filled with
    assert torch.equal(hidden_before(policy.network.base_model, ids, mask, targets, True), expected)


def test_with_gradient_checkpointing_rows_are_read_whole(policy: Policy) -> None:
    rows = [(row.prompt_ids, row.completion_ids) for row in random_rows(2, 4)]
    expected = policy(*collate(rows, 0, "cpu"), 1.0, False).logprobs
    policy.model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    policy.train()
    found = policy(*collate(rows, 0, "cpu"), 1.0, False).logprobs
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
