"""How strong real LLM judges err: measured constants, and their form on any label scale.

The numbers are those of four strong judges of different teams in the LLMJudge benchmark (1,715 pairs of TREC Deep
Learning passages, graded 0 to 3 by TREC's assessors): willia-umbrela3, h2oloo-zeroshot2, prophet-setting4 and
RMITIR-GPT4o. They were made by

    python benchmarks/calibrate_standin.py ../shared/data/judges/llmjudge_scores.parquet
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

# P(judge's grade | assessor's grade): mean over the four judges; a row per assessor's grade 0..3.
CONFUSION = (
    (0.909, 0.059, 0.025, 0.007),
    (0.459, 0.261, 0.225, 0.055),
    (0.488, 0.166, 0.216, 0.130),
    (0.522, 0.152, 0.158, 0.168),
)  # fmt: skip

# Pairs with each assessor's grade: the weights when grades are pooled.
GRADE_COUNTS = (1082, 318, 190, 125)

# Mean latent (polychoric) correlation, given the assessor's grade, over the six pairs of judges; range 0.56 to 0.94.
# Repeated runs of one prompt (NISTRetrieval-instruct0/1/2 and -reason0/1/2) correlate by 0.999 or more, at most 0.12%
# of their grades differ: they were all but deterministic, and so say nothing of paths sampled at a temperature. The
# share of error that each path draws anew (`path_share`) is therefore our choice.
CORRELATION = 0.72


def confusion_for(scale: Sequence[int], binary_from: int = 2) -> NDArray[np.float64]:
    """The measured confusion P(answer | truth) carried over to a scale of k grades; shape (k, k), rows sum to 1.

    Four grades: as measured. Two grades: measured grades from `binary_from` on count as relevant (2 is the usual cut
    for TREC Deep Learning), rows pooled by how often the assessors gave each grade. Any other size: rows are
    interpolated linearly between measured ones, and each row's probability, spread evenly over its quarter of the
    unit interval, is cut into k equal parts (ours).
    """
    measured = np.asarray(CONFUSION)
    k = len(scale)
    if k == 2:
        weights = np.asarray(GRADE_COUNTS, dtype=float)
        groups = (slice(0, binary_from), slice(binary_from, 4))
        rows = np.stack([np.average(measured[group], axis=0, weights=weights[group]) for group in groups])
        return np.stack([rows[:, group].sum(axis=1) for group in groups], axis=1)
    at = np.linspace(0, 3, k)
    rows = np.stack([np.interp(at, range(4), measured[:, column]) for column in range(4)], axis=1)  # (k, 4)
    cumulative = np.concatenate([np.zeros((k, 1)), np.cumsum(rows, axis=1)], axis=1)
    edges = np.linspace(0, 4, k + 1)
    cut = np.stack([np.interp(edges, range(5), row) for row in cumulative])
    return np.diff(cut, axis=1)
