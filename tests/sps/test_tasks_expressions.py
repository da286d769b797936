"""Expressions: values by Python's own fractions, forms by brute force over every bracketing."""

import random
from fractions import Fraction
from itertools import permutations, product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sps.tasks.expressions import parse, reachable

NUMBERS = (101, 257, 1_009, 7_919)  # so large and odd that two forms hardly share a value by chance
SAFE = {"+": Fraction.__add__, "-": Fraction.__sub__, "*": Fraction.__mul__, "/": Fraction.__truediv__}

Tree = int | tuple[str, "Tree", "Tree"]


def text_of(tree: Tree) -> str:
    return str(tree) if isinstance(tree, int) else f"({text_of(tree[1])}{tree[0]}{text_of(tree[2])})"


def value_of(tree: Tree) -> Fraction:
    return Fraction(tree) if isinstance(tree, int) else SAFE[tree[0]](value_of(tree[1]), value_of(tree[2]))


def trees(numbers: tuple[int, ...], operators: str) -> list[Tree]:
    """Every binary tree over the numbers in this order."""
    if len(numbers) == 1:
        return [numbers[0]]
    cuts = range(1, len(numbers))
    pairs = [pair for i in cuts for pair in product(trees(numbers[:i], operators), trees(numbers[i:], operators))]
    return [(operator, x, y) for operator, (x, y) in product(operators, pairs)]


def test_one_form_is_one_function() -> None:
    """Formulas in which every number stands once are equal functions just where they differ by commutativity,
    associativity and signs; so of numbers in general position keys and values correspond one to one."""
    every = [tree for order in permutations(NUMBERS) for tree in trees(order, "+-*/")]
    assert len(every) == 24 * 5 * 4**3
    values: dict[str, Fraction] = {}
    keys: dict[Fraction, str] = {}
    for tree in every:
        value, (found, used) = value_of(tree), parse(text_of(tree))
        assert found.value == value
        assert sorted(used) == list(NUMBERS)
        assert values.setdefault(found.key, value) == value
        assert keys.setdefault(value, found.key) == found.key
    assert len(values) == 1_170  # known: OEIS A140606
    assert sorted(expression.key for expression in reachable(NUMBERS, "+-*/")) == sorted(values)


def test_forms_of_repeated_numbers_are_listed_once() -> None:
    every = {
        parse(text_of(tree))[0].key for order in permutations((2, 2, 3)) for tree in trees(order, "+-*/") if _safe(tree)
    }
    listed = [expression.key for expression in reachable((2, 2, 3), "+-*/")]
    assert sorted(listed) == sorted(every)


def _safe(tree: Tree) -> bool:
    try:
        value_of(tree)
    except ZeroDivisionError:
        return False
    return True


@given(st.recursive(st.integers(0, 99), lambda inner: st.tuples(st.sampled_from("+-*/"), inner, inner), max_leaves=8))
def test_values_and_texts(tree: Tree) -> None:
    text = text_of(tree)
    if not _safe(tree):
        with pytest.raises(ValueError, match="divides by zero"):
            parse(text)
        return
    found, _ = parse(text)
    assert found.value == value_of(tree)
    for again in (found.key, found.shuffled(random.Random(text)), text.replace("*", " × ").replace("/", "÷")):
        assert (parse(again)[0].value, parse(again)[0].key) == (found.value, found.key)


@pytest.mark.parametrize(
    ("text", "value"),
    [("2+3*4", 14), ("2-3-4", -5), ("24/4/2", 3), ("-3+5", 2), ("2*-3", -6), ("-(2+3)", -5), ("7", 7), (" 1 + 1 ", 2)],
)
def test_precedence(text: str, value: int) -> None:
    assert parse(text)[0].value == value


@pytest.mark.parametrize(
    "text",
    [
        "", "+", "2+", "(2", "2)", "2 3", "2**3", "2^3", "1.5+1", "a+1", "__import__('os')", "2//3", "()", "1+1;2",
        "(" * 90 + "1" + ")" * 90, "1+" * 5_000 + "1", "-" * 150 + "1",
    ],
)  # fmt: skip
def test_what_is_no_expression_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"expression|deeper"):
        parse(text)


def test_shuffling_gives_other_texts_of_one_form() -> None:
    found, _ = parse("7+4*8-2")
    texts = {found.shuffled(random.Random(i)) for i in range(200)}
    assert len(texts) > 6
    assert {parse(text)[0].key for text in texts} == {found.key}
