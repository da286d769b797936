"""The transformers engine against brute force: one uncached forward pass per completion, and full enumeration."""

import math
from itertools import chain, product

import pytest
import torch

from sps.config import RolloutSettings
from sps.policy import Policy, collate
from sps.rollout import make_engine
from sps.rollout.distribution import draw
from sps.rollout.protocol import Sampling
from sps.rollout.transformers_engine import TransformersEngine, batches
from tests.sps.conftest import character_tokenizer
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

LETTERS = {token: text if len(text) == 1 else "" for text, token in character_tokenizer().get_vocab().items()}


def engine_of(policy: Policy, rows: int = 256) -> TransformersEngine:
    return TransformersEngine(policy, RolloutSettings(rows=rows))


@pytest.mark.parametrize("temperature", [0.7, 1.0, 1.6])
def test_logprobs_are_those_of_an_uncached_pass_over_the_same_tokens(temperature: float) -> None:
    policy = random_policy()
    groups = engine_of(policy, rows=7).generate(PROMPTS, 5, Sampling(20, temperature, seed=3))
    assert [len(group) for group in groups] == [5] * len(PROMPTS)
    assert furthest(policy, PROMPTS, groups, temperature) < 1e-5
    assert len({len(completion.token_ids) for completion in chain(*groups)}) > 5  # rows stopped at different times


def test_logprobs_are_those_that_the_policy_gives_for_training() -> None:
    policy = random_policy()
    group = engine_of(policy).generate(PROMPTS[:1], 6, Sampling(12, 0.8, seed=1))[0]
    rows = [(PROMPTS[0], completion.token_ids) for completion in group]
    found = policy(*collate(rows, 0, policy.device), 0.8, False).logprobs
    sampled = torch.tensor([value for completion in group for value in completion.logprobs])
    assert torch.allclose(found, sampled, atol=1e-5, rtol=0)


@pytest.mark.parametrize(("top_k", "top_p"), [(3, 1.0), (0, 0.6), (4, 0.7), (1, 1.0)])
def test_top_k_and_top_p_renormalise(top_k: int, top_p: float) -> None:
    policy = random_policy()
    groups = engine_of(policy).generate(PROMPTS, 6, Sampling(15, 0.9, top_p, top_k, seed=5))
    for prompt, group in zip(PROMPTS, groups, strict=True):
        for completion in group:
            scores = logits_of(policy, prompt, completion.token_ids) / 0.9
            for row, token, value in zip(scores, completion.token_ids, completion.logprobs, strict=True):
                kept = restricted_by_hand(row.softmax(0).tolist(), top_k, top_p)
                assert token in kept
                assert value == pytest.approx(math.log(kept[token]), abs=1e-5)


def test_batching_padding_and_mixed_lengths_change_nothing() -> None:
    policy = random_policy()
    sampling = Sampling(24, seed=11)
    together = engine_of(policy).generate(PROMPTS, 4, sampling)
    for rows in (1, 3, 4, 6):
        apart = engine_of(policy, rows).generate(PROMPTS, 4, sampling)
        for one, other in zip(chain(*together), chain(*apart), strict=True):
            assert one.token_ids == other.token_ids
            assert one.logprobs == pytest.approx(other.logprobs, abs=1e-5)


def test_a_prompt_alone_completes_as_it_does_among_others() -> None:
    policy = random_policy()
    greedy = Sampling(24, temperature=1e-4)
    together = engine_of(policy).generate(PROMPTS, 1, greedy)
    alone = [engine_of(policy).generate([prompt], 1, greedy)[0] for prompt in PROMPTS]
    assert [group[0].token_ids for group in together] == [group[0].token_ids for group in alone]
    for prompt, group in zip(PROMPTS, alone, strict=True):
        assert group[0].token_ids == logits_of(policy, prompt, group[0].token_ids).argmax(1).tolist()


def test_frequencies_are_the_models_probabilities() -> None:
    """Every completion of up to 3 tokens over 5 tokens enumerated; a wrong temperature would be seen."""
    policy, prompt, temperature, samples = random_policy(vocabulary=5, sharpness=0.5), [1, 3, 4], 1.3, 6_000
    probabilities = completion_probabilities(policy, prompt, 3, temperature)
    assert sum(probabilities.values()) == pytest.approx(1)
    group = engine_of(policy, rows=1_000).generate([prompt], samples, Sampling(3, temperature, seed=2))[0]
    counts = dict.fromkeys(probabilities, 0)
    for completion in group:
        counts[tuple(completion.token_ids)] += 1
    assert fit(counts, probabilities, samples) > 0.01
    hotter = completion_probabilities(policy, prompt, 3, temperature * 1.3)
    assert fit(counts, hotter, samples) < 1e-4  # the test can tell


