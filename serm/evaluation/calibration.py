"""Whether label probabilities mean what they say: calibration errors, Brier score, reliability, temperature. Pure.

Expected calibration error (Guo et al., 2017): pairs are put into bins by confidence, and ECE is the mean over pairs of
the gap between a bin's mean confidence and its share of right answers. Equal-width bins are the classical kind;
adaptive ones hold equally many pairs each (Nixon et al., 2019). Top-label ECE looks at the likeliest label, classwise
ECE (Kull et al., 2019) at every label's own probability. Intervals draw queries again, never pairs, and leave the bins
as they are; an error in absolute value cannot average out, so they lie a little high when there are few queries.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar

from serm.evaluation.paired import BATCH_CELLS, Interval

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
TINY = 1e-12  # the least probability that enters a logarithm
TEMPERATURES = (0.05, 20.0)


@dataclass(frozen=True)
class Bin:
    """Pairs of like confidence: how sure the model was, and how often it was right."""

    pairs: int
    confidence: float
    accuracy: float


@dataclass(frozen=True)
class CalibrationFigures:
    """Calibration of n pairs' probabilities (n, |Y|); every figure is lower when better."""

    ece: Interval  # of the top label, equal-width bins
    ece_adaptive: Interval
    classwise: Interval  # mean over labels, equal-width bins
    by_label: dict[int, Interval]
    brier: Interval  # sum over labels of squared errors, mean over pairs: 0 to 2
    nll: Interval  # nats


@dataclass(frozen=True)
class Calibration:
    """Calibration on one split; `figures` is None where `note` says why. `tempered` is what the temperature would give.

    Nothing is tempered in the model: the temperature is fitted on dev and only reported.
    """

    split: str
    pairs: int
    queries: int
    temperature: float | None
    figures: CalibrationFigures | None
    tempered: CalibrationFigures | None
    top: list[Bin]
    top_tempered: list[Bin]
    labels: dict[int, list[Bin]]
    note: str


def calibrate(
    split: str, probabilities: Floats, grades: Ints, queries: Ints, scale: Sequence[int],
    temperature: float | None, bins: int, level: float, resamples: int, seed: int,
) -> Calibration:  # fmt: skip
    """Calibration of probabilities (n, |Y|) against human grades (n,); `queries` (n,) numbers each pair's query.

    A pair with a grade off the scale (the median of several people's) is left out.
    """
    index = {grade: place for place, grade in enumerate(scale)}
    on_scale = np.array([int(grade) in index for grade in grades], dtype=bool)
    p, query = probabilities[on_scale], queries[on_scale]
    y = np.array([index[int(grade)] for grade in grades[on_scale]], dtype=np.int64)
    empty: tuple[None, None, list[Bin], list[Bin], dict[int, list[Bin]]] = (None, None, [], [], {})
    number = len(np.unique(query))
    if not len(y):
        return Calibration(split, 0, 0, temperature, *empty, "no judged pairs")
    bad = int((~np.isfinite(p).all(axis=1)).sum())
    if bad:
        return Calibration(split, len(y), number, temperature, *empty, f"probabilities of {bad} pairs are not numbers")
    figures = measure(p, y, query, scale, bins, level, resamples, seed)
    labels = {grade: reliability(p[:, k], y == k, bins) for k, grade in enumerate(scale)}
    tempered, after = None, []
    if temperature is not None:
        warm = apply_temperature(p, temperature)
        tempered, after = measure(warm, y, query, scale, bins, level, resamples, seed), _top_bins(warm, y, bins)
    top = _top_bins(p, y, bins)
    return Calibration(split, len(y), number, temperature, figures, tempered, top, after, labels, "")


def measure(
    p: Floats, y: Ints, query: Ints, scale: Sequence[int], bins: int, level: float, resamples: int, seed: int
) -> CalibrationFigures:
    """All figures of probabilities (n, |Y|), places of the right labels (n,) and query numbers (n,)."""
    top, right = p.max(axis=1), p.argmax(axis=1) == y
    parts = [_gaps(top, right, equal_width(top, bins), bins), _gaps(top, right, equal_mass(top, bins), bins)]
    parts += [_gaps(p[:, k], y == k, equal_width(p[:, k], bins), bins) for k in range(len(scale))]
    parts.append(((p - np.eye(len(scale))[y]) ** 2).sum(axis=1, keepdims=True))
    parts.append(-np.log(np.maximum(p[np.arange(len(y)), y], TINY))[:, None])
    value, low, high = _intervals(parts, slice(2, 2 + len(scale)), query, level, resamples, seed)
    number = len(np.unique(query))
    ece, adaptive, *labels, brier, nll, classwise = (
        Interval(float(v), float(a), float(b), number) for v, a, b in zip(value, low, high, strict=True)
    )
    return CalibrationFigures(ece, adaptive, classwise, dict(zip(scale, labels, strict=True)), brier, nll)


