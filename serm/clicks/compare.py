"""Which click model foretells a log best: each is fitted on most sessions and judged on the others."""

from collections.abc import Iterable
from dataclasses import dataclass

import polars as pl

from serm.clicks import BASELINES, MODELS, fit
from serm.clicks.patterns import Patterns
from serm.clicks.perplexity import perplexity
from serm.clicks.slices import held_out
from serm.config import ClickSettings

UNCOMPARED = "dbn"  # where there are too few sessions to hold some out


@dataclass(frozen=True)
class Judged:
    """A model's forecast of the held-out sessions."""

    model: str
    perplexity: float  # before any click of a list is known
    at_1: float | None  # null if no held-out list has a row there
    at_5: float | None
    at_10: float | None
    conditional: float  # knowing the clicks above
    log_likelihood: float
    rows: int


def compare(
    settings: ClickSettings, log: pl.DataFrame, seed: int, names: Iterable[str] = (*MODELS, *BASELINES)
) -> list[Judged]:
    """Every model's forecast of a share `settings.held_out` of the log's sessions, fitted on the rest.

    Raises:
        ValueError: the log cannot be read, or it has too few sessions to hold some out.
    """
    # In one order: sums of the same numbers in another differ in the last digit.
    log = log.sort("ts", "session", "query", "position", "doc_id")
    known, fresh = held_out(log, settings.held_out, seed)
    if known.is_empty() or fresh.is_empty():
        raise ValueError(
            f"impressions: {log['session'].n_unique()} sessions are too few to hold out {settings.held_out:.0%} of "
            "them; give more, or name the model with clicks.model"
        )
    patterns, judged = Patterns.of(known), []
    for name in names:
        found = perplexity(fit(name, settings, patterns), fresh)
        judged.append(
            Judged(
                name, found.overall, found.at(1), found.at(5), found.at(10), found.conditional, found.log_likelihood,
                fresh.height,
            )
        )  # fmt: skip
    return judged


def best(judged: list[Judged]) -> str:
    """The model of lowest conditional perplexity; click-through rates are left out, unless there is nothing else.

    Conditional, because it is the likelihood: plain perplexity sees no more of a model than its click rates, and took
    cascade users for position-based ones more often (ours).
    """
    models = [one for one in judged if one.model in MODELS] or judged
    return min(models, key=lambda one: one.conditional).model


def chosen(settings: ClickSettings, log: pl.DataFrame, seed: int) -> str:
    """The model that `settings.model` names; with auto the best on this log, or dbn if it cannot be cut in two."""
    if settings.model != "auto":
        return settings.model
    parts = held_out(log, settings.held_out, seed)
    if any(part.is_empty() for part in parts):
        return UNCOMPARED
    return best(compare(settings, log, seed, MODELS))
