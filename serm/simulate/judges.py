"""How strong real LLM judges err: measured constants, and their form on any label scale.

The numbers are those of the best judge built on GPT-4o (Olz-gpt4o) and the best built on Llama 3 (RMITIR-llama70B), by
balanced accuracy on relevant or not, in the LLMJudge benchmark (1,713 pairs of TREC Deep Learning passages, graded 0
to 3 by TREC's assessors; two more were left out, where a judge answered 5). They were made by

    python benchmarks/calibrate_standin.py ../shared/data/judges/llmjudge_scores.parquet
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

# P(judge's grade | assessor's grade): mean over the two judges; a row per assessor's grade 0..3.
CONFUSION = (
    (0.779, 0.103, 0.094, 0.024),
    (0.258, 0.175, 0.336, 0.231),
    (0.284, 0.145, 0.268, 0.303),
    (0.160, 0.180, 0.288, 0.372),
)  # fmt: skip

# Pairs with each assessor's grade: the weights when grades are pooled.
GRADE_COUNTS = (1080, 318, 190, 125)

# Latent (polychoric) correlation of the two judges, given the assessor's grade.
# Repeated runs of one prompt (NISTRetrieval-instruct0/1/2 and -reason0/1/2) correlate by 0.999 or more, at most 0.12%
# of their grades differ: they were all but deterministic, and so say nothing of paths sampled at a temperature. The
# share of error that each path draws anew (`path_share`) is therefore our choice.
CORRELATION = 0.85


def confusion_for(scale: Sequence[int], binary_from: int = 1) -> NDArray[np.float64]:
    """The measured confusion P(answer | truth) carried over to a scale of k grades; shape (k, k), rows sum to 1.

    Four grades: as measured. Two grades: measured grades from `binary_from` on count as relevant (1: relevant at all;
    2 is the usual cut for TREC Deep Learning), rows pooled by how often the assessors gave each grade. Any other size:
    rows are interpolated linearly between measured ones, and each row's probability, spread evenly over its quarter of
    the unit interval, is cut into k equal parts (ours).
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
