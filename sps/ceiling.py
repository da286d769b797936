"""How high Pass@k could go: three estimates of the upper bound, side by side, none of them better in every way.

The paper (2604.16995) speaks of an empirical upper bound on Pass@k; what follows is our reading, not its definition.
- Union coverage: the share of problems that some checkpoint solved at least once. It is low, and grows with samples.
- The fitted limit: per-problem success as a zero-inflated beta, fitted by maximum likelihood; Pass@k as k grows without
  end is the share of problems that are not hopeless. It looks past the samples and rests on the family.
- The envelope: each problem at its own best checkpoint. It is high, since it chooses by noisy estimates.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq, minimize
from scipy.special import betaln, digamma, expit, gammaln, logit

from sps.passk import pass_at_k, pool_counts

Counts = Mapping[str, tuple[int, int]]  # problem -> (n, c)
CONCENTRATION = (1e-2, 1e4)  # bounds of a + b; beyond them the data cannot tell
MEAN = (1e-5, 1 - 1e-5)  # bounds of a / (a + b)
STARTS = [(0.05, 1.0), (0.3, 3.0), (0.5, 0.5), (0.7, 30.0)]  # of mean and concentration
TINY = 1e-300
HALF_CHI2 = 1.9207294103  # half the 95% point of chi-squared with one degree of freedom


@dataclass(frozen=True)
class Fit:
    """Zero-inflated beta-binomial: a problem is hopeless with chance 1 - solvable, else c ~ Bin(n, p), p ~ Beta(a, b).

    Attributes:
        solvable: share of problems in [0, 1]; this is Pass@k in the limit.
        a, b: of the beta.
        low, high: 95% interval of `solvable` from the profile likelihood. A high of 1 is common: problems that are
            merely hard look hopeless until they are tried more often.
        log_likelihood: in nats, over problems.
    """

    solvable: float
    a: float
    b: float
    low: float
    high: float
    log_likelihood: float

    def pass_at(self, k: float) -> float:
        """Pass@k of a new problem under the fit: solvable (1 - B(a, b + k) / B(a, b)); k from 1, infinity too."""
        if np.isinf(k):
            return self.solvable
        return float(-self.solvable * np.expm1(betaln(self.a, self.b + k) - betaln(self.a, self.b)))


def union_coverage(checkpoints: Sequence[Counts]) -> float:
    """Share of problems with a correct completion at some checkpoint, in [0, 1].

    Raises:
        ValueError: there are no problems.
    """
    pooled = pool_counts(checkpoints)
    if not pooled:
        raise ValueError("there are no evaluated problems to take a ceiling of")
    return sum(c > 0 for _, c in pooled.values()) / len(pooled)


def envelope(checkpoints: Sequence[Counts], k: int) -> float:
    """Mean over problems of the highest Pass@k that any checkpoint has on it, in [0, 1]; problems with n < k left out.

    Raises:
        ValueError: no problem has k completions.
    """
    best: dict[str, float] = {}
    for counts in checkpoints:
        enough = {problem: pair for problem, pair in counts.items() if pair[0] >= k}
        pairs = np.array(list(enough.values()), dtype=np.int64).reshape(-1, 2)
        for problem, value in zip(enough, pass_at_k(pairs[:, 0], pairs[:, 1], k).tolist(), strict=True):
            best[problem] = max(best.get(problem, 0.0), value)
    if not best:
        raise ValueError(f"no problem has {k} judged completions, which Pass@{k} needs")
    return sum(best.values()) / len(best)


def fit_ceiling(counts: Sequence[tuple[int, int]]) -> Fit:
    """Maximum-likelihood fit to (n, c) of each problem; problems without completions say nothing and may be there.

    Where every problem failed, nothing tells hopeless from hard: solvable is 0 with an interval up to 1.

    Raises:
        ValueError: no problem has a completion.
    """
    tried = [pair for pair in counts if pair[0] > 0]
    cells, times = np.unique(np.array(tried, dtype=np.int64).reshape(-1, 2), axis=0, return_counts=True)
    weights: NDArray[np.float64] = times.astype(np.float64)
    if not len(cells):
        raise ValueError("there are no judged completions to fit a ceiling to")
    if not cells[:, 1].any():
        return Fit(0.0, 1.0, 1.0, 0.0, 1.0, 0.0)
    start, best = _best(cells, weights, None, STARTS)
    a, b = _shape(start)
    solvable = _likeliest_share(cells, weights, _log_beta_binomial(cells, a, b))

    def above(share: float) -> float:
        """How far the profile likelihood at this share is above the interval's edge."""
        return _best(cells, weights, share, [(a / (a + b), a + b), STARTS[0]])[1] - (best - HALF_CHI2)

    low = 0.0 if solvable < 1e-6 else _edge(above, 1e-6, solvable)
    high = 1.0 if solvable > 1 - 1e-6 or above(1.0) >= 0 else _edge(above, 1.0, solvable)
    return Fit(solvable, a, b, low, high, best)


