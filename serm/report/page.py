"""The report's page: a first screen that answers three questions, then the evidence, then everything by round."""

from datetime import date

from serm.mining.precision import wilson
from serm.report.draw_labels import labels
from serm.report.draw_mined import mining
from serm.report.draw_quality import quality, verdicts
from serm.report.draw_reading import wins_and_losses
from serm.report.draw_rounds import rounds, runs
from serm.report.draw_stream import stream
from serm.report.facts import Decision, Facts, Level
from serm.report.html import details, document, section, text
from serm.report.words import Answer, better, changed, decide, headline, points, signed, since_the_first

PARTS = (
    ("quality", "Quality"), ("gate", "Verdicts"), ("reading", "Wins and losses"), ("stream", "Searches"),
    ("mining", "Mining"), ("labels", "Labels"), ("rounds", "Rounds"), ("runs", "Runs"),
)  # fmt: skip


def page(facts: Facts, today: date) -> str:
    """The file's text; `today` is its only part that equal facts do not determine."""
    body = (
        _head(facts, today)
        + _decisions(facts.decisions)
        + _begin(facts)
        + quality(facts)
        + verdicts(facts)
        + wins_and_losses(facts)
        + stream(facts)
        + mining(facts)
        + labels(facts)
        + rounds(facts)
        + (runs(facts.runs) if facts.runs else "")
        + _terms(facts)
    )
    shown = [(anchor, word) for anchor, word in PARTS if f'<section id="{anchor}"' in body]
    return document(f"{headline(facts)} · {facts.workspace}", facts.workspace, shown, body)


def _head(facts: Facts, today: date) -> str:
    span = f"Searches from {facts.first} to {facts.last}" if facts.first else "No searches in the log yet"
    answers = "".join(
        answer(question, told, kind)
        for question, told, kind in (
            ("Is search better?", better(facts), ""),
            ("What changed?", changed(facts), ""),
            ("What needs a decision?", decide(facts), "call" if facts.decisions else ""),
        )
    )
    return (
        f'<header class="top"><p class="eyebrow">Search relevance · {text(span)} · report of {today.day} '
        f'{today:%B %Y}</p><h1>{text(headline(facts))}</h1><div class="answers">{answers}</div>'
        f'<div class="tiles">{"".join(_tiles(facts))}</div></header>'
    )


def answer(question: str, told: Answer, kind: str) -> str:
    """One question of the first screen; kind "call" asks somebody to act."""
    command = f"<p><code>{text(told.command)}</code></p>" if told.command else ""
    return (
        f'<div class="answer {kind}"><h2>{text(question)}</h2><p class="short"><bdi>{text(told.short)}</bdi></p>'
        f'<p class="data">{text(told.sentence)}</p>{command}</div>'
    )


def _tiles(facts: Facts) -> list[str]:
    in_charge = next((model for model in facts.models if model.version == facts.champion), None)
    overall = since_the_first(facts)
    tiles = []
    for split, name in (("fresh", "New searches"), ("anchor", "Old searches")):
        level = in_charge.levels.get(split) if in_charge else None
        if level is None:
            continue
        comparison = (overall.fresh if split == "fresh" else overall.anchor) if overall else None
        since = f"{signed(comparison.difference.mean)} since the first model" if comparison else ""
        tiles.append(_tile(f"{name}, {facts.measure}", points(level.value), _interval(level), since))
    annotated = sum(round.labels.annotated for round in facts.rounds)
    kept = sum(round.labels.kept for round in facts.rounds)
    if annotated:
        low, high = wilson(kept, annotated)
        tiles.append(
            _tile(
                "Labels kept", f"{kept / annotated:.0%}", f"{low:.0%} to {high:.0%}", f"{kept:,} of {annotated:,} pairs"
            )
        )
    if facts.agreed["judged"]:
        judged, accuracy = facts.agreed["judged"], facts.agreed["accuracy"]
        low, high = wilson(round(accuracy * judged), judged)
        tiles.append(
            _tile("Labels like people's", f"{accuracy:.0%}", f"{low:.0%} to {high:.0%}", f"on {judged:,} graded pairs")
        )
    costs = [round.labels.cost for round in facts.rounds if round.labels.cost is not None]
    if costs and kept:
        tiles.append(_tile("Cost", f"{sum(costs):,.2f}", "", f"{sum(costs) / kept:.4f} a kept label"))
    elif kept:
        tokens = sum(round.labels.tokens for round in facts.rounds)
        tiles.append(_tile("Tokens a kept label", f"{tokens / kept:,.0f}", "", f"{tokens:,} in all"))
    return tiles


def _tile(name: str, value: str, interval: str, note: str) -> str:
    about = f"<small>{text(interval)}</small>" if interval else ""
    return (
        f'<div class="tile"><span class="name">{text(name)}</span><span class="figure">{text(value)}{about}</span>'
        f'<span class="about">{text(note)}</span></div>'
    )


def _interval(level: Level) -> str:
    return "" if level.low is None or level.high is None else f"{points(level.low)} to {points(level.high)}"


def _decisions(found: list[Decision]) -> str:
    if len(found) < 2:  # one stands in the first screen
        return ""
    items = "".join(
        f'<li><b>{text(one.what)}</b> <span class="data">{text(one.why)}</span>'
        + (f" <code>{text(one.do)}</code>" if one.do else "")
        + "</li>"
        for one in found
    )
    return section("decide", "To decide", "", f'<ol class="card list">{items}</ol>')


def _begin(facts: Facts) -> str:
    """What to do in a workspace that has no model yet."""
    if facts.champion is not None:
        return ""
    steps = (
        ("The results that search can show", "serm ingest --kind documents FILE", facts.rows["documents"], "documents"),
        (
            "Searches whose results people graded",
            "serm ingest --kind judgments FILE",
            facts.rows["judgments"],
            "judgments",
        ),
        ("The log: who saw what, and clicked", "serm ingest FILE", facts.rows["impressions"], "impressions"),
        ("The first model, from the judgments", "serm update", None, ""),
        ("A round; then every two weeks", "serm evolve", None, ""),
    )
    items = "".join(
        f"<li>{text(what)}: <code>{text(command)}</code>"
        + ("" if rows is None else f' <span class="note">{rows:,} {noun} so far</span>')
        + "</li>"
        for what, command, rows, noun in steps
    )
    return section("begin", "How to begin", "", f'<ol class="card list steps">{items}</ol>')


def _terms(facts: Facts) -> str:
    terms = (
        (facts.measure, "How well the results are ordered, by people's grades: 100 is the best possible order."),
        ("points", "Hundredths of the measure; a difference is paired: the same searches under both models."),
        ("[low, high]", "A 95% interval: what the figure could be on other searches like these. Of shares: Wilson's."),
        ("new and old searches", "Graded searches that no round may learn from: new ones (the split fresh) come from "
         "after the first model's time, old ones (anchor) from before."),
        ("champion", "The model in charge: it scores the stream, and each round's candidate starts from it."),
        ("kept label", "Every annotator, a language model, votes over several reasoning paths; the label is kept where "
         "the annotators agree."),
    )  # fmt: skip
    listed = "".join(f"<dt>{text(name)}</dt><dd>{text(meaning)}</dd>" for name, meaning in terms)
    return section("terms", "How to read this", "", details("Terms", f'<dl class="terms">{listed}</dl>'))
