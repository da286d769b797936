"""Tasks from files: real ones are read whole and judge their own solutions right; a bad row is named."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from sps.config import TaskSettings
from sps.records import Verdict
from sps.tasks import load_task
from sps.tasks.files import read_rows
from sps.tasks.judge import judge_all


def task(name: str, **given: Any) -> Any:
    return load_task(TaskSettings(name=name, workers=1, timeout=20.0, **given))


def lines(path: Path, rows: Sequence[Any]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def test_three_kinds_of_file_give_the_same_rows(tmp_path: Path) -> None:
    rows = [{"problem": "1+1 = ?", "answer": "2"}, {"problem": "été", "answer": "π"}]
    lines(tmp_path / "a.jsonl", rows)
    (tmp_path / "b.json").write_text(json.dumps(rows, indent=2), encoding="utf-8")
    pl.DataFrame(rows).write_parquet(tmp_path / "c.parquet")
    (tmp_path / "d.jsonl").write_text("\ufeff" + (tmp_path / "a.jsonl").read_text("utf-8"), encoding="utf-8")
    for name in ("a.jsonl", "b.json", "c.parquet", "d.jsonl"):
        assert read_rows(tmp_path / name) == [(1, rows[0]), (2, rows[1])]


def test_rows_of_json_lines_are_numbered_by_line(tmp_path: Path) -> None:
    """Also with an empty line, and with a line separator of Unicode inside a text."""
    (tmp_path / "a.jsonl").write_text('{"q": "a\u2028b"}\n\n{"q": 2}\n', encoding="utf-8")
    assert read_rows(tmp_path / "a.jsonl") == [(1, {"q": "a\u2028b"}), (3, {"q": 2})]


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("gsm8k", '{"question": "q", "answer": "no mark"}', "row 1: GSM8K needs an 'answer' that ends with ####"),
        ("gsm8k", '{"question": "q", "answer": "#### many"}', "row 1: GSM8K needs an 'answer' that ends with ####"),
        ("gsm8k", '{"question": " ", "answer": "#### 1"}', "row 1: GSM8K needs a 'question'"),
        ("gsm8k", "{not json", "row 1: is not JSON"),
        ("gsm8k", "[{]", "begins like a JSON array"),
        ("gsm8k", "", "holds no problems"),
        ("gsm8k", "[]", "holds no problems"),
        ("gsm8k", '{"question": "q", "answer": "#### 1"}\n7', "row 2: is int; every row must be an object"),
        ("math", '{"problem": "p", "answer": "1"}\n{"problem": "p", "answer": null}', "1 of 2 answers"),
        ("math", '{"problem": "p", "answer": "1"}\n\n{"problem": "p", "answer": "???"}', "(row 3: '???'); mend them"),
        ("math", '{"answer": "1"}', "row 1: has no problem"),
        ("countdown", '{"target": "x", "nums": [1]}', "row 1: countdown needs 'target'"),
        ("countdown", '{"target": 3, "nums": []}', "row 1: countdown needs 'target'"),
        ("countdown", '{"target": 3, "nums": [1, -2]}', "row 1: 'nums' is [1, -2]"),
        ("countdown", '{"target": 3, "nums": [1, true]}', "row 1: 'nums' is [1, True]"),
        ("user", '{"prompt": "p"}\n{"text": "p"}', "row 2: 'prompt' is neither text nor a list of messages"),
        ("user", '{"prompt": [{"role": "user"}]}', "row 1: 'prompt' is neither text nor a list of messages"),
    ],
)
def test_bad_rows_are_named(tmp_path: Path, name: str, content: str, words: str) -> None:
    path = tmp_path / "problems.jsonl"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(ValueError, match=r"problems\.jsonl") as caught:
        task(name, train=str(path), reward="tests.sps.rewards:short")
    assert words in str(caught.value)


def test_bad_files_are_named(tmp_path: Path) -> None:
    (tmp_path / "a.parquet").write_bytes(b"no parquet")
    (tmp_path / "a.jsonl").write_bytes(b'{"q": "\xff"}')
    for name, words in (("a.parquet", "no readable Parquet"), ("a.jsonl", "not UTF-8"), ("b.jsonl", "no such file")):
        with pytest.raises(ValueError, match=words):
            read_rows(tmp_path / name)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"name": "user", "train": "p"}, "needs task.reward"),
        ({"name": "user", "reward": "nowhere:f"}, "module 'nowhere' cannot be imported: ModuleNotFoundError"),
        ({"name": "user", "reward": "tests.sps.rewards:absent"}, "has no function 'absent'"),
        ({"name": "user", "reward": "tests.sps.rewards:time"}, "has no function 'time'"),
        ({"name": "user", "reward": "tests.sps.rewards"}, "give module:function"),
        ({"name": "user", "reward": "tests.sps.rewards:short"}, "give task.train, task.test or both"),
        ({"name": "gsm8k"}, "give task.train, task.test or both"),
        ({"name": "math", "train": "absent.jsonl"}, "absent.jsonl: no such file"),
    ],
)
def test_unusable_settings_are_named(given: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=r"task|file") as caught:
        task(**given)
    assert words in str(caught.value)


def test_a_module_that_fails_to_import_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_reward.py").write_text("import json\nGOLD = json.loads('{')\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", ["/nowhere"])
    with pytest.raises(ValueError, match=r"module 'my_reward' cannot be imported: JSONDecodeError"):
        task("user", reward="my_reward:f")


def test_math_reads_the_usual_fields(tmp_path: Path) -> None:
    rows = [
        {"problem": " p1 ", "answer": "1", "level": "Level 2", "type": "Algebra"},
        {"question": "p2", "final_answer": "\\frac{1}{2}.", "difficulty": 3.0},
        {"problem": "p3", "solution": "First \\boxed{7} is wrong; it is $\\boxed{\\frac{2}{3}}$."},
        {"problem": "p4", "answer": 4, "source": "AIME"},
        {"problem": "p5", "answer": "$x+1$"},
    ]
    math = task("math", test=lines(tmp_path / "m.jsonl", rows))
    examples = math.examples("test")
    assert math.examples("train") == []
    assert [e.answer for e in examples] == ["1", "\\frac{1}{2}", "\\frac{2}{3}", "4", "x+1"]
    assert [e.level for e in examples] == ["Level 2", "3", "", "AIME", ""]
    assert [e.id for e in examples] == [f"test-{i}" for i in range(1, 6)]
    assert examples[0].prompt.startswith("p1\n\n")
    assert "\\boxed{}" in examples[0].prompt
    assert math.judge("so \\boxed{1 + x}", examples[4]) == Verdict(1.0, True)
    assert math.judge("so \\boxed{x}", examples[4]) == Verdict(0.0, False)


def test_unreadable_answers_are_left_out_on_demand(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{"problem": f"p{i}", "answer": answer} for i, answer in enumerate(["1", "???", None, "x"])]
    math = task("math", test=lines(tmp_path / "m.jsonl", rows), unreadable="skip")
    assert [e.id for e in math.examples("test")] == ["test-1", "test-4"]
    assert "2 of 4 answers cannot be read (row 2: '???'; row 3: '')" in capsys.readouterr().err
    with pytest.raises(ValueError, match="1 of 1 answers cannot be read"):
        task("math", test=lines(tmp_path / "n.jsonl", rows[1:2]), unreadable="skip")


def test_user_functions(tmp_path: Path) -> None:
    messages = [{"role": "user", "content": "2+3="}]
    path = lines(tmp_path / "p.jsonl", [{"prompt": "2+2=", "gold": "4", "level": 1}, {"prompt": messages, "gold": "5"}])
    user = task("user", train=path, reward="tests.sps.rewards:later", key="tests.sps.rewards:key")
    first, second = user.examples("train")
    assert (first.prompt, first.level, second.prompt, second.level) == ("2+2=", "1", messages, "")
    assert judge_all(user, [("4", first), ("5", first), ("5", second)], 2, 5.0) == [
        Verdict(1.0, True, "4!"), Verdict(0.0, False), Verdict(1.0, True, "5!"),
    ]  # fmt: skip


def test_correct_is_what_reaches_the_bound(tmp_path: Path) -> None:
    path = lines(tmp_path / "p.jsonl", [{"prompt": "short!"}])
    user = task("user", train=path, reward="tests.sps.rewards:short", correct_at=0.5)
    example = user.examples("train")[0]
    assert [user.judge(text, example) for text in ("", "a", "ab")] == [
        Verdict(1.0, True), Verdict(0.5, True), Verdict(1 / 3, False),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("function", "problem"),
    [
        ("raises", "raised: KeyError: 'answer'"),
        ("nothing", "not a number"),
        ("nan", "not a number"),
        ("hangs", "timeout"),
    ],
)
def test_user_functions_that_fail(tmp_path: Path, function: str, problem: str) -> None:
    path = lines(tmp_path / "p.jsonl", [{"prompt": "p"}])
    user = task("user", train=path, reward=f"tests.sps.rewards:{function}")
    assert judge_all(user, [("a", user.examples("train")[0])], 1, 0.5) == [Verdict(None, False, problem=problem)]


def test_real_gsm8k_judges_its_own_solutions(shared_data: Path) -> None:
    path = shared_data / "math" / "gsm8k_test.jsonl"
    gsm8k = task("gsm8k", test=str(path))
    examples = gsm8k.examples("test")
    solutions = [json.loads(line)["answer"] for line in path.read_text(encoding="utf-8").splitlines()]
    golds = [int(solution.rpartition("####")[2].replace(",", "")) for solution in solutions]
    assert len(examples) == 1_319
    for solution, gold, example in zip(solutions, golds, examples, strict=True):
        assert gsm8k.judge(solution, example).correct
        assert gsm8k.judge(f"The answer is ${gold:,}.00 dollars.", example).correct
        assert not gsm8k.judge(f"#### {gold + 1}", example).correct


def test_real_countdown_files(shared_data: Path) -> None:
    """Each is solvable with every number used, by brute force over Python's fractions."""
    words = task("countdown", test=str(shared_data / "math" / "countdown_test.parquet"))
    examples = words.examples("test")
    assert len(examples) == 2_001
    for example in examples[:6]:
        target, numbers = example.answer
        solution = words.worked(example, _Right())
        assert words.judge(f"Answer: {solution}", example).correct
        assert all(str(number) in example.prompt for number in (target, *numbers))
        assert example.level == f"{len(numbers)} numbers"
        assert not words.judge(f"Answer: {target}", example).correct


