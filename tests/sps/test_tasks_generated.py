"""Generated problems: right is right by other means, splits never meet, solutions are many and fit a tiny policy."""

import ast
import random
from fractions import Fraction
from itertools import pairwise
from typing import Any

import pytest

from sps.config import TaskSettings
from sps.records import Example
from sps.tasks import load_task
from sps.tasks.arithmetic import Problem, chain, ways
from sps.tasks.countdown import LEVELS, Level

TERSE = {"style": "terse", "train_size": 30, "test_size": 10}


def task(name: str, **given: Any) -> Any:
    return load_task(TaskSettings(name=name, **(TERSE | given)))


@pytest.fixture(scope="module")
def countdown() -> Any:
    return task("countdown")


def python_value(text: str) -> Fraction:
    """The value by Python's own parser and fractions."""

    def walk(node: ast.AST) -> Fraction:
        if isinstance(node, ast.BinOp):
            x, y = walk(node.left), walk(node.right)
            if isinstance(node.op, ast.Div):
                return x / y
            return {ast.Add: x + y, ast.Sub: x - y, ast.Mult: x * y}[type(node.op)]
        if isinstance(node, ast.UnaryOp):
            return -walk(node.operand)
        assert isinstance(node, ast.Constant)
        return Fraction(node.value)

    return walk(ast.parse(text, mode="eval").body)


def numbers_in(text: str) -> list[int]:
    return sorted(int(part) for part in "".join(c if c.isdigit() else " " for c in text).split())


@pytest.mark.parametrize("name", ["arithmetic", "countdown"])
def test_problems_follow_the_seed_and_are_in_one_split(name: str) -> None:
    one, again, other, longer = task(name), task(name), task(name, seed=1), task(name, train_size=40)
    prompts = {split: [e.prompt for e in one.examples(split)] for split in ("train", "test")}
    assert prompts["train"] == [e.prompt for e in again.examples("train")]
    assert prompts["train"] != [e.prompt for e in other.examples("train")]
    assert prompts["test"] == [e.prompt for e in longer.examples("test")]
    train, test = ({_name(e) for e in one.examples(split)} for split in ("train", "test"))
    assert (len(train), len(test), train & test) == (30, 10, set())
    assert len({e.id for split in ("train", "test") for e in one.examples(split)}) == 40


def _name(example: Example) -> Any:
    """What makes a problem; the order of countdown's numbers does not."""
    return tuple(tuple(sorted(part)) if isinstance(part, tuple) else part for part in example.answer)


@pytest.mark.parametrize("name", ["arithmetic", "countdown"])
def test_worked_solutions_are_short_many_and_mostly_right(name: str) -> None:
    made, rng = task(name), random.Random(0)
    right, keys = 0, []
    for example in made.examples("train"):
        texts = [made.worked(example, rng) for _ in range(60)]
        assert len(str(example.prompt)) <= 16
        assert max(map(len, texts)) <= 24
        assert set("".join([*texts, str(example.prompt)])) <= set(made.vocabulary)
        verdicts = [made.judge(text, example) for text in texts]
        right += sum(verdict.correct for verdict in verdicts)
        keys.append(len({verdict.key for verdict in verdicts if verdict.correct}))
    assert 0.87 < right / (30 * 60) < 0.94
    assert min(keys) >= 4


@pytest.mark.parametrize("name", ["arithmetic", "countdown"])
def test_worked_solutions_repeat_with_the_generator(name: str) -> None:
    texts = [
        [made.worked(made.examples("train")[0], random.Random(i)) for i in range(9)] for made in map(task, [name] * 2)
    ]
    assert texts[0] == texts[1]


@pytest.mark.parametrize("level", [0, 1, 2, 3, 4])
def test_every_way_ends_with_the_answer(level: int) -> None:
    """Every link of every chain holds, by Python's arithmetic."""
    for example in task("arithmetic", level=level).examples("train"):
        a, b, c = example.answer
        found = ways(Problem(a, b, c))
        texts = [chain(way) for way in found.values()]
        assert len(texts) >= 4
        for text in texts:
            links = text.split("=")
            assert links[-1] == str(a * b + c)
            for before, after in pairwise(links):
                assert python_value(before) == python_value(after.split("+")[0].split("-")[0].split("*")[0])


def test_a_way_is_named_only_where_it_was_gone() -> None:
    arithmetic = task("arithmetic")
    example = Example("x", "37*8+5=", (37, 8, 5))
    judged = {text: arithmetic.judge(text, example) for text in [
        "240+56=296+5=301", "240+5=245+56=301", "320-24=296+5=301", "296+5=301", "74*4=296+5=301", "1+1=301",
        "301", "301\n2*2+1=5",
    ]}  # fmt: skip
    assert all(verdict.reward == 1.0 and verdict.correct for verdict in judged.values())
    assert len({verdict.key for verdict in judged.values()}) == 6
    assert judged["1+1=301"].key == judged["301"].key == "other"
    for wrong in ("240+56=296+5=300", "301=", "", "300\n301", "=301 ", "240+56=296+5=0301"):
        assert arithmetic.judge(wrong, example) == arithmetic.judge("0", example)
        assert arithmetic.judge(wrong, example).reward == 0.0


