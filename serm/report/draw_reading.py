"""The section to read: the searches that one model wins and loses against another, and where, by kind of search."""

from collections.abc import Sequence

from serm.evaluation.changes import Document, QueryChange
from serm.evaluation.comparison import SliceComparison
from serm.report.charts import span
from serm.report.facts import Facts, Reading
from serm.report.html import Cell, chip, details, foreign, number, section, table, text, words
from serm.report.words import gain, points, signed

SPLITS = {"fresh": "new searches", "anchor": "old searches"}


def wins_and_losses(facts: Facts) -> str:
    """What became better and what became worse, on searches that people graded."""
    found = facts.reading
    if found is None:
        return ""
    who = (
        f"The champion of round {found.round} beside the model that it replaced."
        if found.promoted
        else f"The candidate of round {found.round}, which was not promoted, beside the champion of that day."
    )
    lists = "".join(
        f"<h3>{title} on {SPLITS[split]}</h3>{_searches(own, facts, split == 'fresh')}"
        for split, changes in found.changes.items()
        for title, own in (("Won most", changes.query_wins), ("Lost most", changes.query_losses))
        if own
    )
    return section(
        "reading",
        "Wins and losses to read",
        f"{who} Open a search to see its graded results and where each model puts them.",
        f"{lists}<h3>By kind of search</h3>{slices(found)}",
    )


def slices(found: Reading) -> str:
    """The difference by locale, family, traffic and era, corrected for the number of tests."""
    compared = [row.difference for row in found.slices if row.difference]
    reach = 1.1 * max((max(abs(d.low), abs(d.high)) for d in compared), default=0.01)
    rows = [
        [
            words(SPLITS[row.split]),
            words("all" if row.dimension == "all" else f"{row.dimension}: {row.value}"),
            number(row.queries),
            _difference(row, reach),
            Cell(f"{row.adjusted:.2g}" if row.adjusted is not None else "–", row.adjusted, True),
            Cell(chip("beyond chance", "accent") if row.significant else "no", str(row.significant)),
        ]
        for row in found.slices
        if row.difference
    ]
    left = [row for row in found.slices if row.difference is None]
    note = f'<p class="note">{len(left):,} more kinds have too few graded searches for a test.</p>' if left else ""
    columns = ["Graded", "Kind", "Searches", "Difference", "p, corrected", "Real?"]
    return table("Difference by kind of search; 95% intervals", columns, rows, find=len(rows) > 12) + note


def _searches(found: Sequence[QueryChange], facts: Facts, opened: bool) -> str:
    """A part a search; with `opened` the first is open."""
    parts = []
    for i, one in enumerate(found):
        aside = f"{facts.measure} {points(one.a)} → {points(one.b)}, {signed(one.difference)}"
        drawn = details(foreign(one.query), _documents(one.documents, facts), note=text(aside))
        parts.append(drawn.replace("<details", "<details open", 1) if opened and i == 0 else drawn)
    return f'<div class="stack">{"".join(parts)}</div>'


def _documents(found: Sequence[Document], facts: Facts) -> str:
    rows = [
        [
            Cell(foreign((one.title or one.doc_id)[:160]), one.title),
            Cell(text(f"{one.grade} {facts.scale.get(one.grade, '')}"), one.grade),
            number(one.rank_a),
            number(one.rank_b),
        ]
        for one in sorted(found, key=lambda one: (one.rank_b, one.doc_id))
    ]
    columns = ["Result", "People's grade", "Place before", "now"]
    return table("Results by their place now", columns, rows, widths=(52, 20, 16, 12), keep=True)


def _difference(row: SliceComparison, reach: float) -> Cell:
    found = row.difference
    assert found is not None
    beyond = ("better" if found.mean > 0 else "worse") if row.significant else ""
    drawn = span(found.low, found.high, found.mean, (-reach, reach), 0.0, beyond)
    return Cell(f'{drawn}<span class="figures">{gain(found)}</span>', found.mean)
