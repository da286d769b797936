"""The page of a shift check: verdict, views, clusters; one HTML file, light and dark, that needs no network."""

from datetime import datetime
from html import escape
from typing import Any

from serm.config import ShiftSettings
from serm.shift.report import HEADLINES, Cluster, ShiftReport, View
from sps.page import Figure, chart, document, grid, section, table, term, text_card, tile

MOST = 16  # clusters drawn
COLOURS = {"grown": "orange", "new": "purple", "shrunk": "blue", "vanished": "green", "steady": "grey"}
MEANINGS = {
    "grown": "takes a larger share of searches", "new": "hardly there before", "shrunk": "takes a smaller share",
    "vanished": "hardly there now", "steady": "no significant change",
}  # fmt: skip


def page(
    report: ShiftReport, settings: ShiftSettings, trigger: bool, reason: str, first: datetime, last: datetime
) -> str:
    """The page's HTML; `first` and `last` bound the current window."""
    span = f"Searches from {first:%Y-%m-%d %H:%M} to {last:%Y-%m-%d %H:%M} UTC, compared with those before."
    note = f"<p class='muted'>{escape(report.note)}</p>" if report.note else ""
    head = (
        f"<header><h1>Query stream</h1><p class='muted'>{escape(span)}</p>"
        f"<p class='verdict'>{escape(HEADLINES[report.verdict])}</p>{note}"
        f"<div class='tiles'>{''.join(_tiles(report, trigger, reason))}</div></header>"
    )
    measured = [view for view in report.views if view.effect is not None]
    drawn = [
        chart("Effect by view", _views_caption(settings), views_figure(measured, settings), 70 + 34 * len(measured))
    ]
    views = section(
        "views",
        "Views",
        "Each view asks in its own way whether the two windows differ. An effect of 10% means: at least a tenth of the "
        "searches is of another kind.",
        (grid(drawn, "one") if measured else "")
        + grid([text_card("In words", table(view_rows(report), prose=True))], "one")
        if report.views
        else "",
    )
    shown = _shown(report)
    about = "; ".join(term(name, COLOURS[name], MEANINGS[name]) for name in _present(shown))
    about += ". Open circles: before; filled: now."
    compared = [cluster for cluster in shown if cluster.share_reference is not None]
    cards = [chart("Share of searches, before and now", about, clusters_figure(compared), 70 + 30 * len(compared))]
    clusters = section(
        "clusters",
        "Clusters of alike queries",
        f"{len(report.changed)} of {len(report.clusters)} changed significantly. Words are those that set a cluster "
        "apart from the others.",
        (grid(cards, "one") if compared else "")
        + grid([text_card("What they are about", table(cluster_rows(shown), prose=True))], "one")
        if shown
        else "",
    )
    return document("Query stream · serm", head + views + clusters)


def view_rows(report: ShiftReport) -> list[dict[str, Any]]:
    """A row a view, for tables."""
    return [
        {
            "view": view.name,
            "effect": None if view.effect is None else f"{view.effect:.1%}",
            "p": _p(view.p_value),
            "significant": None if view.p_value is None else view.significant,
            "in words": view.text,
        }
        for view in report.views
    ]


def cluster_rows(clusters: list[Cluster]) -> list[dict[str, Any]]:
    """A row a cluster, for tables."""
    return [
        {
            "change": cluster.change,
            "before": None if cluster.share_reference is None else f"{cluster.share_reference:.1%}",
            "now": f"{cluster.share_current:.1%}",
            "p": _p(cluster.p_value),
            "words": ", ".join(cluster.terms),
            "queries": "; ".join(cluster.examples),
        }
        for cluster in clusters
    ]


