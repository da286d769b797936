"""What analyze says against counts made by hand, and against the probabilities that made a synthetic run."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sps.analyze import analyze, tables
from sps.config import SteeringSettings
from sps.logs import append_lines
from sps.passk import Interval, pass_at_k
from sps.probes import squeezing_of_probes, summary, trajectories
from sps.runs import read_lines, read_run
from tests.sps.synthetic_run import make_run

CONFIG = """
task: {name: countdown}
trainer: {steps: 20}
evaluation: {problems: 4, samples: 4, ks: [1, 4], resamples: 300}
"""


def evaluation(step: int, problem: str, c: int, n: int = 4) -> dict[str, Any]:
    return {"step": step, "problem": problem, "level": "", "n": n, "c": c, "keys": c, "ended": 1.0, "missing": 4 - n}


def by_hand(folder: Path, *rows: dict[str, Any]) -> Path:
    """A run's folder with these evaluations."""
    folder.mkdir()
    (folder / "config.yaml").write_text(CONFIG)
    append_lines(folder / "evaluations.jsonl", rows)
    return folder


@pytest.fixture
def small(tmp_path: Path) -> Path:
    before = [evaluation(0, "a", 1), evaluation(0, "b", 2), evaluation(0, "c", 0), evaluation(0, "d", 0)]
    after = [evaluation(20, "a", 4), evaluation(20, "b", 0), evaluation(20, "c", 1), evaluation(20, "d", 0)]
    run = by_hand(tmp_path / "run", *before, *after)
    append_lines(
        run / "log.jsonl",
        [{"step": s, "reward_mean": s / 10, "top_share": None if s < 11 else 0.5} for s in range(1, 21)],
    )
    return run  # fmt: skip


def test_pass_at_k_and_its_change_by_hand(small: Path) -> None:
    result = analyze(small)
    means = {(row["step"], row["k"]): row["mean"] for row in result["passk"]}
    assert means == pytest.approx({(0, 1): 3 / 16, (0, 4): 2 / 4, (20, 1): 5 / 16, (20, 4): 2 / 4})
    first, last = result["changes"]
    assert (first["k"], first["before"], first["after"]) == (1, pytest.approx(3 / 16), pytest.approx(5 / 16))
    assert first["mean"] == pytest.approx(2 / 16)
    assert first["low"] < 0 < first["high"]
    assert last["mean"] == pytest.approx(0)
    assert [(row["step"], row["k"]) for row in result["curve"]] == [(s, k) for s in (0, 20) for k in (1, 2, 4)]
    assert next(row["mean"] for row in result["curve"] if row["k"] == 2) == pytest.approx(
        np.mean([pass_at_k(4, c, 2) for c in (1, 2, 0, 0)])
    )


def test_problems_and_ceilings_by_hand(small: Path) -> None:
    result = analyze(small)
    assert result["problems"] == {"both": 1, "gained": 1, "lost": 1, "neither": 1}
    union, fitted, best = result["ceilings"]
    assert union["ceiling"] == 0.75
    assert union["Pass@4"] == pytest.approx(0.5 / 0.75)
    assert best["ceiling"] == 0.75  # a, b and c at their best, for k = 4
    assert best["Pass@1"] == pytest.approx((5 / 16) / ((1 + 1 / 2 + 1 / 4) / 4))
    assert fitted["low"] <= fitted["ceiling"] <= fitted["high"]


def test_training_figures_are_means_since_the_evaluation_before(small: Path) -> None:
    start, end = analyze(small)["dynamics"]
    assert start["reward_mean"] is None
    assert end["reward_mean"] == pytest.approx(np.mean([s / 10 for s in range(1, 21)]))
    assert end["top_share"] == pytest.approx(0.5)  # of the ten steps that had one
    assert isinstance(end["Pass@4"], Interval)


def test_a_step_belongs_to_one_evaluation_alone(tmp_path: Path) -> None:
    run = by_hand(tmp_path / "run", *[evaluation(step, "a", 1) for step in (0, 2, 4)])
    append_lines(run / "log.jsonl", [{"step": s, "reward_mean": 10.0**s} for s in range(1, 6)])
    assert [row["reward_mean"] for row in analyze(run)["dynamics"]] == [None, (10 + 100) / 2, (1_000 + 10_000) / 2]


def test_failed_verdicts_leave_a_problem_out_where_it_has_too_few(tmp_path: Path) -> None:
    run = by_hand(tmp_path / "run", evaluation(0, "a", 1), evaluation(0, "b", 2, n=2), evaluation(0, "c", 0, n=0))
    result = analyze(run)
    found = {row["k"]: (row["mean"], row["problems"]) for row in result["passk"]}
    assert found == {1: (pytest.approx((1 / 4 + 1) / 2), 2), 4: (1.0, 1)}
    only_failures = by_hand(tmp_path / "other", evaluation(0, "a", 0, n=0))
    nothing = analyze(only_failures)
    assert nothing["passk"] == nothing["ceilings"] == nothing["fits"] == []


