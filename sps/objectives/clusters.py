"""Which of a prompt's rollouts count as one solution."""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.cluster.hierarchy import fcluster, linkage

from sps.config import SteeringSettings

Clusters = Callable[[Sequence[str], Sequence[str | None]], list[int]]


def make_clusters(settings: SteeringSettings) -> Clusters:
    """A function from the texts and keys of one prompt's rollouts to the number of each one's cluster.

    Make it once: distinct_by embedding loads a model. Give it the rollouts of the support alone, since what is far
    from everything right may otherwise part what is right. Raises ValueError for embedding without a model, for a
    model that cannot be loaded, or where sentence-transformers cannot be imported.
    """
    if settings.distinct_by == "text":
        return lambda texts, keys: by_key(texts, [None] * len(texts))
    if settings.distinct_by == "key":
        return by_key
    if settings.embedding_model is None:
        raise ValueError("steering.distinct_by is embedding; name a model in steering.embedding_model")
    try:
        from sentence_transformers import SentenceTransformer
    except ImportError as error:
        raise ValueError("steering.distinct_by embedding needs: pip install 'sentence-transformers>=5.2'") from error
    try:
        model = SentenceTransformer(settings.embedding_model)
    except (OSError, ValueError) as error:
        raise ValueError(
            f"steering.embedding_model {settings.embedding_model!r} cannot be loaded ({error}); "
            "give a folder with its files or a Hugging Face name that can be reached"
        ) from error

    def by_embedding(texts: Sequence[str], keys: Sequence[str | None]) -> list[int]:
        vectors = model.encode(list(texts), convert_to_numpy=True, show_progress_bar=False)
        return by_similarity(vectors, settings.embedding_similarity)

    return by_embedding


def by_key(texts: Sequence[str], keys: Sequence[str | None]) -> list[int]:
    """Equal keys are one; a rollout without a key is one with equal texts alone."""
    numbers: dict[tuple[bool, str], int] = {}
    named = [(False, text) if key is None else (True, key) for text, key in zip(texts, keys, strict=True)]
    return [numbers.setdefault(name, len(numbers)) for name in named]


def by_similarity(vectors: NDArray[np.float32], similarity: float) -> list[int]:
    """Complete linkage: any two vectors (n, d) of a cluster have at least this cosine.

    Single linkage would chain paraphrases of paraphrases until everything is one.
    """
    if len(vectors) < 2:
        return list(range(len(vectors)))
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit = vectors.astype(np.float64) / np.where(norms > 0, norms, 1.0)
    distances = np.clip(1 - unit @ unit.T, 0.0, None)
    tree = linkage(distances[np.triu_indices(len(unit), 1)], "complete")
    return [int(number) - 1 for number in fcluster(tree, 1 - similarity + 1e-6, "distance")]
