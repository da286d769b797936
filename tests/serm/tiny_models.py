"""Tiny random causal language models over bytes, as Hugging Face folders."""

from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    MambaConfig,
    MambaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
)

ALPHABET = sorted(pre_tokenizers.ByteLevel.alphabet())
VOCABULARY = {"<s>": 0, **{letter: number for number, letter in enumerate(ALPHABET, 1)}}
IDS = {"vocab_size": len(VOCABULARY), "bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0}
SIZES = IDS | {
    "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 1024, "initializer_range": 0.5,
}  # fmt: skip
TEMPLATE = (
    "{% for message in messages %}<s>{{ message['role'] }}: {{ message['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}<s>assistant: {% endif %}"
)


def save(network: PreTrainedModel, path: Path) -> Path:
    """A folder with this network and the byte tokenizer."""
    tokenizer = Tokenizer(models.BPE(vocab=VOCABULARY, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    network.save_pretrained(path)
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="<s>", chat_template=TEMPLATE
    ).save_pretrained(path)
    return path


def network(kind: str) -> PreTrainedModel:
    """A network of two layers whose weights are drawn large enough that grades differ.

    gemma3 and mistral see windows of 64 tokens, gemma3 in one layer of two; gpt2 learns absolute positions; mamba
    keeps a state and no keys.
    """
    torch.manual_seed(0)
    if kind == "llama":
        return LlamaForCausalLM(LlamaConfig(**SIZES))
    if kind == "qwen2":
        return Qwen2ForCausalLM(Qwen2Config(**SIZES, tie_word_embeddings=True))
    if kind == "gemma3":
        kinds = ["sliding_attention", "full_attention"]
        return Gemma3ForCausalLM(
            Gemma3TextConfig(**SIZES, head_dim=8, sliding_window=64, layer_types=kinds, final_logit_softcapping=5.0)
        )
    if kind == "mistral":
        return MistralForCausalLM(MistralConfig(**SIZES, sliding_window=64))
    if kind == "gpt2":
        sizes = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 1024, "initializer_range": 0.5}
        return GPT2LMHeadModel(GPT2Config(**IDS, **sizes))
    if kind == "mamba":
        mamba = MambaForCausalLM(MambaConfig(**IDS, hidden_size=32, num_hidden_layers=2, state_size=8))
        with torch.no_grad():
            for name, weight in mamba.named_parameters():
                if name.endswith(("proj.weight", "embeddings.weight")):
                    weight.normal_(0, 0.5)
        return mamba
    raise ValueError(kind)