def probe(step: int, sample: int, correct: bool, logprob: float | None, problem: str = "p") -> dict[str, Any]:
    row = {"step": step, "problem": problem, "sample": sample, "correct": correct}
    return row | {"logprob": logprob, "length": 3}


PROBES = [
    probe(0, 0, True, math.log(0.3)), probe(0, 1, True, math.log(0.1)), probe(0, 2, False, math.log(0.5)),
    probe(9, 0, True, math.log(0.8)), probe(9, 1, True, math.log(0.005)), probe(9, 2, False, math.log(0.1)),
    probe(0, 0, True, math.log(0.2), "q"), probe(9, 0, True, None, "q"),
]  # fmt: skip


def test_probes_tell_who_gained_and_who_was_squeezed_out() -> None:
    found = trajectories(PROBES)
    assert [(t.problem, t.sample, t.kind) for t in found] == [
        ("p", 0, "likeliest"), ("p", 1, "other right"), ("p", 2, "wrong"), ("q", 0, "likeliest"),
    ]  # fmt: skip
    assert found[0].gain == pytest.approx(math.log(0.8 / 0.3))
    assert math.isnan(found[3].gain)
    likeliest, other, wrong = summary(found)
    assert (likeliest["number"], likeliest["gained"], likeliest["squeezed_out"]) == (1, 1.0, 0.0)
    assert (other["gained"], other["squeezed_out"]) == (0.0, 1.0)  # a twentieth of it is left
    assert (wrong["gained"], wrong["squeezed_out"]) == (0.0, 0.0)  # a fifth
    assert wrong["median_gain"] == pytest.approx(-math.log(5))
    assert trajectories([]) == []


def test_squeezing_of_the_probe_set_by_hand() -> None:
    before, after = squeezing_of_probes(PROBES, SteeringSettings())
    assert before["top_share"] == pytest.approx(0.75)
    assert before["effective_number"] == pytest.approx(0.75**-0.75 * 0.25**-0.25)
    assert after["top_share"] == pytest.approx(0.8 / 0.805)


def test_a_run_that_squeezes_is_seen_to(tmp_path: Path) -> None:
    squeezed = analyze(make_run(tmp_path / "grpo", steps=100, every=50, samples=64))
    steered = analyze(make_run(tmp_path / "sps", coefficient=1.0, steps=100, every=50, samples=64))
    for result in (squeezed, steered):
        assert result["changes"][0]["low"] > 0.1  # both raise Pass@1
        assert sum(result["problems"].values()) == 80
    assert squeezed["changes"][-1]["high"] < steered["changes"][-1]["mean"] + 0.05
    shares = [result["dynamics"][-1]["top_share"] for result in (squeezed, steered)]
    assert shares[0] > 0.9 > shares[1]
    assert squeezed["probe_squeezing"][-1]["effective_number"] < steered["probe_squeezing"][-1]["effective_number"]


def test_tables_have_no_raw_shares_and_json_takes_the_result(small: Path) -> None:
    from sps.display import plain

    result = analyze(small)
    titles = dict(tables(result))
    assert titles["From start to end, paired by problem"][0]["change"] == "+12.5"
    passk = titles["Pass@k, % [95% interval over problems]"]
    assert passk[0]["Pass@1"].startswith("18.8 [")
    assert json.loads(json.dumps(plain(result)))["problems"]["lost"] == 1


def test_what_is_no_run_is_one_sentence(tmp_path: Path, small: Path) -> None:
    with pytest.raises(ValueError, match="no run lies there"):
        analyze(tmp_path)
    (small / "evaluations.jsonl").unlink()
    with pytest.raises(ValueError, match="nothing was evaluated yet"):
        analyze(small)
    (small / "config.yaml").write_text("trainer: {stepps: 3}")
    with pytest.raises(ValueError, match=r"config\.yaml: trainer\.stepps: no such setting"):
        read_run(small)


def test_rows_of_another_program_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "evaluations.jsonl"
    path.write_text('{"step": 0, "problem": "a", "n": 4, "c": 1}\n{"step": 0, "problem": "b"}\n{"step"')
    with pytest.raises(ValueError, match="line 2: c, n missing"):
        read_lines(path, {"step", "problem", "n", "c"})
    assert len(read_lines(path)) == 2
    assert read_lines(tmp_path / "absent.jsonl") == []
