"""Labels as tokens: which distributions over next tokens their probabilities are made of.

A label of several tokens is a path; its log-probability is the sum over the path's steps, each given the steps before.
Steps that all labels share cancel when Pr(y | q, d) is renormalised over the scale, and need not be known.
"""

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

LABEL = " {grade}"
END_OF_LABEL = "\n"
Context = tuple[int, ...]  # tokens of a label that stand between the prompt and the token asked for


def label_tokens(tokenizer: Any, scale: Sequence[int]) -> list[list[int]]:
    """Tokens of every label of the scale; with the end of the line where one would begin another.

    Raises:
        ValueError: the tokenizer writes two labels alike, or one so that it begins another in spite of its end.
    """
    labels = [_ids(tokenizer, LABEL.format(grade=grade)) for grade in scale]
    if any(a != b and b[: len(a)] == a for a in labels for b in labels):
        # "1" begins "10": only with their end are they different answers.
        labels = [label + _ids(tokenizer, END_OF_LABEL) for label in labels]
    for (one, a), (other, b) in combinations(zip(scale, labels, strict=True), 2):
        short = min(len(a), len(b))
        if a[:short] == b[:short]:
            raise ValueError(
                f"the model's tokenizer cannot tell labels {one} and {other} apart (tokens {a} and {b}); "
                "give relevance.base a model whose tokenizer knows digits"
            )
    return labels


def contexts(labels: Sequence[Sequence[int]]) -> dict[Context, list[int]]:
    """Every context after which labels part or go on apart, and the tokens asked for there, ascending.

    [[5, 1], [5, 2], [5, 3, 9]] → {(5,): [1, 2, 3], (5, 3): [9]}: the first step is common to all and left out.
    """
    common = len(_common(labels))
    wanted: dict[Context, set[int]] = {}
    for label in labels:
        for step in range(common, len(label)):
            wanted.setdefault(tuple(label[:step]), set()).add(label[step])
    return {context: sorted(tokens) for context, tokens in wanted.items()}


def assemble(
    labels: Sequence[Sequence[int]], found: Mapping[Context, Mapping[int, NDArray[np.float64]]]
) -> NDArray[np.float64]:
    """log Pr of every label but for the steps that all share: (n, |Y|), from `found[context][token]` of shape (n,)."""
    common = len(_common(labels))
    return np.stack(
        [
            sum(found[tuple(label[:step])][label[step]] for step in range(common, len(label)))
            for label in labels
        ],
        axis=1,
    )  # fmt: skip


def _common(labels: Sequence[Sequence[int]]) -> list[int]:
    """Tokens that all labels begin with; of one label alone all but the last."""
    first, last = min(map(list, labels)), max(map(list, labels))
    length = next((i for i, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), len(first) - 1)
    return first[:length]


def _ids(tokenizer: Any, text: str) -> list[int]:
    return list(tokenizer(text, add_special_tokens=False).input_ids)
