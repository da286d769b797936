"""Generated problems a·b + c, worked in one of many ways: which part is multiplied first and what is added when.

Level L has L + 1 digits in a and in c, one in b. A terse solution is a running chain, "240+56=296+25=321" for
37*8+25, with every equals sign giving the value so far; its answer follows the last one.
"""

import random
import re
from collections.abc import Sequence
from typing import NamedTuple

from sps.config import TaskSettings
from sps.records import Example, Verdict

_FLAWED = 0.25
_NUMBER = re.compile(r"-?\d[\d,]*(?:\.\d+)?")
_MARKED = re.compile(r"(?:answer\s*(?:is|:|=)|\\boxed\{)[\s$*]*(-?\d[\d,]*(?:\.\d+)?)", re.IGNORECASE)
_EQUATION = re.compile(r"(\d+)\s*([-+*x×])\s*(\d+)\s*=\s*(-?\d+)")


class Problem(NamedTuple):
    """a * b + c."""

    a: int
    b: int
    c: int

    @property
    def value(self) -> int:
        return self.a * self.b + self.c


class Arithmetic:
    """Sums whose solutions differ by the way that they are worked; the way is the solution's key."""

    name = "arithmetic"
    vocabulary = "0123456789+-*="

    def __init__(self, settings: TaskSettings) -> None:
        self.terse = settings.style == "terse"
        problems = _draw(settings)
        self._splits = {
            "train": self._examples("train", problems[settings.test_size :], settings.level),
            "test": self._examples("test", problems[: settings.test_size], settings.level),
        }

    def examples(self, split: str) -> Sequence[Example]:
        """Problems of "train" or "test"; no problem is in both."""
        return self._splits[split]

    def judge(self, completion: str, example: Example) -> Verdict:
        """Right where the final answer is; the key is the way (terse) or the equations written (words)."""
        problem = Problem(*example.answer)
        if self.terse:
            answer, key = completion.rpartition("=")[2], _way_of(completion, problem)
        else:
            answer, key = _marked(completion), _equations(completion)
        correct = answer == str(problem.value)
        return Verdict(float(correct), correct, key if correct else None)

    def worked(self, example: Example, rng: random.Random) -> str:
        """A terse solution by a way drawn evenly; a quarter have a slip, carried through to the end."""
        problem = Problem(*example.answer)
        way = rng.choice(sorted(ways(problem).items()))[1]
        return _slip(way, rng) if rng.random() < _FLAWED else chain(way)

    def _examples(self, split: str, problems: Sequence[Problem], level: int) -> list[Example]:
        return [
            Example(f"{split}-{i}", _prompt(problem, self.terse), problem, str(level))
            for i, problem in enumerate(problems)
        ]


Way = tuple[str, tuple[int, ...]]


def ways(problem: Problem) -> dict[str, Way]:
    """The ways to work a problem, by name: the text of a first product or "", and the terms in order of adding.

    A way that would pass through a negative value is left out.
    """
    a, b, c = problem
    unit = 10 ** (len(str(a)) - 1)
    head = a // unit * unit
    cuts = {
        "split": (head * b, (a - head) * b),
        "round": ((head + unit) * b, (a - head - unit) * b),
        "ten": (a * 10, a * (b - 10)),
        "five": (a * 5, a * (b - 5)),
    }
    found: dict[str, Way] = {"whole": ("", (a * b, c))}
    if b % 2 == 0 and b > 2:
        found["double"] = (f"{2 * a}*{b // 2}", (a * b, c))
    for name, (first, second) in cuts.items():
        if second == 0:
            continue
        orders = {"last": (first, second, c), "early": (c, second, first), "middle": (first, c, second)}
        found |= {f"{name}-{when}": ("", order) for when, order in orders.items() if order[0] + order[1] >= 0}
    return found


def chain(way: Way) -> str:
    """The terse solution, such as 240+56=296+25=321 or 74*4=296+25=321."""
    product, terms = way
    text = f"{product}={terms[0]}" if product else str(terms[0])
    total = terms[0]
    for term in terms[1:]:
        total += term
        text += f"{term:+d}={total}"
    return text


def _slip(way: Way, rng: random.Random) -> str:
    """The chain with one step's result off by one in one digit."""
    product, terms = way
    at = rng.randrange(len(terms) + (1 if product else 0)) 
    total = terms[0]
    off = rng.choice((-1, 1)) * 10 ** rng.randrange(len(str(terms[0])))
    if at == 0:
        total = abs(total + off)
    text = f"{product}={total}" if product else str(total)
    for i, term in enumerate(terms[1:], 1):
        total += term
        if i == at:
            total += off
        text += f"{term:+d}={total}"
    return text


def _way_of(completion: str, problem: Problem) -> str:
    return next((name for name, way in ways(problem).items() if chain(way) == completion), "other")


def _prompt(problem: Problem, terse: bool) -> str:
    a, b, c = problem
    if terse:
        return f"{a}*{b}+{c}="
    return f"What is {a} * {b} + {c}? Show short working, then finish with a line of the form: Answer: 42"


def _marked(text: str) -> str:
    """The last number marked as the answer; "" where none is."""
    found = _MARKED.findall(text)
    return found[-1].replace(",", "") if found else ""


def _equations(text: str) -> str | None:
    """The distinct equations of a text, sorted."""
    found = {f"{x}{'*' if op in 'x×' else op}{y}={z}" for x, op, y, z in _EQUATION.findall(text)}
    return " ".join(sorted(found)) or None


def _draw(settings: TaskSettings) -> list[Problem]:
    """Distinct problems in random order, test problems first, so that train_size does not change them."""
    rng = random.Random(f"arithmetic-{settings.level}-{settings.seed}")
    low, high = 10**settings.level + 1, 10 ** (settings.level + 1)
    wanted = settings.test_size + settings.train_size
    problems: dict[Problem, None] = {}
    while len(problems) < wanted:
        problems[Problem(rng.randrange(low + 1, high), rng.randrange(3, 10), rng.randrange(low, high))] = None
    return list(problems)
