"""Model view: does the relevance model score the top results as it did, and is it as sure?"""

from collections.abc import Callable

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy.stats import ks_2samp

from serm.shift.report import View
from serm.shift.sample import Sample

# [query, doc_id] -> f(q, d) and the entropy of its label distribution, a number a row each
Judge = Callable[[pl.DataFrame], tuple[NDArray[np.float64], NDArray[np.float64]]]


def score_views(reference: Sample, current: Sample, judge: Judge | None, scored: int, minimum: int) -> list[View]:
    """Compare f and its entropy on the top result of `scored` searches a window, or the logged f where no judge is.

    One result a search keeps observations independent. The test is Kolmogorov and Smirnov's, and effect its distance.
    """
    if judge is None:
        before, after = (_logged(side) for side in (reference, current))
        return [_compare("score", before, after, minimum, "logged scores of top results")]
    tops = [_top(side).head(scored) for side in (reference, current)]
    if min(top.height for top in tops) < minimum:
        return [_compare("score", np.zeros(0), np.zeros(0), minimum, "")]
    both = judge(pl.concat(top.select("query", "doc_id") for top in tops))
    cut = tops[0].height
    (f_before, f_after), (h_before, h_after) = ((values[:cut], values[cut:]) for values in both)
    return [
        _compare("score", f_before, f_after, minimum, "the model's scores of top results"),
        _compare("entropy", h_before, h_after, minimum, "the model's uncertainty about top results"),
    ]


def _top(sample: Sample) -> pl.DataFrame:
    """The highest result of every search, in the sample's random order."""
    first = sample.rows.sort("position", "doc_id").group_by("session", "query", maintain_order=True).first()
    return sample.searches.join(first, on=["session", "query"], maintain_order="left")


def _logged(sample: Sample) -> NDArray[np.float64]:
    return _top(sample)["score"].drop_nulls().to_numpy()


def _compare(name: str, before: NDArray[np.float64], after: NDArray[np.float64], minimum: int, what: str) -> View:
    sizes = (len(before), len(after))
    if min(sizes) < minimum:
        return View(name, None, None, *sizes, f"too few scored searches ({sizes[0]} before, {sizes[1]} now)")
    test = ks_2samp(before, after, method="auto")
    text = f"{what}: mean {np.mean(before):.2f} before, {np.mean(after):.2f} now"
    return View(name, float(test.statistic), float(test.pvalue), *sizes, text)
