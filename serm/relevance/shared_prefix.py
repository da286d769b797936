"""Label log-probabilities by transformers, each beginning of a prompt read once for all prompts that have it.

A query's candidates share the keys and values of instructions and query; a query with one candidate shares those of the
instructions. Prefixes that are read together are equally long and what follows is padded on the right: every token
keeps its place, so that the result is that of reading each prompt whole, for windowed attention and absolute positions
too. A network whose cache holds more than keys and values reads each prompt whole.
"""

import copy
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

from serm.relevance.batches import call_cost, cut
from serm.relevance.prompts import Prompt


@dataclass(frozen=True)
class Block:
    """Prompts whose prefixes are read together; `source[i]` says which of `prefixes` row `rows[i]` has."""

    prefixes: list[tuple[int, ...]]
    rows: list[int]
    source: list[int]


def label_logs(
    network: Any,
    prompts: Sequence[Prompt],
    labels: Sequence[Sequence[int]],
    tokens: int,
    advance: Callable[[int], None] = lambda _: None,
) -> NDArray[np.float64]:
    """log Pr(tokens of y | prompt), not renormalised: (n, |Y|).

    tokens: at most so many tokens, cached ones and padding included, are in memory at a time, twice; `advance` is told
    how many prompts are done.
    """
    device = next(network.parameters()).device
    cost = call_cost(device)
    result = np.empty((len(prompts), len(labels)))
    longest = max(len(label) for label in labels) - 1
    with torch.inference_mode():
        for block in plan(prompts, tokens, shares(network)):
            length = len(block.prefixes[0])
            cache = _read(network, block.prefixes, prompts[block.rows[0]].instructions)
            rest = [prompts[row].ids[length:] for row in block.rows]
            for batch in cut([len(ids) + longest for ids in rest], tokens, cost, length):
                ids = [rest[i] for i in batch]
                source = torch.tensor([block.source[i] for i in batch], device=device)
                found = batch_logs(network, ids, labels, partial(_select, cache, source))
                result[[block.rows[i] for i in batch]] = found.double().cpu().numpy()
                advance(len(batch))
    return result


def batch_logs(
    network: Any,
    sequences: Sequence[Sequence[int]],
    labels: Sequence[Sequence[int]],
    cache: Callable[[], DynamicCache | None] = lambda: None,
) -> Tensor:
    """log Pr(tokens of y | sequence) of one padded batch, in float32: (B, |Y|).

    cache: makes the keys and values of what stands before the sequences, anew for each pass. Labels that differ in
    their last token alone cost one pass together, others one more pass for each different beginning.
    """
    device = next(network.parameters()).device
    columns: list[Tensor] = [torch.empty(0)] * len(labels)
    for beginning in sorted({tuple(label[:-1]) for label in labels}):
        ends = np.array([len(sequence) for sequence in sequences])
        places = ends[:, None] - 1 + np.arange(len(beginning) + 1)  # (B, steps)
        logits = _logits(network, [[*sequence, *beginning] for sequence in sequences], places, cache())
        total = logits.logsumexp(dim=-1)  # (B, steps)
        for column, label in enumerate(labels):
            if tuple(label[:-1]) == beginning:
                steps = torch.arange(len(label), device=device)
                columns[column] = (logits[:, steps, torch.tensor(label, device=device)] - total).sum(dim=1)
    return torch.stack(columns, dim=1)


def plan(prompts: Sequence[Prompt], tokens: int, share: bool) -> Iterator[Block]:
    """Blocks of equally long prefixes of at most `tokens` tokens together; without sharing, empty prefixes."""
    whole = Counter(prompt.shared for prompt in prompts)
    alone = sum(whole[prompt.shared] == 1 for prompt in prompts)
    groups: dict[int, dict[tuple[int, ...], list[int]]] = {}
    for row, prompt in enumerate(prompts):
        if not share:
            kept = 0
        elif whole[prompt.shared] > 1:
            kept = len(prompt.shared)
        else:
            kept = prompt.instructions if alone > 1 else 0
        groups.setdefault(kept, {}).setdefault(prompt.shared[:kept], []).append(row)
    for kept, rows_of in sorted(groups.items()):
        prefixes = list(rows_of)
        size = max(1, tokens // max(1, kept))
        for start in range(0, len(prefixes), size):
            part = prefixes[start : start + size]
            rows = [row for prefix in part for row in rows_of[prefix]]
            source = [number for number, prefix in enumerate(part) for _ in rows_of[prefix]]
            yield Block(part, rows, source)


def shares(network: Any) -> bool:
    """Whether this network's cache is keys and values alone, which can be handed from one prompt to another."""
    layers = DynamicCache(config=network.config).layers
    return bool(layers) and all(type(layer) in (DynamicLayer, DynamicSlidingWindowLayer) for layer in layers)


def _read(network: Any, prefixes: Sequence[tuple[int, ...]], instructions: int) -> DynamicCache | None:
    """Keys and values of equally long prefixes, their common instructions read once."""
    if not prefixes[0]:
        return None
    cache = DynamicCache(config=network.config)
    if 0 < instructions < len(prefixes[0]) and len(prefixes) > 1:
        _logits(network, [prefixes[0][:instructions]], np.zeros((1, 1), dtype=np.int64), cache)
        first = torch.zeros(len(prefixes), dtype=torch.long, device=next(network.parameters()).device)
        cache.batch_select_indices(first)
        prefixes = [prefix[instructions:] for prefix in prefixes]
    _logits(network, prefixes, np.zeros((len(prefixes), 1), dtype=np.int64), cache)
    return cache


def _select(cache: DynamicCache | None, source: Tensor) -> DynamicCache | None:
    """A cache of these rows of another, which stays as it is."""
    if cache is None:
        return None
    chosen = copy.copy(cache)
    chosen.layers = [copy.copy(layer) for layer in cache.layers]
    chosen.batch_select_indices(source)
    return chosen


def _logits(
    network: Any, sequences: Sequence[Sequence[int]], places: NDArray[np.int64], cache: DynamicCache | None
) -> Tensor:
    """Logits in float32 after the tokens at `places` (B, steps) of each sequence: (B, steps, V).

    Nothing follows what is padded, so no mask is needed; the head is applied at the places alone.
    """
    device = next(network.parameters()).device
    ids = np.zeros((len(sequences), max(map(len, sequences))), dtype=np.int64)
    for row, sequence in enumerate(sequences):
        ids[row, : len(sequence)] = sequence
    with _head_at(network, torch.from_numpy(places).to(device)):
        output = network(input_ids=torch.from_numpy(ids).to(device), past_key_values=cache, use_cache=cache is not None)
    logits: Tensor = output.logits
    return logits.float()


@contextmanager
def _head_at(network: Any, places: Tensor) -> Iterator[None]:
    """Inside, the head sees the hidden states at `places` (B, steps) alone; what follows the head stays the model's."""
    rows = torch.arange(len(places), device=places.device)[:, None]

    def gather(_module: Any, arguments: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return arguments[0][rows, places], *arguments[1:]

    hook = network.get_output_embeddings().register_forward_pre_hook(gather)
    try:
        yield
    finally:
        hook.remove()
