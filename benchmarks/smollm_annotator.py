"""SmolLM2 as an annotator in this process, for benchmarks: transformers on the CPU, its answer held to the schema.

The schema is kept by hand: the answer's frame is given, the reasoning is what the model writes (greedily, up to its
quote or `reasoning_tokens`), and the label is the grade whose token it finds likeliest. So every answer can be read.
"""

import asyncio
import copy
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from serm.annotation.llm import Answer, Messages, Reply

BATCH = 8
ENOUGH = 0.8  # share of a common beginning for which the kept one is used again
OPENING = '{"reasoning": "'
TO_LABEL = '", "label": '


class Weights:
    """The model and its tokenizer, loaded once for all annotators made of them."""

    def __init__(self, gguf: Path) -> None:
        self.tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
        self.tokenizer.padding_side = "left"
        self.model = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32).eval()
        self._prefix: list[int] = []
        self._cache: Any = None

    @torch.inference_mode()
    def logits(self, texts: Sequence[str]) -> torch.Tensor:
        """Next-token logits after each text, shape (n, words); special tokens in the text count as such.

        What all texts begin with (most of the system message) is read once and kept for the next call.
        """
        ids = self.tokenizer(list(texts), add_special_tokens=False)["input_ids"]
        shared = _common(ids)[: min(map(len, ids)) - 1]
        if len(_common([shared, self._prefix])) < len(shared) * ENOUGH:
            self._prefix = shared
            self._cache = self.model(torch.tensor([shared]), use_cache=True).past_key_values if shared else None
        start = len(_common([shared, self._prefix]))
        rest = [tokens[start:] for tokens in ids]
        padded = torch.tensor([tokens + [0] * (max(map(len, rest)) - len(tokens)) for tokens in rest])
        cache = copy.deepcopy(self._cache)
        if cache is not None:
            cache.crop(start - cache.get_seq_length())
            cache.batch_repeat_interleave(len(ids))
        hidden = self.model.model(
            padded, past_key_values=cache
        ).last_hidden_state  # padding comes after: nobody sees it
        last = torch.tensor([len(tokens) - 1 for tokens in rest])
        return self.model.lm_head(hidden[torch.arange(len(ids)), last])

    @torch.inference_mode()
    def continued(self, texts: Sequence[str], tokens: int) -> list[str]:
        """What the model writes after each text, greedily, up to the first quote."""
        batch = self.tokenizer(list(texts), return_tensors="pt", padding=True, add_special_tokens=False)
        out = self.model.generate(**batch, max_new_tokens=tokens, do_sample=False, pad_token_id=0)
        said = self.tokenizer.batch_decode(out[:, batch["input_ids"].shape[1] :], skip_special_tokens=True)
        return [text.split('"')[0].replace("\\", "").replace("\n", " ") for text in said]


class SmolAnnotator:
    """One annotator: labels right away, or after some tokens of reasoning; calls made together go together."""

    concurrency = 64

    def __init__(self, weights: Weights, scale: Sequence[int], reasoning_tokens: int) -> None:
        self.model, self.address = "SmolLM2-135M-Instruct", "this process"
        self.parameters: Mapping[str, Any] = {"reasoning_tokens": reasoning_tokens, "constrained": "by hand"}
        self._weights, self._scale, self._tokens = weights, list(scale), reasoning_tokens
        self._grades = [weights.tokenizer.encode(str(grade), add_special_tokens=False)[-1] for grade in scale]
        self._waiting: list[tuple[str, asyncio.Future[str]]] = []
        self._task: asyncio.Task[None] | None = None

    async def complete(self, messages: Messages, n: int, request_key: str, metadata: Mapping[str, str]) -> Reply:
        """The same answer for every path: the model is asked greedily."""
        filled = self._weights.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        future: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._waiting.append((filled + OPENING, future))
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._answer())
        answer = Answer(await future)
        return Reply([answer] * n, len(filled) // 4, len(answer.text or "") // 4)

    async def close(self) -> None:
        """Nothing to let go of."""

    async def _answer(self) -> None:
        await asyncio.sleep(0.05)  # let the pairs gather
        while self._waiting:
            part = sorted(self._waiting, key=lambda entry: len(entry[0]))[:BATCH]  # little padding
            self._waiting = [entry for entry in self._waiting if entry not in part]
            for text, (_, future) in zip(await asyncio.to_thread(self._say, [t for t, _ in part]), part, strict=True):
                future.set_result(text)

    def _say(self, texts: list[str]) -> list[str]:
        reasons = self._weights.continued(texts, self._tokens) if self._tokens else [""] * len(texts)
        ready = [text + reason + TO_LABEL for text, reason in zip(texts, reasons, strict=True)]
        best = self._weights.logits(ready)[:, self._grades].argmax(dim=1).tolist()
        return [
            json.dumps({"reasoning": reason, "label": self._scale[grade]}, ensure_ascii=False)
            for reason, grade in zip(reasons, best, strict=True)
        ]


def _common(sequences: Sequence[Sequence[int]]) -> list[int]:
    """What all sequences begin with."""
    columns = enumerate(zip(*sequences, strict=False))
    end = next((place for place, column in columns if len(set(column)) > 1), min(map(len, sequences)))
    return list(sequences[0][:end])
