"""A reason before the grade: what it says, and which grade it came to.

A text that names no grade of the scale is not taken for any: its grade is drawn from the label distribution after what
was written, "Grade:" added, and the pair is counted (ours).
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_GRADE = re.compile(r"^[^\S\n]*grade[^\S\n]*:[^\S\n]*(-?\d{1,9})(?![.,/-]?\w)", re.IGNORECASE | re.MULTILINE)


@dataclass(frozen=True)
class Reasoned:
    """K sampled judgments of n pairs, each after a reason of its own.

    Attributes:
        grades: (n, K), values of the scale.
        reasons: n lists of K texts, without their grades.
        drawn: (n, K), True where the text named no grade, so that it was drawn.
    """

    grades: NDArray[np.float32]
    reasons: list[list[str]]
    drawn: NDArray[np.bool_]


def read_grade(text: str, scale: Sequence[int]) -> tuple[str, int | None]:
    """The reason and the grade of a text; None unless a line of it begins "Grade:" and a number of the scale.

    The first such line counts: what a model writes after its grade is no part of the answer. A number off the scale, a
    fraction or a range ("2-3", "2/3", "2.5") is no grade.
    """
    found = _GRADE.search(text)
    if found is None or int(found[1]) not in scale:
        return text.strip(), None
    return text[: found.start()].strip(), int(found[1])
