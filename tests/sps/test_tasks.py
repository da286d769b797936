"""Tasks: what is right is right by another computation; problems differ between splits; bad files are named."""

import json
import random
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from sps.config import TaskSettings
from sps.records import Example, Verdict
from sps.tasks import load_task
from sps.tasks.countdown import Countdown
from sps.tasks.gsm8k import final_number
from sps.tasks.judge import judge_all
from sps.tasks.math_problems import boxed
from sps.tasks.verify import Timeout, Verifier


def task(name: str, **given: Any) -> Any:
    return load_task(TaskSettings(name=name, train_size=60, test_size=20, **given))


@pytest.mark.parametrize("name", ["arithmetic", "countdown"])
def test_generated_problems_are_seeded_and_never_in_both_splits(name: str) -> None:
    one, again, other = task(name), task(name), task(name, seed=1)
    assert [e.prompt for e in one.examples("train")] == [e.prompt for e in again.examples("train")]
    assert [e.prompt for e in one.examples("train")] != [e.prompt for e in other.examples("train")]
    train, test = ({str(e.answer) for e in one.examples(split)} for split in ("train", "test"))
    assert (len(train), len(test), train & test) == (60, 20, set())


@pytest.mark.parametrize("name", ["arithmetic", "countdown"])
def test_worked_solutions_are_many_ways_and_about_a_quarter_wrong(name: str) -> None:
    terse, rng = task(name, style="terse"), random.Random(0)
    verdicts = [terse.judge(terse.worked(e, rng), e) for e in terse.examples("train") for _ in range(20)]
    share = sum(v.correct for v in verdicts) / len(verdicts)
    assert 0.65 < share < 0.85
    example = terse.examples("train")[0]
    keys = {v.key for v in (terse.judge(terse.worked(example, rng), example) for _ in range(200)) if v.correct}
    assert len(keys) >= 3
    used = {character for e in terse.examples("train") for character in terse.worked(e, rng) + str(e.prompt)}
    assert used <= set(terse.vocabulary)


def test_arithmetic_takes_the_marked_answer_alone() -> None:
    words = task("arithmetic")
    example = words.examples("test")[0]
    a, b, c = example.answer
    right = a * b + c
    assert words.judge(f"{a}*{b}={a * b}, plus {c}. Answer: {right}", example).reward == 1
    assert words.judge(f"The answer is \\boxed{{{right}}}", example).correct
    assert not words.judge(f"It is {right}", example).correct
    assert not words.judge(f"Answer: {right}. Answer: {right + 1}", example).correct
    keys = {words.judge(f"{text} Answer: {right}", example).key for text in ("1*2=2 3+4=7", "3+4=7 1*2=2", "5+5=10")}
    assert len(keys) == 2


@pytest.mark.parametrize(
    ("text", "correct"),
    [
        ("(44-19)+35*1", False),  # uses a 1
        ("44+19+35", True),
        ("35+(19+44)", True),
        ("44+19", False),  # leaves one out
        ("44+19+35+0*44", False),
        ("__import__('os')", False),
        ("98", False),
        ("", False),
    ],
)
def test_countdown_demands_every_number_once(text: str, correct: bool) -> None:
    terse = Countdown(TaskSettings(name="countdown", style="terse", train_size=5, test_size=5))
    assert terse.judge(text, Example("x", "", (98, (44, 19, 35)))).correct is correct


def test_countdown_keys_are_solutions_not_texts() -> None:
    terse = Countdown(TaskSettings(name="countdown", style="terse", train_size=5, test_size=5))
    example = Example("x", "", (24, (2, 3, 4, 1)))
    key = {
        text: terse.judge(text, example).key for text in ("2*3*4*1", "4*(3*2)*1", "1*4*3*2", "(3+1)*(4+2)", "2*3*4/1")
    }
    assert key["2*3*4*1"] == key["4*(3*2)*1"] == key["1*4*3*2"] != key["(3+1)*(4+2)"]
    assert key["2*3*4/1"] not in (None, key["2*3*4*1"])


