"""The drill-down: every round as a row, the newest in full, and the newest runs."""

from collections.abc import Sequence
from typing import Any

from serm.report.draw_labels import rounds as label_rows
from serm.report.draw_mined import agents, examples, share, upset
from serm.report.draw_quality import CHIPS, comparison_cell, state
from serm.report.draw_stream import groups, views
from serm.report.facts import Facts, Round
from serm.report.html import Cell, details, number, section, table, text, words
from serm.report.words import SHIFTS, verdict

IN_FULL = 26  # rounds: a year
CLUSTERS = 12


def rounds(facts: Facts) -> str:
    """All rounds in a table, then the newest one by one."""
    if not facts.rounds:
        return ""
    newest = facts.rounds[-IN_FULL:][::-1]
    parts = "".join(
        details(f"Round {round.number}", _round(round, facts.scale), f"round-{round.number}", _aside(round))
        for round in newest
    )
    left = len(facts.rounds) - len(newest)
    note = f'<p class="note">The {left:,} rounds before are in the table above alone.</p>' if left else ""
    buttons = '<p class="buttons"><button type="button" class="fold" hidden>Open all rounds</button></p>'
    return section(
        "rounds",
        "Round by round",
        "Sort by any heading; open a round for all that is known of it.",
        _table(facts.rounds) + buttons + f'<div class="stack">{parts}</div>{note}',
    )


def runs(found: Sequence[dict[str, Any]]) -> str:
    """The newest runs, the last one first."""
    rows = [
        [
            words(run["started"]), words(run["verb"]), number(run["round"]), words(run["status"]),
            number(run["seconds"], ",.0f", " s"), Cell(f'<span class="data">{text(run["error"] or "")}</span>'),
        ]
        for run in reversed(found)
    ]  # fmt: skip
    columns = ["Started (UTC)", "Command", "Round", "Ended", "Took", "Error"]
    name = f"The last {len(found)} runs"
    return section(
        "runs", "Runs", "What was run, and how it ended.", details(name, table(name, columns, rows, find=True))
    )


def _table(found: Sequence[Round]) -> str:
    compared = [round.gate.fresh.difference for round in found if round.gate and round.gate.fresh]
    reach = 1.1 * max((max(abs(d.low), abs(d.high)) for d in compared), default=0.01)
    rows = [
        [
            Cell(str(round.number), round.number),
            Cell(state(round), CHIPS[round.state][0]),
            words(round.shift.get("verdict", "–")),
            number(round.mined),
            share(round.labels.kept, round.labels.annotated),
            comparison_cell(round.gate.fresh if round.gate else None, reach),
            number(round.labels.calls),
        ]
        for round in reversed(found)
    ]
    columns = ["Round", "Outcome", "Shift", "Mined", "Labels kept", "On new searches", "Calls"]
    return table("Rounds, the newest first", columns, rows, find=len(found) > 12)


def _round(round: Round, scale: dict[int, str]) -> str:
    parts = []
    if round.gate:
        parts.append(f"<h3>Verdict</h3><p>{text(verdict(round.gate))}</p><p class='why'>{text(_words(round))}</p>")
    if round.shift:
        told = SHIFTS.get(round.shift["verdict"], "may have shifted; nothing could be compared")
        parts.append(f"<h3>Searches {text(told)}</h3>{groups(round, CLUSTERS)}{views(round)}")
    parts.append(f"<h3>Who mined what</h3>{upset(round.overlaps, f'round {round.number}')}{agents(round.agents)}")
    if round.labels.annotated:
        parts.append(f"<h3>Labels</h3>{label_rows([round], scale)}")
    if round.examples:
        parts.append(f"<h3>Pairs to read</h3>{examples(round.examples, scale)}")
    return "".join(parts)


def _words(round: Round) -> str:
    assert round.gate is not None
    return f"{round.gate.candidate} against {round.gate.champion}: {'; '.join(round.gate.reasons)}"


def _aside(round: Round) -> str:
    told = f"{round.mined:,} mined, {round.labels.kept:,} kept"
    if round.waiting:
        told += f", {round.waiting:,} without a label"
    return f"{text(told)} {state(round)}"
