"""A generative relevance model: a causal language model asked for the grade, which it gives first.

Pr(y | q, d) is read from the log-probabilities of the label's tokens after the prompt, renormalised over the scale
(label-first scoring is ours; f(q, d) = sum_y y Pr(y | q, d) is SERM's). Nothing is generated: labels of one token cost
one forward pass for all of them together, longer ones one more pass for each different beginning.

Training is in `serm.relevance.generative_training`. Any Hugging Face folder loads whose
network takes `position_ids` and `logits_to_keep`, as Llama, Qwen, Gemma and SmolLM do.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import AutoModelForCausalLM, AutoTokenizer

from serm.config import RelevanceSettings
from serm.relevance.device import choose_device, choose_precision
from serm.relevance.weights import EMBEDDED, resolve
from sps import progress

BEFORE_QUERY = "Judge how well a document answers a search query.\n\nQuery: "
BEFORE_DOCUMENT = "\nDocument: "
QUESTION = "\n\nGrade of the document, from {worst} (worst) to {best} (best):"
LABEL = " {grade}"
END_OF_LABEL = "\n"
CHARACTERS_PER_TOKEN = 20  # tokens are far shorter: cutting here only spares the tokenizer very long texts
TOKENIZER_CHUNK = 20_000


class GenerativeModel:
    """Pr(y | q, d) by the next-token distribution of a causal language model."""

    def __init__(self, source: str | Path, settings: RelevanceSettings, scale: Sequence[int]) -> None:
        """Load a Hugging Face folder or hub name of a causal language model.

        Raises:
            ValueError: there is no readable model at `source`.
        """
        self.scale = list(scale)
        self.settings = settings
        self.device = choose_device(settings.device)
        dtype = choose_precision(settings.precision, self.device)
        try:
            self.tokenizer = AutoTokenizer.from_pretrained(source)
            network: Any = AutoModelForCausalLM.from_pretrained(source, dtype=dtype)
        except (OSError, ValueError) as error:
            first = str(error).strip().split("\n")[0]
            raise ValueError(
                f"{source}: no readable causal language model: {first} Give relevance.base a folder or a hub name"
            ) from error
        self.network = network.to(self.device).eval()
        empty = self.tokenizer("").input_ids
        start = empty[:1] if empty[:1] == [self.tokenizer.bos_token_id] else []
        self.before_query = start + self._ids(BEFORE_QUERY)
        self.before_document = self._ids(BEFORE_DOCUMENT)
        self.question = self._ids(QUESTION.format(worst=self.scale[0], best=self.scale[-1]))
        self.labels = [self._ids(LABEL.format(grade=grade)) for grade in self.scale]
        if any(a != b and b[: len(a)] == a for a in self.labels for b in self.labels):
            # "1" begins "10": only with their end are they different answers.
            self.labels = [label + self._ids(END_OF_LABEL) for label in self.labels]

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
        self.network.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)

    def _ids(self, text: str) -> list[int]:
        return list(self.tokenizer(text, add_special_tokens=False).input_ids)

    def prompts(self, queries: Sequence[str], documents: Sequence[str]) -> list[list[int]]:
        """Token ids of the prompts of aligned pairs.

        Query and document together keep at most `max_tokens` tokens: the longer of the two is cut first.
        """
        room, cut = self.settings.max_tokens, self.settings.max_tokens * CHARACTERS_PER_TOKEN
        prompts: list[list[int]] = []
        for start in range(0, len(queries), TOKENIZER_CHUNK):
            asked, shown = (
                self.tokenizer(
                    [text[:cut] for text in texts[start : start + TOKENIZER_CHUNK]], add_special_tokens=False
                ).input_ids
                for texts in (queries, documents)
            )
            for query, document in zip(asked, shown, strict=True):
                kept = query[: max(room // 2, room - len(document))]
                prompts.append(
                    self.before_query + kept + self.before_document + document[: room - len(kept)] + self.question
                )
        return prompts

    def probabilities(self, queries: Sequence[str], documents: Sequence[str]) -> NDArray[np.float32]:
        """Pr(y | q, d): (n, |Y|), rows sum to 1."""
        prompts = self.prompts(queries, documents)
        result = np.empty((len(prompts), len(self.scale)), dtype=np.float32)
        with torch.inference_mode(), progress.track("scoring pairs", len(prompts)) as advance:
            for rows in self._batches(prompts):
                logits = self.label_log_probabilities([prompts[row] for row in rows])  # (B, |Y|)
                result[rows] = logits.softmax(dim=-1).cpu().numpy()
                advance(len(rows))
        return result

    def judgments(
        self, queries: Sequence[str], documents: Sequence[str], passes: int, seed: int
    ) -> NDArray[np.float32]:
        """f^k(q, d) of K labels drawn from Pr(y | q, d) at temperature 1: (n, K), values of the scale."""
        cumulative = self.probabilities(queries, documents).astype(np.float64).cumsum(axis=1)
        draws = np.random.default_rng(seed).random((len(cumulative), passes)) * cumulative[:, -1:]
        chosen = (draws[:, :, None] >= cumulative[:, None, :]).sum(axis=2)  # (n, K)
        return np.asarray(self.scale, dtype=np.float32)[np.minimum(chosen, len(self.scale) - 1)]

    def label_log_probabilities(self, prompts: Sequence[list[int]]) -> torch.Tensor:
        """log Pr(tokens of y | prompt) in float32, not renormalised: (B, |Y|)."""
        result = torch.empty(len(prompts), len(self.labels), device=self.device)
        for beginning in sorted({tuple(label[:-1]) for label in self.labels}):
            steps = len(beginning) + 1
            scores = self._last_log_softmax([[*prompt, *beginning] for prompt in prompts], steps)  # (B, steps, V)
            for column, label in enumerate(self.labels):
                if tuple(label[:-1]) == beginning:
                    result[:, column] = sum(scores[:, step, token] for step, token in enumerate(label))
        return result

    def _last_log_softmax(self, sequences: list[list[int]], steps: int) -> torch.Tensor:
        """Log-probabilities of the token after each of the last `steps` positions: (B, steps, V).

        Sequences are padded on the left, so that only those positions' logits are ever computed; positions count from
        each sequence's own first token.
        """
        longest = max(len(sequence) for sequence in sequences)
        ids = torch.zeros(len(sequences), longest, dtype=torch.long)
        mask = torch.zeros_like(ids)
        for row, sequence in enumerate(sequences):
            ids[row, longest - len(sequence) :] = torch.tensor(sequence)
            mask[row, longest - len(sequence) :] = 1
        output = self.network(
            input_ids=ids.to(self.device),
            attention_mask=mask.to(self.device),
            position_ids=(mask.cumsum(dim=1) - 1).clamp(min=0).to(self.device),
            logits_to_keep=steps,
            use_cache=False,
        )
        return torch.log_softmax(output.logits.float(), dim=-1)

    def _batches(self, prompts: Sequence[list[int]]) -> Iterator[list[int]]:
        """Rows from long to short, cut so that a padded batch holds at most `batch_tokens`."""
        order = sorted(range(len(prompts)), key=lambda row: -len(prompts[row]))
        start = 0
        while start < len(order):
            size = max(1, self.settings.batch_tokens // len(prompts[order[start]]))
            yield order[start : start + size]
            start += size
