"""The page of a backtest: does evolving help, is it the mining, is anything forgotten; then every strategy."""

from collections.abc import Sequence
from datetime import date
from typing import Any

from serm.evaluation.paired import Interval
from serm.evolution.compare import BASELINES, MEASURES
from serm.report.backtest import FOCUS, Backtest, difference, interval
from serm.report.charts import Point, Series, lines, span
from serm.report.html import Cell, details, document, figure, number, section, table, text, words
from serm.report.page import answer
from serm.report.words import Answer, gain, points

MEASURE = "nDCG@10"  # the gate's by default; the other measure is shown below it
MEASURED = tuple(dict.fromkeys((MEASURE, *MEASURES)))
TONES = {FOCUS: "accent", "random": "plain", "static": "plain"}
PARTS = (("rounds", "From the start"), ("end", "At the end"), ("differences", "Differences"), ("labels", "Labels"))
STRATEGIES = {
    "serm": "all agents, labels by agreement",
    "static": "the first model, never trained again",
    "self_training": "random pairs, labelled by the model itself",
    "random": "random pairs, labelled by the annotators",
    "oracle": "the pairs that serm mines, with people's grades: what perfect labels would give",
    "feedback": "this agent alone", "click": "this agent alone", "disagreement": "this agent alone",
    "uncertainty": "this agent alone",
}  # fmt: skip


def backtest_page(found: Backtest, today: date) -> str:
    """The file's text; `today` is its only part that equal facts do not determine."""
    body = _head(found, today) + _over_rounds(found) + _ends(found) + _differences(found) + _labels(found)
    return document(f"{headline(found)} · backtest {found.name}", f"backtest {found.name}", PARTS, body)


def headline(found: Backtest) -> str:
    """The one thing to take away."""
    told = {base: difference(found, "fresh", MEASURE, base) for base in BASELINES}
    helped, mining = told.get("static"), told.get("random")
    if helped is None:
        return "Strategies compared"
    if helped.low <= 0:
        return "Evolving makes no difference here" if helped.high >= 0 else "Evolving makes search worse here"
    if mining is None:
        return "Evolving makes search better"
    return (
        "Mined pairs teach more than random ones" if mining.low > 0 else "Evolving makes search better, mining or not"
    )


def answers(found: Backtest) -> list[tuple[str, Answer]]:
    """The first screen's questions with their answers."""
    rows = [
        ("Does evolving help?", "fresh", "static", "new", "the first model, never trained again"),
        ("Is it the mining?", "fresh", "random", "new", "as many random pairs with the same annotators"),
        ("Is anything forgotten?", "old", "static", "old", "the first model"),
    ]
    told = []
    for question, split, base, kind, meaning in rows:
        own = [difference(found, split, measure, base) for measure in (MEASURE, "nDCG@1")]
        if own[0] is None or own[1] is None:
            told.append((question, Answer("Not measured", f"This backtest has no {FOCUS} beside {base}.")))
            continue
        short = _short(own[0], split == "old")
        figures = f"{MEASURE} {gain(own[0])}, nDCG@1 {gain(own[1])}"
        told.append((question, Answer(short, f"On {own[0].queries:,} {kind} searches, against {meaning}: {figures}.")))
    return told


def _short(found: Interval, forgotten: bool) -> str:
    if found.low > 0:
        return "No, it gained" if forgotten else "Yes"
    if found.high < 0:
        return "Yes, something" if forgotten else "No, it hurts"
    return "Not beyond chance" if forgotten else "Not clearly"


def _head(found: Backtest, today: date) -> str:
    seeds = sorted(set(found.seeds.values()))
    runs = f"{seeds[0]} seed{'s' if seeds[-1] > 1 else ''}" if len(seeds) == 1 else f"{seeds[0]} to {seeds[-1]} seeds"
    cards = "".join(answer(question, told, "") for question, told in answers(found))
    return (
        f'<header class="top"><p class="eyebrow">Backtest {text(found.name)} · {len(found.strategies)} strategies, '
        f"{runs} · report of {today.day} {today:%B %Y}</p><h1>{text(headline(found))}</h1>"
        f'<div class="answers">{cards}</div></header>'
    )


def _over_rounds(found: Backtest) -> str:
    if not found.measured:
        return ""
    last = (
        "" if len(found.measured) > 1 else " Only the last round's models were measured (backtest.every_round is off)."
    )
    return section(
        "rounds",
        "New searches, from the start on",
        "Every strategy starts from the same model, sees the same simulated stream and has the same number of labels. "
        f"New searches were held out of it; people's grades decide.{last}",
        "".join(_curves(found, measure) for measure in MEASURED),
    )


