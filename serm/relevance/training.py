"""Supervised training of either family on labels, soft or hard, and rationales."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray

from serm.relevance.cross_encoder import CrossEncoder
from serm.relevance.examples import Examples, TrainingError, examples_of
from serm.relevance.generative import GenerativeModel
from serm.relevance.generative_training import LabelsAndRationales, trainable
from serm.relevance.loop import Plan, Trained, minimise
from serm.relevance.losses import label_losses, ordinal_losses

__all__ = ["Examples", "Plan", "Trained", "TrainingError", "fit", "train"]


def train(
    model: CrossEncoder | GenerativeModel,
    pairs: pl.DataFrame,
    plan: Plan,
    dev: Callable[[], float] | None = None,
    checkpoint: Path | None = None,
    confusion: NDArray[np.float64] | None = None,
) -> Trained:
    """Train `model` in place on pairs [query, text, label, weight] and, where they are there, [agreed, posterior,
    rationale]; see `examples_of` for what they become and `fit` for the rest.

    Raises:
        TrainingError: the pairs cannot be used, or the loss is not a number.
    """
    return fit(model, examples_of(pairs, model.scale, confusion, model.settings.class_balance), plan, dev, checkpoint)


def fit(
    model: CrossEncoder | GenerativeModel,
    examples: Examples,
    plan: Plan,
    dev: Callable[[], float] | None = None,
    checkpoint: Path | None = None,
) -> Trained:
    """Minimise the mean label loss over examples, in place.

    With `dev` the weights of the best dev value are kept, and training stops after `plan.patience` values without a
    better one. With `checkpoint` the run goes on from that file if it is there, and leaves it to the caller to delete.

    Raises:
        TrainingError: the loss or its gradient is not a number.
    """
    if isinstance(model, CrossEncoder):
        return minimise(Labels(model, examples), plan, dev, checkpoint)
    with trainable(model, plan.seed) as precision:
        objective = LabelsAndRationales(model, examples, precision)
        return minimise(objective, plan, None if dev is None else precision(dev), checkpoint)


class Labels:
    """The label loss of a cross-encoder, with the ordinal loss beside it where the settings give it weight."""

    def __init__(self, model: CrossEncoder, examples: Examples) -> None:
        """Encode the pairs."""
        self.network, self.device = model.network, model.device
        self._model, self._examples = model, examples
        self._encodings = model.encode(examples.queries, examples.documents)
        self.lengths = np.array([len(ids) for ids, _ in self._encodings])

    def weight(self, rows: Sequence[int]) -> NDArray[np.float64]:
        """The rows' weights together: (1,)."""
        return self._examples.weights[rows].sum(dtype=np.float64, keepdims=True)

    def sums(self, rows: Sequence[int]) -> torch.Tensor:
        """The rows' weighted losses together: (1,)."""
        log_probs = self._model.forward([self._encodings[row] for row in rows]).log_softmax(dim=-1)
        targets, seen, weights = self._examples.tensors(rows, self.device)
        losses = label_losses(log_probs, targets, seen)
        if self._model.settings.ordinal_weight:
            losses = losses + self._model.settings.ordinal_weight * ordinal_losses(
                log_probs, targets, self._model.scale
            )
        return (losses * weights).sum(dim=0, keepdim=True)
