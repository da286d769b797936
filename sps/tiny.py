"""A small Llama over single characters, pre-trained on worked solutions in about a minute: a policy for a laptop.

It solves some problems often and most problems sometimes, as a pre-trained model does that reinforcement starts from.
"""

import hashlib
import json
import random
import shutil
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from sps.config import PolicySettings
from sps.progress import note, track
from sps.records import Example, Task

BOS, EOS, PAD, UNKNOWN = "<bos>", "<eos>", "<pad>", "<unk>"
_CONTEXT = 512
_ROWS = 64  # worked solutions per step
_LEARNING_RATE = 4e-3
_WARMUP = 30  # steps
_RECIPE = 1  # raised when the training below changes: models of earlier recipes are not taken from the cache


@runtime_checkable
class WorkedTask(Task, Protocol):
    """A task that can teach: it writes solutions out.

    Attributes:
        vocabulary: all characters of its terse prompts and of its solutions.
        terse: its prompts are in these characters now, not in words.
    """

    vocabulary: str
    terse: bool

    def worked(self, example: Example, rng: random.Random) -> str:
        """One worked solution, drawn at random; now and then a deliberately imperfect one."""


def pretrained_tiny(settings: PolicySettings, task: Task | None, seed: int, cache: Path) -> Path:
    """The folder under `cache` of the tiny model pre-trained for this task, settings and seed; made where it is absent.

    The folder's name is made of everything that goes into the model, every text it learns from included. It is whole or
    absent: a process that dies meanwhile leaves no half of it.

    Raises:
        ValueError: no task is given, it offers no worked solutions, its prompts are in words, or a text has a character
            outside its vocabulary.
    """
    if not isinstance(task, WorkedTask):
        name = "none" if task is None else task.name
        raise ValueError(
            f"policy.model tiny learns from a task's worked solutions; arithmetic and countdown offer them, not {name}"
        )
    if not task.terse:
        raise ValueError("policy.model tiny does not read words: set task.style to terse, or name another model")
    texts = worked_texts(task, settings.tiny_steps * _ROWS, seed)
    recipe = [
        _RECIPE, seed, settings.tiny_layers, settings.tiny_width, settings.tiny_steps, task.vocabulary, *texts,
    ]  # fmt: skip
    digest = hashlib.sha256(json.dumps(recipe).encode()).hexdigest()[:16]
    target = cache / f"tiny-{task.name}-{digest}"
    if target.exists():
        return target
    note(f"pre-training a tiny policy on {len(texts):,} worked solutions of {task.name}, once")
    scratch = cache / f".{target.name}.{uuid.uuid4().hex}"
    scratch.mkdir(parents=True)
    try:
        model, tokenizer = build(task.vocabulary, settings.tiny_layers, settings.tiny_width, seed)
        pretrain(model, tokenizer, texts, settings.tiny_steps, seed)
        model.save_pretrained(scratch)
        tokenizer.save_pretrained(scratch)
        _into_place(scratch, target)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return target


def worked_texts(task: WorkedTask, count: int, seed: int) -> list[tuple[str, str]]:
    """`count` pairs of a training problem's prompt and a worked solution; every problem equally often, but for one.

    Raises:
        ValueError: the task has no training problems, or their prompts are chat messages.
    """
    examples = task.examples("train")
    if not examples:
        raise ValueError(f"the task {task.name} has no training problems")
    rng = random.Random(f"worked-{seed}")
    texts: list[tuple[str, str]] = []
    while len(texts) < count:
        for example in rng.sample(examples, min(len(examples), count - len(texts))):
            if not isinstance(example.prompt, str):
                raise ValueError(f"{task.name}: the tiny policy takes prompts of text, not chat messages")
            texts.append((example.prompt, task.worked(example, rng)))
    return texts


