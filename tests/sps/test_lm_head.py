"""The chunked head against closed forms in float64, what it keeps in memory, and the models that it must refuse."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import log_softmax
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import (
    CohereConfig,
    CohereForCausalLM,
    Gemma2Config,
    Gemma2ForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    GraniteConfig,
    GraniteForCausalLM,
    PhiConfig,
    PhiForCausalLM,
)

from sps.lm_head import demand_plain_head, token_stats

TOKENS, WIDTH, VOCABULARY = 37, 8, 29


def made(seed: int = 0, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Hidden states, weight, bias and targets."""
    generator = torch.Generator().manual_seed(seed)
    sizes: list[tuple[int, ...]] = [(TOKENS, WIDTH), (VOCABULARY, WIDTH), (VOCABULARY,)]
    hidden, weight, bias = (torch.randn(size, generator=generator, dtype=torch.float64).to(dtype) for size in sizes)
    return hidden, weight, bias, torch.randint(VOCABULARY, (TOKENS,), generator=generator)


@pytest.mark.parametrize("chunk", [1, 3, 36, 37, 38, 5_000])
@pytest.mark.parametrize("temperature", [1.0, 0.6, 1.7])
def test_values_and_gradients_equal_the_closed_form(chunk: int, temperature: float) -> None:
    hidden, weight, bias, targets = made()
    for tensor in (hidden, weight, bias):
        tensor.requires_grad_()
    stats = token_stats(hidden, weight, bias, targets, temperature, chunk, with_entropy=True)
    assert stats.entropy is not None
    up, up_entropy = torch.randn(2, TOKENS, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    (stats.logprobs @ up + stats.entropy @ up_entropy).backward()

    h, w, b, t = (x.detach().numpy() for x in (hidden, weight, bias, targets))
    logp = log_softmax((h @ w.T + b) / temperature, axis=1)
    p = np.exp(logp)
    entropy = -(p * logp).sum(axis=1)
    # d log p_t / d logit_j = (1[j = t] - p_j) / T;  dH / d logit_j = -p_j (log p_j + H) / T
    one_hot = np.eye(VOCABULARY)[t]
    d = (
        up.numpy()[:, None] * (one_hot - p) - up_entropy.numpy()[:, None] * p * (logp + entropy[:, None])
    ) / temperature
    np.testing.assert_allclose(stats.logprobs.detach(), logp[np.arange(TOKENS), t], atol=1e-12)
    np.testing.assert_allclose(stats.entropy.detach(), entropy, atol=1e-12)
    for tensor, expected in ((hidden, d @ w), (weight, d.T @ h), (bias, d.sum(axis=0))):
        np.testing.assert_allclose(tensor.grad, expected, atol=1e-12)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 60), st.integers(0, 5))
def test_any_chunk_gives_the_same_in_float32(chunk: int, seed: int) -> None:
    def run(size: int) -> list[Tensor]:
        hidden, weight, _, targets = made(seed, torch.float32)
        hidden.requires_grad_()
        weight.requires_grad_()
        stats = token_stats(hidden, weight, None, targets, 0.9, size, with_entropy=True)
        assert stats.entropy is not None
        (stats.logprobs.sum() + 0.3 * stats.entropy.sum()).backward()
        assert hidden.grad is not None
        assert weight.grad is not None
        return [stats.logprobs.detach(), stats.entropy.detach(), hidden.grad, weight.grad]

    for one, other in zip(run(chunk), run(TOKENS), strict=True):
        torch.testing.assert_close(one, other, atol=2e-5, rtol=1e-5)


def test_bfloat16_in_gives_float32_out_and_huge_logits_stay_finite() -> None:
    hidden, weight, _, targets = made(dtype=torch.bfloat16)
    stats = token_stats(hidden, weight, None, targets, 1.0, 7, with_entropy=True)
    assert stats.logprobs.dtype == torch.float32
    expected = log_softmax((hidden @ weight.T).double().numpy(), axis=1)[np.arange(TOKENS), targets.numpy()]
    np.testing.assert_allclose(stats.logprobs, expected, atol=1e-5)
    huge = token_stats(10_000 * hidden.float(), weight.float(), None, targets, 1.0, 7, with_entropy=True)
    assert huge.entropy is not None
    assert huge.logprobs.isfinite().all()
    torch.testing.assert_close(huge.entropy, torch.zeros(TOKENS))


@pytest.mark.parametrize("used", ["logprobs", "entropy", "both"])
def test_gradients_equal_finite_differences(used: str) -> None:
    hidden, weight, bias, targets = made()

    def outputs(*inputs: Tensor) -> tuple[Tensor, ...]:
        stats = token_stats(*inputs, targets[:5], 0.8, 2, with_entropy=True)
        assert stats.entropy is not None
        return {"logprobs": (stats.logprobs,), "entropy": (stats.entropy,), "both": (stats.logprobs, stats.entropy)}[
            used
        ]

    assert torch.autograd.gradcheck(outputs, [x.requires_grad_() for x in (hidden[:5].clone(), weight, bias)])


def test_a_frozen_head_gets_no_gradient_and_hidden_states_get_theirs() -> None:
    hidden, weight, bias, targets = made()
    hidden.requires_grad_()
    token_stats(hidden, weight, bias, targets, 1.0, 5, with_entropy=False).logprobs.sum().backward()
    assert weight.grad is None
    assert bias.grad is None
    one_hot = torch.eye(VOCABULARY, dtype=torch.float64)[targets]
    torch.testing.assert_close(hidden.grad, (one_hot - (hidden @ weight.T + bias).softmax(-1)).detach() @ weight)


