"""The parts of a run's page that show what log.jsonl says, step by step."""

from collections.abc import Sequence
from typing import Any

from sps.metrics import METRICS
from sps.page import chart, grid, section, term
from sps.plots import COLOURS, metric_lines, missing_bars, seconds_stacked
from sps.runs import Rows, Run

PERCENT = {"top_share", "correct_share", "truncated_share", "clipped_share", "capped_share"}
Panels = Sequence[tuple[str, tuple[str, ...]]]
SQUEEZING: Panels = [
    ("Top-1 share", ("top_share",)),
    ("Effective number of right solutions", ("effective_number",)),
    ("Different right solutions in a group", ("distinct_correct", "distinct_keys")),
    ("Token entropy", ("entropy",)),
    ("Distance from the demonstrations", ("irl_kl",)),
    ("Prompts steered", ("prompts_steered",)),
]
LEARNING: Panels = [
    ("Reward", ("reward_mean", "reward_std")),
    ("Right answers in training", ("correct_share",)),
    ("Length", ("length_mean",)),
    ("Cut at the token limit", ("truncated_share",)),
    ("Groups", ("groups_used", "groups_flat", "groups_replaced")),
]
HEALTH: Panels = [
    ("KL to the initial policy", ("kl_to_initial",)),
    ("Gradient norm", ("gradient_norm",)),
    ("Losses", ("loss_policy", "loss_kl", "loss_kl_cov", "loss_entropy", "loss_forward_kl")),
    ("Policy against the step's first policy", ("ratio_mean", "ratio_max")),
    ("Clipped tokens", ("clipped_share",)),
    ("Trainer against sampler", ("importance_mean", "importance_max")),
    ("Truncated importance", ("capped_share",)),
    ("Learning rate", ("learning_rate",)),
    ("Optimiser steps", ("updates",)),
]
TIMES = ("seconds_sampling", "seconds_judging", "seconds_training")
APART = {"step", "steered", "tokens", "tokens_per_second", "reward_missing", *TIMES}  # shown otherwise, or not at all


def training_sections(run: Run) -> list[str]:
    """Squeezing, learning, optimisation and speed (HTML)."""
    if not run.log:
        return []
    return [
        section(
            "squeezing",
            "Is probability being squeezed?",
            _steering_words(run),
            grid(_panels(run, SQUEEZING)),
        ),
        section(
            "learning",
            "Learning",
            "Rollouts on training prompts, every step; bold lines are running means.",
            grid([*_panels(run, LEARNING), *_missing(run)]),
        ),
        section(
            "health",
            "Is the optimisation sound?",
            "What goes wrong in silence shows here first.",
            grid(_panels(run, HEALTH)),
        ),
        section("speed", "Where the time goes", "Wall time of the steps.", grid(_speed(run))),
    ]


def other_charts(run: Run) -> str:
    """Logged numbers that no other part of the page shows."""
    placed = {name for panels in (SQUEEZING, LEARNING, HEALTH) for _, names in panels for name in names} | APART
    numbers = {name for row in run.log for name, value in row.items() if isinstance(value, (int, float))}
    rest = [(name.replace("_", " ").capitalize(), (name,)) for name in sorted(numbers - placed)]
    return section("other", "Other figures", "Logged, and not among the above.", grid(_panels(run, rest)))


def steady(run: Run) -> dict[str, float]:
    """Logged figures that had one value throughout."""
    names = dict.fromkeys(name for row in run.log for name in row if name not in APART)
    values = {name: _values(run.log, name) for name in names}
    return {name: found[0] for name, found in values.items() if found and len(run.log) > 1 and min(found) == max(found)}


def _panels(run: Run, panels: Panels) -> list[str]:
    """A chart for every panel of which a figure was logged and moved."""
    still = steady(run)
    last = max((row["step"] for row in run.log), default=0)
    cards = []
    for title, names in panels:
        shown = [name for name in names if _values(run.log, name) and name not in still]
        if shown:
            colours = COLOURS[: len(shown)]
            percent = all(name in PERCENT for name in shown)
            rows = [row for row in run.log if row.get("steered")] if shown == ["prompts_steered"] else run.log
            figure = metric_lines(rows, shown, colours, last, percent)
            cards.append(chart(title, _caption(shown, colours), figure, 190))
    return cards


def _caption(names: Sequence[str], colours: Sequence[str]) -> str:
    single = len(names) == 1
    lines = [
        term(name, "" if single else colour, METRICS.get(name, "Not in the glossary."), "code")
        for name, colour in zip(names, colours, strict=True)
    ]
    return "<br>".join(lines)


def _missing(run: Run) -> list[str]:
    """Rollouts without a reward, by reason, where there were any."""
    reasons = sorted(
        {reason for row in run.log for reason, count in (row.get("reward_missing") or {}).items() if count}
    )
    if not reasons:
        return []
    named = dict(zip(reasons, COLOURS, strict=False))
    legend = " ".join(term(reason, colour, "") for reason, colour in named.items())
    figure = missing_bars(run.log, named, run.log[-1]["step"])
    return [chart("Rollouts without a reward", f"{legend}<br>{METRICS['reward_missing']}", figure, 190)]


def _speed(run: Run) -> list[str]:
    last = run.log[-1]["step"]
    cards = []
    if _values(run.log, "tokens_per_second"):
        figure = metric_lines(run.log, ["tokens_per_second"], ["green"], last)
        cards.append(chart("Tokens per second", METRICS["tokens_per_second"], figure, 190))
    if _values(run.log, "tokens"):
        figure = metric_lines(run.log, ["tokens"], ["gold"], last)
        cards.append(chart("Tokens per step", METRICS["tokens"], figure, 190))
    shown = [name for name in TIMES if _values(run.log, name)]
    if shown:
        colours = ("blue", "gold", "purple")[: len(shown)]
        legend = " ".join(term(n.removeprefix("seconds_"), c, "") for n, c in zip(shown, colours, strict=True))
        figure = seconds_stacked(run.log, shown, colours, last)
        cards.append(chart("Seconds per step", f"{legend} One on the other.", figure, 190))
    return cards


def _steering_words(run: Run) -> str:
    steered = sum(bool(row.get("steered")) for row in run.log)
    how = f"{steered} of {len(run.log)} steps were steered." if steered else "No step was steered."
    return f"How the policy's probability is shared among its own right solutions of a training prompt. {how}"


def _values(log: Rows, name: str) -> list[Any]:
    return [row[name] for row in log if isinstance(row.get(name), (int, float))]