def completion_probabilities(
    policy: Policy, prompt: list[int], limit: int, temperature: float
) -> dict[tuple[int, ...], float]:
    """Probability of every possible completion."""
    found: dict[tuple[int, ...], float] = {}
    size = policy.model.config.vocab_size
    for length in range(1, limit + 1):
        for tokens in product(range(size), repeat=length):
            if EOS in tokens[:-1] or (length < limit and tokens[-1] != EOS):
                continue
            logprobs = (logits_of(policy, prompt, tokens) / temperature).log_softmax(1)
            found[tokens] = math.exp(sum(logprobs[i, token] for i, token in enumerate(tokens)))
    return found


def test_draws_at_the_very_ends_have_positive_probability() -> None:
    logprobs = torch.tensor([0.0, 0.0, 0.3, 0.0, 0.7, 0.0]).log().repeat(4, 1)
    uniforms = torch.tensor([0.0, 0.2999, 0.3001, 1 - 2**-53], dtype=torch.float64)
    assert draw(logprobs, uniforms).tolist() == [2, 2, 4, 4]


def test_finished_means_that_the_policy_ended_by_itself() -> None:
    policy = random_policy()
    group = engine_of(policy).generate([PROMPTS[0]], 40, Sampling(8, seed=4))[0]
    assert {completion.finished for completion in group} == {True, False}
    for completion in group:
        assert EOS not in completion.token_ids[:-1]
        assert completion.finished == (completion.token_ids[-1] == EOS)
        assert completion.finished or len(completion.token_ids) == 8
        assert len(completion.logprobs) == len(completion.token_ids)
        assert completion.text == "".join(LETTERS[token] for token in completion.token_ids)


def test_an_end_in_the_last_place_is_an_end() -> None:
    policy = random_policy()
    policy.eos_ids = {4, 5, 6, 7, 8, 9}
    group = engine_of(policy).generate([PROMPTS[0]], 200, Sampling(1, seed=4))[0]
    assert {completion.finished for completion in group} == {True, False}
    assert all(completion.finished == (completion.token_ids[0] in policy.eos_ids) for completion in group)


def test_any_of_several_ends_ends() -> None:
    policy = random_policy()
    policy.eos_ids = {EOS, 5, 7}
    for completion in engine_of(policy).generate([PROMPTS[0]], 40, Sampling(20, seed=4))[0]:
        assert not policy.eos_ids & set(completion.token_ids[:-1])
        assert completion.finished == (completion.token_ids[-1] in policy.eos_ids)


def test_same_seed_same_output_another_seed_another_and_no_state() -> None:
    policy = random_policy()
    engine = engine_of(policy)
    first = engine.generate(PROMPTS, 3, Sampling(16, seed=8))
    torch.rand(5)
    assert engine.generate(PROMPTS, 3, Sampling(16, seed=9)) != first
    assert engine.generate(PROMPTS, 3, Sampling(16, seed=8)) == first
    assert first[1] != first[4]  # equal prompts, other draws
    assert len({tuple(completion.token_ids) for completion in first[0]}) > 1


def test_sampling_leaves_torchs_random_state_and_the_models_mode_alone() -> None:
    policy = random_policy()
    policy.train()
    torch.manual_seed(1)
    before = torch.get_rng_state()
    TransformersEngine(policy, RolloutSettings(), own_copy=True)
    engine_of(policy).generate(PROMPTS, 2, Sampling(4))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(module.training for module in policy.modules())
    policy.eval()
    engine_of(policy).generate(PROMPTS, 2, Sampling(4))
    assert not policy.model.training


def test_dropout_is_off_while_sampling() -> None:
    policy = random_policy()
    policy.model.config.attention_dropout = 0.5
    for layer in policy.model.model.layers:
        layer.self_attn.attention_dropout = 0.5
    expected = engine_of(policy).generate(PROMPTS, 2, Sampling(12, seed=1))
    policy.train()
    assert engine_of(policy).generate(PROMPTS, 2, Sampling(12, seed=1)) == expected


