"""The model that answers: loaded once, and replaced when the registry names another champion.

Whoever scores takes `current` once and keeps it for the whole answer, so that no answer mixes two versions. A new
champion is loaded beside the old one; if it cannot be loaded, the old one goes on and `problem` says why.
"""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from serm import registry
from serm.relevance.model import expected_label
from serm.relevance.stored import load_whole
from serm.workspace import Workspace
from sps import progress

LONGEST_PAUSE = 60.0  # seconds between two attempts to load a champion that could not be loaded


@dataclass(frozen=True)
class Scored:
    """A batch's answer: f(q, d) and the same as a share of the label scale, (n,) each, and who gave it."""

    version: str
    scores: NDArray[np.float32]
    shares: NDArray[np.float32]


@dataclass(frozen=True)
class Served:
    """A loaded version."""

    version: str
    model: Any

    def score(self, queries: list[str], documents: list[str]) -> Scored:
        """Score aligned pairs.

        Raises:
            ValueError: a score is not a number.
        """
        probabilities = self.model.probabilities(queries, documents)
        scores = expected_label(probabilities, self.model.scale)
        if not np.isfinite(scores).all():
            raise ValueError(f"version {self.version} gave a score that is no number")
        low, high = self.model.scale[0], self.model.scale[-1]
        return Scored(self.version, scores, np.clip((scores - low) / (high - low), 0, 1))

    def tokens(self, texts: list[str]) -> list[int]:
        """How many tokens each text has, as far as the model reads it."""
        most = self.model.settings.max_tokens
        encoded = self.model.tokenizer(texts, add_special_tokens=False, truncation=True, max_length=most)
        return [len(ids) for ids in encoded["input_ids"]]


def load_version(workspace: Workspace, version: str) -> Served:
    """Load a version of the registry, whichever family it is of.

    Raises:
        ValueError: there is no such version, or its folder is not whole.
    """
    config = workspace.config
    return Served(version, load_whole(registry.folder(workspace, version), config.relevance, config.labels.scale))


class Champion:
    """The version that answers now, kept up to date by a thread of its own."""

    def __init__(self, workspace: Workspace, changed: Callable[[], None] = lambda: None) -> None:
        """Load the champion; `changed` is called after every new champion and every failure.

        Raises:
            ValueError: there is no champion, or it cannot be loaded.
        """
        self._workspace, self.changed = workspace, changed
        self.current = load_version(workspace, registry.champion(workspace))
        self.named = self.current.version  # the champion according to the registry
        self.problem: str | None = None  # why `named` is not the one that answers, or why nobody knows
        self.loads, self.failures = 1, 0
        self._again, self._pause = 0.0, 0.0  # when a champion that could not be loaded is tried again
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="champion", daemon=True)

    def start(self) -> None:
        """Begin to watch the registry."""
        self._thread.start()

    def stop(self) -> None:
        """Stop watching; a load under way is not waited for."""
        self._stopped.set()

    def _watch(self) -> None:
        while not self._stopped.wait(self._workspace.config.serving.watch_seconds):
            self.look()

    def look(self) -> None:
        """Ask the registry once, and load its champion if it is another one.

        One that could not be loaded is tried again after pauses that grow: its folder may have been mended.
        """
        try:
            named = registry.champion(self._workspace)
            if named != self.named:
                self.named, self._again, self._pause = named, 0.0, 0.0
            if named == self.current.version:
                self.problem = None
            elif time.monotonic() >= self._again:
                self.current = load_version(self._workspace, named)
                self.loads, self.problem = self.loads + 1, None
                progress.note(f"version {named} answers from now on")
        except Exception as error:  # noqa: BLE001  whatever is wrong with the new one, the old one goes on
            self.failures += 1
            self._pause = min(max(2 * self._pause, self._workspace.config.serving.watch_seconds), LONGEST_PAUSE)
            self._again = time.monotonic() + self._pause
            problem = f"{type(error).__name__}: {error}"
            if problem != self.problem:
                progress.note(f"the champion {self.named} is not taken, {self.current.version} goes on: {problem}")
            self.problem = problem
        self.changed()
