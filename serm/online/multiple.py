"""Corrections of p-values for looking at several metrics."""

from collections.abc import Sequence

import numpy as np
from scipy.stats import false_discovery_control


def adjusted(p_values: Sequence[float], how: str) -> list[float]:
    """Adjusted p-values, in the order given: holm (Holm 1979), bh (Benjamini and Hochberg 1995), or none."""
    if not p_values or how == "none":
        return list(p_values)
    p = np.asarray(p_values, np.float64)
    if how == "bh":
        return [float(value) for value in false_discovery_control(p)]
    order = np.argsort(p, kind="stable")
    stepped = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    result = np.empty_like(p)
    result[order] = np.minimum(stepped, 1.0)
    return [float(value) for value in result]
