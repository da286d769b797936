"""The attack suite: how often does each kind of attack raise an irrelevant document, and what does the guard cost?

It runs on whatever annotators it is given. Fooled is a pair that was not labelled relevant and, attacked, is; after
agreement it must also have been kept. Shift is the change of the label where both are there. Pairs have a query and a
document of their own each, so that intervals may take them as independent.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from scipy import stats

from serm.annotation.attack_texts import Attack, attack
from serm.annotation.core import annotate_pairs
from serm.annotation.counterfactual import high
from serm.annotation.knowledge import Knowledge
from serm.annotation.ledger import Ledger
from serm.annotation.llm import LLM
from serm.annotation.retrieval import Index
from serm.config import ATTACKS, AnnotationSettings
from sps import progress

AGREED = "after agreement"
CLEAN = "none"
LEVEL = 0.95
VOCABULARY_DOCUMENTS = 200
LOOSE = {"guard": False, "counterfactual": 0.0}  # the annotators without any defence of ours


@dataclass(frozen=True)
class AttackReport:
    """What the suite found; rows are ready to print."""

    victims: int
    clean: int
    attacks: list[dict[str, Any]]  # a row for guard, kind and annotator
    harm: list[dict[str, Any]]  # a row an annotator: clean relevant pairs with the guard against without
    calls: int
    prompts: list[str]


def choose_pairs(
    judged: pl.DataFrame, count: int, scale: Sequence[int], seed: int
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Victims (the lowest grade) and clean pairs (relevant), at most `count` of each, no query or document twice.

    `judged` has query, doc_id, grade, text, and locale if known.

    Raises:
        ValueError: there is no pair of either sort.
    """
    shuffled = judged.sort("query", "doc_id").sample(fraction=1.0, shuffle=True, seed=seed)
    parts = []
    for sort, wanted in (("irrelevant", pl.col("grade") == min(scale)), ("relevant", pl.col("grade") >= high(scale))):
        rows = shuffled.filter(wanted).unique("query", keep="first", maintain_order=True)
        rows = rows.unique("doc_id", keep="first", maintain_order=True).head(count)
        if rows.is_empty():
            raise ValueError(f"attack: no {sort} pair among the judged ones; ingest judgments with such grades")
        parts.append(rows)
    return parts[0], parts[1]


def run_attacks(
    victims: pl.DataFrame,
    clean: pl.DataFrame,
    llms: Mapping[str, LLM],
    settings: AnnotationSettings,
    scale: Sequence[int],
    kinds: Sequence[str] = ATTACKS,
    guards: Sequence[bool] = (True,),
    ledger: Ledger | None = None,
    names: Mapping[int, str] | None = None,
    seed: int = 0,
) -> AttackReport:
    """Attack every victim in every way, with the guard, without it, or both; ask about clean pairs with and without.

    `victims` and `clean` come from `choose_pairs`. Every answer goes through the ledger, as in annotation.

    Raises:
        ValueError: a kind is unknown, or there is no LLM.
    """
    vocabulary = _vocabulary(victims, clean)
    calls = 0
    prompts: set[str] = set()
    rows: list[dict[str, Any]] = []

    def ask(pairs: pl.DataFrame, attacks: Sequence[Attack] | None, guard: bool) -> pl.DataFrame:
        nonlocal calls
        own = settings.model_copy(update={} if guard else LOOSE)
        texts = pairs["text"].to_list() if attacks is None else [one.text for one in attacks]
        documents = pl.DataFrame({"doc_id": pairs["doc_id"], "text": texts})
        planted = None if attacks is None else _planted(pairs, attacks, settings.knowledge_tokens)
        found = annotate_pairs(pairs, documents, llms, own, scale, ledger, planted, names)
        calls += int(found["calls"].sum())
        prompts.update(found["prompt"].drop_nulls())
        return found

    with progress.track("attacking", len(guards) * (len(kinds) + 1) + 2) as advance:
        for guard in guards:
            before = ask(victims, None, guard)
            advance(1)
            for kind in kinds:
                attacks = [
                    attack(kind, row["query"], row["text"], max(scale), row.get("locale"), vocabulary, seed + number,
                           settings.max_document_characters)
                    for number, row in enumerate(victims.iter_rows(named=True))
                ]  # fmt: skip
                after = ask(victims, attacks, guard)
                rows += list(_compare(kind, guard, before, after, scale, sorted(llms)))
                advance(1)
        with_guard, without = (ask(clean, None, guard) for guard in (True, False))
        advance(2)
    harm = list(_harm(clean["grade"].to_list(), with_guard, without, scale, sorted(llms)))
    return AttackReport(victims.height, clean.height, rows, harm, calls, sorted(prompts))