class _Right:
    """A generator of "random" numbers that never asks for a flawed solution."""

    def random(self) -> float:
        return 1.0

    def choice(self, options: Sequence[Any]) -> Any:
        return options[0]

    def sample(self, options: Sequence[Any], count: int) -> list[Any]:
        return list(options)[:count]


def test_real_aime(shared_data: Path) -> None:
    aime = task("math", test=str(shared_data / "math" / "aime_2024_2025.jsonl"))
    examples = aime.examples("test")
    assert len({example.id for example in examples}) == len(examples) == 60
    assert all(aime.judge(f"so \\boxed{{{int(e.answer)}}}", e).correct for e in examples)
    assert not any(aime.judge(f"so \\boxed{{{int(e.answer) + 1}}}", e).correct for e in examples)


@pytest.mark.slow
def test_real_math500_solutions_agree_with_their_answers(shared_data: Path) -> None:
    path = shared_data / "math" / "math500.jsonl"
    math = load_task(TaskSettings(name="math", test=str(path), workers=2, timeout=20.0))
    examples = math.examples("test")
    solutions = [json.loads(line)["solution"] for line in path.read_text(encoding="utf-8").splitlines()]
    examples, solutions = examples[::4], solutions[::4]
    own = judge_all(math, list(zip(solutions, examples, strict=True)), 2, 20.0)
    other = judge_all(math, list(zip(solutions[1:] + solutions[:1], examples, strict=True)), 2, 20.0)
    assert sum(verdict.correct for verdict in own) >= 123
    assert sum(verdict.correct for verdict in other) <= 6
