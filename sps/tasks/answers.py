"""Which part of a completion is its final answer, and whether that is a plain number."""

import re
from fractions import Fraction

_BOXED = re.compile(r"\\(?:boxed|fbox)\s*\{")
_MARKED = re.compile(r"(?:\banswer(?:\s+is\b|\s*[:=])|####)[ \t:*]*", re.IGNORECASE)
_PLAIN = re.compile(r"([-+]?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?)(?: [a-zA-Z]{3,}[a-zA-Z ]*)?\.?")
_LONGEST_NUMBER = 100


def final_answer(text: str) -> str | None:
    r"""What the last \boxed{} holds; where there is none, what follows the last "Answer:", "the answer is" or "####".

    A box that is never closed is none. None where nothing is marked.
    """
    boxes = [inside for found in _BOXED.finditer(text) if (inside := _braced(text, found.end())) is not None]
    if boxes:
        return boxes[-1]
    marks = [found.end() for found in _MARKED.finditer(text)]
    return text[marks[-1] :].partition("\n")[0].strip() if marks else None


def plain_number(text: str) -> Fraction | None:
    """The value of a plain decimal number; a dollar sign, thousands separators, a unit in words and a full stop may be
    there: "$1,234.50", "42 clips."."""
    found = _PLAIN.fullmatch(text.replace(r"\$", "").replace("$", "").replace(r"\!", "").strip(" *\t"))
    if found is None or len(found[1]) > _LONGEST_NUMBER:
        return None
    return Fraction(found[1].replace(",", ""))


def _braced(text: str, start: int) -> str | None:
    """The text from `start` to the brace that closes it; None where none does."""
    depth = 1
    for at in range(start, len(text)):
        depth += {"{": 1, "}": -1}.get(text[at], 0)
        if depth == 0:
            return text[start:at].strip()
    return None
