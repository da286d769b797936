"""What a generative model learns from a pair: the label first, then the rationale; nothing of the prompt.

The label loss is taken on Pr(y | q, d) renormalised over the scale, as scores read it, plus `label_mass_weight` times
−log of the probability that the labels have together. At weight 1, the default, that is plain next-token −log Pr(label)
exactly, for a hard label of any number of tokens: −log p_y − log M = −log(p_y M). It keeps the label what the model
says by itself, which samplers and servers that show only the likeliest tokens need; at 0 only what scores read is
trained (the split is ours). The rationale loss is the mean over all rationale tokens of an optimiser step.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import cross_entropy

from serm.relevance.device import autocast
from serm.relevance.examples import Examples
from serm.relevance.generative import END_OF_LABEL, GenerativeModel
from serm.relevance.losses import label_losses, ordinal_losses

Precision = Callable[[Callable[[], Any]], Callable[[], Any]]  # a function that runs another in training's precision


class LabelsAndRationales:
    """The label loss and the rationale loss of a generative model (Objective): K = 2."""

    def __init__(self, model: GenerativeModel, examples: Examples, precision: Precision) -> None:
        """Tokenise prompts and rationales; a rationale follows the likeliest label of its target."""
        self.network, self.device = model.network, model.device
        self._model, self._examples, self._precision = model, examples, precision
        self._prompts = model.prompts(examples.queries, examples.documents)
        self._labels = examples.targets.argmax(axis=1)
        self._tails = rationale_ids(model, examples.rationales)
        longest = max(len(label) for label in model.labels)
        self.lengths = np.array(
            [len(prompt) + longest + len(tail) for prompt, tail in zip(self._prompts, self._tails, strict=True)]
        )

    def weight(self, rows: Sequence[int]) -> NDArray[np.float64]:
        """The rows' weights together, and those of their rationale tokens: (2,)."""
        weights = self._examples.weights[rows].astype(np.float64)
        return np.array([weights.sum(), weights @ [len(self._tails[row]) for row in rows]])

    def sums(self, rows: Sequence[int]) -> torch.Tensor:
        """Weighted label losses, and weighted −log Pr of rationale tokens times `rationale_weight`: (2,)."""
        settings = self._model.settings
        targets, seen, weights = self._examples.tensors(rows, self.device)
        logs, rationales = self._precision(lambda: self._forward(rows))()
        mass = torch.logsumexp(logs, dim=-1)
        log_probs = logs - mass[:, None]
        losses = label_losses(log_probs, targets, seen) - settings.label_mass_weight * mass
        if settings.ordinal_weight:
            losses = losses + settings.ordinal_weight * ordinal_losses(log_probs, targets, self._model.scale)
        return torch.stack([losses @ weights, settings.rationale_weight * (rationales @ weights)])

    def _forward(self, rows: Sequence[int]) -> tuple[torch.Tensor, torch.Tensor]:
        """log Pr of every label's tokens (B, |Y|), and −log Pr of the rationale's after the row's own label (B,).

        One pass for each different beginning of a label, as in scoring; the rationale goes along with its own label's.
        """
        labels = self._model.labels
        logs = [torch.empty(0)] * len(labels)
        rationales = torch.zeros(len(rows), device=self.device)
        for beginning in sorted({tuple(label[:-1]) for label in labels}):
            befores, afters = [], []
            for row in rows:
                label, tail = labels[self._labels[row]], self._tails[row]
                befores.append([*self._prompts[row], *beginning])
                afters.append([label[-1], *tail] if tail and tuple(label[:-1]) == beginning else [])
            steps = len(beginning) + 1
            logits = self._logits(befores, afters, steps)  # (B, steps + longest of afters, V)
            scores = torch.log_softmax(logits[:, :steps].float(), dim=-1)
            for column, label in enumerate(labels):
                if tuple(label[:-1]) == beginning:
                    logs[column] = torch.stack([scores[:, step, token] for step, token in enumerate(label)]).sum(dim=0)
            if any(afters):
                rationales = rationales + self._tail_losses(logits[:, steps:], afters)
        return torch.stack(logs, dim=1), rationales

    def _logits(self, befores: list[list[int]], afters: list[list[int]], steps: int) -> torch.Tensor:
        """Logits after the last `steps` tokens of `befores` and after every token of `afters`.

        Rows meet between the two: what comes before is padded on the left, what comes after on the right.
        """
        left, right = max(map(len, befores)), max(map(len, afters))
        ids = np.zeros((len(befores), left + right), dtype=np.int64)
        mask = np.zeros_like(ids)
        for row, (before, after) in enumerate(zip(befores, afters, strict=True)):
            ids[row, left - len(before) : left + len(after)] = before + after
            mask[row, left - len(before) : left + len(after)] = 1
        output = self.network(
            input_ids=torch.from_numpy(ids).to(self.device),
            attention_mask=torch.from_numpy(mask).to(self.device),
            position_ids=torch.from_numpy((mask.cumsum(axis=1) - 1).clip(min=0)).to(self.device),
            logits_to_keep=steps + right,
            use_cache=False,
        )
        return output.logits  # type: ignore[no-any-return]

    def _tail_losses(self, logits: torch.Tensor, afters: list[list[int]]) -> torch.Tensor:
        """−log Pr of each row's tokens after its first, (B,); `logits` (B, longest, V) follow every token."""
        places = [(row, step, token) for row, after in enumerate(afters) for step, token in enumerate(after[1:])]
        row, step, token = torch.tensor(places, device=self.device).T
        losses = cross_entropy(logits[row, step].float(), token, reduction="none")
        return torch.zeros(len(afters), device=self.device).index_add(0, row, losses)


def rationale_ids(model: GenerativeModel, rationales: Sequence[str]) -> list[list[int]]:
    """What follows the label: a line's end, the rationale and the text's end; nothing for an empty rationale.

    At most `rationale_tokens` tokens of the rationale are kept; one that was cut has no end.
    """
    settings, tokenizer = model.settings, model.tokenizer
    if not settings.rationale_weight:
        return [[] for _ in rationales]
    end = [] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id]
    separated = str(tokenizer.decode(model.labels[0])).endswith(END_OF_LABEL)
    before = [] if separated else list(tokenizer(END_OF_LABEL, add_special_tokens=False).input_ids)
    tails: list[list[int]] = []
    for text in rationales:
        ids = list(tokenizer(text.strip(), add_special_tokens=False).input_ids) if text.strip() else []
        whole = len(ids) <= settings.rationale_tokens
        tails.append([*before, *ids[: settings.rationale_tokens], *(end if whole else [])] if ids else [])
    return tails


@contextmanager
def trainable(model: GenerativeModel, seed: int) -> Iterator[Precision]:
    """Inside, the model's network can be trained: all weights in float32, or adapters in float32 on frozen weights.

    Products are taken in the precision that the model was loaded in. Afterwards the network is a plain one of that
    precision again, adapters merged: what is measured is what is saved.
    """
    settings, network = model.settings, model.network
    dtype = network.dtype
    if settings.lora is None:
        model.network = network.float()
    else:
        from sps.lora import adapt

        model.network = adapt(network, settings.lora, seed)
    if settings.gradient_checkpointing:
        network.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})

    def precision(run: Callable[[], Any]) -> Callable[[], Any]:
        def inside() -> Any:
            with autocast(model.device, dtype):
                return run()

        return inside

    try:
        yield precision
    finally:
        if settings.gradient_checkpointing:
            network.gradient_checkpointing_disable()
        plain: Any = network if settings.lora is None else model.network.merge_and_unload()
        model.network = plain.to(dtype).eval().requires_grad_(True)
