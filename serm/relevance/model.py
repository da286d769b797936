"""What every relevance model can do: label probabilities, and sampled judgments; the rest of serm asks for no more."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray


class RelevanceModel(Protocol):
    """A model of Pr(y | q, d) over an ascending label scale."""

    scale: list[int]

    def probabilities(self, queries: Sequence[str], documents: Sequence[str]) -> NDArray[np.float32]:
        """Pr(y | q, d) for aligned pairs: shape (n, |Y|), rows sum to 1."""
        ...

    def judgments(
        self, queries: Sequence[str], documents: Sequence[str], passes: int, seed: int
    ) -> NDArray[np.float32]:
        """K independent sampled scores f^k(q, d): shape (n, K)."""
        ...


def expected_label(probabilities: NDArray[np.float32], scale: Sequence[int]) -> NDArray[np.float32]:
    """f(q, d) = sum_y y Pr(y | q, d), the ranking score (SERM, section "The model"); shape (n,)."""
    return probabilities @ np.asarray(scale, dtype=np.float32)
