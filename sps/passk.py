"""Pass@k: the chance that at least one of k completions is correct, and how sure its mean over problems is.

The estimator is the unbiased one of Chen et al. (2107.03374, Eq. 1). Resampling k of the n completions *with*
replacement and looking for a correct one is not: repeats make it biased low. Resampling here is of problems alone,
since completions of one problem are not independent draws from the task.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

BATCH_CELLS = 4_000_000  # bootstrap weights held in memory at once


@dataclass(frozen=True)
class Interval:
    """A mean over `problems` problems with its two-sided interval, all in the unit of what was averaged."""

    mean: float
    low: float
    high: float
    problems: int


def pass_at_k(n: ArrayLike, c: ArrayLike, k: ArrayLike) -> NDArray[np.float64]:
    """Unbiased Pass@k in [0, 1] from n completions of which c are correct; the arguments broadcast together.

        1 - C(n - c, k) / C(n, k) = 1 - prod_{j < k} (1 - c / (n - j))        (2107.03374, Eq. 1)
    Summed as log1p and returned by expm1, so that a small value keeps its digits.

    Raises:
        ValueError: they are not whole numbers with 0 <= c <= n and 1 <= k <= n.
    """
    samples, correct, tries = (_whole(name, value) for name, value in (("n", n), ("c", c), ("k", k)))
    samples, correct, tries = np.broadcast_arrays(samples, correct, tries)
    if (correct < 0).any() or (correct > samples).any():
        raise ValueError("Pass@k needs 0 <= c <= n: more completions are correct than were sampled, or fewer than none")
    if (tries < 1).any() or (tries > samples).any():
        raise ValueError(
            f"Pass@{tries.max()} needs at least as many completions of every problem as k, which is from 1"
        )
    log_failing = np.zeros(samples.shape)
    with np.errstate(divide="ignore"):  # log1p(-1) = -inf is meant: no choice of k is all wrong
        for j in range(int(tries.max(initial=0))):
            share = correct / np.maximum(samples - j, 1)  # of what is left after j wrong ones
            log_failing += np.where(j < tries, np.log1p(-np.minimum(share, 1.0)), 0.0)
    return 0.0 - np.expm1(log_failing)  # not -expm1: that gives -0.0


def pass_at_k_interval(
    counts: Sequence[tuple[int, int]], ks: Sequence[int], resamples: int, seed: int, level: float = 0.95
) -> dict[int, Interval]:
    """Mean Pass@k over problems for every k, with percentile bootstrap intervals over problems.

    counts: (n, c) of each problem. The same resamples serve every k, so that the intervals of one call move together.

    Raises:
        ValueError: there are no problems, or a k is larger than a problem's n.
    """
    table = np.array(counts, dtype=np.int64).reshape(-1, 2)
    values = pass_at_k(table[:, :1], table[:, 1:], np.array(ks)[None, :])  # (problems, ks)
    return dict(zip(ks, mean_intervals(values, resamples, seed, level), strict=True))


def pass_at_ks(
    counts: Sequence[tuple[int, int]], ks: Sequence[int], resamples: int, seed: int, level: float = 0.95
) -> dict[int, Interval | None]:
    """As `pass_at_k_interval`, each k over the problems with at least k judged completions; None where none has.

    A verdict that failed leaves a problem with fewer completions than were asked for; `Interval.problems` tells.
    """
    found: dict[int, Interval | None] = dict.fromkeys(ks)
    together: dict[int, list[int]] = {}  # ks by how many problems have enough: as many means the same ones
    for k in ks:
        together.setdefault(sum(n >= k for n, _ in counts), []).append(k)
    for size, alike in together.items():
        if size:
            enough = [(n, c) for n, c in counts if n >= max(alike)]
            found |= pass_at_k_interval(enough, alike, resamples, seed, level)
    return found


def mean_intervals(values: NDArray[np.float64], resamples: int, seed: int, level: float = 0.95) -> list[Interval]:
    """Column means of `values` (problems, columns) with percentile bootstrap intervals over the rows.

    For the difference of two runs pass each problem's difference: the bootstrap is then paired.

    Raises:
        ValueError: there are no rows.
    """
    problems, columns = values.shape
    if not problems:
        raise ValueError("there are no problems to average over")
    rng = np.random.default_rng(seed)
    means = np.concatenate([weights @ values for weights in bootstrap_weights(problems, resamples, rng)])
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2], axis=0)
    centre = values.mean(axis=0)
    return [Interval(float(centre[i]), float(low[i]), float(high[i]), problems) for i in range(columns)]


def bootstrap_weights(rows: int, resamples: int, rng: np.random.Generator) -> Iterator[NDArray[np.float64]]:
    """Weights (some, rows) of resampled rows, `resamples` in all; each line sums to 1."""
    batch = max(1, BATCH_CELLS // rows)
    equal = np.full(rows, 1 / rows)
    for start in range(0, resamples, batch):
        yield rng.multinomial(rows, equal, size=min(batch, resamples - start)) / rows


def pool_counts(checkpoints: Sequence[Mapping[str, tuple[int, int]]]) -> dict[str, tuple[int, int]]:
    """(n, c) of each problem summed over checkpoints, in the order in which problems first appear."""
    total: dict[str, tuple[int, int]] = {}
    for counts in checkpoints:
        for problem, (n, c) in counts.items():
            before = total.get(problem, (0, 0))
            total[problem] = (before[0] + n, before[1] + c)
    return total


def _whole(name: str, value: ArrayLike) -> NDArray[np.int64]:
    array = np.asarray(value)
    if not np.issubdtype(array.dtype, np.integer):
        raise ValueError(f"Pass@k: {name} must be whole numbers, not {array.dtype}")
    return array.astype(np.int64)