def test_at_most_rows_at_once_and_a_prompt_is_prefilled_once_per_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    policy = random_policy()
    shapes: list[tuple[int, int]] = []
    forward = policy.model.forward

    def watched(**inputs: torch.Tensor) -> object:
        shapes.append(tuple(inputs["input_ids"].shape))  # type: ignore[arg-type]
        return forward(**inputs)

    monkeypatch.setattr(policy.model, "forward", watched)
    engine_of(policy, rows=6).generate(PROMPTS[:2], 9, Sampling(10, seed=3))
    prefills = [shape for shape in shapes if shape[1] > 1]
    assert prefills == [(1, 7), (2, 7), (1, 2)]  # 6 of the long; its other 3 with 3 of the short; the last 6
    steps = [shape[0] for shape in shapes if shape[1] == 1]
    assert max(steps) == 6
    assert min(steps) < 6  # rows that have stopped cost nothing


def test_decoding_stops_when_all_rows_have() -> None:
    policy = random_policy()
    with torch.no_grad():
        policy.model.lm_head.weight.zero_()
    policy.eos_ids = set(range(policy.model.config.vocab_size))
    calls: list[None] = []
    policy.model.register_forward_hook(lambda *_: calls.append(None))
    engine_of(policy).generate(PROMPTS, 4, Sampling(30, seed=0))
    assert len(calls) == 1


def test_batches_hold_every_sample_once() -> None:
    lengths, samples, rows = [3, 9, 1, 4], 7, 5
    cut = list(batches(lengths, samples, rows))
    assert all(sum(share.count for share in batch) <= rows for batch in cut)
    drawn = [(s.prompt, s.first + i) for batch in cut for s in batch for i in range(s.count)]
    assert sorted(drawn) == [(prompt, sample) for prompt in range(4) for sample in range(samples)]
    assert [prompt for prompt, sample in drawn if sample == 0] == [1, 3, 0, 2]


def test_weights_are_seen_at_once_after_a_step() -> None:
    policy = random_policy()
    engine = make_engine(policy, RolloutSettings())
    before = engine.generate(PROMPTS, 2, Sampling(8, seed=1))
    step(policy)
    engine.update(policy)
    after = engine.generate(PROMPTS, 2, Sampling(8, seed=1))
    assert before != after
    assert furthest(policy, PROMPTS, after) < 1e-5


def test_a_copy_of_its_own_has_the_weights_of_the_last_update() -> None:
    policy = random_policy()
    engine = make_engine(policy, RolloutSettings(), own_copy=True)
    before = engine.generate(PROMPTS, 2, Sampling(8, seed=1))
    assert furthest(policy, PROMPTS, before) < 1e-5
    step(policy)
    assert engine.generate(PROMPTS, 2, Sampling(8, seed=1)) == before
    engine.update(policy)
    after = engine.generate(PROMPTS, 2, Sampling(8, seed=1))
    assert after != before
    assert furthest(policy, PROMPTS, after) < 1e-5


def test_under_autocast_the_engine_computes_as_the_policy_does() -> None:
    policy = random_policy()
    exact = engine_of(policy).generate(PROMPTS[:1], 4, Sampling(10, seed=1))
    policy.autocast = True
    rough = engine_of(policy).generate(PROMPTS[:1], 4, Sampling(10, seed=1))
    assert [completion.logprobs for completion in rough[0]] != [completion.logprobs for completion in exact[0]]
    assert furthest(policy, PROMPTS[:1], rough) < 0.1


@pytest.mark.parametrize("own_copy", [False, True])
def test_lora(own_copy: bool) -> None:
    pytest.importorskip("peft")
    policy = lora_policy()
    weights = {name: weight.clone() for name, weight in policy.named_parameters()}
    groups = TransformersEngine(policy, RolloutSettings(), own_copy).generate(PROMPTS, 2, Sampling(8, seed=1))
    assert furthest(policy, PROMPTS, groups) < 1e-5
    with policy.model.disable_adapter():
        assert furthest(policy, PROMPTS, groups) > 0.01
    assert all(torch.equal(weight, weights[name]) for name, weight in policy.named_parameters())


def test_prompts_that_cannot_be_completed_are_refused() -> None:
    engine = engine_of(random_policy(context=20))
    with pytest.raises(ValueError, match="prompt 1 has no tokens"):
        engine.generate([[1], []], 1, Sampling(4))
    with pytest.raises(ValueError, match=r"prompt 0 has 7 tokens, and 14 more do not fit .* 20"):
        engine.generate(PROMPTS[:1], 1, Sampling(14))
    assert len(engine.generate(PROMPTS[:1], 1, Sampling(13))[0]) == 1
    assert engine.generate([], 3, Sampling(4)) == []
