"""Lines are whole or absent through kills, full disks and resumes; trackers get numbers under their own names."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sps.config import LogSettings
from sps.logs import Log, append_lines, keep_lines, parse_lines
from sps.trackers import flat


def rows(path: Path) -> list[dict[str, Any]]:
    return [row for row, _ in parse_lines(path)]


def log(folder: Path, *to: Any, name: str = "log.jsonl") -> Log:
    return Log(folder / name, LogSettings(to=list(to), project="study"), folder)


def test_what_is_written_is_read(tmp_path: Path) -> None:
    ours = log(tmp_path / "run")
    ours.append({"step": 1, "reward_mean": 0.25, "reward_missing": {"timeout": 2}})
    ours.append({"step": 2, "reward_mean": float("nan"), "text": "half “α”\nnew line"})
    assert rows(tmp_path / "run" / "log.jsonl") == [
        {"step": 1, "reward_mean": 0.25, "reward_missing": {"timeout": 2}},
        {"step": 2, "reward_mean": None, "text": "half “α”\nnew line"},
    ]
    assert "NaN" not in (tmp_path / "run" / "log.jsonl").read_text()


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 200))
def test_a_writer_killed_at_any_byte_costs_its_last_line_alone(cut: int) -> None:
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "log.jsonl"
        append_lines(path, [{"step": i, "text": "α" * i} for i in range(6)])
        content = path.read_bytes()
        path.write_bytes(content[:cut])
        whole = content[:cut].count(b"\n")
        assert [row["step"] for row in rows(path)] == list(range(whole))
        append_lines(path, [{"step": 99}])
        assert [row["step"] for row in rows(path)] == [*range(whole), 99]


def test_torn_lines_longer_than_one_look(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sps.logs.TORN", 4)
    path = tmp_path / "log.jsonl"
    path.write_text('{"step": 1}\n{"step": 2, "text": "never fin')
    append_lines(path, [{"step": 3}])
    assert path.read_text() == '{"step": 1}\n{"step": 3}\n'


def test_a_full_disk_leaves_the_file_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "log.jsonl"
    append_lines(path, [{"step": 1}])
    before, write, calls = path.read_bytes(), os.write, []

    def half_then_full(descriptor: int, data: memoryview) -> int:
        calls.append(len(data))
        if len(calls) > 1:
            raise OSError(28, "No space left on device")
        return write(descriptor, data[: len(data) // 2])

    monkeypatch.setattr(os, "write", half_then_full)
    with pytest.raises(OSError, match=r"No space left on device.*log\.jsonl") as caught:
        append_lines(path, [{"step": 2, "text": "x" * 100}])
    assert caught.value.errno == 28
    assert len(calls) == 2
    assert path.read_bytes() == before


LIMITED = """
import resource, signal, sys
from pathlib import Path
from sps.logs import append_lines
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (400, 400))
try:
    for step in range(100):
        append_lines(Path(sys.argv[1]), [{"step": step, "text": "x" * 50}])
except OSError as error:
    sys.exit(f"{step} {error}")