def test_every_countdown_problem_can_be_solved() -> None:
    """By Python's own exact arithmetic on the worked expressions."""
    terse, rng = task("countdown", style="terse"), random.Random(1)
    for example in terse.examples("test"):
        target, numbers = example.answer
        texts = [terse.worked(example, rng) for _ in range(12)]
        right = [text for text in texts if _value(text) == target]
        assert right
        assert all(terse.judge(text, example).correct == (_value(text) == target) for text in texts)
        assert all(sorted(map(int, _numbers(text))) == sorted(numbers) for text in texts)


def _numbers(text: str) -> list[str]:
    return "".join(c if c.isdigit() else " " for c in text).split()


def _value(text: str) -> Fraction:
    import ast

    def walk(node: ast.AST) -> Fraction:
        if isinstance(node, ast.BinOp):
            x, y = walk(node.left), walk(node.right)
            return {ast.Add: x + y, ast.Sub: x - y, ast.Mult: x * y}[type(node.op)]
        if isinstance(node, ast.UnaryOp):
            return -walk(node.operand)
        assert isinstance(node, ast.Constant)
        return Fraction(node.value)

    return walk(ast.parse(text, mode="eval").body)


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("so 3 + 4 = 7\n#### 7", "7"),
        ("#### 1,234", "1234"),
        ("The answer is $18.50 dollars, for 3 people", "18.50"),
        ("first 5, then \\boxed{-12}.", "-12"),
        ("it makes 10 in all", "10"),
    ],
)
def test_final_numbers(text: str, number: str) -> None:
    assert str(final_number(text)) == number


def test_no_number_is_no_answer() -> None:
    assert final_number("I do not know.") is None


def test_boxed_answers_are_read_with_balanced_brackets() -> None:
    assert boxed("so \\boxed{1} or \\boxed{\\frac{1}{2}} it is") == "\\frac{1}{2}"
    assert boxed("none") == ""


def test_real_gsm8k_and_its_own_solutions(shared_data: Path) -> None:
    path = shared_data / "math" / "gsm8k_test.jsonl"
    gsm8k = task("gsm8k", test=str(path))
    examples = gsm8k.examples("test")
    solutions = [json.loads(line)["answer"] for line in path.read_text(encoding="utf-8").splitlines()]
    assert len(examples) == 1_319
    assert all(gsm8k.judge(solution, e).correct for solution, e in zip(solutions, examples, strict=True))
    assert sum(gsm8k.judge(solutions[i - 1], e).correct for i, e in enumerate(examples)) < 60


def test_real_countdown_files(shared_data: Path) -> None:
    path = str(shared_data / "math" / "countdown_test.parquet")
    words = task("countdown", train=path, test=path)
    example = words.examples("test")[0]
    assert len(words.examples("test")) == 2_001
    assert str(example.answer[0]) in example.prompt
    assert words.judge("Answer: 1 + 1", example).reward == 0


@pytest.mark.slow
def test_real_aime_answers_are_equal_to_themselves(shared_data: Path) -> None:
    aime = task("math", test=str(shared_data / "math" / "aime_2024_2025.jsonl"))
    examples = aime.examples("test")
    assert len(examples) == 60
    verdicts = judge_all(aime, [(f"so it is \\boxed{{{e.answer}}}", e) for e in examples[:20]], 2, 20.0)
    wrong = judge_all(aime, [(f"so it is \\boxed{{{int(e.answer) + 1}}}", e) for e in examples[:20]], 2, 20.0)
    assert [v.reward for v in verdicts] == [1.0] * 20
    assert [v.reward for v in wrong] == [0.0] * 20


@pytest.fixture
def verifier() -> Iterator[Verifier]:
    made = Verifier(workers=1, timeout=10.0)
    yield made
    made.close()


