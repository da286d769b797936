"""A run's page: one HTML file that needs no network."""

from pathlib import Path

import plotly.graph_objects as go

from sps.runs import read_log


def write_report(run: Path) -> Path:
    """Write report.html into the run's folder."""
    rows = read_log(run)
    figure = go.Figure()
    figure.add_scatter(x=[row["step"] for row in rows], y=[row["reward_mean"] for row in rows], name="reward")
    figure.write_html(run / "report.html", include_plotlyjs="inline")
    return run / "report.html"
