"""What runs the language model of a generative relevance model: transformers, vLLM in process, or a vLLM server."""

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from serm.config import RelevanceSettings
from serm.relevance.prompts import Prompt
from serm.relevance.shared_prefix import label_logs
from serm.relevance.writing import Written, write

Advance = Callable[[int], None]


class Engine(Protocol):
    """Reads label probabilities off a language model, and has it write."""

    def label_logs(self, prompts: Sequence[Prompt], advance: Advance) -> NDArray[np.float64]:
        """log Pr(tokens of y | prompt), (n, |Y|), up to one number a row; `advance` is told of prompts done.

        Raises:
            RuntimeError: the engine cannot answer exactly.
        """
        ...

    def write(
        self, prompts: Sequence[Sequence[int]], samples: int, limit: int, temperature: float, seed: int
    ) -> list[list[Written]]:
        """`samples` texts of at most `limit` tokens after every prompt; temperature 0 takes the likeliest tokens."""
        ...


class TransformersEngine:
    """The network in this process, in memory already."""

    def __init__(self, network: Any, tokenizer: Any, labels: Sequence[Sequence[int]], tokens: int) -> None:
        """`tokens`: most tokens of a batch; see `shared_prefix.label_logs`."""
        self._network, self._tokenizer, self._labels, self._tokens = network, tokenizer, labels, tokens

    def label_logs(self, prompts: Sequence[Prompt], advance: Advance) -> NDArray[np.float64]:
        """See `Engine.label_logs`."""
        return label_logs(self._network, prompts, self._labels, self._tokens, advance)

    def write(
        self, prompts: Sequence[Sequence[int]], samples: int, limit: int, temperature: float, seed: int
    ) -> list[list[Written]]:
        """See `Engine.write`."""
        return write(self._network, self._tokenizer, prompts, samples, limit, temperature, seed, self._tokens)


def vllm_engine(
    source: str, settings: RelevanceSettings, tokenizer: Any, labels: Sequence[Sequence[int]], dtype: str, longest: int
) -> Engine:
    """vLLM, in process or a server, as `relevance.engine` says, for the weights at `source`.

    dtype: of the weights, "float32" or "bfloat16"; longest: tokens of the longest prompt and what may follow.

    Raises:
        ValueError: vLLM is not installed or does not start, no server answers, or it serves another model.
    """
    if settings.engine == "vllm-server":
        from serm.relevance.vllm_server import VllmServer

        return VllmServer(settings, tokenizer, labels, longest)
    from serm.relevance.vllm_engine import VllmEngine

    return VllmEngine(source, settings, tokenizer, labels, dtype, longest)
