"""A generative relevance model: a causal language model asked for the grade, which it gives first.

Pr(y | q, d) is read from the log-probabilities of the label's tokens after the prompt, renormalised over the scale
(label-first scoring is ours; f(q, d) = sum_y y Pr(y | q, d) is SERM's). Nothing is generated: labels of one token cost
one forward pass for all of them together, longer ones one more pass for each different beginning. A query's candidates
share the reading of instructions and query. A rationale is written after the label, where one is asked for.

Any Hugging Face folder of a causal language model loads. Instead of transformers vLLM may run it (`relevance.engine`).
Training is in `serm.relevance.generative_training`.
"""

import logging
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from serm.config import RelevanceSettings
from serm.relevance.device import choose_device, choose_precision
from serm.relevance.engines import Engine, TransformersEngine, vllm_engine
from serm.relevance.labels import END_OF_LABEL, LABEL, label_tokens
from serm.relevance.loading import causal_config, causal_network, tokenizer_of
from serm.relevance.prompts import GRADE, Prompt, PromptForm
from serm.relevance.reasoning import Reasoned, read_grade
from serm.relevance.shared_prefix import batch_logs
from serm.relevance.weights import EMBEDDED, resolve
from serm.relevance.writing import context_of
from sps import progress

__all__ = ["END_OF_LABEL", "LABEL", "GenerativeModel"]

logger = logging.getLogger(__name__)


