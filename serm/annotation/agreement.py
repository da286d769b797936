"""Two levels of agreement: the vote of one annotator's paths, and unanimity across annotators. Pure functions."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import zip_longest
from statistics import median_low
from typing import Literal

Vote = Literal["exact", "median"]
Ties = Literal["none", "lower"]

RATIONALE_CHARACTERS = 600
SAME_SENTENCE = 0.6  # Jaccard similarity of words from which two sentences say the same (ours)
SENTENCE_END = re.compile(r"(?<=[.!?])\s+|(?<=[。！？])\s*")
_EPSILON = 1e-9  # 0.1 * 30 > 3 in floating point


def stable_label(
    labels: Sequence[int | None], minimum_support: float, paths: int | None = None, vote: Vote = "exact",
    ties: Ties = "none",
) -> int | None:  # fmt: skip
    """The majority label of one annotator's paths, or None where there is none (SERM, "within an annotator").

    None among `labels` is a path without a label: it supports nothing but counts as asked. A label must have more than
    `minimum_support` of all `paths` (default: as many as given) and more than any other label; a tie has no
    winner, or with `ties` "lower" the lower label: doubt counts against relevance (ours). With `vote` "median" the
    label is the lower median of the labels, if more than `minimum_support` of all paths are within one grade of it
    (ours).
    """
    if vote == "median":
        return _median_label([label for label in labels if label is not None], paths or len(labels), minimum_support)
    counts = Counter(label for label in labels if label is not None)
    most = max(counts.values(), default=0)
    leaders = [label for label, count in counts.items() if count == most]
    if not leaders or most < _needed(paths or len(labels), minimum_support):
        return None
    return None if len(leaders) > 1 and ties == "none" else min(leaders)


def settled(
    labels: Sequence[int | None], paths: int, minimum_support: float, vote: Vote = "exact", ties: Ties = "none"
) -> bool:
    """Whether the remaining paths, whatever they say, cannot change the stable label (ours).

    Exact votes without tie-breaking stop at the first moment that this is so; the others may stop a path later.
    """
    left = paths - len(labels)
    if left <= 0:
        return True
    if vote == "median":
        return _median_settled(labels, paths, minimum_support)
    (_, first), (_, second) = _leaders(labels)
    needed = _needed(paths, minimum_support)
    certain = first >= needed and first > second + left
    hopeless = first + left < needed
    return certain or hopeless


def next_paths(labels: Sequence[int | None], paths: int, minimum_support: float) -> int:
    """The fewest further paths that could settle the vote, at least 1 and at most what is left (ours)."""
    (_, first), _ = _leaders(labels)
    return min(max(_needed(paths, minimum_support) - first, 1), paths - len(labels))


def agree(stable_by_annotator: Mapping[str, int | None]) -> int | None:
    """The label that every annotator's stable label is, or None (SERM, "across annotators")."""
    labels = set(stable_by_annotator.values())
    return labels.pop() if len(labels) == 1 else None


def unify(reasonings: Sequence[Sequence[str]], max_characters: int = RATIONALE_CHARACTERS) -> str:
    """One short rationale from each annotator's supporting paths, in turns: sentences that say something new (ours)."""
    turns = [path for paths in zip_longest(*reasonings) for path in paths if path]
    taken: list[str] = []
    seen: list[set[str]] = []
    length = 0
    for sentence in (part.strip() for reasoning in turns for part in SENTENCE_END.split(reasoning)):
        words = set(re.findall(r"\w+", sentence.casefold()))
        if not words or any(_jaccard(words, other) >= SAME_SENTENCE for other in seen):
            continue
        if length + len(sentence) > max_characters:
            if not taken:
                return sentence[:max_characters]
            continue
        taken.append(sentence)
        seen.append(words)
        length += len(sentence) + 1
    return " ".join(taken)


def _median_label(given: Sequence[int], paths: int, minimum_support: float) -> int | None:
    if not given:
        return None
    middle = median_low(given)
    near = sum(abs(label - middle) <= 1 for label in given)
    return middle if near >= _needed(paths, minimum_support) else None


def _median_settled(labels: Sequence[int | None], paths: int, minimum_support: float) -> bool:
    """A label of more than half of all paths is the median; too few labels are no support, whatever the median."""
    (_, first), _ = _leaders(labels)
    needed = _needed(paths, minimum_support)
    given = sum(label is not None for label in labels)
    return (2 * first > paths and first >= needed) or given + paths - len(labels) < needed


def _needed(paths: int, minimum_support: float) -> int:
    """The smallest count that is more than the share of paths."""
    return int(minimum_support * paths + _EPSILON) + 1


def _leaders(labels: Sequence[int | None]) -> tuple[tuple[int | None, int], tuple[int | None, int]]:
    counts = Counter(label for label in labels if label is not None).most_common(2)
    padded: list[tuple[int | None, int]] = [*counts, (None, 0), (None, 0)]
    return padded[0], padded[1]


def _jaccard(one: set[str], other: set[str]) -> float:
    return len(one & other) / len(one | other)
