"""An annotator's LLM in this process, by transformers: call after call, the paths of a call side by side.

Answers are a function of the call alone, however calls are ordered. Nothing constrains them to the schema here, so a
weak model is often unparseable; vLLM in process constrains, and is faster by far.
"""

import asyncio
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import torch

from serm.annotation.llm import Answer, Messages, ProviderError, Reply
from serm.annotation.prompt import digest
from serm.config import AnnotatorSettings
from serm.relevance.device import choose_device, choose_precision
from sps.config import PolicySettings
from sps.pretrained import load_pretrained


@dataclass(frozen=True)
class _Loaded:
    model: Any
    tokenizer: Any
    turn: threading.Lock = field(default_factory=threading.Lock)  # annotators may share a model


class TransformersLLM:
    """One annotator's LLM: a causal language model with a chat template, from a folder, the hub or a GGUF file."""

    def __init__(self, settings: AnnotatorSettings, max_completion_tokens: int) -> None:
        """Bind the settings; the model is loaded by the first call and let go by `close`."""
        self.model = settings.model
        self.address = "this process"
        self.parameters: Mapping[str, Any] = {
            "provider": "transformers",
            "temperature": settings.temperature,
            "max_completion_tokens": max_completion_tokens,
            "gguf": settings.gguf,
        }
        self.concurrency = 1
        self._settings = settings
        self._limit = max_completion_tokens

    async def complete(self, messages: Messages, n: int, request_key: str, metadata: Mapping[str, str]) -> Reply:
        """Sample n answers; equal calls give equal answers.

        Raises:
            ProviderError: the model cannot be loaded, the prompt is too long for it, or memory ran out.
        """
        return await asyncio.to_thread(self._complete, messages, n, call_seed(messages, request_key, metadata))

    async def close(self) -> None:
        """Free the model."""
        _load.cache_clear()

    def _complete(self, messages: Messages, n: int, seed: int) -> Reply:
        try:
            loaded = _load(self.model, self._settings.gguf)
            with loaded.turn:
                return self._generate(loaded, messages, n, seed)
        except torch.OutOfMemoryError as error:
            raise ProviderError(f"out of memory: {str(error).splitlines()[0]}") from error
        except ValueError as error:  # no such model, or no chat template in it
            raise ProviderError(str(error).splitlines()[0], fatal=True) from error

    def _generate(self, loaded: _Loaded, messages: Messages, n: int, seed: int) -> Reply:
        model, tokenizer = loaded.model, loaded.tokenizer
        asked = tokenizer.apply_chat_template(
            messages, add_generation_prompt=True, return_tensors="pt", return_dict=True
        ).to(model.device)
        length = asked["input_ids"].shape[1]
        context = model.config.max_position_embeddings
        if length + self._limit > context:
            raise ProviderError(
                f"the prompt's {length} tokens and {self._limit} more do not fit into {context}; "
                "lower annotation.max_document_characters",
                request_at_fault=True,
            )
        sampled = self._settings.temperature > 0
        chances = {"temperature": self._settings.temperature, "top_p": 1.0, "top_k": 0} if sampled else {}
        copies = n if sampled else 1
        # The generator is all processes' own; it is as it was afterwards.
        with torch.random.fork_rng(), torch.inference_mode():
            torch.manual_seed(seed)
            output = model.generate(
                **asked,
                do_sample=sampled,
                num_return_sequences=copies,
                max_new_tokens=self._limit,
                pad_token_id=tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id,
                **chances,
            )
        ends = model.generation_config.eos_token_id
        ends = {ends} if isinstance(ends, int) else set(ends or ())
        answers, tokens = [], 0
        for row in output[:, length:].tolist():
            end = next((place for place, token in enumerate(row) if token in ends), None)
            text = tokenizer.decode(row[:end], skip_special_tokens=True)
            answers.append(Answer(text, "length" if end is None else "stop"))
            tokens += len(row) if end is None else end + 1
        return Reply(answers * (n // copies), length, tokens)


def call_seed(messages: Messages, request_key: str, metadata: Mapping[str, str]) -> int:
    """A seed, 32 bits, that equal calls share and others do not."""
    parts = [request_key, metadata.get("annotator", ""), metadata.get("path", "0")]
    return int(digest(*parts, *(message["content"] for message in messages))[:8], 16)


@lru_cache(maxsize=2)
def _load(name: str, gguf: str | None) -> _Loaded:
    device = choose_device("auto")
    settings = PolicySettings(model=name, gguf=gguf)
    model, tokenizer = load_pretrained(settings, choose_precision("auto", device))
    return _Loaded(model.to(device).eval(), tokenizer)
