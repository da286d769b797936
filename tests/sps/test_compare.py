"""Comparisons: arms told apart by settings, differences paired by problem, intervals that know of seeds."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import plotly.graph_objects as go
import pytest
import yaml

from sps.arms import arms_of, departures, flat
from sps.compare import compare, crossed, interval, tables
from sps.config import Config
from sps.logs import append_lines
from sps.passk import bootstrap_weights, pass_at_k
from sps.runs import read_run
from tests.sps.test_report import figures_of

EVALUATION = {"problems": 6, "samples": 4, "ks": [1, 4], "resamples": 2_000}


def run(
    folder: Path, correct: list[int], seed: int = 0, early: list[int] | None = None, **rooms: dict[str, Any]
) -> Path:
    """A run whose last evaluation had so many of 4 completions of each problem right."""
    config = Config.model_validate({"seed": seed, "output": str(folder), "evaluation": EVALUATION, **rooms})
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(yaml.safe_dump(config.model_dump(mode="json")))
    for step, counts in ((0, early or correct), (10, correct)):
        rows = [{"step": step, "problem": f"t{i}", "n": 4, "c": c} for i, c in enumerate(counts)]
        append_lines(folder / "evaluations.jsonl", rows)
    lines = [{"step": s, "reward_mean": 0.1 * s, "top_share": None, "tokens": 1_000} for s in range(1, 11)]
    append_lines(folder / "log.jsonl", lines)
    return folder


def test_runs_that_differ_in_their_seed_are_one_arm(tmp_path: Path) -> None:
    folders = [
        run(tmp_path / "a", [1] * 6),
        run(tmp_path / "b", [2] * 6, seed=1, trainer={"checkpoint_every": 7}, log={"samples": 0}),
        run(tmp_path / "c", [3] * 6, steering={"coefficient": 0.3}),
        run(tmp_path / "d", [3] * 6, steering={"coefficient": 1.0, "period": 4}),
    ]
    arms = arms_of([read_run(folder) for folder in folders])
    assert [(arm.label, len(arm.runs)) for arm in arms] == [
        ("grpo", 2), ("steering 0.3", 1), ("steering 1.0, steering.period 4", 1),
    ]  # fmt: skip
    assert [arm.strength for arm in arms] == [(), (0.3,), (1.0, 4)]
    assert [arm.family for arm in arms] == ["grpo", "steering", "steering, steering.period"]


def test_presets_are_named_without_what_they_set(tmp_path: Path) -> None:
    folders = [
        run(tmp_path / "a", [1] * 6, objective={"preset": "dapo"}, task={"level": 2}),
        run(tmp_path / "b", [1] * 6, objective={"preset": "grpo", "entropy_bonus": 0.1}, task={"level": 2}),
    ]
    arms = arms_of([read_run(folder) for folder in folders])
    assert [arm.label for arm in arms] == ["dapo", "grpo, entropy_bonus 0.1"]  # the level is common to both


def test_departures_are_from_the_presets_defaults() -> None:
    config = Config.model_validate({"objective": {"preset": "dapo", "clip_high": 0.4}, "task": {"name": "gsm8k"}})
    assert departures(config) == {"objective.preset": "dapo", "objective.clip_high": 0.4, "task.name": "gsm8k"}
    assert flat({"a": {"b": 1, "c": {}}, "d": [2]}) == {"a.b": 1, "a.c": {}, "d": [2]}


def test_table_and_differences_by_hand(tmp_path: Path) -> None:
    base, ours = [0, 1, 2, 3, 4, 0], [4, 2, 2, 3, 4, 1]
    result = compare([run(tmp_path / "a", base), run(tmp_path / "b", ours, steering={"coefficient": 0.5})])
    assert result["problems"] == 6
    first, second = result["table"]
    assert first["Pass@1"]["mean"] == pytest.approx(10 / 24)
    assert second["Pass@4"]["mean"] == pytest.approx(1.0)
    assert first["reward_mean"] == pytest.approx(1.0)  # the last tenth of ten steps
    assert first["top_share"] is None
    assert first["tokens"] == 10_000
    difference = result["differences"][0]
    assert (difference["arm"], difference["less"], difference["k"]) == ("steering 0.5", "grpo", 1)
    assert difference["mean"] == pytest.approx(np.mean([1, 0.25, 0, 0, 0, 0.25]))
    assert (
        0 <= difference["low"] < difference["mean"] < difference["high"]
    )  # no problem got worse: paired, never below 0
    assert {row["step"] for row in result["curves"]} == {0, 10}
    assert result["page"] is None


def test_equal_arms_do_not_differ(tmp_path: Path) -> None:
    same = [0, 1, 2, 3, 4, 0]
    result = compare([run(tmp_path / "a", same), run(tmp_path / "b", same, objective={"entropy_bonus": 0.1})])
    for row in result["differences"]:
        assert (row["mean"], row["low"], row["high"]) == pytest.approx((0, 0, 0), abs=1e-12)


def test_seeds_that_disagree_widen_the_interval(tmp_path: Path) -> None:
    alike = [run(tmp_path / f"a{i}", [2] * 6, seed=i) for i in range(4)]
    apart = [run(tmp_path / f"b{i}", [i] * 6, seed=i, objective={"entropy_bonus": 0.1}) for i in range(4)]
    first, second = compare([*alike, *apart])["table"]
    assert first["Pass@1"]["high"] - first["Pass@1"]["low"] == pytest.approx(0)
    # Means of four of {0, 1, 2, 3} / 4 drawn with replacement: sd sqrt(5 / 4) / 4 / 2.
    assert second["Pass@1"]["high"] - second["Pass@1"]["low"] == pytest.approx(2 * 1.96 * np.sqrt(1.25) / 8, rel=0.15)
    assert (first["runs"], second["runs"]) == (4, 4)


def test_crossed_intervals_cover_a_truth_over_seeds_and_problems() -> None:
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(150):
        seeds, problems = rng.normal(0, 0.05, (8, 1)), rng.normal(0, 0.2, (1, 60))
        values = 0.5 + seeds + problems + rng.normal(0, 0.1, (8, 60))
        over_runs, over_problems = (np.concatenate(list(bootstrap_weights(n, 600, rng))) for n in (8, 60))
        draws = crossed(values, over_runs, over_problems)
        found = interval(float(values.mean()), draws)
        covered += found["low"] <= 0.5 <= found["high"]
    assert 0.89 <= covered / 150 <= 0.99


def test_crossed_means_against_a_loop() -> None:
    rng = np.random.default_rng(1)
    values, over_runs, over_problems = rng.random((3, 5)), rng.random((7, 3)), rng.random((7, 5))
    expected = [
        sum(over_runs[r, s] * values[s, p] * over_problems[r, p] for s in range(3) for p in range(5)) for r in range(7)
    ]
    np.testing.assert_allclose(crossed(values, over_runs, over_problems), expected)


def test_curves_are_means_over_runs(tmp_path: Path) -> None:
    folders = [
        run(tmp_path / "a", [4] * 6, early=[1] * 6),
        run(tmp_path / "b", [2] * 6, seed=1, early=[0] * 6),
        run(tmp_path / "c", [2] * 6, objective={"entropy_bonus": 0.1}),
    ]
    rows = {(row["arm"], row["step"], row["k"]): row["mean"] for row in compare(folders)["curves"]}
    assert rows["grpo", 0, 1] == pytest.approx(1 / 8)
    assert rows["grpo", 10, 1] == pytest.approx(3 / 4)
    assert rows["grpo", 0, 4] == pytest.approx(float(pass_at_k(4, 1, 4)) / 2)


def test_what_cannot_be_compared_is_named(tmp_path: Path) -> None:
    first = run(tmp_path / "a", [1] * 6)
    with pytest.raises(ValueError, match="at least two"):
        compare([first])
    with pytest.raises(ValueError, match="same settings and seed"):
        compare([first, run(tmp_path / "b", [1] * 6)])
    with pytest.raises(ValueError, match=r"task\.seed 0.*held-out problems are not the same"):
        compare([first, run(tmp_path / "c", [1] * 6, task={"seed": 4})])
    with pytest.raises(ValueError, match="evaluated other problems"):
        compare([first, run(tmp_path / "d", [1] * 5, seed=1)])
    with pytest.raises(ValueError, match=r"no k of evaluation\.ks in common"):
        compare([first, run(tmp_path / "e", [1] * 6, seed=2, evaluation=EVALUATION | {"ks": [2]})])
    unevaluated = run(tmp_path / "f", [1] * 6, seed=3)
    (unevaluated / "evaluations.jsonl").unlink()
    with pytest.raises(ValueError, match="nothing was evaluated yet"):
        compare([first, unevaluated])


def test_page_shows_the_frontier(tmp_path: Path) -> None:
    folders = [
        run(tmp_path / "a", [0, 1, 2, 3, 4, 0]),
        run(tmp_path / "s3", [1, 1, 2, 3, 4, 1], steering={"coefficient": 0.3}),
        run(tmp_path / "s1", [1, 1, 2, 3, 4, 0], steering={"coefficient": 0.1}),
        run(tmp_path / "s1b", [2, 1, 2, 3, 4, 0], seed=1, steering={"coefficient": 0.1}),
        run(tmp_path / "u", [0, 0, 2, 3, 4, 0], policy={"model": "<script>alert(1)</script>"}),
    ]
    result = compare(folders, tmp_path / "pages" / "page.html")
    text = (tmp_path / "pages" / "page.html").read_text()
    figures = figures_of(text)
    for figure in figures:
        go.Figure(json.loads(re.sub(r'"theme:[^"]*"', '"red"', json.dumps(figure))))
    joined = next(t for t in figures[0]["data"] if t["mode"] == "lines" and "steering 0.3" in t["text"][-1])
    points = [(row["arm"], row["few"]["mean"], row["many"]["mean"]) for row in result["frontier"]]
    ordered = [points[0], points[2], points[1]]  # the preset alone, then 0.1, then 0.3
    assert joined["x"] == pytest.approx([100 * few for _, few, _ in ordered])
    assert joined["y"] == pytest.approx([100 * many for _, _, many in ordered])
    assert "<script>alert" not in text
    assert "&lt;script&gt;alert" in text
    titles = [title for title, _ in tables(result)]
    assert titles[:2] == [
        "Pass@1, %, and differences paired by problem",
        "Pass@4, %, and differences paired by problem",
    ]
