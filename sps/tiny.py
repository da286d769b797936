"""The policy "tiny": a small Llama over single characters, pre-trained on worked solutions, so that everything can be
seen on a laptop.

A task offers `vocabulary`, all its characters, and `worked(example, rng)`, a solution by one of many ways, sometimes
wrong: a policy pre-trained on these is diverse and middling, as a language model before reinforcement is.
"""

import hashlib
import json
import math
import random
import shutil
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch

from sps import progress
from sps.config import PolicySettings
from sps.records import Example

SPECIAL = ("<pad>", "<s>", "</s>")  # ids 0, 1, 2
CONTEXT = 96
BATCH = 128
LEARNING_RATE = 3e-3


@runtime_checkable
class Worked(Protocol):
    """A task that a tiny policy can be pre-trained on, where it is `terse`."""

    vocabulary: str
    terse: bool

    def examples(self, split: str) -> Sequence[Example]:
        """Problems of a split."""

    def worked(self, example: Example, rng: random.Random) -> str:
        """A solution, by a way drawn at random."""


def tiny_model(settings: PolicySettings, task: Any, seed: int, cache: Path) -> tuple[Any, Any]:
    """The pre-trained model and its tokenizer; made once and kept in `cache`, under a name for all that it depends on.

    Raises:
        ValueError: the task offers no worked solutions, or its prompts hold characters outside its vocabulary.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer

    if not (isinstance(task, Worked) and task.terse):
        raise ValueError(
            "policy.model tiny is pre-trained on worked solutions, which the terse tasks arithmetic and countdown have: "
            "set task.style=terse, or name a Hugging Face model in policy.model"
        )
    folder = cache / f"tiny-{_digest(settings, task, seed)}"
    if not folder.exists():
        _demand_known(task)
        tokenizer = character_tokenizer(task.vocabulary)
        model = pretrain(small_llama(len(tokenizer), settings, seed), tokenizer, task, settings.tiny_steps, seed)
        cache.mkdir(parents=True, exist_ok=True)
        scratch = cache / f".{folder.name}.{uuid.uuid4().hex}"
        model.save_pretrained(scratch)
        tokenizer.save_pretrained(scratch)
        try:
            scratch.rename(folder)
        except OSError:
            shutil.rmtree(scratch)  # another process was faster, with the same seed
    return (
        AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32),
        AutoTokenizer.from_pretrained(folder),
    )


def character_tokenizer(vocabulary: str) -> Any:
    """One token a character, <s> before every text; it loads with plain `from_pretrained`."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    ids = {token: i for i, token in enumerate([*SPECIAL, *dict.fromkeys(vocabulary)])}
    tokenizer = Tokenizer(models.WordLevel(ids, unk_token=SPECIAL[0]))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")
    tokenizer.decoder = decoders.Fuse()
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", bos_token="<s>", eos_token="</s>")


def small_llama(vocabulary: int, settings: PolicySettings, seed: int) -> Any:
    """A Llama of `tiny_layers` layers and `tiny_width` channels with random weights."""
    from transformers import LlamaConfig, LlamaForCausalLM

    width = settings.tiny_width
    config = LlamaConfig(
        vocab_size=vocabulary, hidden_size=width, intermediate_size=4 * width, num_hidden_layers=settings.tiny_layers,
        num_attention_heads=4, num_key_value_heads=4, max_position_embeddings=CONTEXT, tie_word_embeddings=True,
        pad_token_id=0, bos_token_id=1, eos_token_id=2,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return LlamaForCausalLM(config)


def pretrain(model: Any, tokenizer: Any, task: Worked, steps: int, seed: int) -> Any:
    """Fit worked solutions of training problems: cross-entropy on completions alone, AdamW, a short cosine."""
    optimiser = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, betas=(0.9, 0.95), weight_decay=0.01)
    rng, examples = random.Random(seed), task.examples("train")
    prompts = [tokenizer(example.prompt)["input_ids"] for example in examples]
    model.train()
    with progress.track("pre-training the tiny policy", steps) as advance:
        for step in range(steps):
            for group in optimiser.param_groups:
                group["lr"] = LEARNING_RATE * min(1.0, (step + 1) / 30) * (1.05 + math.cos(math.pi * step / steps)) / 2.05
            chosen = [rng.randrange(len(examples)) for _ in range(BATCH)]
            worked = [tokenizer(task.worked(examples[i], rng))["input_ids"][1:] + [2] for i in chosen]
            ids, labels = _batch([(prompts[i], ids) for i, ids in zip(chosen, worked, strict=True)])
            loss = model(input_ids=ids, labels=labels).loss
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)
            advance(1, f"loss {float(loss.detach()):.3f}")
    return model


def _batch(rows: Sequence[tuple[list[int], list[int]]]) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids and labels (B, L), padded on the right; labels are -100 off the completions."""
    longest = max(len(prompt) + len(completion) for prompt, completion in rows)
    ids = [[*prompt, *completion] + [0] * (longest - len(prompt) - len(completion)) for prompt, completion in rows]
    labels = [
        [-100] * len(prompt) + completion + [-100] * (longest - len(prompt) - len(completion))
        for prompt, completion in rows
    ]
    return torch.tensor(ids), torch.tensor(labels)


def _demand_known(task: Worked) -> None:
    known = set(task.vocabulary)
    for example in task.examples("train"):
        unknown = set(str(example.prompt)) - known
        if unknown:
            raise ValueError(f"problem {example.id}: {sorted(unknown)[0]!r} is not in the task's vocabulary")


def _digest(settings: PolicySettings, task: Worked, seed: int) -> str:
    """A name for settings, seed and problems."""
    sizes = [settings.tiny_layers, settings.tiny_width, settings.tiny_steps, seed, CONTEXT, BATCH, LEARNING_RATE]
    worked = [task.worked(example, random.Random(0)) for example in task.examples("train")[:50]]
    problems = [example.prompt for example in task.examples("train")]
    text = json.dumps([sizes, task.vocabulary, problems, worked])
    return hashlib.sha256(text.encode()).hexdigest()[:12]