"""


def test_the_system_refusing_to_write_more_leaves_whole_lines(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    done = subprocess.run([sys.executable, "-c", LIMITED, str(path)], capture_output=True, text=True, check=False)
    refused, _, message = done.stderr.partition(" ")
    assert "log.jsonl" in message
    assert path.read_text().endswith("\n")
    assert [row["step"] for row in rows(path)] == list(range(int(refused)))


def test_going_back_to_a_step_drops_what_came_after(tmp_path: Path) -> None:
    ours = log(tmp_path, name="samples.jsonl")
    for step in range(6):
        ours.extend([{"step": step, "text": "a"}, {"step": step, "text": "b"}])
    with ours.path.open("a") as file:
        file.write('{"step": 6, "te')
    again = log(tmp_path, name="samples.jsonl")
    again.truncate(3)
    assert [row["step"] for row in rows(again.path)] == [0, 0, 1, 1, 2, 2, 3, 3]
    again.append({"step": 4})
    assert [row["step"] for row in rows(again.path)] == [0, 0, 1, 1, 2, 2, 3, 3, 4]
    again.truncate(-1)
    assert again.path.read_text() == ""
    assert list(tmp_path.iterdir()) == [again.path]
    log(tmp_path / "new").truncate(5)  # nothing there yet


def test_going_back_fails_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "log.jsonl"
    append_lines(path, [{"step": i} for i in range(4)])
    before = path.read_bytes()

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(OSError):
        keep_lines(path, 1)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("content", "words"),
    [('{"step": 1}\nnope\n', "line 2: not JSON"), ("[1]\n", "line 1: expected an object, found list")],
)
def test_a_broken_line_is_named(tmp_path: Path, content: str, words: str) -> None:
    path = tmp_path / "log.jsonl"
    path.write_text(content)
    with pytest.raises(ValueError, match=words):
        parse_lines(path)


def test_a_line_without_a_step_is_not_dropped_in_silence(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    path.write_text('{"stage": 1}\n')
    with pytest.raises(ValueError, match="no whole step"):
        keep_lines(path, 3)


def test_trackers_get_numbers_only() -> None:
    figures = {"step": 3, "reward_mean": 1, "irl_kl": None, "note": "x", "reward_missing": {"timeout": 2}}
    assert flat(figures) == {"reward_mean": 1.0, "reward_missing/timeout": 2.0}


class FakeRun:
    """A run of Weights & Biases or trackio, as far as we use one."""

    def __init__(self, **arguments: Any) -> None:
        self.arguments, self.finished = arguments, False
        self.logged: list[tuple[int, dict[str, float]]] = []

    def log(self, figures: dict[str, float], step: int) -> None:
        self.logged.append((step, figures))

    def finish(self) -> None:
        self.finished = True


@pytest.mark.parametrize("kind", ["wandb", "trackio"])
def test_services_resume_under_the_same_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    runs: list[FakeRun] = []

    def init(**arguments: Any) -> FakeRun:
        runs.append(FakeRun(**arguments))
        return runs[-1]

    module = ModuleType(kind)
    module.init = init  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, kind, module)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.yaml").write_text("seed: 7")
    for step in (1, 2):
        ours = log(tmp_path / "run", kind)
        ours.append({"step": step, "reward_mean": 0.5})
        ours.track(step, {"pass@1": 0.25})
        ours.close()
    first, second = runs
    assert first.logged == [(1, {"reward_mean": 0.5}), (1, {"pass@1": 0.25})]
    assert first.finished
    identity = "id" if kind == "wandb" else "name"
    assert first.arguments[identity] == second.arguments[identity]
    assert first.arguments["resume"] == "allow"
    assert first.arguments["project"] == "study"
    assert first.arguments["config"] == {"seed": 7}
    other = log(tmp_path / "elsewhere" / "run", kind)
    other.track(1, {})
    assert runs[2].arguments[identity] != first.arguments[identity]


def test_tensorboard_forgets_the_steps_that_are_run_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Any] = []

    def writer(**arguments: Any) -> SimpleNamespace:
        scalars: list[tuple[str, float, int]] = []
        made.append((arguments, scalars))
        return SimpleNamespace(
            add_scalar=lambda *scalar: scalars.append(scalar), flush=lambda: None, close=lambda: None
        )

    module = ModuleType("torch.utils.tensorboard")
    module.SummaryWriter = writer  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", module)
    ours = log(tmp_path, "tensorboard")
    ours.truncate(40)
    ours.append({"step": 41, "entropy": 1.5})
    ours.close()
    assert made == [
        ({"log_dir": str(tmp_path / "tensorboard"), "purge_step": 41}, [("entropy", 1.5, 41)]),
    ]


@pytest.mark.parametrize("kind", ["tensorboard", "wandb", "trackio"])
def test_a_tracker_that_is_not_installed_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard" if kind == "tensorboard" else kind, None)
    with pytest.raises(ValueError, match=rf"pip install 'serm\[{kind}\]'"):
        log(tmp_path, kind).track(1, {"reward_mean": 0.5})
