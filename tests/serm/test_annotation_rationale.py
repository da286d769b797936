"""Grounding of rationales, by hand-made cases."""

import pytest

from serm.annotation.rationale import grounded

TEXTS = ["white whale", "A captain hunts\n the White   Whale. He dies! The ship sinks."]


@pytest.mark.parametrize(
    ("reasoning", "kept", "dropped"),
    [
        ('It says "hunts the white whale". It fits.', 'It says "hunts the white whale". It fits.', 0),
        ('It says "hunts a black shark". It fits.', "It fits.", 1),
        ('"captain" is there and "admiral" is not.', "", 1),
        ('It tells "A captain hunts ... the ship sinks".', 'It tells "A captain hunts ... the ship sinks".', 0),
        ('It tells "A captain hunts … the ship flies".', "", 1),
        ('It ends "He dies! The ship sinks." That fits.', 'It ends "He dies! The ship sinks." That fits.', 0),
        ("Er sagt „White Whale“. Er sagt „Schiff“.", "Er sagt „White Whale“.", 1),
        ("It isn't the whale's. An open \" quotes nothing.", "It isn't the whale's. An open \" quotes nothing.", 0),
        ("「white whale」だ。「shark」だ。", "「white whale」だ。", 1),
        ("", "", 0),
    ],
)  # fmt: skip
def test_quotes_must_occur(reasoning: str, kept: str, dropped: int) -> None:
    assert grounded([[reasoning]], TEXTS) == ([[kept]], dropped)


def test_annotators_and_paths_stay_apart() -> None:
    reasonings = [['Has "whale".', 'Has "shark".'], ['Has "ship".']]
    assert grounded(reasonings, TEXTS) == ([['Has "whale".', ""], ['Has "ship".']], 1)
