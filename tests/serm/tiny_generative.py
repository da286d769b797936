"""Tiny causal language models over bytes, with random weights, made in a test."""

from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel, PreTrainedTokenizerFast

ALPHABET = sorted(pre_tokenizers.ByteLevel.alphabet())
VOCABULARY = {"<s>": 0, **{letter: number for number, letter in enumerate(ALPHABET, 1)}}


def save(network: PreTrainedModel, path: Path) -> Path:
    """A folder with this network and the byte tokenizer."""
    tokenizer = Tokenizer(models.BPE(vocab=VOCABULARY, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    network.save_pretrained(path)
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="<s>").save_pretrained(path)
    return path


def llama(path: Path, width: int = 32, spread: float = 0.5) -> Path:
    """A folder with a Llama of two layers; `spread` is its weights' standard deviation."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(VOCABULARY), hidden_size=width, intermediate_size=2 * width, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=512, bos_token_id=0, eos_token_id=0,
        initializer_range=spread,
    )  # fmt: skip
    return save(LlamaForCausalLM(config), path)
