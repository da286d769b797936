"""The page of a comparison: the frontier between few tries and many, curves, differences and tables."""

from collections.abc import Sequence
from typing import Any

from sps.compare import tables
from sps.page import Figure, chart, document, grid, section, table, term, text_card
from sps.traces import horizontal

COLOURS = ("grey", "blue", "orange", "green", "purple", "gold")
SYMBOLS = ("circle", "square", "diamond", "triangle-up", "cross", "star")  # a further shape each time colours run out


def comparison_page(result: dict[str, Any]) -> str:
    """The page's HTML, of what `compare` measured."""
    few, many = min(result["ks"]), max(result["ks"])
    families = list(dict.fromkeys(row["family"] for row in result["frontier"]))
    styles = {
        f: (COLOURS[i % len(COLOURS)], SYMBOLS[(i // len(COLOURS)) % len(SYMBOLS)]) for i, f in enumerate(families)
    }
    arms = [row["arm"] for row in result["table"]]
    legend = " ".join(term(family, styles[family][0], "") for family in families)
    first = arms[0]
    parts = [
        f"<header><h1>Comparison</h1><p class='muted'>{len(arms)} arms, {sum(row['runs'] for row in result['table'])} "
        f"runs, {result['problems']} held-out problems. Intervals are 95%, by resampling problems and, where an arm "
        "has several runs, runs.</p></header>",
        section(
            "frontier",
            f"The frontier: Pass@{few} against Pass@{many}",
            "Up and to the right is better. Steering is worth something where its points lie above the other "
            "families' lines.",
            grid([chart("After training", legend, frontier(result, styles), 520)], "one"),
        ),
        section(
            "curves",
            "Over training",
            "Means over an arm's runs.",
            grid([chart(f"Pass@{k}", legend, curves(result, k, styles), 340) for k in (few, many)], "two"),
        ),
        section(
            "paths",
            "Paths",
            "Each arm's way from its first evaluation to its last, in the frontier's plane.",
            grid([chart(f"Pass@{few} against Pass@{many}, over training", legend, paths(result, styles), 460)], "one"),
        ),
        section(
            "differences",
            f"Differences from {first}",
            "Paired by problem; an interval that misses zero is a clear difference.",
            grid(
                [chart(f"Pass@{k}, points", "", differences(result, k, styles), _height(arms)) for k in (few, many)],
                "two",
            ),
        ),
        section(
            "tables",
            "Tables",
            "",
            "".join(f"<div class='grid'>{text_card(t, table(r))}</div>" for t, r in tables(result)),
        ),
    ]
    return document("Comparison · sps", "".join(parts))


def frontier(result: dict[str, Any], styles: dict[str, tuple[str, str]]) -> Figure:
    """Each arm's point with its intervals; arms of one family, which differ in strength, joined by a line."""
    data = []
    for family, (colour, symbol) in styles.items():
        rows = sorted((r for r in result["frontier"] if r["family"] == family), key=lambda row: row["few"]["mean"])
        data.append(
            {
                "type": "scatter", "mode": "lines+markers", "name": family, "text": [row["arm"] for row in rows],
                "x": [100 * row["few"]["mean"] for row in rows], "y": [100 * row["many"]["mean"] for row in rows],
                "error_x": _bars([row["few"] for row in rows], colour),
                "error_y": _bars([row["many"] for row in rows], colour),
                "line": {"color": f"theme:{colour}/0.6", "width": 1.5, "dash": "dot"},
                "marker": {"color": f"theme:{colour}", "symbol": symbol, "size": 11}, "cliponaxis": False,
                "hovertemplate": "<b>%{text}</b><br>%{x:.1f}% · %{y:.1f}%<extra></extra>",
            }
        )  # fmt: skip
    labels = [
        {
            "x": 100 * row["few"]["mean"], "y": 100 * row["many"]["mean"], "text": row["arm"], "showarrow": False,
            "xanchor": "left", "yanchor": "bottom", "xshift": 7, "yshift": 3,
            "font": {"size": 11, "color": f"theme:{styles[row['family']][0]}"},
        }
        for row in result["frontier"]
    ]  # fmt: skip
    return {"data": data, "layout": _plane(result) | {"annotations": labels}}


def paths(result: dict[str, Any], styles: dict[str, tuple[str, str]]) -> Figure:
    """Each arm's evaluations joined in order; the last one is marked."""
    few, many = min(result["ks"]), max(result["ks"])
    data = []
    for row in result["frontier"]:
        colour, symbol = styles[row["family"]]
        x, y = ([100 * r["mean"] for r in _curve(result, row["arm"], k)] for k in (few, many))
        steps = [f"{row['arm']}, step {r['step']}" for r in _curve(result, row["arm"], few)]
        data.append(
            {
                "type": "scatter", "mode": "lines+markers", "x": x, "y": y, "name": row["arm"], "text": steps,
                "line": {"color": f"theme:{colour}/0.7", "width": 1.5, "shape": "spline", "smoothing": 0.6},
                "marker": {
                    "color": f"theme:{colour}", "symbol": symbol, "size": [4] * (len(x) - 1) + [10],
                },
                "hovertemplate": "<b>%{text}</b><br>%{x:.1f}% · %{y:.1f}%<extra></extra>", "cliponaxis": False,
            }
        )  # fmt: skip
    return {"data": data, "layout": _plane(result)}


def curves(result: dict[str, Any], k: int, styles: dict[str, tuple[str, str]]) -> Figure:
    """Pass@k over steps, a line per arm."""
    data = []
    for row in result["frontier"]:
        colour, symbol = styles[row["family"]]
        own = _curve(result, row["arm"], k)
        data.append(
            {
                "type": "scatter", "mode": "lines+markers", "name": row["arm"], "x": [r["step"] for r in own],
                "y": [100 * r["mean"] for r in own], "line": {"color": f"theme:{colour}", "width": 2},
                "marker": {"symbol": symbol, "size": 6}, "cliponaxis": False,
                "hovertemplate": "%{y:.1f}% <extra>" + row["arm"].replace("<", "&lt;") + "</extra>",
            }
        )  # fmt: skip
    layout = {"xaxis": {"title": {"text": "step"}}, "yaxis": {"ticksuffix": "%"}, "hovermode": "closest"}
    return {"data": data, "layout": layout}


def differences(result: dict[str, Any], k: int, styles: dict[str, tuple[str, str]]) -> Figure:
    """Every arm's difference from the first, with its interval, in points."""
    rows = [row for row in result["differences"] if row["k"] == k]
    family = {row["arm"]: row["family"] for row in result["frontier"]}
    data = []
    for row in rows:
        colour, symbol = styles[family[row["arm"]]]
        data.append(
            {
                "type": "scatter", "mode": "markers", "x": [100 * row["mean"]], "y": [row["arm"]],
                "error_x": _bars([row], colour), "marker": {"color": f"theme:{colour}", "symbol": symbol, "size": 10},
                "hovertemplate": "%{x:+.1f} points<extra></extra>",
            }
        )  # fmt: skip
    zero = {k: v for k, v in horizontal(0.0).items() if k not in ("xref", "x0", "x1", "y0", "y1")}
    layout = {
        "hovermode": "closest",
        "xaxis": {"title": {"text": "points"}, "showgrid": True},
        "yaxis": {"autorange": "reversed", "showgrid": False},
        "shapes": [zero | {"yref": "paper", "y0": 0, "y1": 1, "x0": 0, "x1": 0}],
    }
    return {"data": data, "layout": layout}


def _plane(result: dict[str, Any]) -> dict[str, Any]:
    return {
        "hovermode": "closest",
        "xaxis": {"title": {"text": f"Pass@{min(result['ks'])}"}, "ticksuffix": "%", "showgrid": True},
        "yaxis": {"title": {"text": f"Pass@{max(result['ks'])}"}, "ticksuffix": "%"},
    }


def _curve(result: dict[str, Any], arm: str, k: int) -> list[dict[str, Any]]:
    return [row for row in result["curves"] if row["arm"] == arm and row["k"] == k]


def _bars(rows: Sequence[dict[str, float]], colour: str) -> dict[str, Any]:
    return {
        "type": "data", "symmetric": False, "width": 0, "thickness": 1.2, "color": f"theme:{colour}/0.45",
        "array": [100 * (row["high"] - row["mean"]) for row in rows],
        "arrayminus": [100 * (row["mean"] - row["low"]) for row in rows],
    }  # fmt: skip


def _height(arms: Sequence[str]) -> int:
    return 70 + 34 * len(arms)
