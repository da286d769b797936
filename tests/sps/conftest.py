"""A policy small enough for a test: a random character-level Llama, and rows of a made-up step."""

from pathlib import Path

import pytest
import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from sps.batch import Row
from sps.policy import Policy
from sps.records import Completion, Example, Rollout, Verdict

CHARACTERS = "0123456789+-*/=(),: "


def character_tokenizer() -> PreTrainedTokenizerFast:
    """One token a character; <s> before every text."""
    vocabulary = {token: i for i, token in enumerate(["<pad>", "<s>", "</s>", *CHARACTERS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<pad>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")
    tokenizer.decoder = decoders.Fuse()
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", bos_token="<s>", eos_token="</s>")


def random_llama(seed: int = 0, width: int = 32) -> LlamaForCausalLM:
    """Two layers, random weights, context 64."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=3 + len(CHARACTERS), hidden_size=width, intermediate_size=2 * width, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=64, tie_word_embeddings=True,
        bos_token_id=1, eos_token_id=2, pad_token_id=0, initializer_range=0.2,
    )  # fmt: skip
    return LlamaForCausalLM(config)


@pytest.fixture
def policy() -> Policy:
    """A random policy in float32."""
    return Policy(random_llama(), character_tokenizer(), head_chunk=16)


@pytest.fixture
def model_folder(tmp_path: Path) -> Path:
    """The same model as a Hugging Face folder."""
    random_llama().save_pretrained(tmp_path / "model")
    character_tokenizer().save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def random_rows(groups: int = 3, size: int = 4, seed: int = 0) -> list[Row]:
    """Rows of random tokens: `groups` prompts of `size` completions of 1 to 9 tokens, about half of them right."""
    generator = torch.Generator().manual_seed(seed)

    def draw(low: int, high: int, count: int = 1) -> list[int]:
        return torch.randint(low, high, (count,), generator=generator).tolist()

    rows = []
    for group in range(groups):
        prompt = draw(3, 20, draw(2, 6)[0])
        for member in range(size):
            ids = draw(3, 20, draw(1, 10)[0])
            right = (member + group) % 2 == 0
            logprobs = (-3 * torch.rand(len(ids), generator=generator)).tolist()
            completion = Completion(ids, logprobs, True, f"{group}-{member}-{ids}")
            rollout = Rollout(Example(f"p{group}", "?"), prompt, completion, Verdict(float(right), right, None))
            rows.append(Row(prompt, ids, group, rollout, torch.tensor(logprobs), advantage=1.0 if right else -0.7))
    return rows
