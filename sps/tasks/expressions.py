"""Expressions over + - * / and brackets: reading, exact value, canonical form, and all that given numbers allow.

Two expressions have one form where they differ by commutativity, associativity or the placing of signs alone:
8-(3-2), 2+8-3 and 8-3+2 are one, and so are (3-8)*(2-4) and (8-3)*(4-2).
"""

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import product

OPERATORS = "+-*/"
_LONGEST = 200
_DEEPEST = 30
_TOKEN = re.compile(r"\s*(\d+|[-+*/()])")
_SPELLINGS = str.maketrans({"×": "*", "·": "*", "÷": "/", "−": "-", "[": "(", "]": ")"})


@dataclass(frozen=True)
class Sum:
    """Signed terms, sorted, their value at least 0; a term is a number or a Product. Equal texts are equal sums."""

    text: str
    terms: tuple["Part", ...] = field(compare=False)


@dataclass(frozen=True)
class Product:
    """Factors with their exponents (1 or -1), sorted; a factor is a number or a Sum."""

    text: str
    factors: tuple["Part", ...] = field(compare=False)


Node = int | Sum | Product
Part = tuple[int, Node]  # a sign or an exponent (1 or -1), and what it is of


@dataclass(frozen=True)
class Expression:
    """An expression in canonical form: sign times node, with its exact value."""

    value: Fraction | int
    sign: int
    node: Node

    @property
    def key(self) -> str:
        """The canonical text; it can be parsed."""
        return _signed(self.sign, self.node, None)

    def shuffled(self, rng: random.Random) -> str:
        """A text of the same form with terms and factors in random order."""
        return _signed(self.sign, self.node, rng)


def number(value: int) -> Expression:
    """A number on its own."""
    return Expression(value, 1, value)


def combine(operator: str, x: Expression, y: Expression) -> Expression | None:
    """x operator y in canonical form; None for a division by zero."""
    if operator in "+-":
        sign = 1 if operator == "+" else -1
        value = x.value + sign * y.value
        terms = sorted([*_terms(x, 1), *_terms(y, sign)], key=_order)
        lead = terms[0][0] if value == 0 else 1 if value > 0 else -1
        terms = [(lead * of, node) for of, node in terms]
        return Expression(value, lead, Sum(_sum_text(1, terms, None), tuple(terms)))
    if operator == "/" and y.value == 0:
        return None
    value = x.value * y.value if operator == "*" else _exact(Fraction(x.value) / y.value)
    factors = sorted([*_factors(x, 1), *_factors(y, 1 if operator == "*" else -1)], key=_order)
    return Expression(value, x.sign * y.sign, Product(_product_text(factors, None), tuple(factors)))


def parse(text: str) -> tuple[Expression, list[int]]:
    """The expression that a text is, and the numbers that it uses, in order of their appearance.

    Raises ValueError where the text is no expression, divides by zero, or is longer than 200 characters.
    """
    text = text.translate(_SPELLINGS)
    if len(text) > _LONGEST:
        raise ValueError(f"an expression of {len(text)} characters; the longest read is {_LONGEST}")
    tokens = _TOKEN.findall(text)
    if "".join(tokens) != "".join(text.split()) or re.search(r"\d\s+\d", text):
        raise ValueError(f"{text!r} is not an expression")
    reader = _Reader([*tokens, ""], text)
    found = reader.sum(0)
    reader.take("")
    return found, [int(token) for token in tokens if token.isdigit()]


def reachable(numbers: Sequence[int], operators: str) -> list[Expression]:
    """Every distinct expression that uses each of the numbers exactly once.

    Some 1,200 for four distinct numbers and all operators; grows about thirtyfold with each further number.
    """
    full = (1 << len(numbers)) - 1
    by_subset: dict[int, dict[tuple[int, Node], Expression]] = {}
    for subset in range(1, full + 1):
        if subset & (subset - 1) == 0:
            value = numbers[subset.bit_length() - 1]
            by_subset[subset] = {(1, value): number(value)}
            continue
        found: dict[tuple[int, Node], Expression] = {}
        part = (subset - 1) & subset
        while part:
            for operator in operators if part < subset ^ part else [o for o in operators if o in "-/"]:
                for x, y in product(by_subset[part].values(), by_subset[subset ^ part].values()):
                    made = combine(operator, x, y)
                    if made is not None:
                        found.setdefault((made.sign, made.node), made)
            part = (part - 1) & subset
        by_subset[subset] = found
    return list(by_subset[full].values())


