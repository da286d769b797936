"""The sections about quality: the champion's history, and the gate's verdicts in words and intervals."""

from collections.abc import Sequence

from serm.evaluation.verdict import Comparison
from serm.report.charts import Point, Series, lines, span
from serm.report.facts import Facts, Level, Model, Round
from serm.report.html import Cell, chip, details, figure, number, section, table, text, words
from serm.report.words import gain, points, tone, verdict

SPLITS = (("fresh", "New searches", "accent"), ("anchor", "Old searches", "plain"))
VERDICTS_SHOWN = 6  # the others are in the table of rounds
CHIPS = {"promoted": ("promoted", "accent"), "refused": ("refused", ""), "rolled back": ("rolled back", "warn"),
         "not judged": ("no verdict yet", "warn"), "no candidate": ("no model", "warn"),
         "unfinished": ("unfinished", "warn")}  # fmt: skip


def quality(facts: Facts) -> str:
    """The champion after every round, with intervals, and every model in a table."""
    series = [_series(facts, *split) for split in SPLITS]
    measured = [one for one in series if one.points]
    if not measured:
        return ""
    places = ["Start", *(f"Round {round.number}" for round in facts.rounds)]
    last = "; ".join(f"{one.name}: {one.points[-1].words}" for one in measured)
    label = f"{facts.measure} of the champion from the start to round {len(places) - 1}. {last}"
    legend = " ".join(f'<span class="key {one.tone}">{text(one.name)}</span>' for one in measured)
    caption = (
        f"{legend} Points of 100; bands are 95% intervals over searches, mostly shared between models measured on "
        " the same searches, so differences are surer than they look: see the verdicts. "
        '<span class="key hollow">Hollow</span>: a candidate that was not promoted.'
    )
    versions = {level.judgments_version for model in facts.models for level in model.levels.values()} - {None}
    if len(versions) > 1:
        caption += " Models were measured on different states of the judgments; compare them by the verdicts alone."
    card = figure(f"{facts.measure} of the model in charge", caption, lines(measured, places, label))
    behind = details("Every model in figures", models(facts.models))
    return section(
        "quality",
        "Is search getting better?",
        "Measured on searches whose results people have graded. New searches are of a time that the first model never "
        "saw; old ones show whether anything was forgotten.",
        card + behind,
    )


def verdicts(facts: Facts) -> str:
    """What the gate said of each round's model."""
    judged = [round for round in facts.rounds if round.gate]
    shown = judged[-VERDICTS_SHOWN:][::-1]
    compared = [c for round in shown if round.gate for c in (round.gate.fresh, round.gate.anchor) if c]
    reach = max((max(abs(c.difference.low), abs(c.difference.high)) for c in compared), default=0.0) or 0.01
    cards = "".join(_verdict(round, 1.1 * reach) for round in shown)
    more = len(judged) - len(shown)
    left = f'<p class="note">{more:,} earlier verdicts are in the table of rounds.</p>' if more else ""
    return section(
        "gate",
        "The gate's verdicts",
        "A candidate takes over only if it is better on new searches beyond chance and not worse on old ones. People's "
        "grades alone decide; labels by language models never do.",
        f'<div class="stack">{cards}</div>{left}' if cards else "",
    )


def models(found: Sequence[Model]) -> str:
    """A row a model."""
    columns = ["Model", "Round", "Role", "New searches", "Old searches", "Learned from", "Made"]
    rows = [
        [
            words(model.version), number(model.round), words(model.role), _level(model.levels.get("fresh")),
            _level(model.levels.get("anchor")), number(model.pairs, ",", " pairs"), words(model.created),
        ]
        for model in found
    ]  # fmt: skip
    return table("Models, oldest first; points of 100 with 95% intervals", columns, rows)


def comparison_cell(comparison: Comparison | None, reach: float) -> Cell:
    """A paired difference as a picture with its figures."""
    if comparison is None:
        return Cell("–")
    found = comparison.difference
    drawn = span(found.low, found.high, found.mean, (-reach, reach), 0.0, tone(comparison))
    return Cell(f'{drawn}<span class="figures">{gain(found)}</span>', found.mean)


def state(round: Round) -> str:
    """The round's outcome as a chip."""
    return chip(*CHIPS[round.state])


def _verdict(round: Round, reach: float) -> str:
    gate = round.gate
    assert gate is not None
    drawn = "".join(
        f"<dt>{name}</dt><dd>{comparison_cell(comparison, reach).html}</dd>"
        for name, comparison in (("New searches", gate.fresh), ("Old searches", gate.anchor))
        if comparison
    )
    said = details("In the gate's own words", f"<p>{text('; '.join(gate.reasons))}</p>")
    return (
        f'<article class="card verdict"><div><h3>Round {round.number} {state(round)}</h3><p>{text(verdict(gate))}</p>'
        f'{said}</div><dl class="spans">{drawn}</dl></article>'
    )


def _series(facts: Facts, split: str, name: str, tone: str) -> Series:
    """The champion's level after each round, and the levels of candidates that were not promoted."""
    by_version = {model.version: model for model in facts.models}
    first = facts.changes[0].version if facts.changes else ""
    found, in_charge = [], by_version.get(first)
    if in_charge and split in in_charge.levels:
        found.append(_point(0, in_charge.levels[split], False, "first model"))
    for place, round in enumerate(facts.rounds, start=1):
        candidate = by_version.get(round.model or "")
        if round.state == "promoted":
            in_charge = candidate
        elif candidate and split in candidate.levels:
            found.append(_point(place, candidate.levels[split], True, f"candidate of round {round.number}"))
        if in_charge and split in in_charge.levels:
            found.append(_point(place, in_charge.levels[split], False, f"champion after round {round.number}"))
    return Series(name, tone, found)


def _point(place: int, level: Level, hollow: bool, what: str) -> Point:
    low, high = (None if end is None else 100 * end for end in (level.low, level.high))
    return Point(place, 100 * level.value, low, high, hollow, f"{what} {_in_words(level)}, {level.queries:,} searches")


def _level(level: Level | None) -> Cell:
    return Cell("–", None, True) if level is None else Cell(_in_words(level), level.value, True)


def _in_words(level: Level) -> str:
    if level.low is None or level.high is None:
        return points(level.value)
    return f"{points(level.value)} [{points(level.low)}, {points(level.high)}]"