def views_figure(views: list[View], settings: ShiftSettings) -> Figure:
    """A bar a view, with the two thresholds."""
    names = [view.name for view in views]
    bars = {
        "type": "bar", "orientation": "h", "y": names, "x": [100 * (view.effect or 0.0) for view in views],
        "marker": {"color": ["theme:orange" if view.significant else "theme:grey/0.45" for view in views]},
        "text": [f"{100 * (view.effect or 0.0):.1f}%" for view in views], "textposition": "outside",
        "customdata": [view.p_value for view in views], "cliponaxis": False,
        "hovertemplate": "%{y}: %{x:.1f}%, p %{customdata:.2g}<extra></extra>",
    }  # fmt: skip
    most = 100 * max([settings.strong_effect, *(view.effect or 0.0 for view in views)])
    marks = {"mild": settings.mild_effect, "strong": settings.strong_effect}
    lines = [
        {
            "type": "line", "yref": "paper", "y0": 0, "y1": 1, "x0": 100 * at, "x1": 100 * at,
            "line": {"color": "theme:muted", "width": 1, "dash": "dot"},
        }
        for at in marks.values()
    ]  # fmt: skip
    labels = [
        {
            "x": 100 * at, "y": 1, "yref": "paper", "yanchor": "bottom", "showarrow": False, "text": name,
            "font": {"size": 11, "color": "theme:muted"},
        }
        for name, at in marks.items()
    ]  # fmt: skip
    layout = {
        "shapes": lines, "annotations": labels, "hovermode": "closest", "bargap": 0.4, "margin": {"l": 100, "t": 24},
        "xaxis": {"range": [0, 1.15 * most], "ticksuffix": "%", "showgrid": True}, "yaxis": {"autorange": "reversed"},
    }  # fmt: skip
    return {"data": [bars], "layout": layout}


def clusters_figure(clusters: list[Cluster]) -> Figure:
    """Each cluster's share before (open) and now (filled), joined."""
    data: list[dict[str, Any]] = []
    for i, cluster in enumerate(clusters):
        colour = f"theme:{COLOURS[cluster.change]}"
        ends = [100 * (cluster.share_reference or 0.0), 100 * cluster.share_current]
        data.append(
            {
                "type": "scatter", "mode": "lines+markers", "x": ends, "y": [i, i], "cliponaxis": False,
                "line": {"color": colour, "width": 2},
                "marker": {
                    "size": [9, 11], "symbol": ["circle-open", "circle"], "color": colour, "opacity": 1,
                    "line": {"width": 2, "color": colour},
                },
                "hovertemplate": f"{escape(_title(cluster))}: %{{x:.1f}}%<extra>{cluster.change}</extra>",
            }
        )  # fmt: skip
    most = max((100 * max(c.share_reference or 0.0, c.share_current) for c in clusters), default=1.0)
    layout = {
        "hovermode": "closest", "margin": {"l": 260, "t": 8},
        "xaxis": {"ticksuffix": "%", "range": [-0.02 * most, 1.04 * most], "showgrid": True},
        "yaxis": {
            "tickvals": list(range(len(clusters))), "ticktext": [escape(_title(cluster)) for cluster in clusters],
            "range": [len(clusters) - 0.4, -0.6], "showgrid": False,
        },
    }  # fmt: skip
    return {"data": data, "layout": layout}


def _tiles(report: ShiftReport, trigger: bool, reason: str) -> list[str]:
    words = {"none": "No shift", "mild": "Mild shift", "strong": "Strong shift", "unknown": "Unknown"}
    significant = [view for view in report.views if view.significant]
    tested = [view for view in report.views if view.p_value is not None]
    tiles = [tile("Verdict", words[report.verdict], escape(f"{len(significant)} of {len(tested)} views significant"))]
    if significant:
        largest = max(significant, key=lambda view: view.effect or 0.0)
        tiles.append(
            tile("Largest effect", f"{largest.effect:.1%}", escape(f"{largest.name}: share of other searches"))
        )
    tiles.append(tile("Early round", "Due" if trigger else "Not due", escape(reason), "bad" if trigger else ""))
    counts = [(name, sum(c.change == name for c in report.changed)) for name in COLOURS if name != "steady"]
    told = ", ".join(f"{number} {name}" for name, number in counts if number)
    tiles.append(tile("Clusters changed", str(len(report.changed)), escape(told or f"of {len(report.clusters)}")))
    return tiles


def _p(value: float | None) -> str | None:
    return None if value is None else "<0.0001" if value < 1e-4 else f"{value:.2g}"


def _views_caption(settings: ShiftSettings) -> str:
    level = f"significant at a false discovery rate of {settings.false_discovery_rate:g}"
    return f"{term('coloured', 'orange', level)}; {term('grey', 'grey', 'not')}. Dotted: where a verdict begins."


def _shown(report: ShiftReport) -> list[Cluster]:
    """Changed clusters, then the steady ones with most traffic."""
    steady = [cluster for cluster in report.clusters if cluster.change == "steady"]
    steady.sort(key=lambda cluster: (-cluster.share_current, cluster.id))
    return [*report.changed, *steady][:MOST]


def _present(clusters: list[Cluster]) -> list[str]:
    return [name for name in COLOURS if any(cluster.change == name for cluster in clusters)]


def _title(cluster: Cluster) -> str:
    words = cluster.title
    return words if len(words) <= 38 else words[:37].rstrip(" ,;") + "…"