def log_likelihood(counts: Sequence[tuple[int, int]], solvable: float, a: float, b: float) -> float:
    """Log-likelihood in nats of (n, c) of each problem under the zero-inflated beta-binomial."""
    cells = np.array(counts, dtype=np.int64).reshape(-1, 2)
    return float(_cell_log_likelihood(cells, solvable, a, b).sum())


def _cell_log_likelihood(cells: NDArray[np.int64], solvable: float, a: float, b: float) -> NDArray[np.float64]:
    tried = np.log(max(solvable, TINY)) + _log_beta_binomial(cells, a, b)
    return np.logaddexp(tried, np.where(cells[:, 1] == 0, np.log(max(1 - solvable, TINY)), -np.inf))


def _log_beta_binomial(cells: NDArray[np.int64], a: float, b: float) -> NDArray[np.float64]:
    n, c = cells[:, 0], cells[:, 1]
    choices = gammaln(n + 1) - gammaln(c + 1) - gammaln(n - c + 1)
    return np.asarray(choices + betaln(c + a, n - c + b) - betaln(a, b))


def _shape(point: NDArray[np.float64]) -> tuple[float, float]:
    """(a, b) of logit mean and log concentration."""
    mean, size = float(expit(point[0])), float(np.exp(point[1]))
    return mean * size, (1 - mean) * size


def _likeliest_share(
    cells: NDArray[np.int64], weights: NDArray[np.float64], log_solvable: NDArray[np.float64]
) -> float:
    """The likeliest share for a given beta: a concave problem of one variable, solved where its slope is 0.

    log_solvable: each cell's log-likelihood if its problem can be solved.
    """
    failed = cells[:, 1] == 0
    surprise = -np.expm1(log_solvable[failed])  # chance of some success, if the problem can be solved
    zeros, others = weights[failed], weights[~failed].sum()

    def slope(share: float) -> float:
        return float(others / share - (zeros * surprise / (1 - share * surprise)).sum())

    edge = 1 - 1e-12
    return 1.0 if slope(edge) >= 0 else float(brentq(slope, 1e-12, edge))


def _best(
    cells: NDArray[np.int64], weights: NDArray[np.float64], share: float | None, starts: Sequence[tuple[float, float]]
) -> tuple[NDArray[np.float64], float]:
    """The likeliest beta, as (logit mean, log concentration), and its log-likelihood; share None: the likeliest."""
    n, c = cells[:, 0], cells[:, 1]

    def loss(point: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        a, b = _shape(point)
        log_solvable = _log_beta_binomial(cells, a, b)
        solvable = _likeliest_share(cells, weights, log_solvable) if share is None else share
        total = np.logaddexp(
            np.log(max(solvable, TINY)) + log_solvable, np.where(c == 0, np.log(max(1 - solvable, TINY)), -np.inf)
        )
        # By the envelope theorem the likeliest share may be held fixed in the slope.
        belief = weights * np.exp(np.log(max(solvable, TINY)) + log_solvable - total)
        common = digamma(a + b) - digamma(n + a + b)
        by_a = belief @ (digamma(c + a) - digamma(a) + common)
        by_b = belief @ (digamma(n - c + b) - digamma(b) + common)
        mean = a / (a + b)
        slope = np.array([(by_a - by_b) * (a + b) * mean * (1 - mean), by_a * a + by_b * b])
        return -float(weights @ total), -slope

    bounds = [tuple(logit(MEAN)), tuple(np.log(CONCENTRATION))]
    tries = [
        minimize(loss, (logit(mean), np.log(size)), jac=True, method="L-BFGS-B", bounds=bounds) for mean, size in starts
    ]
    found = min(tries, key=lambda result: float(result.fun))
    return found.x, -float(found.fun)


def _edge(above: Callable[[float], float], outside: float, inside: float) -> float:
    """Where the profile likelihood crosses the interval's edge, between a share outside it and one inside."""
    return float(brentq(above, outside, inside, xtol=1e-4))
