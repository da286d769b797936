"""Sampling with transformers, from the very module that is trained.

Each prompt is prefilled once and its key-value cache copied to the whole group; rows that have stopped leave the cache,
so that they cost nothing; prompts of like length share a batch. Every completion has random numbers of its own, a
function of the seed, the prompt's number and the sample's number: how the work is cut into batches does not matter.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, DynamicCache

from sps.config import RolloutSettings
from sps.policy import Policy
from sps.records import Completion
from sps.rollout.distribution import draw, sampled_from
from sps.rollout.protocol import Sampling, check_prompts
from sps.rollout.weights import plain_parameters


@dataclass(frozen=True)
class Share:
    """Samples `first` to `first + count - 1` of a prompt."""

    prompt: int
    first: int
    count: int


class TransformersEngine:
    """Samples in process, with the policy's own module or a copy of it."""

    def __init__(self, policy: Policy, settings: RolloutSettings, own_copy: bool = False) -> None:
        """Sample from `policy`, at most `settings.rows` completions at once.

        Args:
            own_copy: keep a whole model apart, which `update` loads: for a policy whose weights are sharded, so that
                processes sample each at its own pace. Every process must then make its engine.
        """
        self.policy = policy
        self.rows = settings.rows
        self.own_copy = own_copy
        self.model: Any = policy.model
        if own_copy:
            config = policy.network.config
            with torch.device(policy.device), torch.random.fork_rng():
                self.model = AutoModelForCausalLM.from_config(
                    config, dtype=torch.float32, attn_implementation=config._attn_implementation
                )
            self.update(policy)

    def generate(self, prompts: Sequence[Sequence[int]], samples: int, sampling: Sampling) -> list[list[Completion]]:
        """`samples` completions of every prompt; see `Engine.generate`."""
        check_prompts(prompts, sampling.max_tokens, self.policy.context)
        groups: list[list[Completion]] = [[] for _ in prompts]
        with _evaluating(self.model), torch.no_grad(), self.policy.precision():
            for shares in batches([len(prompt) for prompt in prompts], samples, self.rows):
                completions = iter(self._batch(prompts, shares, samples, sampling))
                for share in shares:
                    groups[share.prompt] += [next(completions) for _ in range(share.count)]
        return groups

    def update(self, policy: Policy) -> None:
        """Load the policy's weights into the copy; the shared module has them already.

        With a sharded policy every process must call this.
        """
        if self.own_copy:
            mine = dict(self.model.named_parameters())
            with torch.no_grad():
                for name, weight in plain_parameters(policy):
                    mine[name].copy_(weight)

    def close(self) -> None:
        """Let go of the model."""
        self.model = None

    def _batch(
        self, prompts: Sequence[Sequence[int]], shares: Sequence[Share], samples: int, sampling: Sampling
    ) -> list[Completion]:
        """Completions of a batch's shares, in their order; R rows in all, L tokens in the longest prompt."""
        device, limit = self.policy.device, sampling.max_tokens
        uniforms = _uniforms(shares, samples, sampling).to(device)  # (R, limit)
        ends = torch.tensor(sorted(self.policy.eos_ids), device=device)
        ids, mask = _left_padded([prompts[share.prompt] for share in shares], device)  # (len(shares), L)
        cache = DynamicCache(config=self.model.config)
        logits = self._logits(ids, mask, (mask.cumsum(dim=1) - 1).clamp(min=0), cache)

        counts = torch.tensor([share.count for share in shares], device=device)
        source = torch.arange(len(shares), device=device).repeat_interleave(counts)
        cache.batch_select_indices(source)
        logits, mask = logits[source], mask[source]
        position = mask.sum(dim=1, keepdim=True)  # (rows alive, 1): of the token that is fed next

        rows = len(source)
        tokens = torch.zeros(rows, limit, dtype=torch.long, device=device)
        chosen = torch.zeros(rows, limit, dtype=torch.float32, device=device)
        lengths = torch.full((rows,), limit, device=device)
        finished = torch.zeros(rows, dtype=torch.bool, device=device)
        alive = torch.arange(rows, device=device)
        for step in range(limit):
            logprobs = sampled_from(logits, sampling)
            token = draw(logprobs, uniforms[alive, step])
            tokens[alive, step] = token
            chosen[alive, step] = logprobs.gather(1, token[:, None])[:, 0]
            ended = torch.isin(token, ends)
            if ended.any():
                lengths[alive[ended]] = step + 1
                finished[alive[ended]] = True
                kept = (~ended).nonzero()[:, 0]
                alive, token, mask, position = alive[kept], token[kept], mask[kept], position[kept]
                cache.batch_select_indices(kept)
            if step + 1 == limit or not len(alive):
                break
            mask = torch.cat([mask, mask.new_ones(len(alive), 1)], dim=1)
            logits = self._logits(token[:, None], mask, position, cache)
            position = position + 1
        return self._completions(tokens.tolist(), chosen.tolist(), lengths.tolist(), finished.tolist())

    def _logits(self, ids: Tensor, mask: Tensor, positions: Tensor, cache: DynamicCache) -> Tensor:
        """Logits of the token after the last: (rows, V). `mask` covers what is cached too."""
        output = self.model(
            input_ids=ids,
            attention_mask=mask,
            position_ids=positions,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
        return output.logits[:, -1]

    def _completions(
        self, tokens: list[list[int]], logprobs: list[list[float]], lengths: list[int], finished: list[bool]
    ) -> list[Completion]:
        rows = zip(tokens, logprobs, lengths, finished, strict=True)
        return [
            Completion(row[:length], values[:length], ended, self.policy.decode(row[:length]))
            for row, values, length, ended in rows
        ]


def batches(lengths: Sequence[int], samples: int, rows: int) -> Iterator[list[Share]]:
    """Cut `samples` completions of every prompt into batches of at most `rows`, longest prompts first.

    Args:
        lengths: tokens of each prompt.

    A group that a batch cannot hold whole goes on in the next, where its prompt is prefilled again.
    """
    batch: list[Share] = []
    room = rows
    for prompt in sorted(range(len(lengths)), key=lambda prompt: -lengths[prompt]):
        first = 0
        while first < samples:
            count = min(room, samples - first)
            batch.append(Share(prompt, first, count))
            first, room = first + count, room - count
            if not room:
                yield batch
                batch, room = [], rows
    if batch:
        yield batch


def _uniforms(shares: Sequence[Share], samples: int, sampling: Sampling) -> Tensor:
    """A row of numbers in [0, 1) for each completion: (R, max_tokens) float64."""
    rows = []
    for share in shares:
        whole = np.random.default_rng([sampling.seed, share.prompt]).random((samples, sampling.max_tokens))
        rows.append(whole[share.first : share.first + share.count])
    return torch.from_numpy(np.concatenate(rows))


def _left_padded(prompts: Sequence[Sequence[int]], device: torch.device) -> tuple[Tensor, Tensor]:
    """Ids and mask, (prompts, L) int64: padded on the left, every prompt's last token is in the last column."""
    longest = max(len(prompt) for prompt in prompts)
    ids = torch.tensor([[0] * (longest - len(prompt)) + list(prompt) for prompt in prompts])
    mask = torch.tensor([[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts])
    return ids.to(device), mask.to(device)


@contextmanager
def _evaluating(model: Any) -> Iterator[None]:
    """Dropout off inside; the model's former mode afterwards."""
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)
