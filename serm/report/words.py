"""A report in sentences: did search get better, what changed, what does the gate say. Pure; plain text."""

from collections.abc import Sequence
from dataclasses import dataclass

from serm.evaluation.paired import Interval
from serm.evaluation.verdict import Comparison
from serm.report.facts import Facts, Gate, Round

AGENTS = {
    "feedback": "people clicked it and stayed, the model had scored it low",
    "click": "a model of clicks, free of the pull of the first places, says that people want it",
    "disagreement": "the model, asked several times, contradicts itself",
    "uncertainty": "the model cannot decide between grades",
    "random": "drawn by lot, to compare the others with",
}
ISOLATE, RELEASE = "\u2068", "\u2069"  # a search keeps its own direction inside a sentence
SHIFTS = {"none": "have not shifted", "mild": "have shifted mildly", "strong": "have shifted strongly"}
STATES = {
    "promoted": "its model is in charge since",
    "refused": "its model was refused",
    "rolled back": "its model was promoted and then rolled back",
    "not judged": "its model waits for the gate",
    "no candidate": "too few labels were kept to train a model",
    "unfinished": "the round is not finished",
}


@dataclass(frozen=True)
class Answer:
    """The short answer to one of the first screen's questions, and a sentence or two."""

    short: str
    sentence: str
    command: str = ""


def headline(facts: Facts) -> str:
    """The page's title: the one thing to take away."""
    if facts.champion is None:
        return "Nothing to report yet"
    if not facts.rounds:
        return "The first model is in charge"
    return {"better": "Search got better", "worse": "Search got worse"}.get(_direction(facts), "Search is where it was")


def better(facts: Facts) -> Answer:
    """Is search better?"""
    if facts.champion is None:
        return Answer("Not measured", "There is no model yet.")
    start = facts.models[0].levels.get("fresh") if facts.models else None
    if not facts.rounds:
        if start is None:
            return Answer("Not known yet", "The first model has not been measured on new searches: serm evaluate.")
        return Answer(
            "Not known yet",
            f"On {start.queries:,} new searches the first model's {facts.measure} is {points(start.value)} of 100. "
            "No round has challenged it.",
        )
    comparison = since_the_first(facts)
    if comparison is None:
        steps = [round for round in facts.rounds if round.state == "promoted" and round.gate and round.gate.fresh]
        if not steps:
            tried = sum(round.state == "refused" for round in facts.rounds)
            level = f" Its {facts.measure} on new searches is {points(start.value)} of 100." if start else ""
            told = (
                f"The gate refused {tried} of {_count(len(facts.rounds), 'round')}" if tried else "No round has ended"
            )
            return Answer("No", f"{told}; the first model stays in charge.{level}")
        last = steps[-1]
        assert last.gate
        assert last.gate.fresh
        return Answer(
            "Yes, step by step",
            f"Each of {len(steps)} promoted models beat the one before on new searches, the last one, of round "
            f"{last.number}, by {gain(last.gate.fresh.difference)}.",
        )
    fresh, anchor = comparison.fresh, comparison.anchor
    assert fresh is not None
    short = {"better": "Yes", "worse": "No, worse"}.get(_direction(facts), "Not clearly")
    told = (
        f"On {fresh.difference.queries:,} new searches, {comparison.measure} is {points(fresh.candidate)} of 100 "
        f"instead of the first model's {points(fresh.champion)}: {gain(fresh.difference)}."
    )
    if anchor is not None:
        told += f" On {anchor.difference.queries:,} old searches: {gain(anchor.difference)}."
    return Answer(short, told)


def changed(facts: Facts) -> Answer:
    """What changed in the newest round?"""
    if not facts.rounds:
        if not facts.rows["impressions"]:
            return Answer("Nothing", "No searches are in the log yet.")
        return Answer("Not watched yet", f"{facts.rows['impressions']:,} impressions wait for a first round.")
    last = facts.rounds[-1]
    shift = SHIFTS.get(last.shift.get("verdict", ""), "")
    short = f"Searches {shift}" if shift else f"Round {last.number}"
    about = clusters_in_words(last)
    mined = f"Round {last.number} took {last.mined:,} pairs to learn from, kept {last.labels.kept:,} labels; "
    return Answer(short, f"{about} {mined}{STATES[last.state]}.".strip())


