"""The parts of a run's page that show what training came to: Pass@k, problems won and lost, the probe set (HTML)."""

from typing import Any

from sps.analyze import BESIDE, readable
from sps.page import chart, grid, section, table, term, text_card
from sps.plots import limit_over_steps, passk_curves, passk_over_steps, probes_moved, probes_over_steps, problems_moved
from sps.probes import trajectories
from sps.runs import Run, counts_at, steps_of


def passk_section(run: Run, found: dict[str, Any]) -> str:
    """Pass@k over steps, over k, and its ceilings."""
    if not found["passk"]:
        return ""
    n, union = run.config.evaluation.samples, found["ceilings"][0]["ceiling"]
    cards = [
        chart(
            "Pass@k over training",
            "Chance that at least one of k completions is right; 95% bootstrap intervals over problems.",
            passk_over_steps(found["passk"]),
            360,
        ),
        chart(
            "More tries: first and last evaluation",
            f"{term('at the start', 'grey', '')} {term('at the end', 'blue', '')} Where the lines cross, training has "
            "bought fewer tries at the price of reach.",
            passk_curves(found["curve"], {"solved at some evaluation:": union}),
            360,
        ),
    ]
    texts = [
        text_card(
            "By step", table(readable([{k: v for k, v in row.items() if k not in BESIDE} for row in found["dynamics"]]))
        ),
        text_card(
            "Ceilings",
            "<p class='muted'>Three readings of how high Pass@k could go, and Pass@k at the end as a share of each. "
            "Union: solved at some evaluation, which is low. Fitted: the limit of many tries, if per-problem success "
            "follows a zero-inflated beta. Envelope: each problem at its best evaluation, which is high.</p>"
            + table(_turned(readable(found["ceilings"]))),
        ),
    ]
    lead = f"Unbiased Pass@k of {run.config.evaluation.problems} held-out problems from {n} completions each."
    return section("passk", "Does it get better, and does it keep exploring?", lead, grid(cards + texts, "two"))


def _turned(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """A row per column, a column per row: ceilings are few and their figures many."""
    return [{"": name, **{row["estimate"]: row[name] for row in rows}} for name in rows[0] if name != "estimate"]


def problems_section(run: Run, found: dict[str, Any]) -> str:
    """Which held-out problems were gained and lost; empty before the second evaluation."""
    steps = steps_of(run.evaluations)
    if len(steps) < 2:
        return ""
    cards = [
        chart(
            "Every held-out problem, start against end",
            f"{term('lost', 'orange', 'solved at the start, never at the end')}. Below the diagonal a problem got "
            "worse; the area is the number of problems.",
            problems_moved(counts_at(run.evaluations, steps[0]), counts_at(run.evaluations, steps[-1])),
            380,
        ),
        chart(
            "Share of problems that are not hopeless",
            "Pass@k in the limit of many tries by the fit at each evaluation, with 95% profile-likelihood intervals.",
            limit_over_steps(found["fits"]),
            380,
        ),
    ]
    moved = found["problems"]
    lead = (
        f"Solved at least once at both ends: {moved['both']}; only at the end: {moved['gained']}; only at the start: "
        f"{moved['lost']}; at neither: {moved['neither']}."
    )
    return section("problems", "Which problems paid for it?", lead, grid(cards, "two"))


def probes_section(run: Run, found: dict[str, Any]) -> str:
    """The probe set; empty without one, or before its second evaluation."""
    steps = steps_of(run.probes)
    if len(steps) < 2:
        return ""
    own = trajectories(run.probes)
    legend = (
        f"{term('likeliest', 'blue', 'right one of its prompt at the start,')} "
        f"{term('other right', 'orange', 'ones,')} {term('wrong', 'grey', 'ones')}."
    )
    cards = [
        chart(
            "Log-probability since the start",
            f"{legend} Medians and middle halves. Squeezing: the likeliest gain what the other right ones lose.",
            probes_over_steps(own, steps),
            340,
        ),
        chart("Every trajectory", f"{legend} What was likely and fell far was squeezed out.", probes_moved(own), 340),
    ]
    lead = (
        f"{len(own)} completions of the initial policy, sampled before training, whose log-probability every "
        "evaluation measures again. Squeezed out: a tenth of its probability or less is left."
    )
    rows = readable(found["probes"])
    return section(
        "probes", "Where did the probability go?", lead, grid(cards, "two") + text_card("In figures", table(rows))
    )
