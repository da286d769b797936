"""Who scores slices of pairs: a relevance model in this process, or a Ray cluster's workers, each with its own."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from serm.mining import distribution
from serm.relevance.model import RelevanceModel
from sps import progress

Answers = NDArray[np.float32]


@dataclass(frozen=True)
class Question:
    """A method of `RelevanceModel`, and what it is given besides the pairs: passes and seed of judgments."""

    method: Literal["probabilities", "judgments"]
    arguments: tuple[int, ...] = ()

    def of(self, model: RelevanceModel, queries: Sequence[str], documents: Sequence[str]) -> Answers:
        """What the model says of aligned pairs: a row a pair."""
        said = getattr(model, self.method)(queries, documents, *self.arguments)
        return np.asarray(said, dtype=np.float32)


@dataclass(frozen=True)
class Slice:
    """Pairs that are asked about together, and the slice's number."""

    number: int
    queries: list[str]
    documents: list[str]


@dataclass(frozen=True)
class Stored:
    """A version in a workspace's registry, with all that loading it needs; hashable, so that a worker loads it once."""

    root: str
    version: str
    settings: str  # RelevanceSettings as JSON
    scale: tuple[int, ...]


Ask = Callable[[Question, Sequence[Slice]], Iterator[tuple[Slice, Answers]]]


def here(model: RelevanceModel) -> Ask:
    """Ask a model of this process, one slice after the other."""

    def ask(question: Question, slices: Sequence[Slice]) -> Iterator[tuple[Slice, Answers]]:
        for each in slices:
            yield each, question.of(model, each.queries, each.documents)

    return ask


def on_ray(stored: Stored, gpus: float) -> Ask:
    """Ask the workers of a Ray cluster, a slice each; answers come as they are ready, and are those of one machine.

    With as many threads to a worker they are equal to the last bit, else to rounding.
    """

    def ask(question: Question, slices: Sequence[Slice]) -> Iterator[tuple[Slice, Answers]]:
        with progress.track("scoring pairs on Ray", sum(len(each.queries) for each in slices)) as advance:
            for part, said in distribution.by_ray(answer, stored, slices, question, gpus):
                advance(len(part.queries))
                yield part, said

    return ask


def answer(stored: Stored, part: Slice, question: Question) -> Answers:
    """One slice's answers, by a worker."""
    return question.of(_load(stored), part.queries, part.documents)


@lru_cache(maxsize=1)
def _load(stored: Stored) -> RelevanceModel:
    from serm import registry
    from serm.config import RelevanceSettings
    from serm.relevance import load
    from serm.workspace import Workspace

    folder = registry.folder(Workspace.open(stored.root), stored.version)
    return load(folder, RelevanceSettings.model_validate_json(stored.settings), list(stored.scale))
