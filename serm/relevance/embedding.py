"""Text embeddings, one unit vector a text, by sentence-transformers."""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from serm.config import RelevanceSettings
from serm.relevance.device import autocast, choose_device, choose_precision
from serm.relevance.weights import resolve

MAX_TOKENS = 64


def embed(texts: Sequence[str], settings: RelevanceSettings) -> NDArray[np.float32]:
    """Embed texts with `settings.embedder`; shape (n, dimensions), rows of unit length."""
    device = choose_device(settings.device)
    model = _load(resolve(settings.embedder), str(device))
    if not texts:
        return np.zeros((0, model.get_embedding_dimension()), dtype=np.float32)
    with autocast(device, choose_precision(settings.precision, device)):
        vectors = model.encode(
            list(texts), batch_size=128, convert_to_numpy=True, normalize_embeddings=False, show_progress_bar=False
        )
    vectors = np.asarray(vectors, dtype=np.float32)
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)


@lru_cache(maxsize=2)
def _load(name: str, device: str) -> Any:
    from sentence_transformers import SentenceTransformer
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()
    model = SentenceTransformer(name, device=device)
    model.max_seq_length = MAX_TOKENS
    return model
