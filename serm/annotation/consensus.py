"""One label from several annotators' stable labels: unanimous, majority or weighted, with a posterior. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median_low
from typing import Literal

import numpy as np

from serm.annotation.agreement import agree
from serm.annotation.dawid_skene import NONE, Reliability

Rule = Literal["unanimous", "majority", "weighted"]
HALF = 0.5


@dataclass(frozen=True)
class Consensus:
    """The rule of a run; `reliability` is None as long as nothing is measured: then no pair has a posterior."""

    rule: Rule
    ordinal: bool
    scale: Sequence[int]
    target_accuracy: float | None
    annotators: tuple[str, ...] = ()  # in the order of `reliability`
    reliability: Reliability | None = None

    def decide(self, stable: Mapping[str, int | None]) -> tuple[int | None, list[float] | None]:
        """The label to keep, or None for review; and P(label) over the scale, if the annotators are measured."""
        posterior = self._posterior(stable)
        label = self._label(stable, posterior)
        if label is None or posterior is None:
            return label, posterior
        needed = self.target_accuracy
        if needed is None:
            # Where annotators vote, their vote is the rule; a weighing keeps what is more likely right than wrong.
            sure = self.rule != "weighted" or self._mass(label, posterior) > HALF
        else:
            sure = self._mass(label, posterior) >= needed
        return label if sure else None, posterior

    def _label(self, stable: Mapping[str, int | None], posterior: list[float] | None) -> int | None:
        if self.rule == "weighted" and posterior is not None:
            return self._weighted(posterior)
        if self.rule == "majority":
            return majority(list(stable.values()), self.ordinal)
        return within_one(list(stable.values())) if self.ordinal else agree(stable)

    def _posterior(self, stable: Mapping[str, int | None]) -> list[float] | None:
        if self.reliability is None or not any(label is not None for label in stable.values()):
            return None
        index = {label: position for position, label in enumerate(self.scale)}
        given = [stable.get(name) for name in self.annotators]
        votes = np.array([[NONE if label is None else index[label] for label in given]])
        return [float(value) for value in self.reliability.posterior(votes)[0]]

    def _weighted(self, posterior: list[float]) -> int:
        if self.ordinal:
            return self.scale[int(np.searchsorted(np.cumsum(posterior), HALF))]
        return self.scale[int(np.argmax(posterior))]

    def _mass(self, label: int, posterior: list[float]) -> float:
        """P(the label is right); on the ordinal scale, P(it is at most one grade away)."""
        reach = 1 if self.ordinal else 0
        at = list(self.scale).index(label)
        return sum(posterior[max(at - reach, 0) : at + reach + 1])


def within_one(labels: Sequence[int | None]) -> int | None:
    """The lower median of labels of which no two are more than one grade apart, or None (ours)."""
    given = [label for label in labels if label is not None]
    if not given or len(given) < len(labels) or max(given) - min(given) > 1:
        return None
    return median_low(given)


def majority(labels: Sequence[int | None], ordinal: bool) -> int | None:
    """The label of more than half the annotators, those without a label included; or None.

    With `ordinal`, the lower median, if more than half the annotators are within one grade of it (ours).
    """
    given = [label for label in labels if label is not None]
    if not given:
        return None
    middle = median_low(given)  # a label of more than half is the median
    reach = 1 if ordinal else 0
    near = sum(abs(label - middle) <= reach for label in given)
    return middle if near > HALF * len(labels) else None
