"""The section about labels: what was kept, how the annotators vote and agree, how right they are, what it costs."""

from collections.abc import Sequence

from serm.mining.precision import wilson
from serm.report.charts import parts, span
from serm.report.draw_mined import share
from serm.report.facts import Annotator, Facts, Labels, Round
from serm.report.html import Cell, data, number, section, table, text


def labels(facts: Facts) -> str:
    """Kept rates by round, then the annotators."""
    labelled = [round for round in facts.rounds if round.labels.annotated]
    if not labelled:
        return ""
    annotated = sum(round.labels.annotated for round in labelled)
    kept = sum(round.labels.kept for round in labelled)
    right = facts.agreed
    checked = (
        f" Where people have graded a pair too ({right['judged']:,} pairs), {right['accuracy']:.0%} of the kept labels "
        "are the person's grade."
        if right["judged"]
        else " No kept label can be checked against a person's grade yet."
    )
    return section(
        "labels",
        "Labels: kept, agreed, paid",
        f"A label is kept only where the annotators agree: {kept:,} of {annotated:,} pairs. The rest wait for people."
        + text(checked),
        rounds(labelled, facts.scale)
        + "<h3>The annotators, all rounds</h3>"
        + annotators(facts.annotators, facts.scale),
    )


def rounds(found: Sequence[Round], scale: dict[int, str]) -> str:
    """A row a round."""
    priced = any(round.labels.cost is not None for round in found)
    columns = ["Round", "Kept, to a person", "Kept", "Same label", "Alpha", "Labels", "Calls a label", "Tokens a label"]
    rows = [
        [
            Cell(str(round.number), round.number),
            Cell(_parts(round.labels)),
            share(round.labels.kept, round.labels.annotated),
            share(round.labels.same, round.labels.both),
            number(round.labels.alpha, ".2f"),
            Cell(_grades(round.labels.by_label, scale)),
            number(_per(round.labels.calls, round.labels.kept), ".1f"),
            number(_per(round.labels.tokens, round.labels.kept), ",.0f"),
            *([number(round.labels.cost, ",.2f")] if priced else []),
        ]
        for round in found
    ]
    drawn = table("Labels by round; shares with 95% intervals", [*columns, *(["Cost"] if priced else [])], rows)
    money = (
        "Cost is what finished runs recorded, in the currency of the annotators' prices."
        if priced
        else "No annotator has a price (annotation.annotators.prompt_price), so cost is told in tokens."
    )
    return (
        f'{drawn}<p class="note">Same label: of the pairs on which two annotators or more have a stable label. Alpha '
        f"is Krippendorff's, ordinal: 1 is perfect agreement, 0 is chance. {money}</p>"
    )


def annotators(found: Sequence[Annotator], scale: dict[int, str]) -> str:
    """A row an annotator."""
    rows = [
        [
            data(one.name),
            share(one.labelled, one.pairs),
            Cell(_grades(one.by_label, scale)),
            _right(one),
            Cell("–", None, True) if one.bias is None else number(one.bias, "+.2f"),
        ]
        for one in found
    ]
    columns = ["Annotator", "Has a stable label", "Labels", "Says what people say", "Leans"]
    drawn = table("Annotators against people's grades; 95% intervals", columns, rows)
    return f'{drawn}<p class="note">Leans: mean of label minus grade, in steps of the scale; above 0 is lenient.</p>'


def _parts(found: Labels) -> str:
    return parts([(found.kept / found.annotated, ""), (found.review / found.annotated, "faint")])


def _grades(by_label: dict[int, int], scale: dict[int, str]) -> str:
    """A bar of the labels' shares, from bad to excellent, with the shares in words for those who cannot see it."""
    total = sum(by_label.values())
    if not total:
        return "–"
    shares = [(by_label.get(label, 0) / total, f"grade g{place}") for place, label in enumerate(scale)]
    told = ", ".join(f"{name} {by_label.get(label, 0) / total:.0%}" for label, name in scale.items())
    return f'{parts(shares)}<span class="figures">{text(told)}</span>'


def _right(one: Annotator) -> Cell:
    if one.accuracy is None:
        return Cell("–", None)
    low, high = wilson(round(one.accuracy * one.judged), one.judged)
    figures = f"{one.accuracy:.0%} [{100 * low:.0f}, {100 * high:.0f}] of {one.judged:,}"
    return Cell(f'{span(low, high, one.accuracy, (0.0, 1.0))}<span class="figures">{figures}</span>', one.accuracy)


def _per(amount: float, kept: int) -> float | None:
    return amount / kept if kept else None
