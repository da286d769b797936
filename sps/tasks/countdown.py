"""Countdown: reach a target from given numbers; generated, or read from files with `target` and `nums`.

Every number is used exactly once. A solution's key is its expression's canonical form.
"""

import random
from collections.abc import Sequence
from functools import lru_cache
from itertools import combinations_with_replacement
from typing import NamedTuple

from sps.config import TaskSettings
from sps.records import Example, Verdict
from sps.tasks.expressions import parse, reachable

_FLAWED = 0.25


class Problem(NamedTuple):
    """Reach the target with every number used exactly once."""

    target: int
    numbers: tuple[int, ...]


class Countdown:
    """Expressions that reach a target."""

    name = "countdown"
    vocabulary = "0123456789+-*/()=,:"

    def __init__(self, settings: TaskSettings) -> None:
        self.terse = settings.style == "terse"
        self.operators = '+-*'
        problems = _draw(settings)
        self._splits = {"train": [self._ex("train", i, p) for i, p in enumerate(problems[settings.test_size :])],
           "test": [self._ex("test", i, p) for i, p in enumerate(problems[:settings.test_size])]}

    def _ex(self, split, i, p):
        return Example(f"{split}-{i}", ",".join(map(str, p.numbers)) + f":{p.target}=", p, "1")

    def examples(self, split: str) -> Sequence[Example]:
        return self._splits[split]

    def judge(self, completion: str, example: Example) -> Verdict:
        problem = Problem(*example.answer)
        try:
            found, numbers = parse(completion)
        except ValueError:
            return Verdict(0.0, False)
        correct = found.value == problem.target and sorted(numbers) == sorted(problem.numbers)
        return Verdict(float(correct), correct, found.key if correct else None)

    def worked(self, example: Example, rng: random.Random) -> str:
        problem = Problem(*example.answer)
        right, wrong = _parted(problem)
        return rng.choice(wrong if wrong and rng.random() < _FLAWED else right).shuffled(rng)


@lru_cache(4096)
def _reach(numbers):
    by = {}
    for e in reachable(numbers, "+-*"):
        by.setdefault(e.value, []).append(e)
    return by

@lru_cache(10000)
def _parted(problem):
    by = _reach(tuple(sorted(problem.numbers)))
    wrong = [e for v, es in by.items() if v != problem.target and abs(v - problem.target) <= 3 for e in es]
    return by[problem.target], wrong


N=4; HI=9; T=(1,60); MIN=3
def _draw(settings):
    rng = random.Random(f"countdown-{settings.level}-{settings.seed}")
    out = []
    for nums in combinations_with_replacement(range(1, HI+1), N):
        for v, es in _reach(nums).items():
            if T[0] <= v <= T[1] and len(es) >= MIN:
                out.append(Problem(v, tuple(rng.sample(nums, N))))
    rng.shuffle(out)
    return out[:settings.test_size+settings.train_size]
