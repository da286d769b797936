"""The section about the stream: which searches grew, shrank or are new, with examples, and the views' tests."""

from typing import Any

from serm.report.charts import moved, parts
from serm.report.facts import Facts, Round
from serm.report.html import Cell, chip, data, details, foreign, section, table, text, words
from serm.report.words import SHIFTS, title
from serm.shift.report import HEADLINES

CLUSTERS_SHOWN = 8
EXAMPLES_SHOWN = 4
CHANGES = {"new": "new", "grown": "grew", "shrunk": "shrank", "vanished": "vanished", "steady": "steady"}


def stream(facts: Facts) -> str:
    """What the newest round found; earlier rounds are in their own parts."""
    watched = [round for round in facts.rounds if round.shift]
    if not watched:
        return ""
    last = watched[-1]
    told = SHIFTS.get(last.shift["verdict"])
    lead = f"In the two windows that round {last.number} compared, searches {told}." if told else _note(last)
    return section(
        "stream",
        "What people search for now",
        f"{text(lead)} Under the words that set a group of alike searches apart are searches that people typed. "
        '<span class="key hollow">share before</span> <span class="key accent">share now</span>',
        groups(last, CLUSTERS_SHOWN) + details("How we know: the tests behind it", views(last)),
    )


def groups(round: Round, most: int) -> str:
    """A row a group of alike searches, the largest change first."""
    found = sorted(
        round.shift.get("clusters", []),
        key=lambda c: (c["change"] == "steady", -abs(c["effect"] or 0.0), -c["share_current"], c["id"]),
    )[:most]
    top = max((max(c["share_reference"] or 0.0, c["share_current"]) for c in found), default=0.0) * 1.05
    rows = [
        [
            Cell(f"<b>{foreign(title(c))}</b>{_examples(c['examples'])}", title(c)),
            Cell(chip(CHANGES[c["change"]], "" if c["change"] == "steady" else "accent"), CHANGES[c["change"]]),
            _shares(c, top),
            _p(c["p_value"]),
        ]
        for c in found
    ]
    columns = ["Searches about", "Change", "Share of all searches", "p"]
    return table(
        "Groups of alike searches; p is corrected for their number", columns, rows, False, False, (48, 12, 33, 7)
    )


def views(round: Round) -> str:
    """Each view's effect and test."""
    rows = [
        [
            words(view["name"]),
            Cell("–")
            if view["effect"] is None
            else Cell(
                f"{parts([(view['effect'], '' if view['significant'] else 'faint')])}"
                f'<span class="figures">at least {view["effect"]:.1%}</span>'
            ),
            _p(view["p_value"]),
            words("–" if view["p_value"] is None else "yes" if view["significant"] else "no"),
            data(view["text"]),
        ]
        for view in round.shift.get("views", [])
    ]
    columns = ["View", "Searches of another kind", "p", "Beyond chance", "In words"]
    name = "Ways of looking at the two windows, each with its own test"
    return table(name, columns, rows, False, False, (14, 24, 9, 13, 40)) + f"<p>{text(_note(round))}</p>"


def _shares(cluster: dict[str, Any], top: float) -> Cell:
    before, now = cluster["share_reference"], cluster["share_current"]
    if before is None:
        return Cell(f"{now:.1%}", now)
    return Cell(f'{moved(before, now, top)}<span class="figures">{before:.1%} → {now:.1%}</span>', now)


def _note(round: Round) -> str:
    return f"{HEADLINES[round.shift['verdict']]} {round.shift.get('note', '')}".strip()


def _examples(queries: list[str]) -> str:
    shown = "".join(f"<li>{foreign(query[:120])}</li>" for query in queries[:EXAMPLES_SHOWN])
    return f'<ul class="queries">{shown}</ul>' if shown else ""


def _p(value: Any) -> Cell:
    if value is None:
        return Cell("–", None, True)
    return Cell("&lt;0.001" if value < 1e-3 else f"{value:.2g}", value, True)
