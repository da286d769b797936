"""Generated problems a·b + c, worked in one of many ways: how the product is cut, and when each part is added.

A terse solution is a line, a running chain such as 240+56=296+25=321 for 37*8+25: every = gives the value so far,
and the last one the answer. Each way suits other problems: rounding 39 up, halving an even b, adding c early.
"""

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from sps.config import TaskSettings
from sps.records import Example, Verdict
from sps.tasks.answers import final_answer, plain_number

FLAWED = 0.1  # share of worked solutions with a slip
DIGITS = range(3, 10)  # b

_EQUATION = re.compile(r"(?=(?<!\d)(\d+)\s*([-+*x×])\s*(\d+)\s*=\s*(-?\d+))")


class Problem(NamedTuple):
    """a * b + c."""

    a: int
    b: int
    c: int

    @property
    def value(self) -> int:
        return self.a * self.b + self.c


@dataclass(frozen=True)
class Level:
    """The ranges from which a and c are drawn."""

    a: range
    c: range


LEVELS = {
    0: Level(range(2, 10), range(1, 10)),  # single digits: within reach of a small language model
    1: Level(range(11, 50), range(1, 10)),
    2: Level(range(11, 100), range(11, 100)),
    3: Level(range(101, 1_000), range(101, 1_000)),
    4: Level(range(1_001, 10_000), range(1_001, 10_000)),
}


class Arithmetic:
    """Sums whose solutions differ by the way that they are worked; the way is the solution's key."""

    name = "arithmetic"
    vocabulary = "0123456789+-*="

    def __init__(self, settings: TaskSettings) -> None:
        """Problems of the settings' level.

        Raises:
            ValueError: the level does not exist or has fewer problems than asked for.
        """
        self.terse = settings.style == "terse"
        problems = _draw(settings)
        splits = {"train": problems[settings.test_size :], "test": problems[: settings.test_size]}
        self._splits = {
            split: [
                Example(f"{split}-{i}", _prompt(problem, self.terse), problem, str(settings.level))
                for i, problem in enumerate(found)
            ]
            for split, found in splits.items()
        }

    def examples(self, split: str) -> Sequence[Example]:
        """Problems of "train" or "test"; no problem is in both."""
        return self._splits[split]

    def judge(self, completion: str, example: Example) -> Verdict:
        """Right where the final answer is. The key is the way, "other" for a chain that is none of ours; of a
        solution in words, its equations."""
        problem = Problem(*example.answer)
        if self.terse:
            completion = completion.partition("\n")[0]  # a language model goes on with another sum
            correct = completion.rpartition("=")[2] == str(problem.value)
        else:
            correct = plain_number(final_answer(completion) or "") == problem.value
        if not correct:
            return Verdict(0.0, False)
        return Verdict(1.0, True, _way_of(completion, problem) if self.terse else _equations(completion))

    def worked(self, example: Example, rng: random.Random) -> str:
        """A terse solution by a way drawn evenly; a tenth have a slip, carried through to the end."""
        way = rng.choice(list(ways(Problem(*example.answer)).values()))
        if rng.random() >= FLAWED:
            return chain(way)
        return chain(way, rng.randrange(len(way.terms)), rng.choice([-10, -1, 1, 10]))


@dataclass(frozen=True)
class Way:
    """The terms in the order in which they are added, after a first product where `product` is not empty."""

    terms: tuple[int, ...]
    product: str = ""


def ways(problem: Problem) -> dict[str, Way]:
    """The ways to work a problem, by name. Those that would pass through a negative value are left out."""
    a, b, c = problem
    unit = 10 ** (len(str(a)) - 1)
    head = a // unit * unit
    cuts = {
        "split": (head * b, (a - head) * b),
        "round": ((head + unit) * b, (a - head - unit) * b),
        "ten": (a * 10, a * (b - 10)),
    }
    found = {"whole": Way((a * b, c))}
    if b % 2 == 0:
        found["double"] = Way((a * b, c), f"{2 * a}*{b // 2}=")
    for name, (first, second) in cuts.items():
        if second != 0:
            orders = {"last": (first, second, c), "between": (first, c, second), "first": (c, second, first)}
            found |= {f"{name}, c {when}": Way(order) for when, order in orders.items() if order[0] + order[1] >= 0}
    return found


def chain(way: Way, slip_at: int | None = None, slip: int = 0) -> str:
    """The terse solution; `slip` is added to the total at the term of index `slip_at`."""
    text, total = way.product, 0
    for i, term in enumerate(way.terms):
        total += term + (slip if i == slip_at else 0)
        text += str(total) if i == 0 else f"{term:+d}={total}"
    return text


def _way_of(completion: str, problem: Problem) -> str:
    return next((name for name, way in ways(problem).items() if chain(way) == completion), "other")


def _equations(text: str) -> str | None:
    """The distinct equations x?y=z of a text, sorted; None where it has none."""
    found = {f"{x}{'*' if op in 'x×' else op}{y}={z}" for x, op, y, z in _EQUATION.findall(text)}
    return " ".join(sorted(found)) or None


def _prompt(problem: Problem, terse: bool) -> str:
    a, b, c = problem
    if terse:
        return f"{a}*{b}+{c}="
    return f"What is {a} * {b} + {c}? Show short working, then finish with a line of the form: Answer: 42"


def _draw(settings: TaskSettings) -> list[Problem]:
    """Distinct problems in random order, test problems first, so that train_size does not change those."""
    if settings.level not in LEVELS:
        raise ValueError(
            f"arithmetic has no level {settings.level}; task.level is one of {', '.join(map(str, LEVELS))}"
        )
    level, wanted = LEVELS[settings.level], settings.test_size + settings.train_size
    every = len(level.a) * len(DIGITS) * len(level.c)
    if wanted > every:
        raise ValueError(
            f"arithmetic level {settings.level} has {every} problems, and {wanted} were asked for; "
            "lower task.train_size or raise task.level"
        )
    rng = random.Random(f"arithmetic {settings.level} {settings.seed}")
    drawn: dict[int, None] = {}
    while len(drawn) < wanted:  # rng.sample gives other test problems for another train_size
        drawn[rng.randrange(every)] = None
    return [_numbered(number, level) for number in drawn]


def _numbered(number: int, level: Level) -> Problem:
    number, a = divmod(number, len(level.a))
    c, b = divmod(number, len(DIGITS))
    return Problem(level.a[a], DIGITS[b], level.c[c])
