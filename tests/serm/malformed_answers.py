"""Malformed answers by the thousand: well-formed ones damaged in ways that change what they say, or that they say it.

Every text made here is malformed by construction: none of them is one JSON object with nothing but the fields `label`
(an integer of the scale, or null) and `reasoning` (a text).
"""

import json
from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

SCALE = (0, 1, 2, 3)
REASONINGS = (
    "fits", 'he said "label": 3', "label 3", "10/27", "grade: 2", "", "ein Ünïcode ✓", "a\nb", '{"label": 3}', "\\",
)  # fmt: skip
# In the place of the label: nothing of this is an integer of the scale or null.
NO_LABELS = (
    "10/27", "2/3", '"2"', '"10/27"', "2.0", "2e0", "-1", "4", "27", "1e400", "true", "false", "NaN", "Infinity",
    "-0.0", "[2]", "[2, 3]", '{"label": 2}', '""', "0x2", "02", "+2", "2.", ".2", "2_0", "two", "'2'", "1 2", "2 3",
    "2;", "None", "undefined", "２", "²", "٢", "1" * 5_000, "1" + "0" * 300, "2 // yes", "2 /* */", "2%", "2-3", "$2",
    "2 or 3", "2, 3", "", "\u00a02", "2\u200b",
)  # fmt: skip
AROUND = (
    ("Here: ", ""), ("", " Done."), ("```json\n", "\n```"), ("[", "]"), ("", ","), ("", '{"label": 3}'),
    ("Label: 3\n", ""), ("<think>3</think>", ""), ("\ufeff", ""), ("(", ")"), ("", "\n3"), ("2\n", ""), ("", "}"),
    ("{", ""), ("\u00a0", ""), ("null", ""), ("", "\x00"), ('"', '"'),
)  # fmt: skip
MORE_FIELDS = (
    '"label": 1, ', '"Label": 1, ', '"grade": 3, ', '"reasoning": "x", "reasoning": "y", ', '"score": 10, ',
    '"label ": 2, ', '"": 0, ', '"lаbel": 3, ', "label: 3, ", "'label': 3, ",
)  # fmt: skip


def malformed(rng: np.random.Generator, count: int) -> Iterator[str]:
    """`count` malformed answers; equal generators give equal texts."""
    makers: tuple[Callable[[NDArray[np.int64]], str], ...] = (_value, _around, _cut, _more, _noise, _prose, _no_label)
    kinds = rng.integers(0, len(makers), count)
    draws = rng.integers(0, 2**31, (count, 40))
    for kind, draw in zip(kinds.tolist(), draws, strict=True):
        yield makers[kind](draw)


def _good(draw: NDArray[np.int64]) -> str:
    return json.dumps({"reasoning": _pick(REASONINGS, draw[0]), "label": int(_pick(SCALE, draw[1]))})


def _value(draw: NDArray[np.int64]) -> str:
    reasoning = json.dumps(_pick(REASONINGS, draw[0]))
    return f'{{"reasoning": {reasoning}, "label": {_pick(NO_LABELS, draw[1])}}}'


def _around(draw: NDArray[np.int64]) -> str:
    before, after = AROUND[draw[2] % len(AROUND)]
    return before + _good(draw) + after


def _cut(draw: NDArray[np.int64]) -> str:
    text = _good(draw)
    return text[: draw[2] % len(text)]


def _more(draw: NDArray[np.int64]) -> str:
    return "{" + _pick(MORE_FIELDS, draw[2]) + _good(draw)[1:]


def _noise(draw: NDArray[np.int64]) -> str:
    """Outside its texts, one character of a good answer is replaced by one that JSON does not have there."""
    label = int(_pick(SCALE, draw[1]))
    text = f'{{"reasoning":"fits","label":{label}}}'
    structural = [i for i, letter in enumerate(text) if letter in '{}":,']
    place = structural[draw[2] % len(structural)]
    return text[:place] + "abc/;|#?x"[draw[3] % 9] + text[place + 1 :]


def _prose(draw: NDArray[np.int64]) -> str:
    """Digits, words and pieces of JSON in any order, never an object: it starts with a word."""
    pieces = (
        "label",
        "3",
        ":",
        "{",
        "}",
        '"',
        "10/27",
        "grade",
        "relevant",
        "2",
        ",",
        "\n",
        "null",
        "[",
        "]",
        "é",
        "0",
    )
    return "The " + " ".join(_pick(pieces, number) for number in draw[: 3 + draw[39] % 30])


def _no_label(draw: NDArray[np.int64]) -> str:
    value = int(_pick(SCALE, draw[1]))
    other = (
        {"grade": value}, {"reasoning": {"label": value}}, {"reasoning": f"label {value}"}, {"Label": value}, [value],
        value, f"{value}", None, {}, {"reasoning": value, "label": value}, {"labels": [value]},
    )  # fmt: skip
    return json.dumps(other[draw[2] % len(other)])


def _pick(options: tuple, number: int):  # type: ignore[no-untyped-def]
    return options[int(number) % len(options)]