def _gaps(confidence: Floats, right: NDArray[np.bool_], place: Ints, bins: int) -> Floats:
    """Right minus confidence of every pair, in its bin's column: (n, bins)."""
    result = np.zeros((len(place), bins))
    result[np.arange(len(place)), place] = right - confidence
    return result


def _intervals(
    parts: Sequence[Floats], classes: slice, query: Ints, level: float, resamples: int, seed: int
) -> tuple[Floats, Floats, Floats]:
    """Each part's sum of absolute column sums, a pair: its value, and low and high when queries are drawn again.

    The last of the results is the mean of the parts `classes`.
    """
    _, number = np.unique(query, return_inverse=True)
    queries = int(number.max()) + 1
    starts = np.cumsum([0, *(part.shape[1] for part in parts)])
    sums = np.zeros((queries, int(starts[-1]) + 1))
    np.add.at(sums, number, np.hstack([*parts, np.ones((len(query), 1))]))  # the last column counts pairs

    def values(weights: Floats) -> Floats:
        total = weights @ sums
        found = np.add.reduceat(np.abs(total[:, :-1]), starts[:-1], axis=1) / total[:, -1:]
        return np.hstack([found, found[:, classes].mean(axis=1, keepdims=True)])

    rng = np.random.default_rng(seed)
    rows = max(1, BATCH_CELLS // queries)
    drawn = np.concatenate(
        [
            values(rng.multinomial(queries, np.full(queries, 1 / queries), min(rows, resamples - start)).astype(float))
            for start in range(0, resamples, rows)
        ]
    )
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2], axis=0)
    return values(np.ones((1, queries)))[0], low, high


def equal_width(confidence: Floats, bins: int) -> Ints:
    """The bin of every confidence among `bins` equal parts of [0, 1]; a bin holds its upper end (Guo et al.)."""
    return np.clip(np.ceil(confidence * bins).astype(np.int64) - 1, 0, bins - 1)


def equal_mass(confidence: Floats, bins: int) -> Ints:
    """The bin of every confidence among `bins` of equally many pairs; equal confidences share a bin."""
    rank = np.searchsorted(np.sort(confidence), confidence, side="left")
    return np.asarray(rank * bins // max(1, len(confidence)), dtype=np.int64)


def reliability(confidence: Floats, right: NDArray[np.bool_], bins: int) -> list[Bin]:
    """The equal-width bins that hold any pair, by confidence."""
    place = equal_width(confidence, bins)
    return [
        Bin(int(inside.sum()), float(confidence[inside].mean()), float(right[inside].mean()))
        for inside in (place == b for b in range(bins))
        if inside.any()
    ]


def _top_bins(p: Floats, y: Ints, bins: int) -> list[Bin]:
    return reliability(p.max(axis=1), p.argmax(axis=1) == y, bins)


def apply_temperature(p: Floats, temperature: float) -> Floats:
    """softmax(log p / T): above 1 a temperature takes confidence away; the order of labels stays."""
    logits = np.log(np.maximum(p, TINY)) / temperature
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))


def fit_temperature(p: Floats, y: Ints) -> float | None:
    """The temperature in [0.05, 20] with the least negative log-likelihood of places y (n,) (Guo et al., 2017).

    None without pairs, or where a probability is not a number.
    """
    if not len(y) or not np.isfinite(p).all():
        return None

    def loss(log_temperature: float) -> float:
        warm = apply_temperature(p, float(np.exp(log_temperature)))
        return float(-np.log(np.maximum(warm[np.arange(len(y)), y], TINY)).mean())

    found = minimize_scalar(loss, bounds=np.log(TEMPERATURES), method="bounded", options={"xatol": 1e-4})
    return float(np.exp(found.x))
