"""The page of an A/B test: verdict, effects, the days; one HTML file, light and dark, that needs no network."""

from html import escape
from typing import Any

from serm.config import OnlineSettings
from serm.online.effects import Effect
from serm.online.experiment import Experiment
from serm.online.metrics import METRICS
from serm.online.words import Verdict, percent, span
from sps.page import Figure, chart, document, grid, section, table, term, text_card, tile

COLOURS = {"better": "green", "worse": "orange", "open": "grey", "early": "grey"}
WORDS = {
    "mismatch": "Stop", "better": "Better", "worse": "Worse", "open": "Open", "early": "Too early",
    "unmeasured": "No verdict",
}  # fmt: skip


def page(found: Experiment, verdict: Verdict, settings: OnlineSettings) -> str:
    """The page's HTML."""
    about = f"{found.first:%Y-%m-%d} to {found.last:%Y-%m-%d}, {found.days} days; control is {found.control}."
    notes = "".join(f"<li>{escape(note)}</li>" for note in verdict.notes)
    head = (
        f"<header><h1>Online test</h1><p class='muted'>{escape(about)}</p>"
        f"<p class='verdict'>{escape(verdict.headline)}</p>"
        f"<div class='tiles'>{''.join(_tiles(found, verdict))}</div></header>" + (f"<ul>{notes}</ul>" if notes else "")
    )
    drawn = [each for each in found.effects if each.relative is not None]
    cards = [chart("Relative change", _effects_caption(), effects_figure(drawn), 90 + 34 * len(drawn))] if drawn else []
    days = [look for look in found.looks if look["difference"] is not None]
    if days:
        label = METRICS[found.primary].label
        cards.append(chart(f"{label.capitalize()}, day by day", _days_caption(), days_figure(days, found.primary), 320))
    effects = section(
        "effects", "What changed",
        "Intervals of any look hold however often one looks; those of one look belong to one day that was planned. The "
        "p-value allows any look and is corrected over metrics. * is the primary metric.",
        grid(cards, "one") + grid([text_card("All metrics", table(rows(found)))], "one") if found.effects else "",
    )  # fmt: skip
    meanings = "".join(
        f"<p>{term(METRICS[name].label, '', METRICS[name].meaning)}; "
        f"{'more' if METRICS[name].up else 'less'} is better.</p>"
        for name in dict.fromkeys(each.metric for each in found.effects)
    )
    meant = (
        section("metrics", "What is measured", _method(settings), grid([text_card("Metrics", meanings)], "one"))
        if meanings
        else ""
    )
    return document("Online test · serm", head + effects + meant)


def rows(found: Experiment) -> list[dict[str, Any]]:
    """A row a metric and variant, for tables; intervals of relative changes where there are any."""
    several = len({each.variant for each in found.effects}) > 1
    return [
        {
            "metric": each.metric.replace("_", " ") + (" *" if each.primary else ""),
            **({"variant": each.variant} if several else {}),
            "control": value(each.control, each.metric),
            "change": span(each).partition(" [")[0] if each.difference is not None else None,
            "any look": span(each).partition(" ")[2] if each.difference is not None else None,
            "one look": _planned(each),
            "p": _p(each.adjusted_p),
            "verdict": each.verdict,
        }
        for each in found.effects
    ]


def value(number: float | None, metric: str) -> str | None:
    """A metric's value in its unit."""
    if number is None:
        return None
    return f"{number:.1f} s" if METRICS[metric].unit == "seconds" else f"{number:.2%}"


def effects_figure(effects: list[Effect]) -> Figure:
    """Each metric's relative change: a thin line for any look, a thick one for a planned look."""
    data: list[dict[str, Any]] = []
    several = len({each.variant for each in effects}) > 1
    names = []
    for i, each in enumerate(effects):
        colour = f"theme:{COLOURS[each.verdict]}"
        names.append(escape(each.metric.replace("_", " ") + (f" · {each.variant}" if several else "")))
        for ends, width in (
            ((each.safe_relative_low, each.safe_relative_high), 2), ((each.relative_low, each.relative_high), 6)
        ):  # fmt: skip
            data.append(
                {"type": "scatter", "mode": "lines", "x": [100 * (end or 0.0) for end in ends], "y": [i, i],
                 "line": {"color": colour + ("/0.5" if width > 2 else ""), "width": width}, "hoverinfo": "skip"}
            )  # fmt: skip
        data.append(
            {"type": "scatter", "mode": "markers", "x": [100 * (each.relative or 0.0)], "y": [i],
             "marker": {"size": 10, "color": colour}, "hovertemplate": f"{names[-1]}: {span(each)}<extra></extra>"}
        )  # fmt: skip
    edges = [end for each in effects for end in (each.safe_relative_low, each.safe_relative_high) if end is not None]
    low, high = 100 * min(0.0, *edges), 100 * max(0.0, *edges)
    pad = 0.04 * (high - low)
    layout = {
        "hovermode": "closest", "margin": {"l": 20, "t": 8},
        "xaxis": {"ticksuffix": "%", "showgrid": True, "nticks": 7, "tickangle": 0, "range": [low - pad, high + pad]},
        "shapes": [{"type": "line", "yref": "paper", "y0": 0, "y1": 1, "x0": 0, "x1": 0,
                    "line": {"color": "theme:muted", "width": 1, "dash": "dot"}}],
        "yaxis": {"tickvals": list(range(len(names))), "ticktext": names, "range": [len(names) - 0.4, -0.6],
                  "showgrid": False},
    }  # fmt: skip
    return {"data": data, "layout": layout}


