"""Figures of one run, as Plotly's data and layout with the page's names for colours."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from sps.page import Figure
from sps.probes import KINDS, Trajectory
from sps.runs import Rows
from sps.traces import apart, banded, end_label, horizontal, line, ramp, running_mean, thinned

COLOURS = ("blue", "orange", "green", "purple", "gold", "grey")


def passk_over_steps(rows: Rows) -> Figure:
    """Pass@k in percent at every evaluation, a line and band per k; rows of step, k, mean, low, high."""
    ks = sorted({row["k"] for row in rows})
    data: list[dict[str, Any]] = []
    ends: list[float] = []
    for k, colour in zip(ks, ramp(len(ks)), strict=True):
        own = sorted((row for row in rows if row["k"] == k), key=lambda row: row["step"])
        data += banded([row["step"] for row in own], own, f"Pass@{k}", colour)
        ends.append(100 * own[-1]["mean"])
    low, high = min(100 * row["low"] for row in rows), max(100 * row["high"] for row in rows)
    labels = [
        end_label(y, f"@{k}", colour)
        for y, k, colour in zip(apart(ends, 0.06 * (high - low)), ks, ramp(len(ks)), strict=True)
    ]
    layout = {
        "xaxis": {"title": {"text": "step"}, "range": [0, max(row["step"] for row in rows) or 1]},
        "yaxis": {"ticksuffix": "%"},
        "margin": {"r": 44},
        "annotations": labels,
    }
    return {"data": data, "layout": layout}


def passk_curves(rows: Rows, ceilings: Mapping[str, float]) -> Figure:
    """Pass@k in percent against k, at the first and last evaluation; ceilings as dotted lines."""
    steps = sorted({row["step"] for row in rows})
    data: list[dict[str, Any]] = []
    for step, colour in zip(steps, ("grey", "blue")[-len(steps) :], strict=True):
        own = [row for row in rows if row["step"] == step]
        data += banded([row["k"] for row in own], own, f"step {step}", f"theme:{colour}")
    ks = sorted({row["k"] for row in rows})
    shapes, labels = [], []
    for name, ceiling in ceilings.items():
        shapes.append(horizontal(100 * ceiling))
        labels.append(
            {
                "x": 0, "xref": "paper", "xanchor": "left", "y": 100 * ceiling, "yanchor": "bottom", "showarrow": False,
                "text": f"{name} {ceiling:.1%}", "font": {"size": 11},
            }
        )  # fmt: skip
    layout = {
        "xaxis": {"type": "log", "tickvals": ks, "ticktext": [str(k) for k in ks], "title": {"text": "k"}},
        "yaxis": {"ticksuffix": "%"},
        "shapes": shapes,
        "annotations": labels,
    }
    return {"data": data, "layout": layout}


def metric_lines(log: Rows, names: Sequence[str], colours: Sequence[str], last: int, percent: bool = False) -> Figure:
    """Logged figures over steps 0 to `last`: a faint line of every step under its running mean."""
    data: list[dict[str, Any]] = []
    for name, colour in zip(names, colours, strict=True):
        found = [(row["step"], row[name]) for row in log if row.get(name) is not None]
        steps, values = thinned(np.array([s for s, _ in found], float), np.array([v for _, v in found], float))
        scale, label = (100 if percent else 1), name.replace("_", " ")
        smooth = running_mean(values, max(1, len(values) // 40))
        if not np.array_equal(smooth, values):
            data.append(line(steps, scale * values, label, f"theme:{colour}/0.28", width=1, hoverinfo="skip"))
        data.append(
            line(steps, scale * smooth, label, f"theme:{colour}", mode="lines" if len(steps) > 1 else "markers")
        )
    layout: dict[str, Any] = {"xaxis": {"range": [0, max(last, 1)]}, "yaxis": {"nticks": 5}, "margin": {"b": 26}}
    if percent:
        layout["yaxis"] |= {"ticksuffix": "%"}
    return {"data": data, "layout": layout}


def seconds_stacked(log: Rows, names: Sequence[str], colours: Sequence[str], last: int) -> Figure:
    """Wall time per step, stacked."""
    data = []
    for name, colour in zip(names, colours, strict=True):
        steps, values = thinned(
            np.array([row["step"] for row in log], float), np.array([row.get(name) or 0.0 for row in log], float)
        )
        smooth = running_mean(values, max(1, len(values) // 40))
        data.append(
            line(steps, smooth, name.replace("_", " "), f"theme:{colour}", width=1)
            | {"stackgroup": "all", "fillcolor": f"theme:{colour}/0.35"}
        )
    layout = {"xaxis": {"range": [0, max(last, 1)]}, "yaxis": {"ticksuffix": " s", "nticks": 5}, "margin": {"b": 26}}
    return {"data": data, "layout": layout}


def missing_bars(log: Rows, reasons: Mapping[str, str], last: int) -> Figure:
    """Rollouts without a reward at every step, by reason; reasons: each one's colour."""
    data = []
    for reason, colour in reasons.items():
        found = [(row["step"], (row.get("reward_missing") or {}).get(reason, 0)) for row in log]
        steps, counts = [step for step, count in found if count], [count for _, count in found if count]
        marker = {"color": f"theme:{colour}", "line": {"width": 1, "color": f"theme:{colour}"}}
        data.append({"type": "bar", "x": steps, "y": counts, "name": reason, "marker": marker})
    layout = {"barmode": "stack", "xaxis": {"range": [0, last + 1]}, "yaxis": {"nticks": 5}, "margin": {"b": 26}}
    return {"data": data, "layout": layout}


