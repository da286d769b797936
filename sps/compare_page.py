"""The page of a comparison: the frontier between few tries and many, curves, differences and tables."""

from collections.abc import Sequence
from typing import Any

from sps.compare import tables
from sps.page import Figure, chart, document, grid, section, table, term, text_card
from sps.traces import horizontal

FRONTIER = (
    "<br>Large: an arm's mean, with its strength; small: its runs. Intervals of the means are in the tables; they are "
    "mostly shared, being of the same problems, so that differences are surer than they look."
)
Styles = dict[str, tuple[str, str]]  # family -> colour, symbol
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
            grid([chart("After training", f"{legend}{FRONTIER}", frontier(result, styles), 520)], "one"),
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
            grid([text_card(title, table(rows)) for title, rows in tables(result)], "two"),
        ),
    ]
    return document("Comparison · sps", "".join(parts))


def frontier(result: dict[str, Any], styles: Styles) -> Figure:
    """Each arm's mean, every run of it small; a family's arms joined in order of strength, from the preset alone on."""
    data: list[dict[str, Any]] = []
    labels = []
    for family, (colour, symbol) in styles.items():
        rows = _by_strength([row for row in result["frontier"] if row["family"] == family])
        base = [row for row in result["frontier"] if not row["strength"] and row["preset"] == rows[0]["preset"]]
        joined = rows if rows[0] in base else [*base, *rows]
        data.append(_points(joined, f"theme:{colour}/0.55", "lines") | {"hoverinfo": "skip"})
        data[-1]["line"] |= {"dash": "dot", "width": 1.5}
        runs = [(row["arm"], run) for row in rows if len(row["runs"]) > 1 for run in row["runs"]]
        data.append(
            {
                "type": "scatter", "mode": "markers", "x": [100 * run[0] for _, run in runs],
                "y": [100 * run[1] for _, run in runs], "text": [arm for arm, _ in runs], "cliponaxis": False,
                "marker": {"color": f"theme:{colour}/0.35", "symbol": symbol, "size": 5},
                "hovertemplate": "one run of %{text}<br>%{x:.1f}% · %{y:.1f}%<extra></extra>",
            }
        )  # fmt: skip
        data.append(_points(rows, f"theme:{colour}", "markers"))
        data[-1]["marker"] |= {"symbol": symbol, "size": 12}
        labels += [
            {
                "x": 100 * row["few"]["mean"], "y": 100 * row["many"]["mean"], "showarrow": False,
                "text": ", ".join(str(value) for value in row["strength"]) or row["arm"], "xanchor": "left",
                "yanchor": "bottom", "xshift": 6, "yshift": 3, "font": {"size": 12, "color": f"theme:{colour}"},
            }
            for row in rows
        ]  # fmt: skip
    return {"data": data, "layout": _plane(result) | {"annotations": labels}}


def paths(result: dict[str, Any], styles: Styles) -> Figure:
    """Each arm's evaluations joined in order; the last one is marked."""
    few, many = min(result["ks"]), max(result["ks"])
    data = []
    for row, colour, symbol in _shaded(result, styles):
        x, y = ([100 * r["mean"] for r in _curve(result, row["arm"], k)] for k in (few, many))
        steps = [f"{row['arm']}, step {r['step']}" for r in _curve(result, row["arm"], few)]
        data.append(
            {
                "type": "scatter", "mode": "lines+markers", "x": x, "y": y, "name": row["arm"], "text": steps,
                "line": {"color": colour, "width": 1.8}, "cliponaxis": False,
                "marker": {"color": colour, "symbol": symbol, "size": [4] * (len(x) - 1) + [11], "line": {"width": 0}},
                "hovertemplate": "<b>%{text}</b><br>%{x:.1f}% · %{y:.1f}%<extra></extra>",
            }
        )  # fmt: skip
    return {"data": data, "layout": _plane(result)}


def curves(result: dict[str, Any], k: int, styles: Styles) -> Figure:
    """Pass@k over steps, a line per arm."""
    data = []
    for row, colour, symbol in _shaded(result, styles):
        own = _curve(result, row["arm"], k)
        data.append(
            {
                "type": "scatter", "mode": "lines+markers", "name": row["arm"], "x": [r["step"] for r in own],
                "y": [100 * r["mean"] for r in own], "line": {"color": colour, "width": 2},
                "marker": {"color": colour, "symbol": symbol, "size": 6}, "cliponaxis": False,
                "text": [row["arm"]] * len(own), "hovertemplate": "%{text}<br>step %{x}: %{y:.1f}%<extra></extra>",
            }
        )  # fmt: skip
    layout = {"xaxis": {"title": {"text": "step"}}, "yaxis": {"ticksuffix": "%"}, "hovermode": "closest"}
    return {"data": data, "layout": layout}


def differences(result: dict[str, Any], k: int, styles: Styles) -> Figure:
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


def _points(rows: Sequence[dict[str, Any]], colour: str, mode: str) -> dict[str, Any]:
    words = [
        f"<b>{row['arm']}</b><br>"
        + " · ".join(
            f"{100 * p['mean']:.1f}% [{100 * p['low']:.1f}, {100 * p['high']:.1f}]" for p in (row["few"], row["many"])
        )
        for row in rows
    ]
    return {
        "type": "scatter", "mode": mode, "x": [100 * row["few"]["mean"] for row in rows],
        "y": [100 * row["many"]["mean"] for row in rows], "text": words, "hovertemplate": "%{text}<extra></extra>",
        "line": {"color": colour}, "marker": {"color": colour}, "cliponaxis": False,
    }  # fmt: skip


def _shaded(result: dict[str, Any], styles: Styles) -> list[tuple[dict[str, Any], str, str]]:
    """Arms with colour and symbol; the stronger of a family, the darker."""
    found = []
    for family, (colour, symbol) in styles.items():
        rows = _by_strength([row for row in result["frontier"] if row["family"] == family])
        shades = [1.0] if len(rows) == 1 else [0.35 + 0.65 * i / (len(rows) - 1) for i in range(len(rows))]
        found += [(row, f"theme:{colour}/{shade:.2f}", symbol) for row, shade in zip(rows, shades, strict=True)]
    return found


def _by_strength(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """In the order of their settings' values; those that are not numbers by name."""

    def order(row: dict[str, Any]) -> list[tuple[float, str]]:
        numbers = [value if isinstance(value, (int, float)) else float("inf") for value in row["strength"]]
        return [(number, str(value)) for number, value in zip(numbers, row["strength"], strict=True)]

    return sorted(rows, key=order)


def _bars(rows: Sequence[dict[str, float]], colour: str) -> dict[str, Any]:
    return {
        "type": "data", "symmetric": False, "width": 0, "thickness": 1.2, "color": f"theme:{colour}/0.45",
        "array": [100 * (row["high"] - row["mean"]) for row in rows],
        "arrayminus": [100 * (row["mean"] - row["low"]) for row in rows],
    }  # fmt: skip


def _height(arms: Sequence[str]) -> int:
    return 70 + 34 * len(arms)