def decide(facts: Facts) -> Answer:
    """What needs a decision?"""
    if not facts.decisions:
        return Answer("Nothing", "No round is unfinished, no run failed, the gate has what it needs.")
    first, more = facts.decisions[0], len(facts.decisions) - 1
    return Answer(first.what, first.why + (f" And {more} more, below." if more else ""), first.do)


def clusters_in_words(round: Round) -> str:
    """What people search for more than before, by searches that they typed: 'New: "a" and the like.'"""
    told = []
    for word, change in (("New", "new"), ("More", "grown")):
        own = [c for c in round.shift.get("clusters", []) if c["change"] == change and c["examples"]]
        own.sort(key=lambda cluster: (-abs(cluster["effect"] or 0.0), cluster["id"]))
        if own:
            quoted = " and ".join(f"“{ISOLATE}{_short(c['examples'][0])}{RELEASE}”" for c in own[:2])
            told.append(f"{word}: searches like {quoted}.")
    return " ".join(told)


def title(cluster: dict[str, object], most: int = 60) -> str:
    """A cluster's name: the words that set it apart, or two of its queries."""
    terms, examples = cluster.get("terms"), cluster.get("examples")
    assert isinstance(terms, Sequence)
    assert isinstance(examples, Sequence)
    name = ", ".join(terms[:4]) if terms else "; ".join(examples[:2])
    return name if len(name) <= most else name[: most - 1].rstrip(" ,;") + "…"


def verdict(gate: Gate) -> str:
    """The gate's reasons as a person would say them; the figures stand beside it."""
    if gate.fresh is None or gate.anchor is None:
        return "; ".join(gate.reasons) + "."
    old = gate.anchor.difference
    if gate.accepted:
        cost = "on old ones it loses a little, within what is allowed" if old.high < 0 else "old ones hold"
        return f"On new searches it is better beyond chance; {cost}. It took over."
    if any(reason.startswith("worse on the anchor") for reason in gate.reasons):
        return (
            f"On new searches it is {_moved(gate.fresh)}, but old ones lose more than is allowed. The champion stays."
        )
    return f"On new searches it is {_moved(gate.fresh)}; on old ones {_moved(gate.anchor)}. The champion stays."


def since_the_first(facts: Facts) -> Gate | None:
    """The champion against the first model, if the two were compared on new searches."""
    return facts.overall if facts.overall and facts.overall.fresh else None


def gain(interval: Interval) -> str:
    """A difference in points of a hundred, with its interval."""
    return f"{signed(interval.mean)} points [{signed(interval.low)}, {signed(interval.high)}]"


def points(value: float) -> str:
    """A measure of 0..1 in points of a hundred."""
    return f"{100 * value:.1f}"


def signed(value: float) -> str:
    """A difference of 0..1 in points of a hundred, with its sign."""
    rounded = round(100 * value, 1)
    return f"{rounded:+.1f}".replace("-", "−") if rounded else "0.0"


def tone(comparison: Comparison) -> str:
    """Which way a difference goes beyond its interval: better, worse, or neither."""
    return "better" if comparison.difference.low > 0 else "worse" if comparison.difference.high < 0 else ""


def _direction(facts: Facts) -> str:
    comparison = since_the_first(facts)
    if comparison is not None and comparison.fresh is not None:
        return tone(comparison.fresh)
    return "better" if any(round.state == "promoted" for round in facts.rounds) else ""


def _moved(comparison: Comparison) -> str:
    return {"better": "better", "worse": "worse"}.get(tone(comparison), "no different beyond chance")


def _short(query: str, most: int = 48) -> str:
    return query if len(query) <= most else query[: most - 1].rstrip() + "…"


def _count(amount: int, noun: str) -> str:
    return f"{amount:,} {noun}" + ("" if amount == 1 else "s")