def limit_over_steps(fits: Rows) -> Figure:
    """The fitted limit of Pass@k at every evaluation, in percent, with its interval."""
    own = [{"mean": fit["solvable"], "low": fit["low"], "high": fit["high"]} for fit in fits]
    data = banded([fit["step"] for fit in fits], own, "fitted limit", "theme:purple")
    return {"data": data, "layout": {"xaxis": {"title": {"text": "step"}}, "yaxis": {"ticksuffix": "%"}}}


def problems_moved(before: Mapping[str, tuple[int, int]], after: Mapping[str, tuple[int, int]]) -> Figure:
    """Share of each problem's completions that are correct, before against after; as many problems as the area says."""
    cells: dict[tuple[float, float], list[str]] = {}
    for name, (n, c) in before.items():
        if name in after and n and after[name][0]:
            place = (round(100 * c / n, 1), round(100 * after[name][1] / after[name][0], 1))
            cells.setdefault(place, []).append(name)
    words = [f"{len(names)} problem{'s' * (len(names) > 1)}<br>{', '.join(names[:4])}" for names in cells.values()]
    lost = [y == 0 < x for x, y in cells]
    data = [
        {
            "type": "scatter", "mode": "markers", "x": [x for x, _ in cells], "y": [y for _, y in cells], "text": words,
            "hovertemplate": "%{x:.0f}% → %{y:.0f}%<br>%{text}<extra></extra>",
            "marker": {
                "size": [7 + 3.2 * (len(names) ** 0.5 - 1) for names in cells.values()],
                "color": ["theme:orange/0.75" if gone else "theme:blue/0.55" for gone in lost],
                "line": {"width": 1, "color": ["theme:orange" if gone else "theme:blue" for gone in lost]},
            },
            "cliponaxis": False,
        }
    ]  # fmt: skip
    axis = {"range": [-4, 104], "ticksuffix": "%", "dtick": 25}
    layout = {
        "hovermode": "closest",
        "xaxis": axis | {"title": {"text": "correct at the start"}, "showgrid": True},
        "yaxis": axis | {"title": {"text": "correct at the end"}},
        "shapes": [
            {"type": "line", "x0": 0, "x1": 100, "y0": 0, "y1": 100, "line": {"color": "theme:grey", "dash": "dot"}}
        ],
    }
    return {"data": data, "layout": layout}


def probes_over_steps(found: Sequence[Trajectory], steps: Sequence[int]) -> Figure:
    """Change in log-probability since the start, in nats: median and middle half of each kind of trajectory."""
    data: list[dict[str, Any]] = []
    for kind, colour in zip(KINDS, ("blue", "orange", "grey"), strict=True):
        gains = np.array([np.subtract(t.logprobs, t.logprobs[0]) for t in found if t.kind == kind])
        if len(gains):
            low, middle, high = np.nanquantile(gains, [0.25, 0.5, 0.75], axis=0)
            own = [{"mean": m, "low": a, "high": b} for m, a, b in zip(middle, low, high, strict=True)]
            data += banded(steps, own, kind, f"theme:{colour}", scale=1.0, suffix=" nats")
    layout = {
        "xaxis": {"title": {"text": "step"}},
        "yaxis": {"title": {"text": "nats since the start"}},
        "shapes": [horizontal(0.0)],
    }
    return {"data": data, "layout": layout}


def probes_moved(found: Sequence[Trajectory]) -> Figure:
    """Every trajectory: its log-probability at the start, and what it gained until the end, in nats."""
    data = []
    for kind, colour in zip(KINDS, ("blue", "orange", "grey"), strict=True):
        own = [t for t in found if t.kind == kind and np.isfinite(t.gain)]
        data.append(
            {
                "type": "scatter", "mode": "markers", "name": kind, "x": [round(t.logprobs[0], 4) for t in own],
                "y": [round(t.gain, 4) for t in own], "text": [f"{t.problem}, sample {t.sample}" for t in own],
                "hovertemplate": "%{x:.1f} %{y:+.1f} nats<br>%{text}<extra>" + kind + "</extra>",
                "marker": {"size": 7, "color": f"theme:{colour}/0.7"}, "cliponaxis": False,
            }
        )  # fmt: skip
    layout = {
        "hovermode": "closest",
        "xaxis": {"title": {"text": "log-probability at the start, nats"}, "showgrid": True},
        "yaxis": {"title": {"text": "gained, nats"}},
        "shapes": [horizontal(0.0)],
    }
    return {"data": data[::-1], "layout": layout}
