"""The page of a comparison: paired tests by slice, wins and losses; one HTML file that needs no network."""

from collections.abc import Sequence
from html import escape
from typing import Any

from serm.config import EvaluationSettings
from serm.evaluation.changes import Changes, PairChange, QueryChange
from serm.evaluation.comparison import SliceComparison
from serm.evaluation.paired import Interval
from serm.evaluation.results import ModelComparison
from serm.evaluation.slices import ALL
from sps.page import Figure, chart, details, document, grid, section, table, term, text_card, tile

CORRECTIONS = {"holm": "Holm", "bh": "Benjamini and Hochberg"}


def page(result: ModelComparison, settings: EvaluationSettings) -> str:
    """The page's HTML."""
    tested = [row for row in result.tests if row.p_value is not None]
    found = [row for row in tested if row.significant]
    method = CORRECTIONS[result.correction]
    verdict = f"{len(found)} of {len(tested)} differences are significant at {result.level:g}, corrected by {method}."
    notes = "".join(f"<p class='muted'>{escape(note)}.</p>" for note in result.notes)
    head = (
        f"<header><h1>{escape(result.b)} against {escape(result.a)}</h1>"
        f"<p class='muted'>B is {escape(result.b)}, A is {escape(result.a)}; differences are B minus A, paired by "
        f"query, with 95% bootstrap intervals.</p><p class='verdict'>{escape(verdict)}</p>{notes}"
        f"<div class='tiles'>{''.join(_tiles(result, settings))}</div></header>"
    )
    body = tests_section(result.tests, settings)
    body += "".join(changes_section(split, found) for split, found in result.changes.items())
    return document(f"{result.b} against {result.a} · serm", head + body)


def tests_section(tests: Sequence[SliceComparison], settings: EvaluationSettings) -> str:
    """A chart of the gate's measure a split, and the table of all tests."""
    cards = []
    for split in dict.fromkeys(row.split for row in tests):
        own = [row for row in tests if row.split == split and row.measure == settings.gate_measure and row.difference]
        caption = (
            f"{term('green', 'green', 'B is significantly better')}; "
            f"{term('orange', 'orange', 'significantly worse')}; {term('grey', 'grey', 'not significant')}."
        )
        if own:
            title = f"{settings.gate_measure} by slice, {split}"
            cards.append(chart(title, caption, differences_figure(own), 80 + 24 * len(own)))
    return section(
        "tests",
        "By slice",
        "Tests flip the sign of each query's difference, two-sided; p is corrected for the number of tests, "
        "of the overall ones and of those of slices each by themselves.",
        grid(cards, "two")
        + grid([text_card("All measures", details(f"{len(tests)} tests", table(test_rows(tests))))], "one")
        if tests
        else "",
    )


def test_rows(tests: Sequence[SliceComparison]) -> list[dict[str, Any]]:
    """A row a test, for tables."""
    return [
        {
            "split": row.split, "by": row.dimension, "slice": row.value, "measure": row.measure,
            "queries": row.queries, "A": _percent(row.a), "B": _percent(row.b),
            "difference": None if row.difference is None else _points(row.difference),
            "p": _p(row.p_value), "corrected p": _p(row.adjusted),
            "significant": row.significant if row.p_value is not None else None, "note": row.note,
        }
        for row in tests
    ]  # fmt: skip


def differences_figure(rows: Sequence[SliceComparison]) -> Figure:
    """Each slice's difference with its interval, in points, coloured by the corrected test."""
    data = []
    for colour, chosen in (
        ("grey", [i for i, row in enumerate(rows) if not row.significant]),
        ("green", [i for i, row in enumerate(rows) if row.significant and _mean(row) > 0]),
        ("orange", [i for i, row in enumerate(rows) if row.significant and _mean(row) <= 0]),
    ):
        own = [(i, rows[i], difference) for i in chosen if (difference := rows[i].difference)]
        data.append(
            {
                "type": "scatter", "mode": "markers", "x": [100 * d.mean for _, _, d in own],
                "y": [i for i, _, _ in own], "cliponaxis": False, "marker": {"color": f"theme:{colour}", "size": 9},
                "error_x": {
                    "type": "data", "symmetric": False, "width": 0, "thickness": 1.6, "color": f"theme:{colour}/0.6",
                    "array": [100 * (d.high - d.mean) for _, _, d in own],
                    "arrayminus": [100 * (d.mean - d.low) for _, _, d in own],
                },
                "customdata": [f"{row.value}: {row.queries:,} queries, corrected p {_p(row.adjusted)}"
                               for _, row, _ in own],
                "hovertemplate": "%{x:+.1f} points, %{customdata}<extra></extra>",
            }
        )  # fmt: skip
    names = [ALL if row.dimension == ALL else f"{row.dimension}: {row.value}" for row in rows]
    zero = {
        "type": "line", "yref": "paper", "y0": 0, "y1": 1, "x0": 0, "x1": 0,
        "line": {"color": "theme:muted", "width": 1, "dash": "dot"},
    }  # fmt: skip
    layout = {
        "hovermode": "closest", "margin": {"l": 190, "t": 8}, "shapes": [zero],
        "xaxis": {"title": {"text": "points, B minus A"}, "showgrid": True},
        "yaxis": {
            "tickvals": list(range(len(rows))), "ticktext": [escape(name) for name in names],
            "range": [len(rows) - 0.4, -0.6], "showgrid": False,
        },
    }  # fmt: skip
    return {"data": data, "layout": layout}


