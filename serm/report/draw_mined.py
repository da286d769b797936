"""The section about mining: which agents took which pairs together, how often they were right, and pairs to read."""

from collections.abc import Mapping, Sequence

from serm.mining.precision import wilson
from serm.report import words as wording
from serm.report.charts import parts, span
from serm.report.facts import Agent, Example, Facts, Overlap
from serm.report.html import Cell, chip, details, foreign, number, section, table, text, words
from serm.report.mined import place

OVERLAPS_DRAWN = 12
STATUSES = {"kept": "kept", "review": "to a person", "waiting": "no label yet"}
TONES = {"kept": "accent", "review": "", "waiting": "warn"}


def mining(facts: Facts) -> str:
    """Overlaps over all rounds, agents of the newest labelled round, examples of the newest round."""
    if not facts.rounds:
        return ""
    total = sum(round.mined for round in facts.rounds)
    labelled = [round for round in facts.rounds if any(agent.labelled for agent in round.agents)]
    last = labelled[-1] if labelled else facts.rounds[-1]
    newest = facts.rounds[-1]
    best = {example.agents: example for example in reversed(newest.examples)}
    shown = [example for example in newest.examples if best[example.agents] is example]
    named = "".join(f"<dt>{text(name)}</dt><dd>{text(meaning)}</dd>" for name, meaning in wording.AGENTS.items())
    rounds = f"{len(facts.rounds):,} round{'s' if len(facts.rounds) > 1 else ''}"
    wrong = (
        f"<h3>How often the model was really wrong, round {last.number}</h3>"
        '<p class="note">The share of an agent\'s labelled pairs on which the agreed label contradicts the model of '
        "the day. The random share says how common errors are among all results that people were shown.</p>"
    )
    read = (
        f'<h3>Pairs to read, round {newest.number}</h3><p class="note">The pair that each combination of agents wanted '
        f'most. <a href="#round-{newest.number}">More of this round</a></p>'
    )
    return section(
        "mining",
        "What the model was taught, and who found it",
        f"{total:,} pairs of a search and a result were mined in {rounds}. Each row below is a combination of agents: "
        "a pair that several agents want is counted once, in their common row.",
        upset(summed([round.overlaps for round in facts.rounds]), f"pairs of {rounds}")
        + details("What each agent looks for", f'<dl class="terms">{named}</dl>')
        + wrong
        + agents(last.agents)
        + (read + examples(shown, facts.scale, find=False) if shown else ""),
    )


def upset(found: Sequence[Overlap], of: str) -> str:
    """Combinations of agents as rows: dots for who, a bar for how many."""
    names = sorted({name for row in found for name in row.agents}, key=place)
    total, most = sum(row.pairs for row in found), max((row.pairs for row in found), default=1)
    rows = [
        [
            *(_dot(name in row.agents, name) for name in names),
            Cell(parts([(row.pairs / most, "")])),
            number(row.pairs),
            Cell(f"{row.pairs / total:.0%}", row.pairs, True),
            Cell(f"{row.kept / row.annotated:.0%}" if row.annotated else "–", None, True),
        ]
        for row in found[:OVERLAPS_DRAWN]
    ]
    left = sum(row.pairs for row in found[OVERLAPS_DRAWN:])
    rarer = f"{len(found) - OVERLAPS_DRAWN} rarer combinations hold {left:,} more pairs."
    drawn = table(f"Who took which pairs together: {of}", [*names, "", "Pairs", "Share", "Kept"], rows, sort=False)
    return f'<div class="upset">{drawn}{f"""<p class="note">{rarer}</p>""" if left else ""}</div>'


def summed(rounds: Sequence[Sequence[Overlap]]) -> list[Overlap]:
    """The overlaps of several rounds added up, the largest first."""
    total: dict[tuple[str, ...], list[int]] = {}
    for rows in rounds:
        for row in rows:
            sums = total.setdefault(row.agents, [0, 0, 0])
            for i, amount in enumerate((row.pairs, row.annotated, row.kept)):
                sums[i] += amount
    return sorted((Overlap(names, *sums) for names, sums in total.items()), key=lambda row: (-row.pairs, row.agents))


def agents(found: Sequence[Agent]) -> str:
    """A row an agent: what it took, what was kept, how often it was right, over chance."""
    rows = [
        [
            words(agent.agent), number(agent.pairs), number(agent.alone), share(agent.kept, agent.annotated),
            _precision(agent), _times(agent),
        ]
        for agent in found
    ]  # fmt: skip
    columns = ["Agent", "Pairs", "It alone", "Labels kept", "Model was wrong", "Times the random share"]
    return table("What each agent brought; 95% intervals", columns, rows)


def share(found: int, asked: int) -> Cell:
    """A share with its interval (Wilson)."""
    if not asked:
        return Cell("–", None, True)
    low, high = wilson(found, asked)
    return Cell(f"{found / asked:.0%} [{100 * low:.0f}, {100 * high:.0f}]", found / asked, True)


def examples(found: Sequence[Example], scale: Mapping[int, str], find: bool = True) -> str:
    """Pairs with why they were mined and what was said of them."""
    rows = [
        [
            Cell(f"<b>{foreign(e.query)}</b>", e.query),
            Cell(_document(e), e.title),
            Cell(f'{_chips(e.agents)}<p class="why">{foreign(e.reason)}</p>', ", ".join(e.agents)),
            number(e.score, ".2f"),
            Cell(_outcome(e, scale), f"{e.status} {e.label}"),
        ]
        for e in found
    ]
    columns = ["Search", "Result", "Mined because", "Model said", "Label"]
    return table(
        "Pairs by combination of agents, the most wanted first", columns, rows, find, find, (19, 29, 27, 9, 16)
    )


def _precision(agent: Agent) -> Cell:
    if agent.precision is None or agent.low is None or agent.high is None:
        return Cell("–", None)
    drawn = span(agent.low, agent.high, agent.precision, (0.0, 1.0))
    figures = f"{agent.precision:.0%} [{100 * agent.low:.0f}, {100 * agent.high:.0f}] of {agent.labelled:,}"
    return Cell(f'{drawn}<span class="figures">{figures}</span>', agent.precision)


def _times(agent: Agent) -> Cell:
    if agent.lift is None or not agent.labelled:
        return Cell("–", None, True)
    return Cell(f"{agent.lift:.1f} [{agent.lift_low:.1f}, {agent.lift_high:.1f}]", agent.lift, True)


def _dot(on: bool, name: str) -> Cell:
    return Cell(f'<i class="on"></i><span class="sr">{text(name)}</span>' if on else '<i class="off"></i>')


def _chips(names: Sequence[str]) -> str:
    return f'<div class="chips">{"".join(chip(name) for name in names)}</div>'


def _document(example: Example) -> str:
    title = foreign(example.title or example.doc_id)
    own = example.text.removeprefix(example.title).lstrip(" .:–|-\n")
    return f'{title}<p class="why">{foreign(own)}</p>' if own else title


def _outcome(example: Example, scale: Mapping[int, str]) -> str:
    name = f"{example.label} {scale.get(example.label, '')}" if example.label is not None else STATUSES[example.status]
    said = "; ".join(f"{who}: {'none' if vote is None else vote}" for who, vote in sorted(example.votes.items()))
    told = f"<p>{foreign(example.rationale)}</p>" if example.rationale else ""
    votes = f'<p class="why">Votes: {foreign(said)}</p>' if said else ""
    return chip(name.strip(), TONES[example.status]) + details("why", told + votes)
