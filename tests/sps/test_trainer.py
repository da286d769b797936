"""Whole runs: killed anywhere and resumed bit for bit, refused where they must be, and honest about what is missing."""

import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from sps.checkpoint import checkpoints, latest
from sps.config import Config
from sps.runs import read_evaluations, read_lines, read_log, read_probes
from sps.train import train
from sps.trainer import TrainingError

ROOT = Path(__file__).resolve().parents[2]
CLOCKS = {"tokens_per_second", "seconds_sampling", "seconds_judging", "seconds_training"}


def settings(model: Path, output: Path, **rooms: Any) -> dict[str, Any]:
    values: dict[str, Any] = {
        "output": str(output),
        "task": {"name": "arithmetic", "style": "terse", "train_size": 20, "test_size": 6},
        "policy": {"model": str(model), "precision": "fp32"},
        "rollout": {"prompts": 3, "group": 4, "max_tokens": 10},
        "steering": {"coefficient": 0.3, "support": "all", "period": 2, "replay": 3},
        "optimiser": {"learning_rate": 1e-3, "minibatches": 2},
        "trainer": {"steps": 6, "checkpoint_every": 2, "evaluate_every": 3, "micro_batch_tokens": 200},
        "evaluation": {"problems": 4, "samples": 4, "ks": [1, 4], "probes": 2, "probe_samples": 2, "resamples": 50},
    }
    for room, given in rooms.items():
        values[room] = values.get(room, {}) | given
    return values


def run(model: Path, output: Path, **rooms: Any) -> dict[str, Any]:
    return train(Config.model_validate(settings(model, output, **rooms)))


def without_clocks(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{name: value for name, value in row.items() if name not in CLOCKS} for row in rows]


def everything(run_folder: Path) -> dict[str, Any]:
    """All that a run leaves which does not depend on the clock."""
    last = latest(run_folder / "checkpoints")
    assert last is not None
    saved = torch.load(last / "state.pt", weights_only=True)
    return {
        **{name: exact(saved[name]) for name in ("weights", "moments", "states")},
        "log": without_clocks(read_log(run_folder)),
        "evaluations": read_evaluations(run_folder),
        "probes": read_probes(run_folder),
        "samples": read_lines(run_folder / "samples.jsonl"),
    }


def exact(value: Any) -> Any:
    """Tensors as their bytes, tuples as lists: so that == means equal to the last bit."""
    if isinstance(value, torch.Tensor):
        return value.numpy().tobytes()
    if isinstance(value, dict):
        return {key: exact(item) for key, item in value.items()}
    return [exact(item) for item in value] if isinstance(value, (list, tuple)) else value


def same(one: dict[str, Any], other: dict[str, Any]) -> list[str]:
    """Names of the parts that differ."""
    return [name for name in one if one[name] != other[name]]


def test_a_run_leaves_what_it_should(model_folder: Path, tmp_path: Path) -> None:
    result = run(model_folder, tmp_path / "run")
    steps = [row["step"] for row in read_log(tmp_path / "run")]
    assert steps == [1, 2, 3, 4, 5, 6]
    assert sorted({row["step"] for row in read_evaluations(tmp_path / "run")}) == [0, 3, 6]
    assert [path.name for path in checkpoints(tmp_path / "run" / "checkpoints")] == ["step-000004", "step-000006"]
    assert [row["steered"] for row in read_log(tmp_path / "run")] == [0, 1, 0, 1, 0, 1]
    assert result["steps"] == 6
    assert [row["k"] for row in result["passk"]] == [1, 4]
    from transformers import AutoModelForCausalLM

    final = AutoModelForCausalLM.from_pretrained(result["model"]).state_dict()
    kept = torch.load(tmp_path / "run/checkpoints/step-000006/state.pt", weights_only=True)["weights"]
    assert all(torch.equal(final[name.removeprefix("model.")], value) for name, value in kept.items())


