"""An annotator's LLM in this process, by vLLM: calls that wait together are one batch, answers follow the schema."""

import asyncio
import json
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import Any

from serm.annotation.llm import Answer, Messages, ProviderError, Reply
from serm.annotation.local_transformers import call_seed
from serm.annotation.openai_compatible import answer_schema
from serm.config import AnnotatorSettings

_Waiting = tuple[Messages, int, int, "asyncio.Future[Reply]"]  # messages, n, seed, and who waits


class VllmLLM:
    """One annotator's LLM behind `vllm.LLM`; annotators of one model and engine share it."""

    def __init__(self, settings: AnnotatorSettings, max_completion_tokens: int, scale: Sequence[int]) -> None:
        """Bind the settings; vLLM starts with the first call and stops with `close`."""
        self.model = settings.model
        self.address = "this process"
        self.parameters: Mapping[str, Any] = {
            "provider": "vllm",
            "temperature": settings.temperature,
            "max_completion_tokens": max_completion_tokens,
            "json_schema": settings.json_schema,
            "reasoning_characters": settings.reasoning_characters,
        }
        self.concurrency = settings.concurrency
        self._settings = settings
        self._limit = max_completion_tokens
        self._schema = answer_schema(scale, settings.reasoning_characters) if settings.json_schema else None
        self._waiting: list[_Waiting] = []
        self._worker: asyncio.Task[None] | None = None

    async def complete(self, messages: Messages, n: int, request_key: str, metadata: Mapping[str, str]) -> Reply:
        """Sample n answers, with every other call that waits.

        Raises:
            ProviderError: vLLM is not installed or does not start, or refuses the prompt.
        """
        future: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        self._waiting.append((messages, n, call_seed(messages, request_key, metadata), future))
        if self._worker is None:
            self._worker = asyncio.create_task(self._drain())
        return await future

    async def close(self) -> None:
        """Stop vLLM and free its memory."""
        _engine.cache_clear()

    async def _drain(self) -> None:
        """Batch after batch until nobody waits; one thread runs vLLM, whoever asks."""
        await asyncio.sleep(0)  # calls made in the same turn of the loop join the first batch
        while self._waiting:
            batch, self._waiting = self._waiting, []
            replies = await asyncio.get_running_loop().run_in_executor(_thread(), self._replies, batch)
            for (*_, future), reply in zip(batch, replies, strict=True):
                if future.done():
                    continue
                if isinstance(reply, Reply):
                    future.set_result(reply)
                else:
                    future.set_exception(reply)
        self._worker = None

    def _replies(self, batch: Sequence[_Waiting]) -> list[Reply | ProviderError]:
        try:
            engine = _engine(self.model, json.dumps(self._settings.engine, sort_keys=True))
        except (ImportError, OSError, RuntimeError, ValueError) as error:
            first = str(error).strip().splitlines()[0]
            return [ProviderError(f"vLLM does not start: {first}", fatal=True) for _ in batch]
        try:
            return list(self._generate(engine, batch))
        except ValueError as error:
            if len(batch) > 1:  # one prompt is refused and the batch with it: find out which
                return [reply for entry in batch for reply in self._replies([entry])]
            return [ProviderError(str(error).splitlines()[0], request_at_fault=True)]

    def _generate(self, engine: Any, batch: Sequence[_Waiting]) -> list[Reply]:
        from vllm import SamplingParams
        from vllm.sampling_params import StructuredOutputsParams

        constraint = None if self._schema is None else StructuredOutputsParams(json=self._schema)
        parameters = [
            SamplingParams(
                n=n, temperature=self._settings.temperature, max_tokens=self._limit, seed=seed,
                structured_outputs=constraint,
            )
            for _, n, seed, _ in batch
        ]  # fmt: skip
        outputs = engine.chat([messages for messages, *_ in batch], parameters, use_tqdm=False)
        return [
            Reply(
                [Answer(answer.text, answer.finish_reason) for answer in output.outputs],
                len(output.prompt_token_ids),
                sum(len(answer.token_ids) for answer in output.outputs),
            )
            for output in outputs
        ]


@lru_cache(maxsize=1)
def _thread() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(1, thread_name_prefix="vllm")


@lru_cache(maxsize=1)
def _engine(model: str, options: str) -> Any:
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"  # no process that a killed run would leave behind
    from vllm import LLM
    from vllm.platforms import current_platform

    # With seeds of their own, vLLM 0.32 cannot cut prompts on a CPU.
    cpu = {"enable_chunked_prefill": False} if current_platform.is_cpu() else {}
    return LLM(model=model, generation_config="vllm", **(cpu | json.loads(options)))
