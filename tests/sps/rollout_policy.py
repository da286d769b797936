"""Small random policies for the tests of the rollout engines."""

import torch
from tokenizers import Tokenizer, decoders
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Split
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from sps.config import LoraSettings
from sps.lora import adapt
from sps.policy import Policy

SPECIAL = ["<pad>", "<bos>", "<eos>"]
EOS = 2


def random_policy(letters: str = "abcdefghijklm", context: int = 64, sharpness: float = 4.0, seed: int = 0) -> Policy:
    """A Llama of random weights over single letters; `sharpness` multiplies its logits, which at 1 are almost equal."""
    torch.manual_seed(seed)
    vocabulary = {token: number for number, token in enumerate([*SPECIAL, *letters])}
    config = LlamaConfig(
        vocab_size=len(vocabulary), hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, head_dim=32, max_position_embeddings=context, tie_word_embeddings=False,
        initializer_range=0.3, bos_token_id=1, eos_token_id=EOS, pad_token_id=0,
    )  # fmt: skip
    model = LlamaForCausalLM(config)
    with torch.no_grad():
        model.lm_head.weight.mul_(sharpness / 4)
    words = Tokenizer(WordLevel(vocabulary, unk_token="<pad>"))
    words.pre_tokenizer = Split("", "isolated")
    words.decoder = decoders.Fuse()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, bos_token="<bos>", eos_token="<eos>", pad_token="<pad>")
    return Policy(model, tokenizer, head_chunk=16)


def lora_policy() -> Policy:
    """The same with adapters, which change nothing yet."""
    policy = random_policy()
    model = adapt(policy.model, LoraSettings(rank=4, alpha=16), seed=0)
    return Policy(model, policy.tokenizer, head_chunk=16, lora=True)