@pytest.mark.parametrize(
    ("gold", "text", "equal"),
    [
        ("\\frac{1}{2}", "\\boxed{0.5}", True),
        ("3x+2", "the answer is \\boxed{2 + 3x}", True),
        ("(0,3)", "$(0, 3)$", True),
        ("\\frac{1}{2}", "\\boxed{\\frac{2}{3}}", False),
        ("5", "I cannot tell", False),
    ],
)
def test_mathematical_equality(verifier: Verifier, gold: str, text: str, equal: bool) -> None:
    assert verifier.equal(gold, text) is equal


def test_a_comparison_that_hangs_costs_its_time_once(verifier: Verifier) -> None:
    assert verifier.equal("2", "\\boxed{2}")
    verifier._timeout = 1.0
    with pytest.raises(Timeout):
        verifier.equal("1", "\\boxed{" + "9^{" * 6 + "9" + "}" * 6 + "}")
    verifier._timeout = 10.0
    assert verifier.equal("2", "\\boxed{2}")  # a new helper took over


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("gsm8k", '{"question": "q", "answer": "no mark"}', "row 1: needs a `question` and an `answer`"),
        ("math", '{"problem": "p", "answer": "1"}\n{"problem": "p"}', "row 2: has none of the fields answer"),
        ("math", '{"problem": "p", "answer": "???"}', "row 1: the answer '???' cannot be read"),
        ("countdown", '{"target": "x", "nums": [1]}', "row 1: needs a whole number `target`"),
        ("gsm8k", "{not json", "line 1: not JSON"),
        ("gsm8k", "", "holds no problems"),
        ("gsm8k", "[1]", "row 1: expected an object"),
    ],
)
def test_bad_files_are_named(tmp_path: Path, name: str, content: str, words: str) -> None:
    path = tmp_path / "problems.jsonl"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(ValueError, match=r"problems\.jsonl") as caught:
        task(name, train=str(path), test=str(path))
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"name": "chess"}, "no task 'chess'"),
        ({"name": "user"}, "needs task.reward"),
        ({"name": "user", "reward": "nowhere:f"}, "nowhere"),
        ({"name": "user", "reward": "tests.sps.rewards:absent"}, "absent"),
        ({"name": "user", "reward": "tests.sps.rewards"}, "module:function"),
        ({"name": "gsm8k", "train": "absent.jsonl"}, "absent.jsonl: no such file"),
        ({"name": "arithmetic", "train_size": 100_000}, "too few"),
    ],
)
def test_unusable_settings_are_named(given: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=r".") as caught:
        load_task(TaskSettings(**given))
    assert words in str(caught.value)


class Odd:
    """Judges by the completion's text."""

    name = "odd"

    def examples(self, split: str) -> list[Example]:
        return []

    def judge(self, completion: str, example: Example) -> Verdict:
        if completion == "raise":
            raise RuntimeError("broken")
        if completion == "hang":
            import time

            time.sleep(2)
        return Verdict({"nan": float("nan"), "none": None}.get(completion, 1.0), True)  # type: ignore[arg-type]


def test_verdicts_keep_their_order_and_failures_their_reason() -> None:
    texts = ["a", "raise", "hang", "nan", "none", "b", "hang", "c"]
    verdicts = judge_all(Odd(), [(text, Example("x", "")) for text in texts], workers=2, timeout=0.3)
    assert [v.reward for v in verdicts] == [1.0, None, None, None, None, 1.0, None, 1.0]
    assert [v.problem.partition(":")[0] for v in verdicts] == [
        "", "raised", "timeout", "not a number", "not a number", "", "timeout", "",
    ]  # fmt: skip
    assert not any(v.correct for v in verdicts if v.reward is None)


def test_async_rewards_are_awaited(tmp_path: Path) -> None:
    path = tmp_path / "p.jsonl"
    path.write_text('{"prompt": "2+2=", "gold": "4"}\n', encoding="utf-8")
    given = {"train": str(path), "test": str(path), "reward": "tests.sps.rewards:later", "key": "tests.sps.rewards:key"}
    user = task("user", **given)
    example = user.examples("test")[0]
    assert judge_all(user, [("4", example), ("5", example)], 2, 5.0) == [
        Verdict(1.0, True, "4!"),
        Verdict(0.0, False, None),
    ]
