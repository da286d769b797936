"""Pictures made of HTML and a little SVG: sharp in both themes, on paper and at any width, without a script."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from serm.report.html import text

LABELS = 12  # most words below a picture


@dataclass(frozen=True)
class Point:
    """A value at a place of the horizontal axis, with its interval; hollow: it never was in charge."""

    place: int
    value: float
    low: float | None
    high: float | None
    hollow: bool
    words: str


@dataclass(frozen=True)
class Series:
    """Points of one kind; those that are not hollow are joined."""

    name: str
    tone: str  # accent, plain, or soft
    points: list[Point]


def lines(series: Sequence[Series], places: Sequence[str], label: str, named: bool = False) -> str:
    """Values over places with bands for their intervals; `label` says in words what is seen.

    The last figure of a series stands beside it, after its name where `named`; a soft one has none.
    """
    ends = [end for one in series for p in one.points for end in (p.value, p.low, p.high) if end is not None]
    ticks = nice_ticks(min(ends), max(ends))
    frame = _Frame(ticks[0], ticks[-1], len(places))
    shapes = "".join(_joined(one, frame) for one in series)
    marks = "".join(_mark(p, one, frame) for one in series for p in one.points)
    marks += "".join(_last(one, frame, named) for one in series)
    digits = 0 if all(abs(tick - round(tick)) < 1e-9 for tick in ticks) else 1
    left = "".join(f'<span style="bottom:{frame.up(tick):.2f}%">{tick:.{digits}f}</span>' for tick in ticks)
    grid = "".join(f'<i class="rule" style="bottom:{frame.up(tick):.2f}%"></i>' for tick in ticks)
    kind = "plot named" if named else "plot"
    return (
        f'<div class="{kind}" role="img" aria-label="{text(label)}"><div class="ys" aria-hidden="true">{left}</div>'
        f'<div class="area" aria-hidden="true">{grid}<svg viewBox="0 0 100 100" preserveAspectRatio="none">{shapes}'
        f'</svg>{marks}</div><div class="xs" aria-hidden="true">{_below(places, frame)}</div></div>'
    )


def span(
    low: float, high: float, value: float, ends: tuple[float, float], zero: float | None = None, tone: str = ""
) -> str:
    """A value with its interval on a track from `ends[0]` to `ends[1]`, and a mark at `zero`."""
    mark = f'<i class="zero" style="left:{_along(zero, ends):.2f}%"></i>' if zero is not None else ""
    left, right = _along(low, ends), _along(high, ends)
    return (
        f'<div class="track" aria-hidden="true">{mark}<i class="range {tone}" style="left:{left:.2f}%;'
        f'width:{right - left:.2f}%"></i><i class="dot full {tone}" style="left:{_along(value, ends):.2f}%"></i></div>'
    )


def moved(before: float, now: float, most: float) -> str:
    """Two shares on a track from 0 to `most`: before (open) and now (full), joined."""
    a, b = _along(before, (0.0, most)), _along(now, (0.0, most))
    return (
        f'<div class="track" aria-hidden="true"><i class="range thin" style="left:{min(a, b):.2f}%;'
        f'width:{abs(a - b):.2f}%"></i><i class="dot hollow" style="left:{a:.2f}%"></i>'
        f'<i class="dot full" style="left:{b:.2f}%"></i></div>'
    )


def parts(shares: Sequence[tuple[float, str]]) -> str:
    """One bar of one or several parts: (share of the whole width, tone)."""
    pieces = "".join(f'<i class="{tone}" style="width:{100 * share:.2f}%"></i>' for share, tone in shares if share > 0)
    return f'<div class="bars" aria-hidden="true">{pieces}</div>'


def nice_ticks(low: float, high: float, about: int = 4) -> list[float]:
    """Round numbers that enclose low to high, about so many."""
    rough = max(high - low, 1e-6) / about
    step = 10.0 ** math.floor(math.log10(rough))
    step *= next(factor for factor in (1, 2, 5, 10) if factor * step >= rough * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(i * step, 10) for i in range(first, max(last, first + 1) + 1)]


@dataclass(frozen=True)
class _Frame:
    bottom: float
    top: float
    places: int

    def up(self, value: float) -> float:
        """Percent of the height."""
        return 100 * (value - self.bottom) / (self.top - self.bottom)

    def across(self, place: float) -> float:
        """Percent of the width."""
        return 50.0 if self.places == 1 else 5 + 93 * place / (self.places - 1)


def _joined(series: Series, frame: _Frame) -> str:
    led = sorted((p for p in series.points if not p.hollow), key=lambda p: p.place)
    upper = [(p.place, p.high) for p in led if p.low is not None and p.high is not None]
    lower = [(p.place, p.low) for p in reversed(led) if p.low is not None and p.high is not None]
    band = " ".join(f"{frame.across(place):.2f},{100 - frame.up(end or 0.0):.2f}" for place, end in upper + lower)
    line = " ".join(f"{frame.across(p.place):.2f},{100 - frame.up(p.value):.2f}" for p in led)
    return (f'<polygon class="band {series.tone}" points="{band}"/>' if len(upper) > 1 else "") + (
        f'<polyline class="line {series.tone}" points="{line}"/>' if len(led) > 1 else ""
    )


def _mark(p: Point, series: Series, frame: _Frame) -> str:
    """A dot; one with an interval of its own where no band shows it. A candidate stands a little before its round."""
    left = f"left:{frame.across(p.place - 0.12 if p.hollow else p.place):.2f}%"
    alone = p.hollow or sum(not other.hollow and other.low is not None for other in series.points) < 2
    whisker = ""
    if alone and p.low is not None and p.high is not None:
        size = f"bottom:{frame.up(p.low):.2f}%;height:{frame.up(p.high) - frame.up(p.low):.2f}%"
        whisker = f'<i class="whisker {series.tone}" style="{left};{size}"></i>'
    kind = "hollow" if p.hollow else "full"
    at = f"{left};bottom:{frame.up(p.value):.2f}%"
    return f'{whisker}<i class="dot {series.tone} {kind}" style="{at}" title="{text(p.words)}"></i>'


def _last(series: Series, frame: _Frame, named: bool) -> str:
    """The figure of the last value in charge."""
    led = [p for p in series.points if not p.hollow]
    if not led or series.tone == "soft":
        return ""
    name = f"{text(series.name)} " if named else ""
    at = f"left:{frame.across(led[-1].place):.2f}%;bottom:{frame.up(led[-1].value):.2f}%"
    return f'<span class="value {series.tone}" style="{at}">{name}{led[-1].value:.1f}</span>'


def _below(places: Sequence[str], frame: _Frame) -> str:
    every = max(1, math.ceil(len(places) / LABELS))
    last = len(places) - 1
    shown = [i for i in range(len(places)) if (i % every == 0 and last - i >= every / 2) or i == last]
    return "".join(f'<span style="left:{frame.across(i):.2f}%">{text(places[i])}</span>' for i in shown)


def _along(value: float, ends: tuple[float, float]) -> float:
    low, high = ends
    return 100 * min(1.0, max(0.0, (value - low) / (high - low))) if high > low else 50.0