def _planted(pairs: pl.DataFrame, attacks: Sequence[Attack], max_tokens: int) -> Knowledge | None:
    """Knowledge as the annotators get it, whose one source is what the attacker planted."""
    texts = {f"planted-{n}": "\n".join(one.background) for n, one in enumerate(attacks) if one.background}
    if not texts:
        return None
    by_query = {query: [f"planted-{number}"] for number, query in enumerate(pairs["query"])}
    return Knowledge(
        Index(()), lambda ids: {doc_id: texts[doc_id] for doc_id in ids}, _no_vectors, 0, max_tokens,
        clicked=lambda queries, count: {query: by_query[query] for query in queries}, clicked_count=1,
    )  # fmt: skip


def _no_vectors(texts: Sequence[str]) -> Any:
    raise AssertionError("planted knowledge is not searched")


def _vocabulary(*frames: pl.DataFrame) -> list[str]:
    words = pl.concat([frame["text"].head(VOCABULARY_DOCUMENTS) for frame in frames]).str.extract_all(r"\w+").explode()
    return sorted(set(words.drop_nulls())) or ["text"]


def _labels(found: pl.DataFrame, name: str) -> np.ndarray:
    """Labels of an annotator, or the kept ones; NaN where there is none."""
    if name == AGREED:
        return found["label"].cast(pl.Float64).fill_null(float("nan")).to_numpy()
    votes = [json.loads(text).get(name, {}).get("stable") for text in found["votes"]]
    return np.array([float("nan") if label is None else float(label) for label in votes])


def _compare(
    kind: str, guard: bool, before: pl.DataFrame, after: pl.DataFrame, scale: Sequence[int], names: Sequence[str]
) -> Iterator[dict[str, Any]]:
    flagged = after["reason"].str.starts_with("counterfactual").fill_null(False)
    failed = (after["status"] == "failed") | (before["status"] == "failed")
    for name in (*names, AGREED):
        first, second = _labels(before, name)[~failed.to_numpy()], _labels(after, name)[~failed.to_numpy()]
        open_to_it = ~(first >= high(scale))  # NaN: no label, so not relevant
        fooled = int((second[open_to_it] >= high(scale)).sum())
        yield {
            "guard": guard, "attack": kind, "annotator": name, "pairs": int(open_to_it.sum()),
            **_share("fooled", fooled, int(open_to_it.sum())), **_shift(second - first),
            "flagged": int(flagged.sum()) if name == AGREED else None, "failed": int(failed.sum()),
        }  # fmt: skip


def _harm(
    grades: Sequence[int], with_guard: pl.DataFrame, without: pl.DataFrame, scale: Sequence[int], names: Sequence[str]
) -> Iterator[dict[str, Any]]:
    truth = np.asarray(grades, dtype=float)
    for name in (*names, AGREED):
        guarded, bare = _labels(with_guard, name), _labels(without, name)
        changed = ~((guarded == bare) | (np.isnan(guarded) & np.isnan(bare)))
        yield {
            "annotator": name, "pairs": len(truth), **_share("changed", int(changed.sum()), len(truth)),
            **_shift(guarded - bare), "relevant_with": float((guarded >= high(scale)).mean()),
            "relevant_without": float((bare >= high(scale)).mean()),
            "right_with": float((guarded == truth).mean()), "right_without": float((bare == truth).mean()),
        }  # fmt: skip


def _share(name: str, count: int, total: int) -> dict[str, float | None]:
    """A share with its Wilson interval."""
    if not total:
        return {name: None, f"{name}_low": None, f"{name}_high": None}
    interval = stats.binomtest(count, total).proportion_ci(LEVEL, method="wilson")
    return {name: count / total, f"{name}_low": float(interval.low), f"{name}_high": float(interval.high)}


def _shift(differences: np.ndarray) -> dict[str, float | None]:
    """The mean of the differences that are there, with Student's interval where there are two or more."""
    there = differences[~np.isnan(differences)]
    if not len(there):
        return {"shift": None, "shift_low": None, "shift_high": None}
    mean = float(there.mean())
    error = float(stats.sem(there)) if len(there) > 1 else float("nan")
    reach = error * float(stats.t.ppf((1 + LEVEL) / 2, len(there) - 1)) if len(there) > 1 else float("nan")
    return {"shift": mean, "shift_low": mean - reach, "shift_high": mean + reach}
