"""The backtest's page: curves per strategy and the table, in one HTML file that needs no network."""

from html import escape
from typing import Any

import plotly.graph_objects as go

from sps.display import word

# Okabe and Ito's palette, told apart by colour-blind readers too.
COLOURS = {
    "serm": "#D55E00", "oracle": "#000000", "random": "#0072B2", "self_training": "#CC79A7", "static": "#777777",
    "feedback": "#009E73", "click": "#56B4E9", "disagreement": "#E69F00", "uncertainty": "#9A7D0A",
}  # fmt: skip


def page(result: dict[str, Any]) -> str:
    """One self-contained HTML page of a backtest's result."""
    figures = [_intervals(result["finals"], measure) for measure in ("nDCG@1", "nDCG@10")]
    figures += [_figure(result["curves"], measure) for measure in ("nDCG@1", "nDCG@10") if result["curves"]]
    plots = "".join(
        figure.to_html(full_html=False, include_plotlyjs="inline" if i == 0 else False)
        for i, figure in enumerate(figures)
    )
    return (
        "<!doctype html><html lang='en'><meta charset='utf-8'><title>serm backtest</title>"
        "<style>body{font:15px/1.5 system-ui,sans-serif;max-width:1180px;margin:2rem auto;padding:0 1rem;color:#222}"
        "table{border-collapse:collapse;font-size:13px}"
        "td,th{padding:.3rem .6rem;border-bottom:1px solid #ddd;text-align:right;white-space:nowrap}"
        "td:first-child,th:first-child{text-align:left}</style>"
        "<h1>Backtest</h1><p>Measured on held-out searches by people's judgments; 95% bootstrap intervals over queries."
        f"</p>{plots}<h2>After the last round</h2>{_table(result['table'])}"
        f"<h2>Differences, paired by query</h2>{_table(result['differences'])}</html>"
    )


def _intervals(finals: list[dict[str, Any]], measure: str) -> go.Figure:
    """After the last round: each strategy's mean on fresh searches with its interval."""
    rows = [row for row in finals if row["split"] == "fresh" and row["measure"] == measure]
    figure = go.Figure()
    for row in rows:
        figure.add_scatter(
            x=[row["mean"]], y=[row["strategy"]], mode="markers+text", text=[f"{row['mean']:.1f}"],
            textposition="top center", marker={"color": COLOURS[row["strategy"]], "size": 11}, showlegend=False,
            error_x={"array": [row["high"] - row["mean"]], "arrayminus": [row["mean"] - row["low"]], "width": 0},
        )  # fmt: skip
    figure.update_layout(
        title=f"{measure} on fresh searches after the last round, %, with 95% intervals", template="plotly_white",
        height=90 + 42 * len(rows), margin={"l": 110, "r": 20, "t": 50, "b": 40},
        yaxis={"range": [len(rows) - 0.4, -0.9]},
    )  # fmt: skip
    return figure


def _figure(curves: dict[str, dict[str, list[float]]], measure: str) -> go.Figure:
    figure = go.Figure()
    rounds = max(len(curve[measure]) for curve in curves.values())
    start = curves.get("static", {}).get(measure, [None])[0]
    for name, curve in curves.items():
        flat = name == "static"
        values = [start] * (rounds + 1) if flat else [start, *curve[measure]]
        figure.add_scatter(
            x=list(range(rounds + 1 - len(values), rounds + 1)), y=values, name=name, mode="lines+markers",
            line={"color": COLOURS[name], "width": 4 if name == "serm" else 2, "dash": "dot" if flat else "solid"},
        )  # fmt: skip
    figure.update_layout(
        title=f"{measure} on fresh searches, %", template="plotly_white", height=420,
        margin={"l": 50, "r": 20, "t": 50, "b": 40},
        xaxis={"title": "round", "dtick": 1}, legend={"orientation": "h", "y": -0.2},
    )  # fmt: skip
    return figure


def _table(rows: list[dict[str, Any]]) -> str:
    if not rows:
        return "<p>none</p>"
    head = "".join(f"<th>{escape(name.replace('_', ' '))}</th>" for name in rows[0])
    body = "".join("<tr>" + "".join(f"<td>{escape(word(v))}</td>" for v in row.values()) + "</tr>" for row in rows)
    return f"<table><tr>{head}</tr>{body}</table>"