@pytest.mark.parametrize("chunk", [2, 500])
def test_autocast_takes_products_in_bf16_and_sums_the_head_s_gradient_in_fp32(chunk: int) -> None:
    torch.manual_seed(0)
    hidden, weight = torch.randn(500, 16, requires_grad=True), torch.randn(40, 16, requires_grad=True)
    targets = torch.randint(40, (500,))
    with torch.autocast("cpu", torch.bfloat16):
        logprobs, entropy = token_stats(hidden, weight, None, targets, 1.0, chunk, with_entropy=True)
    assert entropy is not None
    assert logprobs.dtype == entropy.dtype == torch.float32
    (logprobs.sum() + entropy.sum()).backward()
    with torch.no_grad():
        rounded = (hidden.bfloat16() @ weight.bfloat16().T).double().log_softmax(-1)
    torch.testing.assert_close(logprobs.double(), rounded.gather(1, targets[:, None])[:, 0], atol=1e-5, rtol=1e-5)
    h, w = hidden.detach().double().requires_grad_(), weight.detach().double().requires_grad_()
    exact = (h @ w.T).log_softmax(-1)
    (exact.gather(1, targets[:, None]).sum() - (exact.exp() * exact).sum()).backward()
    for found, expected in ((hidden.grad, h.grad), (weight.grad, w.grad)):
        assert found is not None
        assert expected is not None
        assert found.dtype == torch.float32
        assert (found - expected).norm() < 0.01 * expected.norm()


class Largest(TorchDispatchMode):
    """Remembers the largest tensor that any operation made."""

    elements = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, tuple | list) else [result]:
            if isinstance(tensor, Tensor):
                self.elements = max(self.elements, tensor.numel())
        return result


def test_no_more_logits_than_a_chunk_forward_and_backward() -> None:
    tokens, width, vocabulary, chunk = 512, 4, 1_000, 16
    hidden, weight = torch.randn(tokens, width, requires_grad=True), torch.randn(vocabulary, width, requires_grad=True)
    with Largest() as largest:
        stats = token_stats(hidden, weight, None, torch.zeros(tokens, dtype=torch.long), 1.0, chunk, with_entropy=True)
        assert stats.entropy is not None
        (stats.logprobs.sum() + stats.entropy.sum()).backward()
    assert largest.elements == chunk * vocabulary


def test_between_forward_and_backward_no_logits_are_kept() -> None:
    kept: list[int] = []

    def keep(tensor: Tensor) -> Tensor:
        kept.append(tensor.numel())
        return tensor

    hidden, weight = torch.randn(64, 4, requires_grad=True), torch.randn(1_000, 4, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        token_stats(hidden, weight, None, torch.zeros(64, dtype=torch.long), 1.0, 16, with_entropy=True)
    assert max(kept, default=0) <= weight.numel()


@pytest.mark.parametrize(("temperature", "chunk"), [(0.0, 4), (-1.0, 4), (float("nan"), 4), (1.0, 0)])
def test_senseless_settings_are_refused(temperature: float, chunk: int) -> None:
    with pytest.raises(ValueError, match="must be positive"):
        token_stats(*made()[:2], None, made()[3], temperature, chunk, with_entropy=False)


SMALL: dict[str, Any] = {
    "vocab_size": 40, "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
    "num_key_value_heads": 1, "head_dim": 8, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip


def gemma(cap: float | None) -> Gemma2ForCausalLM:
    return Gemma2ForCausalLM(Gemma2Config(**SMALL, final_logit_softcapping=cap))


def cohere(scale: float) -> CohereForCausalLM:
    return CohereForCausalLM(CohereConfig(**SMALL, logit_scale=scale))


def granite(scaling: float) -> GraniteForCausalLM:
    return GraniteForCausalLM(GraniteConfig(**SMALL, logits_scaling=scaling))


@pytest.mark.parametrize("model", [gemma(30.0), cohere(0.0625), granite(8.0)], ids=["cap", "scale", "scaling"])
def test_models_that_change_their_logits_are_refused_and_left_as_they_were(model: Any) -> None:
    model.train()
    ids = torch.tensor([[3, 4, 5]])
    before = model(input_ids=ids).logits
    with pytest.raises(ValueError, match="more than hidden states times the head"):
        demand_plain_head(model, model.base_model, model.get_output_embeddings())
    assert model.training
    torch.testing.assert_close(model(input_ids=ids).logits, before, atol=0, rtol=0)


@pytest.mark.parametrize(
    "model",
    [
        gemma(None),
        cohere(1.0),
        granite(1.0),
        GPT2LMHeadModel(GPT2Config(vocab_size=40, n_embd=16, n_layer=1, n_head=2)),
        PhiForCausalLM(PhiConfig(**{**SMALL, "num_key_value_heads": 2})),  # its head has a bias
    ],
    ids=["no cap", "scale 1", "scaling 1", "gpt2", "phi"],
)
def test_plain_heads_pass(model: Any) -> None:
    assert demand_plain_head(model, model.base_model, model.get_output_embeddings()) is model.get_output_embeddings()


def test_a_head_that_is_no_plain_linear_layer_is_refused() -> None:
    class Unusual(nn.Linear):
        pass

    model = gemma(None)
    model.set_output_embeddings(Unusual(16, 40, bias=False))
    with pytest.raises(ValueError, match="its head is a Unusual"):
        demand_plain_head(model, model.base_model, model.get_output_embeddings())
