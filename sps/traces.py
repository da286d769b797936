"""Small pieces of figures: lines, bands, labels that do not overlap, running means."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Trace = dict[str, Any]


def line(x: Floats, y: Floats, name: str, colour: str, width: float = 2, mode: str = "lines", **more: Any) -> Trace:
    """A line; values that are not finite are gaps."""
    return {
        "type": "scatter", "mode": mode, "x": plain(x), "y": plain(y), "name": name,
        "line": {"color": colour, "width": width}, "marker": {"color": colour, "size": 6}, "cliponaxis": False,
    } | more  # fmt: skip


def banded(
    x: Sequence[float],
    rows: Sequence[Mapping[str, float]],
    name: str,
    colour: str,
    scale: float = 100.0,
    suffix: str = "%",
) -> list[Trace]:
    """A line through the means of `rows` over the band from low to high; colour is a theme colour without opacity."""
    low, mean, high = (scale * np.array([row[key] for row in rows], float) for key in ("low", "mean", "high"))
    across = np.array(x, float)
    fill = line(np.r_[across, across[::-1]], np.r_[low, high[::-1]], name, f"{colour}/0.13", width=0)
    fill |= {"fill": "toself", "fillcolor": f"{colour}/0.13", "hoverinfo": "skip"}
    words = [f"{m:.1f}{suffix} [{a:.1f}, {b:.1f}]" for m, a, b in zip(mean, low, high, strict=True)]
    middle = line(across, mean, name, colour, mode="lines+markers", text=words, hovertemplate="%{text}")
    return [fill, middle]


def horizontal(y: float) -> dict[str, Any]:
    """A dotted line across the figure."""
    ends = {"type": "line", "xref": "paper", "x0": 0, "x1": 1, "y0": y, "y1": y, "layer": "below"}
    return ends | {"line": {"color": "theme:grey", "width": 1, "dash": "dot"}}


def end_label(y: float, text: str, colour: str) -> dict[str, Any]:
    """A line's name at its right end."""
    place = {"x": 1, "xref": "paper", "xanchor": "left", "xshift": 5, "y": y, "yanchor": "middle"}
    return place | {"text": text, "showarrow": False, "font": {"color": colour, "size": 12}}


def ramp(count: int) -> list[str]:
    """Colours of an ordered series, from faint to strong."""
    return [f"theme:ramp({i / max(count - 1, 1):.2f})" for i in range(count)]


def apart(values: Sequence[float], gap: float) -> list[float]:
    """Positions near `values`, in the same order, at least `gap` from each other: values that crowd are centred."""
    order = sorted(range(len(values)), key=lambda i: values[i])
    blocks: list[list[int]] = []
    for i in order:
        blocks.append([i])
        while len(blocks) > 1 and _low(blocks[-1], values, gap) - _high(blocks[-2], values, gap) < gap:
            last = blocks.pop()
            blocks[-1] += last
    placed = [0.0] * len(values)
    for block in blocks:
        for rank, i in enumerate(block):
            placed[i] = _low(block, values, gap) + gap * rank
    return placed


def running_mean(values: Floats, window: int) -> Floats:
    """Mean over `window` - 1 values on either side, fewer at the ends; values that are not finite are left out."""
    kept = np.isfinite(values)
    sums = np.r_[0.0, np.cumsum(np.where(kept, values, 0.0))]
    counts = np.r_[0, np.cumsum(kept)]
    index = np.arange(len(values))
    low, high = np.maximum(index - window + 1, 0), np.minimum(index + window, len(values))
    number = counts[high] - counts[low]
    return np.where(number > 0, (sums[high] - sums[low]) / np.maximum(number, 1), np.nan)


def thinned(x: Floats, y: Floats, most: int = 800) -> tuple[Floats, Floats]:
    """At most about `most` points: means over equal runs of neighbours."""
    size = -(-len(x) // most)
    if size <= 1:
        return x, y
    starts = np.arange(0, len(x), size)
    number = np.diff(np.r_[starts, len(x)])
    return np.add.reduceat(x, starts) / number, np.add.reduceat(y, starts) / number


def plain(values: Floats) -> list[float | None]:
    """Numbers for JSON, with four significant digits more than a screen shows; not finite ones are None."""
    return [float(f"{value:.7g}") if np.isfinite(value) else None for value in values]


def _low(block: list[int], values: Sequence[float], gap: float) -> float:
    return sum(values[i] for i in block) / len(block) - gap * (len(block) - 1) / 2


def _high(block: list[int], values: Sequence[float], gap: float) -> float:
    return _low(block, values, gap) + gap * (len(block) - 1)