def days_figure(looks: list[dict[str, Any]], metric: str) -> Figure:
    """The primary metric's difference as it stood on each day, in both intervals."""
    scale = 1.0 if METRICS[metric].unit == "seconds" else 100.0
    suffix = " s" if scale == 1.0 else " pp"
    data: list[dict[str, Any]] = []
    for variant, colour in zip(
        dict.fromkeys(look["variant"] for look in looks), ("blue", "purple", "gold"), strict=False
    ):
        own = [look for look in looks if look["variant"] == variant]
        x = [look["day"] for look in own]
        for low, high, opacity in (("safe_low", "safe_high", 0.13), ("low", "high", 0.22)):
            y = [scale * look[low] for look in own] + [scale * look[high] for look in own][::-1]
            data.append(
                {"type": "scatter", "mode": "lines", "x": x + x[::-1], "y": y, "fill": "toself", "hoverinfo": "skip",
                 "fillcolor": f"theme:{colour}/{opacity}", "line": {"width": 0, "color": f"theme:{colour}/0.3"}}
            )  # fmt: skip
        words = [
            "{:+.3f}{} [{:+.3f}, {:+.3f}]".format(
                scale * look["difference"], suffix, scale * look["safe_low"], scale * look["safe_high"]
            )
            for look in own
        ]
        data.append(
            {"type": "scatter", "mode": "lines+markers", "name": escape(variant), "x": x, "text": words,
             "y": [scale * look["difference"] for look in own], "line": {"color": f"theme:{colour}", "width": 2},
             "marker": {"size": 6, "color": f"theme:{colour}"}, "hovertemplate": "%{text}"}
        )  # fmt: skip
    widest = max(max(abs(look["safe_low"]), abs(look["safe_high"])) for look in looks[len(looks) // 3 :])
    layout = {
        "xaxis": {"title": {"text": "day of the test"}, "range": [0, looks[-1]["day"] + 0.5]}, "margin": {"l": 20},
        "yaxis": {"ticksuffix": suffix, "range": [-1.15 * scale * widest, 1.15 * scale * widest]},
        "shapes": [{"type": "line", "xref": "paper", "x0": 0, "x1": 1, "y0": 0, "y1": 0,
                    "line": {"color": "theme:muted", "width": 1, "dash": "dot"}}],
    }  # fmt: skip
    return {"data": data, "layout": layout}


def _tiles(found: Experiment, verdict: Verdict) -> list[str]:
    split = found.users.split
    users = ", ".join(f"{name} {count:,}" for name, count in split.units.items())
    tone = {"better": "good", "worse": "bad", "mismatch": "bad"}.get(verdict.verdict, "")
    tiles = [tile("Verdict", WORDS[verdict.verdict], escape(METRICS[found.primary].label), tone)]
    own = [each for each in found.effects if each.primary and each.relative is not None]
    tiles += [
        tile(
            f"Change, {each.variant}",
            percent(each.relative or 0.0),
            escape(f"at any look {span(each).partition(' ')[2]}"),
        )
        for each in own[:2]
    ]
    tiles.append(tile(f"{found.users.unit}s".capitalize(), f"{sum(split.units.values()):,}", escape(users)))
    off = "as intended" if verdict.verdict != "mismatch" else "not as intended"
    tiles.append(tile("Split", off, f"chi-square p {split.p_value:.2g}", "" if off == "as intended" else "bad"))
    return tiles


def _planned(each: Effect) -> str | None:
    if each.relative_low is not None and each.relative_high is not None:
        return f"[{percent(each.relative_low)}, {percent(each.relative_high)}]"
    return f"[{each.low:+.4g}, {each.high:+.4g}]" if each.low is not None and each.high is not None else None


def _p(p: float | None) -> str | None:
    return None if p is None else "<0.0001" if p < 1e-4 else f"{p:.2g}"


def _effects_caption() -> str:
    return (
        f"{term('better', 'green', 'after correction')}; {term('worse', 'orange', 'likewise')}; "
        f"{term('open', 'grey', 'no evidence yet')}. Thin: at any look; thick: one planned look."
    )


def _days_caption() -> str:
    return "Difference to control as it stood each evening. Pale: holds at every look; darker: one planned look."


def _method(settings: OnlineSettings) -> str:
    return (
        f"Users are what was randomised and what varies (delta method). Intervals cover {1 - settings.alpha:.0%}; the "
        "primary metric is tested by itself, "
        + ("the others without correction." if settings.correction == "none" else
           f"the others together ({'Holm' if settings.correction == 'holm' else 'Benjamini and Hochberg'}).")
    )  # fmt: skip