def changes_section(split: str, found: Changes) -> str:
    """Wins and losses of one split: queries with both rankings, pairs with both probabilities."""
    content = "".join(
        grid([text_card(title, "".join(_query(one) for one in changes))], "one")
        for title, changes in (("Queries that B wins", found.query_wins), ("Queries that B loses", found.query_losses))
        if changes
    )
    content += "".join(
        grid([text_card(title, table(pair_rows(changes), prose=True))], "one")
        for title, changes in (("Pairs that B wins", found.pair_wins), ("Pairs that B loses", found.pair_losses))
        if changes
    )
    return section(
        f"changes-{split}",
        f"Wins and losses, {split}",
        "A query is won by the higher measure, a pair by more probability for the human grade. The largest come first.",
        content,
    )


def pair_rows(changes: Sequence[PairChange]) -> list[dict[str, Any]]:
    """A row a pair, for tables."""
    return [
        {
            "query": one.query, "document": one.title or one.doc_id, "grade": str(one.grade),
            "A's probability": f"{one.a:.2f}", "B's probability": f"{one.b:.2f}", "rationale": one.rationale,
        }
        for one in changes
    ]  # fmt: skip


def query_rows(changes: Sequence[QueryChange]) -> list[dict[str, Any]]:
    """A row a query, for tables."""
    return [
        {
            "query": one.query, "locale": one.locale, "A": _percent(one.a), "B": _percent(one.b),
            "difference": f"{100 * one.difference:+.1f}",
        }
        for one in changes
    ]  # fmt: skip


def _query(one: QueryChange) -> str:
    rows = [
        {
            "document": each.title or each.doc_id, "grade": str(each.grade), "A's rank": str(each.rank_a),
            "B's rank": str(each.rank_b), "A's probabilities": _probabilities(each.probabilities_a),
            "B's probabilities": _probabilities(each.probabilities_b), "rationale": each.rationale,
        }
        for each in one.documents
    ]  # fmt: skip
    locale = f" ({one.locale})" if one.locale else ""
    return details(
        f"{one.query}{locale}: {one.measure} {100 * one.a:.0f} → {100 * one.b:.0f}", table(rows, prose=True)
    )  # fmt: skip


def _probabilities(values: Sequence[float]) -> str:
    return " · ".join(f"{value:.2f}" for value in values)


def _tiles(result: ModelComparison, settings: EvaluationSettings) -> list[str]:
    tiles = []
    for row in result.tests:
        if row.dimension == ALL and row.difference:
            tone = ("good" if row.difference.mean > 0 else "bad") if row.significant else ""
            note = f"{_points(row.difference)}, corrected p {_p(row.adjusted)}"
            value = f"{_percent(row.a)} → {_percent(row.b)}<small>%</small>"
            tiles.append(tile(f"{row.measure}, {row.split}", value, escape(note), tone))
    return tiles


def _points(difference: Interval) -> str:
    return f"{100 * difference.mean:+.1f} [{100 * difference.low:+.1f}, {100 * difference.high:+.1f}]"


def _mean(row: SliceComparison) -> float:
    return row.difference.mean if row.difference else 0.0


def _percent(value: float | None) -> str | None:
    return None if value is None else f"{100 * value:.1f}"


def _p(value: float | None) -> str | None:
    return None if value is None else "<0.001" if value < 1e-3 else f"{value:.3f}"
