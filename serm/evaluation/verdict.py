"""The gate: whether a candidate may replace the champion, decided from human judgments by a pure function.

The rule (ours). On fresh queries the candidate must be better beyond doubt: the paired interval of the mean difference
lies above zero *and* a one-sided sign-flip test gives p < alpha; together they promote an equal model less often than
alpha, also with few queries. On the anchor set the mean loss may not exceed the tolerance. There the point estimate
decides, not the interval's end: with the few hundred queries that people can judge, the interval's end lies more than
a point below zero for most candidates that lost nothing, and the gate would never open.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import polars as pl

from serm.config import EvaluationSettings
from serm.evaluation.paired import Interval, mean_interval, sign_flip_p


@dataclass(frozen=True)
class Comparison:
    """Two models on the same judged queries of one split; `difference` is candidate minus champion, per query."""

    champion: float
    candidate: float
    difference: Interval
    p_value: float  # one-sided: the candidate is better


@dataclass(frozen=True)
class Verdict:
    """The gate's answer, why, and the figures it rests on (None where a split allowed no comparison)."""

    accepted: bool
    reasons: list[str]
    measure: str
    fresh: Comparison | None
    anchor: Comparison | None


def decide(
    champion: Mapping[str, pl.DataFrame],
    candidate: Mapping[str, pl.DataFrame],
    settings: EvaluationSettings,
    seed: int = 0,
) -> Verdict:
    """Accept the candidate only if it is better on fresh queries and not worse on the anchor set.

    Args:
        champion, candidate: "fresh" and "anchor" -> the frame `values` of `metrics.per_query`: query and measures.
        settings: gate_measure, minimum_queries, alpha, anchor_tolerance and resamples are used.

    A missing split, different queries, a value that is not finite, or too few queries refuse; nothing raises.
    """
    refusals: list[str] = []
    found: dict[str, Comparison | None] = {}
    for split in ("fresh", "anchor"):
        problem = _problem(split, champion, candidate, settings)
        found[split] = None if problem else compare(champion[split], candidate[split], settings, seed)
        refusals += [problem] if problem else []
    fresh, anchor = found["fresh"], found["anchor"]
    if fresh and not (fresh.difference.low > 0 and fresh.p_value < settings.alpha):
        refusals.append(f"not clearly better on fresh queries: {_words(fresh, settings)}")
    if anchor and anchor.difference.mean < -settings.anchor_tolerance - 1e-12:
        refusals.append(
            f"worse on the anchor set by more than {settings.anchor_tolerance:g}: {_words(anchor, settings)}"
        )
    reasons = refusals or [
        f"better on fresh queries: {_words(fresh, settings)}" if fresh else "",
        f"not worse on the anchor set: {_words(anchor, settings)}" if anchor else "",
    ]
    return Verdict(not refusals, reasons, settings.gate_measure, fresh, anchor)


def compare(champion: pl.DataFrame, candidate: pl.DataFrame, settings: EvaluationSettings, seed: int) -> Comparison:
    """The paired comparison of two per-query frames with the same queries on the gate's measure."""
    measure = settings.gate_measure
    pairs = champion.select("query", old=measure).join(candidate.select("query", new=measure), on="query").sort("query")
    differences = (pairs["new"] - pairs["old"]).to_numpy()
    return Comparison(
        float(pairs["old"].to_numpy().mean()),
        float(pairs["new"].to_numpy().mean()),
        mean_interval(differences, 1 - settings.alpha, settings.resamples, seed),
        sign_flip_p(differences, settings.resamples, seed),
    )


def _problem(
    split: str,
    champion: Mapping[str, pl.DataFrame],
    candidate: Mapping[str, pl.DataFrame],
    settings: EvaluationSettings,
) -> str:
    """Why these frames allow no comparison on this split; empty when they do."""
    measure = settings.gate_measure
    for name, frames in (("champion", champion), ("candidate", candidate)):
        if split not in frames or frames[split].is_empty():
            return f"{split}: no human-judged queries with a positive document for the {name}"
        frame = frames[split]
        if measure not in frame.columns:
            return f"{split}: the {name} was not measured by {measure}; add it to evaluation.measures"
        if frame["query"].has_nulls() or frame["query"].is_duplicated().any():
            return f"{split}: a query of the {name} is null or there twice"
        bad = int((~frame[measure].is_finite()).fill_null(True).sum())
        if bad:
            return f"{split}: the {name} gave scores that are not finite numbers on {bad} queries"
    if set(champion[split]["query"]) != set(candidate[split]["query"]):
        return f"{split}: champion and candidate were measured on different queries"
    if champion[split].height < settings.minimum_queries:
        return (
            f"{split}: {champion[split].height} judged queries; "
            f"the gate needs {settings.minimum_queries} (evaluation.minimum_queries)"
        )
    return ""


def _words(comparison: Comparison, settings: EvaluationSettings) -> str:
    difference = comparison.difference
    return (
        f"{settings.gate_measure} {comparison.candidate:.4f} against {comparison.champion:.4f}, "
        f"difference {difference.mean:+.4f} [{difference.low:+.4f}, {difference.high:+.4f}], "
        f"p = {comparison.p_value:.4f}, {difference.queries} queries"
    )
