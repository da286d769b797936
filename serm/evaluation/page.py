"""The page of an evaluation: measures by slice and calibration; one HTML file, light and dark, without a network."""

from collections.abc import Sequence
from html import escape
from typing import Any

from serm.config import EvaluationSettings
from serm.evaluation.calibration import Bin, Calibration
from serm.evaluation.paired import Interval
from serm.evaluation.results import EvaluationSummary
from serm.evaluation.slices import ALL, SliceFigure
from sps.page import Figure, chart, document, grid, section, table, term, text_card, tile

SPLIT_COLOURS = ("blue", "orange", "green", "purple")
LABEL_COLOURS = ("grey", "blue", "gold", "green", "orange", "purple")
ERRORS = {
    "ece": "ECE, equal widths", "ece_adaptive": "ECE, adaptive", "classwise": "ECE, classwise", "brier": "Brier score",
    "nll": "negative log-likelihood",
}  # fmt: skip


def page(summary: EvaluationSummary, settings: EvaluationSettings) -> str:
    """The page's HTML."""
    judged = [result for result in summary.splits if result.queries]
    facts = [f"{result.queries:,} judged queries in {result.split}" for result in judged]
    facts += [f"{result.without_document:,} pairs without a document" for result in judged if result.without_document]
    notes = "".join(f"<p class='muted'>{escape(note)}.</p>" for note in summary.notes)
    head = (
        f"<header><h1>{escape(summary.model)}</h1><p class='muted'>{escape(' · '.join(facts))}. "
        f"Intervals are 95% bootstrap intervals over queries.</p>{notes}"
        f"<div class='tiles'>{''.join(_tiles(summary))}</div></header>"
    )
    return document(f"{summary.model} · serm evaluation", head + slices_section(summary.slices, settings)
                    + calibration_section(summary.calibration))  # fmt: skip


def slices_section(figures: Sequence[SliceFigure], settings: EvaluationSettings) -> str:
    """Charts of the gate's measure by slice, and the table of all measures."""
    splits = list(dict.fromkeys(figure.split for figure in figures))
    measures = list(dict.fromkeys(figure.measure for figure in figures))
    drawn = settings.gate_measure if settings.gate_measure in measures else measures[0] if measures else ""
    colours = dict(zip(splits, SPLIT_COLOURS * len(splits), strict=False))
    own = [figure for figure in figures if figure.measure == drawn]
    places = list(dict.fromkeys((figure.dimension, figure.value) for figure in own if figure.interval))
    caption = "; ".join(term(split, colours[split], f"judged queries of the split {split}") for split in splits)
    chart_ = chart(f"{drawn} by slice", caption, slices_figure(own, places, colours), 80 + 26 * len(places))
    rows = table(slice_rows(figures))
    return section(
        "slices",
        "By slice",
        "Head, torso and tail each have a third of the log's impressions, from the most searched queries to the least. "
        f"A slice of fewer than {settings.slice_minimum} judged queries has no figures.",
        grid([chart_], "one") + grid([text_card("All measures", rows)], "one") if figures else "",
    )


def slice_rows(figures: Sequence[SliceFigure]) -> list[dict[str, Any]]:
    """A row a split and slice with every measure, for tables."""
    rows: dict[tuple[str, str, str], dict[str, Any]] = {}
    for figure in figures:
        place = (figure.split, figure.dimension, figure.value)
        row = rows.setdefault(
            place,
            {
                "split": figure.split,
                "by": figure.dimension,
                "slice": figure.value,
                "queries": figure.queries,
                "note": "",
            },
        )
        row[figure.measure] = words(figure.interval)
        row["note"] = figure.note or row["note"]
    return [{**{k: v for k, v in row.items() if k != "note"}, "note": row["note"]} for row in rows.values()]


def slices_figure(figures: Sequence[SliceFigure], places: Sequence[tuple[str, str]], colours: dict[str, str]) -> Figure:
    """A dot and its interval for each slice, a colour a split."""
    height = {place: row for row, place in enumerate(places)}
    data = []
    for number, (split, colour) in enumerate(colours.items()):
        shift = 0.22 * (number - (len(colours) - 1) / 2)
        own = [(f, f.interval) for f in figures if f.split == split and f.interval]
        data.append(
            {
                "type": "scatter", "mode": "markers", "name": split, "x": [100 * i.mean for _, i in own],
                "y": [height[f.dimension, f.value] + shift for f, _ in own],
                "error_x": {
                    "type": "data", "symmetric": False, "width": 0, "thickness": 1.6, "color": f"theme:{colour}/0.6",
                    "array": [100 * (i.high - i.mean) for _, i in own],
                    "arrayminus": [100 * (i.mean - i.low) for _, i in own],
                },
                "marker": {"color": f"theme:{colour}", "size": 8},
                "customdata": [f"{split}, {f.value}: {words(i)}, {f.queries:,} queries" for f, i in own],
                "hovertemplate": "%{customdata}<extra></extra>", "cliponaxis": False,
            }
        )  # fmt: skip
    names = [ALL if dimension == ALL else f"{dimension}: {value}" for dimension, value in places]
    layout = {
        "hovermode": "closest", "margin": {"l": 190, "t": 8},
        "xaxis": {"ticksuffix": "%", "showgrid": True},
        "yaxis": {
            "tickvals": list(range(len(places))), "ticktext": [escape(name) for name in names],
            "range": [len(places) - 0.4, -0.6], "showgrid": False,
        },
    }  # fmt: skip
    return {"data": data, "layout": layout}