def _curves(found: Backtest, measure: str) -> str:
    places = ["Start", *(f"Round {number}" for number in found.measured)]
    start = found.by_round.get("static", {}).get(measure, [])
    series = []
    for name in sorted(found.strategies, key=lambda name: (name in TONES, name == FOCUS)):
        own = found.by_round[name][measure][-len(found.measured) :]
        values = start * len(places) if name == "static" else [*start, *own]
        first = len(places) - len(values)
        dots = [_point(first + i, value, name, places[first + i]) for i, value in enumerate(values)]
        series.append(Series(name, TONES.get(name, "soft"), dots))
    told = "; ".join(one.points[-1].words for one in series if one.tone != "soft")
    caption = f"Points of 100, means over seeds; the band is {FOCUS}'s 95% interval. Thin: the other strategies."
    rows = [
        [words(one.name), *(_at(one.points, place) for place in range(len(places)))] for one in reversed(series)
    ]  # fmt: skip
    behind = details("The same in figures", table(f"{measure}, points of 100", ["Strategy", *places], rows))
    drawn = lines(series, places, f"{measure}, from the start on. {told}", named=True)
    return figure(measure, caption, drawn) + behind


def _point(place: int, found: Interval, name: str, where: str) -> Point:
    low, high = (100 * found.low, 100 * found.high) if name == FOCUS else (None, None)
    return Point(place, 100 * found.mean, low, high, False, f"{name}, {where}: {_words(found)}")


def _ends(found: Backtest) -> str:
    parts = []
    for measure in MEASURED:
        own = {(r["strategy"], r["split"]): r for r in found.finals if r["measure"] == measure}
        ends = (min(r["low"] for r in own.values()) / 100, max(r["high"] for r in own.values()) / 100)
        names = sorted(found.strategies, key=lambda name: -own[name, "fresh"]["mean"])
        rows = [
            [
                Cell(f'<b>{text(name)}</b><p class="why">{text(STRATEGIES.get(name, ""))}</p>', name),
                *(_span(interval(own[name, split]), ends, name) for split in ("fresh", "old")),
                number(found.seeds[name]),
            ]
            for name in names
        ]
        columns = ["Strategy", "New searches", "Old searches", "Seeds"]
        parts.append(table(f"{measure} after the last round; 95% intervals", columns, rows, widths=(34, 30, 28, 8)))
    lead = "The best on new searches first. Intervals speak of other searches; they are mostly shared, so look at the "
    return section("end", "After the last round", f'{lead}<a href="#differences">differences</a>.', "".join(parts))


def _differences(found: Backtest) -> str:
    own = [row for row in found.differences if row["strategy"] == FOCUS]
    others = [row for row in found.differences if row["strategy"] != FOCUS]
    first, second = (own, others) if own else (others, [])
    return section(
        "differences",
        "Differences, paired by search",
        "Strategy less baseline on the same searches. An interval that misses zero is a clear difference; of so many, "
        "one in twenty misses it by chance alone.",
        _pairs(first) + details("The other strategies", _pairs(second)),
    )


def _pairs(found: Sequence[dict[str, Any]]) -> str:
    reach = 1.1 * max((max(abs(row["low"]), abs(row["high"])) / 100 for row in found), default=0.01)
    rows = [
        [
            words(f"{row['strategy']} less {row['baseline']}"), words("new" if row["split"] == "fresh" else "old"),
            words(row["measure"]), _difference(interval(row), reach),
        ]
        for row in found
    ]  # fmt: skip
    columns = ["Strategies", "Searches", "Measure", "Difference"]
    return table("Differences; 95% intervals", columns, rows, find=len(rows) > 12, widths=(34, 12, 14, 40))


def _labels(found: Backtest) -> str:
    columns = ["Model was wrong", "of random pairs", "Kept", "Labels right", "Calls"]
    means = [[words(row["strategy"]), *_worth(row)] for row in found.table if row["kept"] is not None]
    rows = [
        [words(row["strategy"]), Cell(str(row["round"]), row["round"]), number(row["mined"], ",.0f"), *_worth(row)]
        for row in found.rounds
    ]  # fmt: skip
    return section(
        "labels",
        "What the labels were worth",
        "Means over rounds and seeds. Model was wrong: the share of mined pairs on which the model of the day "
        "contradicts people's grades.",
        table("Strategies; a round's mean", ["Strategy", *columns], means)
        + details("Round by round", table("Rounds", ["Strategy", "Round", "Mined", *columns], rows, find=True)),
    )


def _worth(row: dict[str, Any]) -> list[Cell]:
    shares = [number(row[key], ".0%") for key in ("precision", "random_precision", "label_accuracy")]
    return [*shares[:2], number(row["kept"], ",.0f"), shares[2], number(row["calls"], ",.0f")]


def _at(found: Sequence[Point], place: int) -> Cell:
    own = [p for p in found if p.place == place]
    return Cell(f"{own[0].value:.1f}", own[0].value, True) if own else Cell("–", None, True)


def _span(found: Interval, ends: tuple[float, float], name: str) -> Cell:
    drawn = span(found.low, found.high, found.mean, ends, None, "" if name == FOCUS else "quiet")
    return Cell(f'{drawn}<span class="figures">{_words(found)}</span>', found.mean)


def _difference(found: Interval, reach: float) -> Cell:
    beyond = "better" if found.low > 0 else "worse" if found.high < 0 else "quiet"
    drawn = span(found.low, found.high, found.mean, (-reach, reach), 0.0, beyond)
    return Cell(f'{drawn}<span class="figures">{gain(found)}</span>', found.mean)


def _words(found: Interval) -> str:
    return f"{points(found.mean)} [{points(found.low)}, {points(found.high)}]"