def test_arithmetic_in_words_wants_a_marked_answer() -> None:
    words = task("arithmetic", style="words")
    example = Example("x", "", (37, 8, 5))
    for given in words.examples("test"):
        a, b, c = given.answer
        assert f"What is {a} * {b} + {c}?" in given.prompt
    assert words.judge("30*8=240, 7 x 8 = 56. Answer: 301", example).key == "30*8=240 7*8=56"
    assert words.judge("First 7*8=56 and 30*8=240.\nThe answer is \\boxed{301}.", example).key == "30*8=240 7*8=56"
    assert words.judge("Answer: 301", example).key is None
    assert not words.judge("It is 301", example).correct
    assert not words.judge("Answer: 301. No: Answer: 300", example).correct


@pytest.mark.parametrize("level", [1, 2])
def test_every_countdown_problem_has_its_solutions(level: int) -> None:
    made, rng = task("countdown", level=level, train_size=8, test_size=8), random.Random(1)
    for example in made.examples("test"):
        target, numbers = example.answer
        texts = [made.worked(example, rng) for _ in range(100)]
        assert all(numbers_in(text) == sorted(numbers) for text in texts)
        assert all(made.judge(text, example).correct == (python_value(text) == target) for text in texts)
        assert all(abs(python_value(text) - target) <= 3 for text in texts)
        keys = {made.judge(text, example).key for text in texts if python_value(text) == target}
        assert len(keys) >= LEVELS[level].solutions


@pytest.mark.parametrize(
    ("text", "correct"),
    [
        ("44+19+35", True), ("35+(19+44)", True), ("44+19+35=98", True), ("44+19+35=99", False), ("44+19", False),
        ("(44-19)+35*1", False), ("44+19+35+0*44", False), ("44+19+35+44-44", False), ("98", False), ("", False),
        ("44+54", False), ("4419+35", False), ("__import__('os')", False), ("44+19+35)", False),
    ],
)  # fmt: skip
def test_countdown_wants_every_number_once(countdown: Any, text: str, correct: bool) -> None:
    verdict = countdown.judge(text, Example("x", "", (98, (44, 19, 35))))
    assert (verdict.correct, verdict.reward) == (correct, float(correct))


def test_countdown_keys_are_solutions_not_texts(countdown: Any) -> None:
    example = Example("x", "", (24, (2, 3, 4, 1)))
    key = {text: countdown.judge(text, example).key for text in ("2*3*4*1", "4*(3*2)*1", "(3+1)*(4+2)", "2*3*4/1")}
    assert key["2*3*4*1"] == key["4*(3*2)*1"]
    assert len(set(key.values())) == 3
    assert None not in key.values()


@pytest.mark.parametrize(
    "text",
    [
        "44 + 19 is 63, so\nAnswer: 44 + 19 + 35", "Answer: (44 + 19) + 35 = 98.", "<answer> 44+19+35 </answer>",
        "so \\boxed{44 + (19 + 35)}", "Answer: $44 + 19 + 35$", "**Answer:** `44+19+35`",
    ],
)  # fmt: skip
def test_countdown_in_words_reads_the_marked_expression(text: str) -> None:
    words, example = task("countdown", style="words"), Example("x", "", (98, (44, 19, 35)))
    assert words.judge(text, example).key == "19+35+44"
    assert not words.judge("44+19+35", example).correct


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"name": "arithmetic", "train_size": 100_000}, "arithmetic level 1 has 2457 problems, and 100010"),
        ({"name": "arithmetic", "level": 9}, "arithmetic has no level 9; task.level is one of 0, 1, 2, 3, 4"),
        ({"name": "countdown", "level": 9}, "countdown has no level 9"),
        ({"name": "chess"}, "no task 'chess'"),
    ],
)
def test_impossible_wishes_are_named(given: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=r"task|level") as caught:
        task(**given)
    assert words in str(caught.value)


def test_a_level_that_runs_out_says_how_many_it_has(monkeypatch: pytest.MonkeyPatch) -> None:
    """And that many can be had, and not one more."""
    monkeypatch.setitem(LEVELS, 1, Level(3, 2, "+-*", range(1, 5), 2, 100))
    with pytest.raises(
        ValueError, match=r"countdown level 1 has about (\d+) problems, and 40 were asked for"
    ) as caught:
        task("countdown")
    few = int(str(caught.value).split("about ")[1].split()[0])
    made = task("countdown", train_size=few - 1, test_size=1)
    assert len({_name(e) for split in ("train", "test") for e in made.examples(split)}) == few
    with pytest.raises(ValueError, match=r"lower task\.train_size"):
        task("countdown", train_size=few, test_size=1)


def test_a_countdown_without_solution_teaches_nothing() -> None:
    with pytest.raises(ValueError, match=r"1000 cannot be reached from \(1, 2\)"):
        task("countdown").worked(Example("x", "", (1_000, (1, 2))), random.Random(0))