def calibration_section(found: Sequence[Calibration]) -> str:
    """Errors before and after temperature, and reliability diagrams."""
    cards = []
    for one in found:
        if one.figures is None:
            cards.append(text_card(f"Calibration on {one.split}", f"<p>{escape(one.note)}.</p>"))
            continue
        caption = term("as it is", "blue", "the model's own probabilities")
        if one.tempered:
            caption += f"; {term('tempered', 'orange', f'at the temperature {one.temperature:.2f} fitted on dev')}"
        caption += f". Dots are as large as their pairs are many ({one.pairs:,} in all); on the diagonal all is well."
        cards.append(
            chart(f"Likeliest label, {one.split}", caption, reliability_figure(
                {"as it is": (one.top, "blue"), "tempered": (one.top_tempered, "orange")}), 380)
        )  # fmt: skip
        own = dict(zip(one.labels, LABEL_COLOURS * len(one.labels), strict=False))
        caption = "; ".join(term(f"label {label}", colour, "its probability") for label, colour in own.items())
        lines = {f"label {label}": (bins, own[label]) for label, bins in one.labels.items()}
        cards.append(chart(f"Each label, {one.split}", caption, reliability_figure(lines), 380))
    rows = calibration_rows(found)
    return section(
        "calibration",
        "Calibration",
        "Whether label probabilities mean what they say: of pairs given 80%, four in five should be right. Lower "
        "errors are better. The temperature is what dev would set; it is not applied to the model.",
        grid(cards, "two") + (grid([text_card("Errors", table(rows))], "one") if rows else "") if cards else "",
    )


def calibration_rows(found: Sequence[Calibration]) -> list[dict[str, Any]]:
    """A row a split and error, for tables."""
    rows = []
    for one in found:
        for field, name in ERRORS.items():
            if one.figures:
                own, warm = (None if side is None else getattr(side, field) for side in (one.figures, one.tempered))
                rows.append(
                    {"split": one.split, "error": name, "as it is": words(own, 1), "tempered": words(warm, 1),
                     "temperature": one.temperature, "pairs": one.pairs, "queries": one.queries}
                )  # fmt: skip
        if one.figures is None:
            rows.append({"split": one.split, "error": one.note, "as it is": None, "tempered": None,
                         "temperature": one.temperature, "pairs": one.pairs, "queries": one.queries})  # fmt: skip
    return rows


def reliability_figure(lines: dict[str, tuple[list[Bin], str]]) -> Figure:
    """Accuracy over confidence, a line each of `lines` (name -> bins and colour), with the diagonal."""
    data: list[dict[str, Any]] = [
        {"type": "scatter", "mode": "lines", "x": [0, 1], "y": [0, 1], "hoverinfo": "skip",
         "line": {"color": "theme:muted", "width": 1, "dash": "dot"}}
    ]  # fmt: skip
    for name, (bins, colour) in lines.items():
        if not bins:
            continue
        most = max(each.pairs for each in bins)
        data.append(
            {
                "type": "scatter", "mode": "lines+markers", "name": name, "cliponaxis": False,
                "x": [each.confidence for each in bins], "y": [each.accuracy for each in bins],
                "line": {"color": f"theme:{colour}/0.5", "width": 1.6},
                "marker": {
                    "color": f"theme:{colour}", "opacity": 0.9, "line": {"width": 0},
                    "size": [5 + 13 * (each.pairs / most) ** 0.5 for each in bins],
                },
                "customdata": [each.pairs for each in bins],
                "hovertemplate": f"{escape(name)}: said %{{x:.2f}}, was %{{y:.2f}}, %{{customdata:,}} pairs"
                "<extra></extra>",
            }
        )  # fmt: skip
    axis = {"range": [-0.02, 1.04], "dtick": 0.2, "showgrid": True}
    layout = {
        "hovermode": "closest",
        "xaxis": axis | {"title": {"text": "mean probability"}}, "yaxis": axis | {"title": {"text": "share right"}},
    }  # fmt: skip
    return {"data": data, "layout": layout}


def words(interval: Interval | None, scale: int = 100) -> str | None:
    """A figure with its interval, in percent unless `scale` is 1."""
    if interval is None:
        return None
    digits = 1 if scale == 100 else 3
    low, mean, high = (f"{scale * value:.{digits}f}" for value in (interval.low, interval.mean, interval.high))
    return f"{mean} [{low}, {high}]"


def _tiles(summary: EvaluationSummary) -> list[str]:
    tiles = [
        tile(f"{name}, {result.split}", f"{100 * interval.mean:.1f}<small>%</small>",
             escape(f"[{100 * interval.low:.1f}, {100 * interval.high:.1f}], {interval.queries:,} queries"))
        for result in summary.splits
        for name, interval in result.measures.items()
    ]  # fmt: skip
    tiles += [
        tile(f"ECE, {one.split}", f"{one.figures.ece.mean:.3f}",
             escape(f"[{one.figures.ece.low:.3f}, {one.figures.ece.high:.3f}], {one.pairs:,} pairs"))
        for one in summary.calibration if one.figures
    ]  # fmt: skip
    return tiles
