"""An annotator without a provider: wraps known labels as an LLM in this process, for backtests."""

import asyncio
import json
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from serm.annotation.llm import CHARACTERS_PER_TOKEN, Answer, Messages, Reply, about_tokens

CONCURRENCY = 1_024  # no more than a bound: nothing waits on anything


class LabelSource(Protocol):
    """Labels by lookup; label (i, p) may depend on nothing but annotator, pair, path number and seed."""

    def labels(
        self, annotator: str, queries: Sequence[str], doc_ids: Sequence[str], paths: int, seed: int
    ) -> NDArray[np.integer[Any]]:
        """Labels of aligned pairs along independent paths; shape (n, paths)."""
        ...


class StandInLLM:
    """An LLM whose labels come from a `LabelSource` instead of a model; calls made together are looked up together."""

    def __init__(self, source: LabelSource, annotator: str, seed: int = 0) -> None:
        """`annotator` is the name under which `source` knows the labels."""
        self.model = annotator
        self.address = "this process"
        self.parameters: Mapping[str, Any] = {"seed": seed}
        self.concurrency = CONCURRENCY
        self._source = source
        self._seed = seed
        self._waiting: list[tuple[str, str, int, asyncio.Future[NDArray[np.integer[Any]]]]] = []

    async def complete(self, messages: Messages, n: int, request_key: str, metadata: Mapping[str, str]) -> Reply:
        """Answer from the source: paths `metadata["path"]` and the n - 1 after it."""
        first = int(metadata.get("path", "0"))
        loop = asyncio.get_running_loop()
        future: asyncio.Future[NDArray[np.integer[Any]]] = loop.create_future()
        if not self._waiting:
            loop.call_soon(self._answer_all)
        self._waiting.append((metadata["query"], metadata["doc_id"], first + n, future))
        labels = (await future)[first : first + n].tolist()
        answers = [Answer(json.dumps({"reasoning": f"Known label {label}.", "label": label})) for label in labels]
        completion_tokens = sum(len(answer.text or "") for answer in answers) // CHARACTERS_PER_TOKEN
        return Reply(answers, about_tokens(messages), completion_tokens)

    async def close(self) -> None:
        """Nothing to let go of."""

    def _answer_all(self) -> None:
        waiting, self._waiting = self._waiting, []
        paths = max(entry[2] for entry in waiting)
        labels = self._source.labels(
            self.model, [entry[0] for entry in waiting], [entry[1] for entry in waiting], paths, self._seed
        )
        for row, (*_, future) in zip(labels, waiting, strict=True):
            if not future.done():
                future.set_result(row)
