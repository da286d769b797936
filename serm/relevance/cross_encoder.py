"""A cross-encoder over (query, document): one forward pass, a softmax over the label scale.

On disk it is a plain Hugging Face folder that `sentence_transformers.CrossEncoder(path)` loads as it is.
Scoring tokenises once and cuts batches by length, so that hardly anything is spent on padding; of the last layer only
the token that the head reads is computed.
"""

from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from serm.config import RelevanceSettings
from serm.relevance.batches import batch_tokens, call_cost, cut
from serm.relevance.device import autocast, choose_device, choose_precision
from serm.relevance.first_token import last_layer_for_first_token
from serm.relevance.loading import classifier, tokenizer_of
from serm.relevance.texts import shortened
from serm.relevance.weights import resolve
from sps import progress

TOKENIZER_CHUNK = 20_000
Encoding = tuple[list[int], list[int]]  # token ids, segment ids


class CrossEncoder:
    """Pr(y | q, d) by a sequence classifier with one output per label of the scale."""

    def __init__(
        self, source: str | Path, settings: RelevanceSettings, scale: Sequence[int], fresh_head: bool = False
    ) -> None:
        """Load a folder or hub name.

        fresh_head: a head that is missing, or of another size than the scale, is drawn anew.

        Raises:
            ValueError: there is no readable model at `source`, or its head is of another size than the scale.
        """
        self.scale = list(scale)
        self.settings = settings
        self.device = choose_device(settings.device)
        self.dtype = choose_precision(settings.precision, self.device)
        self.tokenizer = tokenizer_of(source)
        # Eager attention is faster on short texts there.
        attention = "eager" if self.device.type == "cpu" else None
        self.network = classifier(source, len(self.scale), attention, fresh_head).to(self.device)
        self.tokenizer.model_max_length = settings.max_tokens  # so that sentence-transformers cuts where we do
        self.network.config.problem_type = "single_label_classification"

    @classmethod
    def start(cls, settings: RelevanceSettings, scale: Sequence[int], seed: int) -> "CrossEncoder":
        """The untrained starting model: base weights under a fresh head drawn from `seed`."""
        torch.manual_seed(seed)
        return cls(resolve(settings.base), settings, scale, fresh_head=True)

    def save(self, folder: Path) -> None:
        """Write weights and tokenizer; CrossEncoder(folder) of sentence-transformers loads the result."""
        self.network.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)

    def encode(self, queries: Sequence[str], documents: Sequence[str]) -> list[Encoding]:
        """Token ids and types of aligned pairs, the longer text cut until both fit `max_tokens`."""
        longest = self.settings.max_tokens
        encodings: list[Encoding] = []
        for start in range(0, len(queries), TOKENIZER_CHUNK):
            batch = self.tokenizer(
                shortened(queries[start : start + TOKENIZER_CHUNK], longest),
                shortened(documents[start : start + TOKENIZER_CHUNK], longest),
                truncation="longest_first",
                max_length=longest,
                return_token_type_ids=True,
                return_attention_mask=False,
            )
            encodings += zip(batch["input_ids"], batch["token_type_ids"], strict=True)
        return encodings

    def forward(self, encodings: Sequence[Encoding]) -> torch.Tensor:
        """Logits of a batch in float32: (B, |Y|)."""
        longest = max(len(ids) for ids, _ in encodings)
        inputs = np.full((3, len(encodings), longest), self.tokenizer.pad_token_id or 0, dtype=np.int64)
        inputs[1:] = 0
        for row, (ids, types) in enumerate(encodings):
            inputs[:, row, : len(ids)] = (ids, types, [1] * len(ids))
        ids_, types_, mask = torch.from_numpy(inputs).to(self.device)  # (B, T) each
        arguments = {"input_ids": ids_}
        if any(len(ids) < longest for ids, _ in encodings):  # without padding attention is faster unmasked
            arguments["attention_mask"] = mask
        if self.network.config.to_dict().get("type_vocab_size", 0) > 1:
            arguments["token_type_ids"] = types_
        with autocast(self.device, self.dtype):
            logits: torch.Tensor = self.network(**arguments).logits
        return logits.float()

    def probabilities(self, queries: Sequence[str], documents: Sequence[str]) -> NDArray[np.float32]:
        """Pr(y | q, d): (n, |Y|), rows sum to 1."""
        self.network.eval()
        return self._score(self.encode(queries, documents))

    def judgments(
        self, queries: Sequence[str], documents: Sequence[str], passes: int, seed: int
    ) -> NDArray[np.float32]:
        """f^k(q, d) of K passes with dropout left on (Monte Carlo dropout): (n, K) (ours for a cross-encoder)."""
        encodings = self.encode(queries, documents)
        scale = np.asarray(self.scale, dtype=np.float32)
        state = torch.get_rng_state()
        self.network.train()
        try:
            columns = []
            for k in range(passes):
                torch.manual_seed(seed * 1_000_003 + k)
                columns.append(self._score(encodings) @ scale)
        finally:
            self.network.eval()
            torch.set_rng_state(state)
        return np.stack(columns, axis=1)

    def _score(self, encodings: Sequence[Encoding]) -> NDArray[np.float32]:
        result = np.empty((len(encodings), len(self.scale)), dtype=np.float32)
        lengths = [len(ids) for ids, _ in encodings]
        short = nullcontext() if self.network.training else last_layer_for_first_token(self.network)
        with torch.inference_mode(), short, progress.track("scoring pairs", len(encodings)) as advance:
            for rows in cut(lengths, batch_tokens(self.settings.batch_tokens, self.device), call_cost(self.device)):
                logits = self.forward([encodings[row] for row in rows])
                result[rows] = logits.softmax(dim=-1).cpu().numpy()
                advance(len(rows))
        return result