def test_trackers_get_the_pass_at_k_of_every_evaluation(
    model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tracked: list[tuple[int, dict[str, float]]] = []
    monkeypatch.setattr("sps.logs.Log.track", lambda _, step, figures: tracked.append((step, dict(figures))))
    result = run(model_folder, tmp_path / "run")
    observed = [(step, figures) for step, figures in tracked if "pass@1" in figures]
    assert [step for step, _ in observed] == [0, 3, 6]
    assert observed[-1][1] == {f"pass@{row['k']}": pytest.approx(row["after"].mean) for row in result["passk"]}


def test_the_same_seed_is_the_same_run_and_another_is_not(model_folder: Path, tmp_path: Path) -> None:
    for name in ("one", "two"):
        run(model_folder, tmp_path / name)
    assert same(everything(tmp_path / "one"), everything(tmp_path / "two")) == []
    values = settings(model_folder, tmp_path / "three") | {"seed": 1}
    train(Config.model_validate(values))
    assert "weights" in same(everything(tmp_path / "one"), everything(tmp_path / "three"))


@pytest.mark.slow
def test_killed_anywhere_it_goes_on_bit_for_bit(model_folder: Path, tmp_path: Path) -> None:
    run(model_folder, tmp_path / "straight")
    path = tmp_path / "settings.yaml"
    path.write_text(yaml.safe_dump(settings(model_folder, tmp_path / "killed")), encoding="utf-8")
    command = [sys.executable, "-m", "sps.cli", "train", "--config", str(path)]
    rng, kills = random.Random(0), 0
    for _ in range(3):
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        log, before = tmp_path / "killed" / "log.jsonl", len(read_lines(tmp_path / "killed" / "log.jsonl"))
        deadline = time.monotonic() + 120
        while process.poll() is None and time.monotonic() < deadline and len(read_lines(log)) <= before:
            time.sleep(0.01)  # until it has begun to train
        time.sleep(rng.random() * 0.3)
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
            kills += 1
        process.wait()
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert kills > 0
    assert same(everything(tmp_path / "straight"), everything(tmp_path / "killed")) == []


def test_a_finished_run_is_only_shown_and_a_longer_one_goes_on(model_folder: Path, tmp_path: Path) -> None:
    run(model_folder, tmp_path / "run", trainer={"steps": 4})
    before = everything(tmp_path / "run")
    run(model_folder, tmp_path / "run", trainer={"steps": 4})
    assert same(before, everything(tmp_path / "run")) == []
    run(model_folder, tmp_path / "run", trainer={"steps": 6})
    run(model_folder, tmp_path / "straight", trainer={"steps": 6})
    longer, straight = everything(tmp_path / "run"), everything(tmp_path / "straight")
    # The shorter run was evaluated at its end, step 4; nothing else tells them apart.
    longer["evaluations"] = [row for row in longer["evaluations"] if row["step"] != 4]
    longer["probes"] = [row for row in longer["probes"] if row["step"] != 4]
    assert same(longer, straight) == []


def test_other_settings_are_refused(model_folder: Path, tmp_path: Path) -> None:
    run(model_folder, tmp_path / "run", trainer={"steps": 2})
    with pytest.raises(ValueError, match=r"rollout\.group = 4, not 5"):
        run(model_folder, tmp_path / "run", trainer={"steps": 2}, rollout={"group": 5})


@pytest.mark.parametrize(
    "objective",
    [
        {"preset": "dr_grpo"},
        {"preset": "gspo"},
        {"preset": "kl_cov", "kl_cov_fraction": 0.1},
        {"preset": "passk", "passk": 2},
        {"preset": "weighted_reinforce"},
        {"kl_coefficient": 0.1},
        {"kl_coefficient": 0.1, "kl": "k2", "entropy_bonus": 0.01, "truncated": "mask"},
        {"truncated": "soft", "soft_tokens": 4},
    ],
)
def test_every_objective_trains(model_folder: Path, tmp_path: Path, objective: dict[str, Any]) -> None:
    reward = {"name": "user", "reward": "tests.sps.rewards:short", "train": str(_prompts(tmp_path))}
    run(model_folder, tmp_path / "run", objective=objective, task=reward | {"test": reward["train"]})
    rows = read_log(tmp_path / "run")
    assert any(row["gradient_norm"] > 0 for row in rows)
    assert all(row["reward_missing"] == {} for row in rows)
    assert ("kl_to_initial" in rows[-1]) == ("kl_coefficient" in objective)
    if "kl_coefficient" in objective:
        assert abs(rows[0]["kl_to_initial"]) < max(abs(row["kl_to_initial"]) for row in rows[1:])


def test_weights_that_blow_up_end_the_run_and_leave_the_batch(model_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="nothing was updated"):
        run(model_folder, tmp_path / "run", optimiser={"learning_rate": 1e30, "weight_decay": 1e30})
    kept = list((tmp_path / "run" / "failure").glob("*.json"))
    assert kept
    assert json.loads(kept[0].read_text())["rows"]


def test_a_group_of_one_is_refused_unless_nothing_is_compared() -> None:
    with pytest.raises(ValueError, match="nothing to be compared with"):
        Config.model_validate({"rollout": {"group": 1}})
    Config.model_validate({"rollout": {"group": 1}, "objective": {"preset": "weighted_reinforce"}})


def test_prompts_that_do_not_fit_are_set_aside(
    model_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    task = {"name": "user", "reward": "tests.sps.rewards:short", "train": str(_prompts(tmp_path))}
    task["test"] = task["train"]
    run(model_folder, tmp_path / "run", task=task, rollout={"max_prompt_tokens": 6}, trainer={"steps": 1})
    assert "4 of 8 prompts set aside: over 6 tokens" in capsys.readouterr().err
    with pytest.raises(ValueError, match=r"none of .* prompts fits"):
        run(model_folder, tmp_path / "other", rollout={"max_tokens": 60}, trainer={"steps": 1})


def test_training_keeps_to_the_first_problems(model_folder: Path, tmp_path: Path) -> None:
    run(model_folder, tmp_path / "run", trainer={"problems": 4})
    drawn = {row["problem"] for row in read_lines(tmp_path / "run" / "samples.jsonl")}
    assert drawn
    assert drawn <= {f"train-{i}" for i in range(4)}
    run(model_folder, tmp_path / "other")
    assert not {row["problem"] for row in read_lines(tmp_path / "other" / "samples.jsonl")} <= drawn


def test_a_missing_model_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no-such-model"):
        run(tmp_path / "no-such-model", tmp_path / "run")


@pytest.mark.parametrize(
    ("function", "problem"),
    [("raises", "raised"), ("nothing", "not a number"), ("nan", "not a number"), ("hangs", "timeout")],
)
def test_a_reward_that_fails_is_counted_and_never_zero(
    model_folder: Path, tmp_path: Path, function: str, problem: str
) -> None:
    task = {
        "name": "user",
        "reward": f"tests.sps.rewards:{function}",
        "train": str(_prompts(tmp_path)),
        "test": str(_prompts(tmp_path)),
        "timeout": 0.3,
    }
    with pytest.raises(TrainingError, match=rf"not one of 12 completions got a reward.*{problem}"):
        run(model_folder, tmp_path / "run", task=task)


def test_a_full_disk_is_said_and_harms_no_checkpoint(model_folder: Path, tmp_path: Path) -> None:
    """A limit on file size stands in for a full disk: the third checkpoint cannot be written."""
    path = tmp_path / "settings.yaml"
    path.write_text(yaml.safe_dump(settings(model_folder, tmp_path / "run", trainer={"steps": 2})), encoding="utf-8")
    command = [sys.executable, "-m", "sps.cli", "train", "--config", str(path)]
    assert subprocess.run(command, cwd=ROOT, capture_output=True, check=False).returncode == 0
    path.write_text(yaml.safe_dump(settings(model_folder, tmp_path / "run")), encoding="utf-8")
    limited = ["bash", "-c", f"ulimit -f 40; trap '' XFSZ; exec {' '.join(command)}"]
    done = subprocess.run(limited, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert [path.name for path in checkpoints(tmp_path / "run" / "checkpoints")] == ["step-000002"]
    assert subprocess.run(command, cwd=ROOT, capture_output=True, check=False).returncode == 0


def _prompts(folder: Path) -> Path:
    path = folder / "prompts.jsonl"
    path.write_text("".join(json.dumps({"prompt": f"{i}+{i}="}) + "\n" for i in range(6, 14)), encoding="utf-8")
    return path