def build(vocabulary: str, layers: int, width: int, seed: int) -> tuple[LlamaForCausalLM, PreTrainedTokenizerFast]:
    """An untrained Llama whose tokens are the characters of `vocabulary`, and its tokenizer.

    Raises:
        ValueError: the width is not a multiple of 8.
    """
    if width % 8:
        raise ValueError(f"policy.tiny_width {width}: give a multiple of 8")
    tokenizer = character_tokenizer(vocabulary)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=width, intermediate_size=3 * width, num_hidden_layers=layers,
        num_attention_heads=4, num_key_value_heads=4, max_position_embeddings=_CONTEXT, tie_word_embeddings=False,
        bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return LlamaForCausalLM(config), tokenizer


def character_tokenizer(vocabulary: str) -> PreTrainedTokenizerFast:
    """One token a character; texts begin with <bos>. Any other character becomes <unk>."""
    tokens = [PAD, BOS, EOS, UNKNOWN, *dict.fromkeys(vocabulary)]
    ids = {token: i for i, token in enumerate(tokens)}
    backend = Tokenizer(models.WordLevel(ids, unk_token=UNKNOWN))
    backend.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    backend.post_processor = processors.TemplateProcessing(single=f"{BOS} $A", special_tokens=[(BOS, ids[BOS])])
    backend.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token=BOS, eos_token=EOS, pad_token=PAD, unk_token=UNKNOWN,
        model_max_length=_CONTEXT, clean_up_tokenization_spaces=False,
    )  # fmt: skip


def pretrain(
    model: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    texts: Sequence[tuple[str, str]],
    steps: int,
    seed: int,
) -> None:
    """Cross-entropy on solutions given their prompts, `len(texts) / steps` of them a step, each text once.

    Raises:
        ValueError: a text has a character that the tokenizer does not know, or is longer than the context.
    """
    rows = [_encode(tokenizer, prompt, solution) for prompt, solution in texts]
    optimiser = torch.optim.AdamW(model.parameters(), lr=_LEARNING_RATE, betas=(0.9, 0.98), weight_decay=0.01)
    # Up in _WARMUP steps, then straight down to nothing at the end.
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimiser, lambda step: min((step + 1) / _WARMUP, (steps - step) / max(steps - _WARMUP, 1), 1.0)
    )
    model.train()
    with track("pre-training steps", steps) as advance:
        for step in range(steps):
            input_ids, labels = _batch(rows[step * len(rows) // steps : (step + 1) * len(rows) // steps])
            loss: Any = model(input_ids=input_ids, labels=labels).loss
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimiser.step()
            schedule.step()
            optimiser.zero_grad()
            advance(1)
    model.eval()


def _encode(tokenizer: PreTrainedTokenizerFast, prompt: str, solution: str) -> tuple[list[int], int]:
    """Tokens of a prompt, its solution and the end; and how many of them are the prompt's."""
    ids = list(tokenizer(prompt + solution).input_ids)
    if tokenizer.unk_token_id in ids:
        character = (prompt + solution)[ids.index(tokenizer.unk_token_id) - 1]
        raise ValueError(f"{character!r} in {prompt + solution!r} is not in the task's vocabulary")
    if len(ids) >= _CONTEXT:
        raise ValueError(f"a worked solution of {len(ids)} characters is longer than the tiny policy's {_CONTEXT}")
    return [*ids, int(tokenizer.eos_token_id)], 1 + len(prompt)


def _batch(rows: Sequence[tuple[list[int], int]]) -> tuple[Tensor, Tensor]:
    """input_ids padded on the right, and labels: -100, which the loss passes over, on prompt and padding; (B, L)."""
    length = max(len(ids) for ids, _ in rows)
    input_ids = torch.zeros(len(rows), length, dtype=torch.long)
    labels = torch.full((len(rows), length), -100)
    for row, (ids, prompt) in enumerate(rows):
        input_ids[row, : len(ids)] = torch.tensor(ids)
        labels[row, prompt : len(ids)] = torch.tensor(ids[prompt:])
    return input_ids, labels


def _into_place(scratch: Path, target: Path) -> None:
    """Rename the whole folder; where another process was faster, its model stays."""
    try:
        scratch.rename(target)
    except OSError:
        if not target.exists():
            raise
