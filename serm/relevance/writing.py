"""Text that a network writes, by the rollout engine of sps: a function of seed, prompt and place in the list.

Prompts are read once for all their samples, and how they are cut into batches changes nothing.
"""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, cast

import torch

from sps.config import RolloutSettings
from sps.policy import Policy
from sps.rollout.protocol import Sampling
from sps.rollout.transformers_engine import TransformersEngine


@dataclass(frozen=True)
class Written:
    """A text and its tokens; `finished`: the model ended it by itself."""

    ids: list[int]
    text: str
    finished: bool


class _Writer:
    """As much of a policy as sampling needs, for networks that sps could not train."""

    def __init__(self, network: Any, tokenizer: Any) -> None:
        self.model, self.network, self.tokenizer = network, network, tokenizer
        self.eos_ids = ends(network.generation_config, tokenizer)
        self.device: torch.device = next(network.parameters()).device
        self.context = context_of(network.config)

    def precision(self) -> AbstractContextManager[object]:
        return nullcontext()

    def decode(self, ids: Sequence[int]) -> str:
        text: str = self.tokenizer.decode(list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return text


def write(
    network: Any,
    tokenizer: Any,
    prompts: Sequence[Sequence[int]],
    samples: int,
    limit: int,
    temperature: float,
    seed: int,
    tokens: int,
) -> list[list[Written]]:
    """`samples` texts of at most `limit` tokens after every prompt; temperature 0 takes the likeliest tokens.

    tokens: prompts and texts that are in memory at a time hold at most so many, but for a longer row.
    """
    if not prompts:
        return []
    writer = _Writer(network, tokenizer)
    rows = max(1, tokens // (max(map(len, prompts)) + limit))
    engine = TransformersEngine(cast(Policy, writer), RolloutSettings(rows=rows))
    sampling = Sampling(limit, temperature or 1.0, top_k=0 if temperature else 1, seed=seed)
    groups = engine.generate(prompts, samples, sampling)
    return [[written(tokenizer, one.token_ids, writer.eos_ids) for one in group] for group in groups]


def written(tokenizer: Any, ids: Sequence[int], end: set[int]) -> Written:
    """A text of these tokens, without the end-of-text token that may close them."""
    finished = bool(ids) and ids[-1] in end
    kept = list(ids[:-1] if finished else ids)
    text: str = tokenizer.decode(kept, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    return Written(kept, text, finished)


def ends(generation_config: Any, tokenizer: Any) -> set[int]:
    """Every token that ends a text, by the model or by the tokenizer; none where neither names one."""
    given = generation_config.eos_token_id if generation_config is not None else None
    return set(_flat([*(given if isinstance(given, list) else [given]), tokenizer.eos_token_id]))


def context_of(config: Any) -> int:
    """Most tokens of a text that the network can place; 2^31 where it names no limit."""
    values = config.get_text_config().to_dict()
    return int(values.get("max_position_embeddings") or values.get("n_positions") or 2**31)


def _flat(values: Sequence[int | None]) -> Iterator[int]:
    return (int(value) for value in values if value is not None)
