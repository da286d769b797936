"""Hidden states of completions, each prompt read once for all its completions.

A group's completions share their prompt: its keys and values are computed once and, gradients and all, handed to every
row. Where prompts are as long as completions that halves the work of a training step, and the activations kept for it.
"""

from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache


def hidden_before(body: Any, input_ids: Tensor, attention_mask: Tensor, targets: Tensor, share: bool) -> Tensor:
    """The last hidden state (N, H) before every target, packed in row-major order.

    body: a transformers network without its head. input_ids (B, L) int64 padded on the right, attention_mask (B, L),
    targets (B, L) bool: in every row True on the completion, from its first token to its last, and nowhere else.
    share: read equal prompts once; the values are those of reading each row whole, but for rounding. Ours.
    """
    if share:
        starts = targets.int().argmax(dim=1)  # (B,) tokens of each row's prompt
        prompts, source = _distinct(input_ids, starts)
        if len(prompts) < len(input_ids):
            return _shared(body, input_ids, targets, starts, prompts, source)
    output = body(input_ids=input_ids, attention_mask=attention_mask, use_cache=False)
    return output.last_hidden_state[:, :-1][targets[:, 1:]]


def _distinct(input_ids: Tensor, starts: Tensor) -> tuple[Tensor, Tensor]:
    """Distinct prompts (P, longest), -1 where they have ended, and which of them each row has: (B,)."""
    longest = int(starts.max())
    inside = torch.arange(longest, device=starts.device) < starts[:, None]
    prompts, source = torch.unique(input_ids[:, :longest].where(inside, -1), dim=0, return_inverse=True)
    return prompts, source


def _shared(body: Any, input_ids: Tensor, targets: Tensor, starts: Tensor, prompts: Tensor, source: Tensor) -> Tensor:
    known = prompts >= 0  # (P, longest)
    cache = DynamicCache(config=body.config)
    read = body(input_ids=prompts.clamp(min=0), attention_mask=known.long(), past_key_values=cache, use_cache=True)
    ends = known.sum(dim=1) - 1
    last = read.last_hidden_state[torch.arange(len(prompts), device=ends.device), ends]  # (P, H), before first targets

    # Completions moved to the left; the last token of each predicts nothing and is not fed.
    lengths = targets.sum(dim=1)
    steps = torch.arange(int(lengths.max()), device=starts.device)
    scored = steps < lengths[:, None]  # (B, T)
    hidden = last[source][:, None]
    if len(steps) > 1:
        places = (starts[:, None] + steps[:-1]).clamp(max=input_ids.shape[1] - 1)
        cache.batch_select_indices(source)
        fed = body(
            input_ids=input_ids.gather(1, places),
            attention_mask=torch.cat([known[source], scored[:, 1:]], dim=1).long(),
            position_ids=places,
            past_key_values=cache,
            use_cache=True,
        )
        hidden = torch.cat([hidden, fed.last_hidden_state], dim=1)
    return hidden[scored]
