"""Parsing: nothing but one integer of the scale in the JSON field `label` becomes a label."""

import json
import re
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serm.annotation.llm import Answer
from serm.annotation.parsing import parse
from tests.serm.malformed_answers import malformed

SCALE = [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("text", "kind", "label"),
    [
        ('{"reasoning": "fits", "label": 2}', "label", 2),
        (' \n{"label": 0}\n', "label", 0),
        ('{"reasoning": "no idea", "label": null}', "abstain", None),
        ('{"reasoning": "", "label": 4}', "off_scale", None),
        ('{"reasoning": "", "label": -1}', "off_scale", None),
        ('{"reasoning": "", "label": "2"}', "unparseable", None),
        ('{"reasoning": "", "label": "10/27"}', "unparseable", None),
        ('{"reasoning": "", "label": 2.0}', "unparseable", None),
        ('{"reasoning": "", "label": 2e0}', "unparseable", None),
        ('{"reasoning": "", "label": true}', "unparseable", None),
        ('{"reasoning": "", "label": [2]}', "unparseable", None),
        ('{"reasoning": "", "label": NaN}', "unparseable", None),
        ('{"reasoning": "", "label": Infinity}', "unparseable", None),
        ('{"label": 1, "label": 2}', "unparseable", None),
        ('{"reasoning": {"label": 3}}', "unparseable", None),
        ('{"reasoning": 7, "label": 2}', "unparseable", None),
        ('{"reasoning": "", "label": 2, "final": 3}', "unparseable", None),
        ('{"reasoning": "", "label": 2} {"label": 3}', "unparseable", None),
        ('Here: {"reasoning": "", "label": 2}', "unparseable", None),
        ('[{"label": 2}]', "unparseable", None),
        ("2", "unparseable", None),
        ("", "unparseable", None),
        (None, "unparseable", None),
        ("[" * 100_000, "unparseable", None),
        ('{"label": ' + "1" * 5_000 + "}", "unparseable", None),
        ('{"label": 1' + "0" * 400 + "}", "off_scale", None),
    ],
)
def test_kinds(text: str | None, kind: str, label: int | None) -> None:
    outcome = parse(Answer(text), SCALE)
    assert (outcome.kind, outcome.label) == (kind, label)


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (Answer('{"reasoning": "", "label": 2}', "length"), "truncated"),
        (Answer('{"reasoning": "", "label": 2}', "content_filter"), "refused"),
        (Answer('{"reasoning": "", "label": 2}', "stop", "I will not"), "refused"),
        (Answer(None, "stop", "I will not"), "refused"),
    ],
)
def test_unfinished_and_refused_answers_have_no_label(answer: Answer, kind: str) -> None:
    outcome = parse(answer, SCALE)
    assert (outcome.kind, outcome.label) == (kind, None)


FLIPPED = re.compile(r'\s*\{\s*"label"\s*:\s*[0-3]\s*,\s*"reasoning"\s*:\s*"(\\.|[^"\\])*"\s*\}\s*', re.DOTALL)
WELL_FORMED = re.compile(r'\s*\{\s*("reasoning"\s*:\s*"(\\.|[^"\\])*"\s*,\s*)?"label"\s*:\s*[0-3]\s*\}\s*', re.DOTALL)


@given(st.text())
def test_prose_never_becomes_a_label(text: str) -> None:
    outcome = parse(Answer(text), SCALE)
    assert outcome.label is None or WELL_FORMED.fullmatch(text)


@given(
    st.tuples(st.text(max_size=20), st.sampled_from(SCALE)).map(
        lambda t: json.dumps({"reasoning": t[0], "label": t[1]})
    ),
    st.data(),
)
def test_a_damaged_answer_never_becomes_another_label(text: str, data: st.DataObject) -> None:
    """Cut, or one character replaced: whatever is read as a label is still the well-formed field's own digit."""
    spot = data.draw(st.integers(0, len(text) - 1))
    damaged = data.draw(st.sampled_from([text[:spot], text[:spot] + data.draw(st.characters()) + text[spot + 1 :]]))
    outcome = parse(Answer(damaged), SCALE)
    if outcome.label is not None:
        assert WELL_FORMED.fullmatch(damaged)
        assert damaged.rstrip(" \t\n\r}")[-1] == str(outcome.label)


@given(st.recursive(st.none() | st.booleans() | st.floats() | st.text() | st.integers(), st.lists, max_leaves=4))
def test_only_integers_of_the_scale(value: object) -> None:
    outcome = parse(Answer(json.dumps({"reasoning": "", "label": value})), SCALE)
    expected = value if type(value) is int and 0 <= value <= 3 else None
    assert outcome.label == expected


def test_reasoning_is_one_clean_line() -> None:
    outcome = parse(Answer('{"reasoning": "a\\u0000b\\nc\\ud800d", "label": 1}'), SCALE)
    assert outcome.reasoning == "a b c?d"


def test_no_label_from_a_hundred_thousand_malformed_answers() -> None:
    kinds = Counter()
    for text in malformed(np.random.default_rng(7), 100_000):
        outcome = parse(Answer(text), SCALE)
        assert outcome.label is None, text
        assert outcome.kind in ("unparseable", "off_scale"), text
        kinds[outcome.kind] += 1
    assert min(kinds["unparseable"], kinds["off_scale"]) > 1_000


PIECES = st.sampled_from(
    ["{", "}", '"label"', '"reasoning"', ":", ",", '"10/27"', "10/27", "2", "3", " ", '"', "[", "]", "/", "null", ".",
     "-", "e", "x", "\\u0032"]
)  # fmt: skip


@given(st.lists(PIECES, max_size=14).map("".join))
def test_pieces_of_answers_become_a_label_only_when_they_make_a_whole_one(text: str) -> None:
    outcome = parse(Answer(text), SCALE)
    if outcome.label is not None:
        assert WELL_FORMED.fullmatch(text) or FLIPPED.fullmatch(text)


@given(
    st.integers(-(10**6), 10**6),
    st.sampled_from(["{}/27", "{}.0", "'{}'", '"{}"', "[{}]", "{}e0", "0{}", "{} ", "{}/3"]),
)
def test_a_field_that_is_not_the_bare_integer(value: int, form: str) -> None:
    outcome = parse(Answer(f'{{"reasoning": "", "label": {form.format(value)}}}'), SCALE)
    bare = form == "{} "  # space after a number is JSON
    assert outcome.label == (value if bare and value in SCALE else None)