class GenerativeModel:
    """Pr(y | q, d) by the next-token distribution of a causal language model.

    Attributes:
        network: the transformers network; with another engine loaded when it is first asked for. Once it is in memory
            it alone scores and writes, since its weights may have been trained.
        labels: tokens of every label of the scale.
    """

    def __init__(self, source: str | Path, settings: RelevanceSettings, scale: Sequence[int]) -> None:
        """Load a Hugging Face folder or hub name of a causal language model.

        Raises:
            ValueError: there is no readable model at `source`, its tokenizer cannot tell the labels apart, its context
                is too short, or the engine does not start.
        """
        self.scale = list(scale)
        self.settings = settings
        self.device = choose_device(settings.device)
        self._source, self._dtype = source, choose_precision(settings.precision, self.device)
        self._context = context_of(causal_config(source))
        self.tokenizer = tokenizer_of(source)
        self.labels = label_tokens(self.tokenizer, self.scale)
        self._form = PromptForm(self.tokenizer, settings, self.scale, reasoned=False)
        self._reasoned_form = PromptForm(self.tokenizer, settings, self.scale, reasoned=True)
        self._fits(0)
        self._vllm: Engine | None = None
        if settings.engine == "transformers":
            self.network = self._load()
        else:
            dtype = str(self._dtype).removeprefix("torch.")
            room = min(self._longest(settings.rationale_tokens), self._context)
            self._vllm = vllm_engine(str(source), settings, self.tokenizer, self.labels, dtype, room)

    @cached_property
    def network(self) -> Any:
        return self._load()

    @classmethod
    def start(cls, settings: RelevanceSettings, scale: Sequence[int], seed: int) -> "GenerativeModel":
        """The untrained starting model: the base as it is; `seed` draws nothing."""
        if settings.base in EMBEDDED:
            raise ValueError(
                f"relevance.base is {settings.base}, an encoder; family generative needs a causal language model: "
                "a folder or a hub name, such as HuggingFaceTB/SmolLM2-135M"
            )
        return cls(resolve(settings.base), settings, scale)

    def save(self, folder: Path) -> None:
        """Write weights and tokenizer as a plain Hugging Face folder."""
        network = self.__dict__.get("network") or self._load()
        network.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)

    def prompts(self, queries: Sequence[str], documents: Sequence[str]) -> list[list[int]]:
        """Token ids of the prompts of aligned pairs.

        Query and document together keep at most `max_tokens` tokens: the longer of the two is cut first.
        """
        return [prompt.ids for prompt in self._form.parts(queries, documents)]

    def probabilities(self, queries: Sequence[str], documents: Sequence[str]) -> NDArray[np.float32]:
        """Pr(y | q, d): (n, |Y|), rows sum to 1."""
        return self._probabilities(self._form.parts(queries, documents)).astype(np.float32)

    def label_log_probabilities(self, prompts: Sequence[list[int]]) -> torch.Tensor:
        """log Pr(tokens of y | prompt) in float32, not renormalised, by the network in one padded batch: (B, |Y|)."""
        return batch_logs(self.network, prompts, self.labels)

    def judgments(
        self, queries: Sequence[str], documents: Sequence[str], passes: int, seed: int
    ) -> NDArray[np.float32]:
        """f^k(q, d) of K sampled labels: (n, K), values of the scale.

        Drawn from Pr(y | q, d) at temperature 1, or where `sampled_judgments` is "reason" each after a reason of its
        own: see `reasoned`.
        """
        if self.settings.sampled_judgments == "reason":
            return self.reasoned(queries, documents, passes, seed).grades
        probabilities = self._probabilities(self._form.parts(queries, documents))
        uniforms = np.random.default_rng(seed).random((len(probabilities), passes))
        return self._drawn(probabilities, uniforms)

    def rationales(
        self, queries: Sequence[str], documents: Sequence[str], grades: Sequence[int] | None = None
    ) -> list[str]:
        """Why each pair has its grade, in at most `rationale_tokens` tokens: the model's likeliest words after it.

        grades: values of the scale; by default the likeliest ones.
        """
        self._fits(self.settings.rationale_tokens)
        parts = self._form.parts(queries, documents)
        if grades is None:
            columns = self._probabilities(parts).argmax(axis=1).tolist()
        else:
            columns = [self.scale.index(grade) for grade in grades]
        separated = self.tokenizer.decode(self.labels[0]).endswith(END_OF_LABEL)
        after = [] if separated else list(self.tokenizer(END_OF_LABEL, add_special_tokens=False).input_ids)
        asked = [[*part.ids, *self.labels[column], *after] for part, column in zip(parts, columns, strict=True)]
        found = self._engine().write(asked, 1, self.settings.rationale_tokens, 0.0, 0)
        return [one.text.strip() for (one,) in found]

    def reasoned(self, queries: Sequence[str], documents: Sequence[str], passes: int, seed: int) -> Reasoned:
        """K judgments of each pair, each read from a text of its own that reasons first and grades then.

        A text without a grade gets one drawn from the label distribution after it; how many is in the result and, as a
        warning, in the log.
        """
        limit = self.settings.rationale_tokens
        self._fits(limit)
        parts = self._reasoned_form.parts(queries, documents)
        groups = self._engine().write([part.ids for part in parts], passes, limit, 1.0, seed)
        read = [[read_grade(one.text, self.scale) for one in group] for group in groups]
        drawn = np.array([[grade is None for _, grade in row] for row in read], dtype=bool).reshape(-1, passes)
        grades = np.array([[0 if grade is None else grade for _, grade in row] for row in read], dtype=np.float32)
        grades = grades.reshape(-1, passes)
        if drawn.any():
            ask = list(self.tokenizer(f"\n{GRADE}", add_special_tokens=False).input_ids)
            rows, columns = np.nonzero(drawn)
            followed = [
                parts[row]._replace(own=[*parts[row].own, *groups[row][column].ids, *ask])
                for row, column in zip(rows, columns, strict=True)
            ]
            uniforms = np.random.default_rng([seed, 1]).random(drawn.shape)[drawn][:, None]
            grades[drawn] = self._drawn(self._probabilities(followed), uniforms)[:, 0]
            logger.warning(
                "%d of %d sampled judgments named no grade of the scale; theirs were drawn after their reasons",
                int(drawn.sum()), drawn.size,
            )  # fmt: skip
        return Reasoned(grades, [[reason for reason, _ in row] for row in read], drawn)

    def _probabilities(self, prompts: Sequence[Prompt]) -> NDArray[np.float64]:
        with progress.track("scoring pairs", len(prompts)) as advance:
            logs = self._engine().label_logs(prompts, advance)
        weights = np.exp(logs - logs.max(axis=1, keepdims=True))
        return weights / weights.sum(axis=1, keepdims=True)

    def _drawn(self, probabilities: NDArray[np.float64], uniforms: NDArray[np.float64]) -> NDArray[np.float32]:
        """Labels at uniform numbers (n, K) of the cumulative distribution: (n, K)."""
        cumulative = probabilities.cumsum(axis=1)
        places = uniforms * cumulative[:, -1:]
        chosen = (places[:, :, None] >= cumulative[:, None, :]).sum(axis=2)
        return np.asarray(self.scale, dtype=np.float32)[np.minimum(chosen, len(self.scale) - 1)]

    def _engine(self) -> Engine:
        if self._vllm is not None and "network" not in self.__dict__:
            return self._vllm
        self.network.eval()
        return TransformersEngine(self.network, self.tokenizer, self.labels, self.settings.batch_tokens)

    def _load(self) -> Any:
        return causal_network(self._source, self._dtype).to(self.device).eval()

    def _longest(self, more: int) -> int:
        """Tokens of the longest prompt with a label and `more` after it."""
        form = self._reasoned_form if more else self._form
        return form.longest + max(map(len, self.labels)) + more + 8  # a few between reason and grade

    def _fits(self, more: int) -> None:
        if self._longest(more) > self._context:
            raise ValueError(
                f"{self._source}: a prompt may have {self._longest(more)} tokens and the model's context is "
                f"{self._context}; lower relevance.max_tokens or relevance.rationale_tokens"
            )
