"""Two levels of agreement: the vote of one annotator's paths, and unanimity across annotators. Pure functions."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import zip_longest

RATIONALE_CHARACTERS = 600
SAME_SENTENCE = 0.6  # Jaccard similarity of words from which two sentences say the same (ours)
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+|(?<=[。！？])\s*")
_EPSILON = 1e-9  # 0.1 * 30 > 3 in floating point


def stable_label(labels: Sequence[int | None], minimum_support: float, paths: int | None = None) -> int | None:
    """The majority label of one annotator's paths, or None where there is none (SERM, "within an annotator").

    None among `labels` is a path without a label: it supports nothing but counts as asked. A label must have more than
    `minimum_support` of all `paths` (default: as many as given) and more than any other label; ties have no winner
    (ours).
    """
    counts = Counter(label for label in labels if label is not None).most_common(2)
    if not counts or counts[0][1] < _needed(paths or len(labels), minimum_support):
        return None
    return None if len(counts) == 2 and counts[0][1] == counts[1][1] else counts[0][0]


def settled(labels: Sequence[int | None], paths: int, minimum_support: float) -> bool:
    """Whether the remaining paths, whatever they say, cannot change the stable label (ours)."""
    left = paths - len(labels)
    if left <= 0:
        return True
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
    for sentence in (part.strip() for reasoning in turns for part in _SENTENCE_END.split(reasoning)):
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


def _needed(paths: int, minimum_support: float) -> int:
    """The smallest count that is more than the share of paths."""
    return int(minimum_support * paths + _EPSILON) + 1


def _leaders(labels: Sequence[int | None]) -> tuple[tuple[int | None, int], tuple[int | None, int]]:
    counts = Counter(label for label in labels if label is not None).most_common(2)
    padded: list[tuple[int | None, int]] = [*counts, (None, 0), (None, 0)]
    return padded[0], padded[1]


def _jaccard(one: set[str], other: set[str]) -> float:
    return len(one & other) / len(one | other)