class _Reader:
    """Recursive descent over tokens that end with an empty one."""

    def __init__(self, tokens: list[str], text: str) -> None:
        self.tokens, self.at, self.text = tokens, 0, text

    def take(self, *expected: str) -> str:
        token = self.tokens[self.at]
        if token not in expected:
            raise ValueError(f"{self.text!r} is not an expression")
        self.at += 1
        return token

    def sum(self, depth: int) -> Expression:
        found = self.product(depth)
        while self.tokens[self.at] in ("+", "-"):
            found = self._combined(self.take("+", "-"), found, self.product(depth))
        return found

    def product(self, depth: int) -> Expression:
        found = self.factor(depth)
        while self.tokens[self.at] in ("*", "/"):
            found = self._combined(self.take("*", "/"), found, self.factor(depth))
        return found

    def factor(self, depth: int) -> Expression:
        if depth > _DEEPEST:
            raise ValueError(f"{self.text!r} is nested deeper than {_DEEPEST}")
        if self.tokens[self.at].isdigit():
            self.at += 1
            return number(int(self.tokens[self.at - 1]))
        if self.take("(", "-") == "-":
            inner = self.factor(depth + 1)
            return Expression(-inner.value, -inner.sign, inner.node)
        found = self.sum(depth + 1)
        self.take(")")
        return found

    def _combined(self, operator: str, x: Expression, y: Expression) -> Expression:
        found = combine(operator, x, y)
        if found is None:
            raise ValueError(f"{self.text!r} divides by zero")
        return found


def _exact(value: Fraction) -> Fraction | int:
    return value.numerator if value.denominator == 1 else value


def _terms(x: Expression, sign: int) -> list[tuple[int, Node]]:
    if isinstance(x.node, Sum):
        return [(sign * x.sign * inner, node) for inner, node in x.node.terms]
    return [(sign * x.sign, x.node)]


def _factors(x: Expression, exponent: int) -> list[tuple[int, Node]]:
    if isinstance(x.node, Product):
        return [(exponent * inner, node) for inner, node in x.node.factors]
    return [(exponent, x.node)]


def _order(part: Part) -> tuple[str, int]:
    """By text, and of equal texts the positive one first."""
    return _text(part[1]), -part[0]


def _text(node: Node) -> str:
    return str(node) if isinstance(node, int) else node.text


def _signed(sign: int, node: Node, rng: random.Random | None) -> str:
    """Text of sign times node, in canonical order or, given an rng, in random order."""
    if isinstance(node, Sum):
        return _sum_text(sign, node.terms, rng)
    text = str(node) if isinstance(node, int) else _product_text(node.factors, rng)
    return f"-{text}" if sign < 0 else text


def _sum_text(sign: int, terms: Sequence[Part], rng: random.Random | None) -> str:
    shown = [(sign * of, _signed(1, term, rng)) for of, term in terms]
    text = "".join(f"{'+' if of > 0 else '-'}{term}" for of, term in _ordered(shown, rng))
    return text.removeprefix("+")


def _product_text(factors: Sequence[Part], rng: random.Random | None) -> str:
    shown = [(of, f"({_signed(1, n, rng)})" if isinstance(n, Sum) else str(n)) for of, n in factors]
    text = "".join(f"{'*' if of > 0 else '/'}{factor}" for of, factor in _ordered(shown, rng))
    return text.removeprefix("*")


def _ordered(parts: list[tuple[int, str]], rng: random.Random | None) -> list[tuple[int, str]]:
    """A positive part (a numerator) comes first, since a text should not begin with an operator."""
    if rng is None:
        return sorted(parts, key=lambda part: -part[0])
    parts = rng.sample(parts, len(parts))
    first = next((i for i, part in enumerate(parts) if part[0] > 0), 0)
    return [parts[first], *parts[:first], *parts[first + 1 :]]
