"""Small random policies for the tests of the rollout engines, and what their completions are compared with."""

from collections.abc import Hashable, Mapping, Sequence

import torch
from scipy import stats
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

from sps.config import LoraSettings
from sps.lora import adapt
from sps.policy import Policy
from sps.records import Completion
from tests.sps.conftest import character_tokenizer

EOS = 2
PROMPTS = [[1, 5, 6, 7, 8, 9, 10], [1, 4], [3], [1, 12, 3, 3, 9], [1, 4]]


def random_policy(vocabulary: int = 16, context: int = 64, sharpness: float = 1.0) -> Policy:
    """A Llama of random weights; `sharpness` multiplies its logits. Heads of a width that vLLM has on a CPU."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=vocabulary, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, head_dim=32, max_position_embeddings=context, tie_word_embeddings=False,
        initializer_range=0.2, bos_token_id=1, eos_token_id=EOS, pad_token_id=0,
    )  # fmt: skip
    model = LlamaForCausalLM(config)
    with torch.no_grad():
        model.lm_head.weight.mul_(sharpness)
    return Policy(model, character_tokenizer(), head_chunk=16)


def lora_policy() -> Policy:
    """The same with adapters that change something."""
    policy = random_policy()
    adapted = Policy(adapt(policy.model, LoraSettings(rank=4, alpha=16), seed=0), policy.tokenizer, head_chunk=16)
    with torch.no_grad():
        for name, weight in adapted.named_parameters():
            if "lora_B" in name:
                weight.normal_(std=0.1)
    return adapted


def step(policy: Policy) -> None:
    """An optimiser's step that moves all weights."""
    optimiser = torch.optim.AdamW(policy.parameters(), lr=0.05)
    ids = torch.tensor([[1, 5, 6, 7, 8]])
    policy.model(input_ids=ids, labels=ids).loss.backward()
    optimiser.step()
    optimiser.zero_grad()


def logits_of(policy: Policy, prompt: Sequence[int], token_ids: Sequence[int]) -> Tensor:
    """Logits before each token of a completion, from one pass without cache, padding or mask: (T, V) float64."""
    ids = torch.tensor([[*prompt, *token_ids]])
    with torch.no_grad():
        logits = policy.model.eval()(input_ids=ids, use_cache=False).logits[0].double()
    return logits[len(prompt) - 1 : -1]


def restricted_by_hand(probabilities: list[float], top_k: int, top_p: float) -> dict[int, float]:
    """The renormalised distribution over what top-k and then top-p keep."""
    ranked = sorted(range(len(probabilities)), key=lambda token: -probabilities[token])
    ranked = ranked[: top_k or None]
    mass = sum(probabilities[token] for token in ranked)
    kept: dict[int, float] = {}
    for token in ranked:
        if sum(kept.values()) >= top_p * mass:
            break
        kept[token] = probabilities[token]
    total = sum(kept.values())
    return {token: value / total for token, value in kept.items()}


def furthest(
    policy: Policy, prompts: Sequence[Sequence[int]], groups: Sequence[Sequence[Completion]], temperature: float = 1.0
) -> float:
    """The largest distance of a completion's log-probabilities from those of the policy's weights of now."""
    distances = [0.0]
    for prompt, group in zip(prompts, groups, strict=True):
        for completion in group:
            logprobs = (logits_of(policy, prompt, completion.token_ids) / temperature).log_softmax(1)
            expected = logprobs.gather(1, torch.tensor(completion.token_ids)[:, None])[:, 0]
            distances += (torch.tensor(completion.logprobs, dtype=torch.float64) - expected).abs().tolist()
    return max(distances)


def fit(counts: Mapping[Hashable, int], probabilities: Mapping[Hashable, float], samples: int) -> float:
    """p-value of the chi-square test; outcomes expected fewer than 5 times are one."""
    rare = [outcome for outcome, probability in probabilities.items() if probability * samples < 5]
    cells = [[outcome] for outcome in probabilities if outcome not in rare] + ([rare] if rare else [])
    observed = [sum(counts[outcome] for outcome in cell) for cell in cells]
    expected = [samples * sum(probabilities[outcome] for outcome in cell) for cell in cells]
    return float(stats.chisquare(observed, expected, sum_check=False).pvalue)
