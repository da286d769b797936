"""Continued pre-training of a generative model on raw domain text, before it learns to judge (SERM's first step).

Texts are shuffled, closed by the end-of-text token and packed end to end into blocks of one length, so that no token is
padding; a text may see the one before it in its block, as is usual in pre-training.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from serm.relevance.examples import TrainingError
from serm.relevance.generative import GenerativeModel
from serm.relevance.generative_training import Precision, trainable
from serm.relevance.loop import Plan, Trained, minimise
from sps.lm_head import demand_plain_head, token_stats

HEAD_CHUNK = 1_024  # tokens whose logits are in memory at once
TOKENIZER_CHUNK = 10_000


def pretrain(model: GenerativeModel, texts: Sequence[str], plan: Plan, checkpoint: Path | None = None) -> Trained:
    """Train `model` in place on the next token of texts, `plan.batch_pairs` blocks of `pretrain_tokens` a step.

    `plan.seed` draws the texts' order. Checkpoints are as in `minimise`.

    Raises:
        TrainingError: the texts do not fill one block, or the loss is not a number.
        ValueError: the model's logits are not its head's product alone.
    """
    blocks = pack(model, texts, model.settings.pretrain_tokens, plan.seed)
    with trainable(model, plan.seed) as precision:
        return minimise(Blocks(model, blocks, precision), plan, None, checkpoint)


def pack(model: GenerativeModel, texts: Sequence[str], length: int, seed: int) -> NDArray[np.int32]:
    """Token ids of whole blocks, (n, length); what is left over at the end is dropped.

    Raises:
        TrainingError: there is not one whole block.
    """
    tokenizer = model.tokenizer
    end = [] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id]
    order = np.random.default_rng(seed).permutation(len(texts))
    parts: list[NDArray[np.int32]] = []
    for start in range(0, len(order), TOKENIZER_CHUNK):
        chunk = [texts[place] for place in order[start : start + TOKENIZER_CHUNK]]
        ids = tokenizer(chunk, add_special_tokens=False, return_attention_mask=False).input_ids
        parts.append(np.fromiter((token for text in ids for token in (*text, *end)), dtype=np.int32))
    tokens = np.concatenate(parts) if parts else np.empty(0, dtype=np.int32)
    if len(tokens) < length:
        raise TrainingError(
            f"{len(texts)} texts have {len(tokens)} tokens, not one block of relevance.pretrain_tokens ({length}); "
            "ingest more documents, or set relevance.pretrain_epochs to 0"
        )
    return tokens[: len(tokens) // length * length].reshape(-1, length)


class Blocks:
    """−log Pr of every token of a block but its first (Objective): K = 1."""

    def __init__(self, model: GenerativeModel, blocks: NDArray[np.int32], precision: Precision) -> None:
        """Bind blocks (n, T) to a model whose weights can be trained."""
        self.network, self.device = model.network, model.device
        self.lengths = np.full(len(blocks), blocks.shape[1])
        self._blocks, self._precision = blocks, precision
        self._plain = model.network if model.settings.lora is None else model.network.get_base_model()
        demand_plain_head(self._plain, self._plain.base_model, self._plain.get_output_embeddings())

    def weight(self, rows: Sequence[int]) -> NDArray[np.float64]:
        """The number of tokens to predict: (1,)."""
        return np.array([len(rows) * (self._blocks.shape[1] - 1)], dtype=np.float64)

    def sums(self, rows: Sequence[int]) -> torch.Tensor:
        """−log Pr of all of them: (1,)."""
        ids = torch.from_numpy(self._blocks[list(rows)].astype(np.int64)).to(self.device)  # (B, T)
        losses: Callable[[], torch.Tensor] = self._precision(lambda: self._losses(ids))
        return losses().sum(dim=0, keepdim=True)

    def _losses(self, ids: torch.Tensor) -> torch.Tensor:
        hidden = self._plain.base_model(input_ids=ids, use_cache=False).last_hidden_state[:, :-1]
        head = self._plain.get_output_embeddings()
        stats = token_stats(
            hidden.flatten(0, 1), head.weight, head.bias, ids[:, 1:].flatten(), 1.0, HEAD_CHUNK, with_entropy=False
        )
        return -stats.logprobs
