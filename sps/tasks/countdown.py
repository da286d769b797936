"""Countdown: reach a target from given numbers, each used exactly once; generated, or read from files.

A solution is an expression, and its key is the expression's canonical form: 7+4*8 and 8*4+7 are one solution.
Generated problems have at least four solutions (level 2: two).
"""

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, NamedTuple

from sps.config import TaskSettings
from sps.records import Example, Verdict
from sps.tasks.answers import final_answer
from sps.tasks.expressions import OPERATORS, parse, reachable
from sps.tasks.files import read_splits

FLAWED = 0.1  # share of worked solutions that miss the target
NEAR = 3  # by at most so much
TRIES = 20  # draws per problem wanted before a level counts as exhausted

_TAGGED = re.compile(r"<answer>(.*?)</answer>", re.DOTALL | re.IGNORECASE)
_LATEX = re.compile(r"\\(times|cdot|div|left|right|[$()\[\]!,;])|\$")
_LATEX_AS = {"times": "*", "cdot": "*", "div": "/"}


class Problem(NamedTuple):
    """Reach the target with every number used exactly once."""

    target: int
    numbers: tuple[int, ...]


@dataclass(frozen=True)
class Level:
    """What generated problems look like; they share `hands` sets of numbers, since listing all that one allows takes up
    to half a second."""

    count: int
    highest: int
    operators: str
    targets: range
    solutions: int
    hands: int


LEVELS = {
    1: Level(4, 9, "+-*", range(1, 61), 4, 5_000),
    2: Level(4, 20, OPERATORS, range(10, 101), 2, 250),
    3: Level(5, 9, "+-*", range(10, 101), 4, 60),
}


class Countdown:
    """Expressions that reach a target."""

    name = "countdown"
    vocabulary = "0123456789+-*/(),:="

    def __init__(self, settings: TaskSettings) -> None:
        """Problems from settings.train and settings.test where one of them is given, else generated.

        Raises:
            ValueError: the level does not exist or has fewer problems than asked for, or a file is unusable.
        """
        self.terse = settings.style == "terse"
        self.operators = OPERATORS
        self._forms: dict[tuple[int, ...], dict[Fraction | int, list[str]]] = {}
        self._asked: dict[tuple[int, ...], list[int]] = {}
        if settings.train or settings.test:
            problems = {
                split: [_problem(row, f"{path}, row {number}") for number, row in rows]
                for split, path, rows in read_splits(settings)
            }
        else:
            drawn = self._draw(settings)
            problems = {"train": drawn[settings.test_size :], "test": drawn[: settings.test_size]}
        level = "" if settings.train or settings.test else str(settings.level)
        self._splits = {
            split: [
                Example(f"{split}-{i}", self._prompt(problem), problem, level or f"{len(problem.numbers)} numbers")
                for i, problem in enumerate(found)
            ]
            for split, found in problems.items()
        }

    def examples(self, split: str) -> Sequence[Example]:
        """Problems of "train" or "test"; no generated problem is in both."""
        return self._splits[split]

    def judge(self, completion: str, example: Example) -> Verdict:
        """Right where the expression reaches the target with every number used exactly once."""
        problem = Problem(*example.answer)
        text = completion if self.terse else _expression(completion)
        try:
            found, used = parse(text.removesuffix(f"={problem.target}"))
        except ValueError:
            return Verdict(0.0, False)
        correct = found.value == problem.target and sorted(used) == sorted(problem.numbers)
        return Verdict(float(correct), correct, found.key if correct else None)

    def worked(self, example: Example, rng: random.Random) -> str:
        """A solution drawn evenly over keys, its terms in random order; a tenth just miss the target.

        Raises:
            ValueError: a problem from a file has no solution.
        """
        problem = Problem(*example.answer)
        forms = self._reachable(problem.numbers)
        if problem.target not in forms:
            raise ValueError(f"countdown {example.id}: {problem.target} cannot be reached from {problem.numbers}")
        if rng.random() < FLAWED:
            near = [value for value in forms if value != problem.target and -NEAR <= value - problem.target <= NEAR]
            chosen = forms[rng.choice(near)] if near else forms[problem.target]
        else:
            chosen = forms[problem.target]
        return parse(rng.choice(chosen))[0].shuffled(rng)

    def _reachable(self, numbers: Sequence[int]) -> dict[Fraction | int, list[str]]:
        """Canonical texts by their value."""
        key = tuple(sorted(numbers))
        if key not in self._forms:
            forms: dict[Fraction | int, list[str]] = {}
            for expression in reachable(key, self.operators):
                forms.setdefault(expression.value, []).append(expression.key)
            self._forms[key] = forms
        return self._forms[key]

    def _targets(self, hand: tuple[int, ...], level: Level) -> list[int]:
        """What can be asked for with these numbers."""
        if hand not in self._asked:
            forms = self._reachable(hand)
            self._asked[hand] = [value for value in level.targets if len(forms.get(value, [])) >= level.solutions]
        return self._asked[hand]

    def _draw(self, settings: TaskSettings) -> list[Problem]:
        """Distinct problems in random order, test problems first, so that train_size does not change those."""
        if settings.level not in LEVELS:
            raise ValueError(
                f"countdown has no level {settings.level}; task.level is one of {', '.join(map(str, LEVELS))}"
            )
        level = LEVELS[settings.level]
        self.operators = level.operators
        rng = random.Random(f"countdown {settings.level} {settings.seed}")
        wanted = settings.test_size + settings.train_size
        problems: dict[tuple[int, tuple[int, ...]], Problem] = {}
        hands = [tuple(sorted(rng.randint(1, level.highest) for _ in range(level.count))) for _ in range(level.hands)]
        for _ in range(TRIES * wanted):
            if len(problems) == wanted:
                return list(problems.values())
            hand = rng.choice(hands)
            if targets := self._targets(hand, level):
                target = rng.choice(targets)
                problems.setdefault((target, hand), Problem(target, tuple(rng.sample(hand, len(hand)))))
        raise ValueError(
            f"countdown level {settings.level} has about {len(problems)} problems, and {wanted} were asked for; "
            "lower task.train_size or raise task.level"
        )

    def _prompt(self, problem: Problem) -> str:
        if self.terse:
            return f"{','.join(map(str, problem.numbers))}:{problem.target}="
        return (
            f"Using each of the numbers {', '.join(map(str, problem.numbers))} exactly once, with +, -, *, / and "
            f"brackets, write an expression that equals {problem.target}. Think it through briefly, then finish with "
            "a line of the form: Answer: (1 + 2) * 3"
        )


def _expression(text: str) -> str:
    """The expression that a text gives as its answer; "" where none is marked."""
    tagged = _TAGGED.findall(text)
    answer = tagged[-1] if tagged else final_answer(text) or ""
    plain = _LATEX.sub(lambda found: _LATEX_AS.get(found[1] or "", ""), answer)
    return re.sub(r"\s*=\s*", "=", plain.strip().strip("*`. "))


def _problem(row: dict[str, Any], where: str) -> Problem:
    target, numbers = row.get("target"), row.get("nums", row.get("numbers"))
    if type(target) is not int or not isinstance(numbers, list) or not numbers:  # bool is an int to isinstance
        raise ValueError(f"{where}: countdown needs 'target' (a whole number) and 'nums' (a list of whole numbers)")
    if any(type(number) is not int or number < 0 for number in numbers):
        raise ValueError(f"{where}: 'nums' is {numbers}; give whole numbers that are not negative")
    return Problem(target, tuple(numbers))
