"""What a student is trained to minimise: the teacher's softened distribution where it taught, labels elsewhere."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from serm.relevance.cross_encoder import CrossEncoder
from serm.relevance.examples import Examples
from serm.relevance.generative import GenerativeModel
from serm.relevance.generative_training import LabelsAndRationales, Precision, trainable
from serm.relevance.loop import Plan, Trained, minimise
from serm.relevance.losses import SMALLEST, label_losses
from serm.relevance.training import Labels


def teaching_losses(logits: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """T² KL(softmax(log p / T) || softmax(z / T)) for each row: (B,), at least 0.

    Hinton, Vinyals and Dean (2015, arXiv 1503.02531), section 2: both distributions are softened by the temperature T,
    and T² keeps the gradient's size whatever T is. A teacher that gives probabilities p has log p for logits.

    Args:
        logits: (B, |Y|), the student's, up to a constant a row.
        teacher: (B, |Y|), Pr(y | q, d), rows sum to 1.
    """
    wanted = (teacher.clamp_min(SMALLEST).log() / temperature).log_softmax(dim=-1)
    given = (logits / temperature).log_softmax(dim=-1)
    return temperature**2 * (wanted.exp() * (wanted - given)).sum(dim=-1)


def mixed_losses(logits: Tensor, targets: Tensor, taught: Tensor, temperature: float) -> Tensor:
    """The teacher's loss for rows that it `taught` (boolean, (B,)), −log Pr(label) for the others: (B,)."""
    labelled = label_losses(logits.log_softmax(dim=-1), targets, torch.zeros_like(taught))
    return torch.where(taught, teaching_losses(logits, targets, temperature), labelled)


class TaughtClassifier(Labels):
    """A cross-encoder that learns from a teacher and from labels (Objective): K = 1."""

    def __init__(self, model: CrossEncoder, examples: Examples, taught: NDArray[np.bool_], temperature: float) -> None:
        super().__init__(model, examples)
        self._taught, self._temperature = taught, temperature

    def sums(self, rows: Sequence[int]) -> Tensor:
        """The rows' weighted losses together: (1,)."""
        logits = self._model.forward([self._encodings[row] for row in rows])
        targets, _, weights = self._examples.tensors(rows, self.device)
        taught = torch.from_numpy(self._taught[rows]).to(self.device)
        return (mixed_losses(logits, targets, taught, self._temperature) * weights).sum(dim=0, keepdim=True)


class TaughtWriter(LabelsAndRationales):
    """A generative model that learns from a teacher and from labels (Objective): K = 2, the second 0.

    As in its own training, `label_mass_weight` keeps the labels what it says by itself.
    """

    def __init__(
        self, model: GenerativeModel, examples: Examples, precision: Precision, taught: NDArray[np.bool_],
        temperature: float,
    ) -> None:  # fmt: skip
        super().__init__(model, examples, precision)
        self._taught, self._temperature = taught, temperature

    def sums(self, rows: Sequence[int]) -> Tensor:
        """The rows' weighted losses together, and 0: (2,)."""
        targets, _, weights = self._examples.tensors(rows, self.device)
        taught = torch.from_numpy(self._taught[rows]).to(self.device)
        logs, _ = self._precision(lambda: self._forward(rows))()
        losses = mixed_losses(logs, targets, taught, self._temperature)
        losses = losses - self._model.settings.label_mass_weight * torch.logsumexp(logs, dim=-1)
        return torch.stack([losses @ weights, torch.zeros((), device=self.device)])


def fit(
    student: CrossEncoder | GenerativeModel, examples: Examples, taught: NDArray[np.bool_], temperature: float,
    plan: Plan, dev: Callable[[], float] | None = None, checkpoint: Path | None = None,
) -> Trained:  # fmt: skip
    """Train the student in place; `examples.targets` hold the teacher's probabilities where `taught`, else labels.

    Raises:
        TrainingError: the loss or its gradient is not a number.
    """
    if isinstance(student, CrossEncoder):
        return minimise(TaughtClassifier(student, examples, taught, temperature), plan, dev, checkpoint)
    with trainable(student, plan.seed) as precision:
        objective = TaughtWriter(student, examples, precision, taught, temperature)
        return minimise(objective, plan, None if dev is None else precision(dev), checkpoint)
