"""The verb compare: runs side by side on the same held-out problems, seeds of one experiment together.

An interval is a bootstrap interval over problems and, where an arm has several runs, over its runs too, each drawn
again on its own (the pigeonhole bootstrap of Owen, 2007, which errs on the wide side). With one run per arm it speaks
of other problems but not of other seeds.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sps.analyze import SHORT
from sps.arms import Arm, arms_of
from sps.passk import bootstrap_weights, pass_at_k
from sps.runs import Run, counts_at, read_run, steps_of
from sps.words import amount, signed

LEVEL = 0.95
SEED = 0
AT_END = ("reward_mean", "top_share", "effective_number", "distinct_keys")
Floats = NDArray[np.float64]


def compare(run_folders: Sequence[Path | str], page: Path | str | None = None) -> dict[str, Any]:
    """Compare runs after their last evaluation; the first one's arm is what the others are measured against.

    Runs that differ in their seed alone make up one arm. Returns a dictionary of rows, shares from 0 to 1:
        `table`: per arm, Pass@k with its interval, and training figures over the last tenth of the steps.
        `differences`: per arm but the first and per k, Pass@k less the first arm's, paired by problem.
        `curves`: per arm, evaluated step and k, mean Pass@k, over the steps that all its runs evaluated.
        `frontier`: per arm, Pass@k for the smallest k (few) and the largest (many) with intervals, and for every run.
    and `page`, where a page with all of it was written (None: nowhere).

    Raises:
        ValueError: fewer than two runs, one that was not evaluated, or other held-out problems in one than in another.
    """
    if len(run_folders) < 2:
        raise ValueError("a comparison needs the folders of at least two runs")
    runs = [read_run(Path(folder)) for folder in run_folders]
    for run in runs:
        if not run.evaluations:
            raise ValueError(f"{run.root}: nothing was evaluated yet; let the run go on")
    arms = arms_of(runs)
    ks = [k for k in runs[0].config.evaluation.ks if all(k in run.config.evaluation.ks for run in runs)]
    if not ks:
        raise ValueError("the runs have no k of evaluation.ks in common; evaluate them with the same")
    result = measured(arms, ks, runs[0].config.evaluation.resamples)
    result["page"] = None if page is None else str(page)
    if page is not None:
        from sps.compare_page import comparison_page

        Path(page).parent.mkdir(parents=True, exist_ok=True)
        Path(page).write_text(comparison_page(result), encoding="utf-8")
    return result


def measured(arms: Sequence[Arm], ks: Sequence[int], resamples: int) -> dict[str, Any]:
    """What `compare` returns but for the page."""
    problems = shared_problems(arms, max(ks))
    rng = np.random.default_rng(SEED)
    over_problems = np.concatenate(list(bootstrap_weights(len(problems), resamples, rng)))
    over_runs = [np.concatenate(list(bootstrap_weights(len(arm.runs), resamples, rng))) for arm in arms]
    table, differences, frontier = [], [], []
    means: dict[tuple[str, int], float] = {}
    draws: dict[tuple[str, int], Floats] = {}
    for arm, weights in zip(arms, over_runs, strict=True):
        row: dict[str, Any] = {"arm": arm.label, "runs": len(arm.runs), "steps": _last_steps(arm)}
        for k in ks:
            values = np.stack([_values(run, problems, k) for run in arm.runs])  # (runs, problems)
            means[arm.label, k] = float(values.mean())
            draws[arm.label, k] = crossed(values, weights, over_problems)
            row[f"Pass@{k}"] = interval(means[arm.label, k], draws[arm.label, k])
        table.append(row | {name: _at_end(arm, name) for name in AT_END} | {"tokens": _tokens(arm)})
        frontier.append(
            {
                "arm": arm.label, "family": arm.family, "preset": arm.preset, "strength": list(arm.strength),
                "few": row[f"Pass@{min(ks)}"], "many": row[f"Pass@{max(ks)}"],
                "runs": [[float(_values(run, problems, k).mean()) for k in (min(ks), max(ks))] for run in arm.runs],
            }
        )  # fmt: skip
    first = arms[0].label
    for arm in arms[1:]:
        for k in ks:
            gap = means[arm.label, k] - means[first, k]
            difference = interval(gap, draws[arm.label, k] - draws[first, k])
            differences.append({"arm": arm.label, "less": first, "k": k, **difference})
    return {
        "ks": list(ks),
        "problems": len(problems),
        "table": table,
        "differences": differences,
        "curves": [row for arm in arms for row in curve(arm, problems, ks)],
        "frontier": frontier,
    }


def shared_problems(arms: Sequence[Arm], most: int) -> list[str]:
    """Problems of which every run's last evaluation has `most` judged completions.

    Raises:
        ValueError: two runs evaluated other problems, or no problem has that many in all.
    """
    runs = [run for arm in arms for run in arm.runs]
    last = [counts_at(run.evaluations, steps_of(run.evaluations)[-1]) for run in runs]
    for run, counts in zip(runs, last, strict=True):
        if counts.keys() != last[0].keys():
            raise ValueError(f"{runs[0].root} and {run.root} evaluated other problems; set evaluation.problems alike")
    names = [name for name in last[0] if all(counts[name][0] >= most for counts in last)]
    if not names:
        raise ValueError(f"no problem has {most} judged completions in every run, which Pass@{most} needs")
    return names


def curve(arm: Arm, problems: Sequence[str], ks: Sequence[int]) -> list[dict[str, Any]]:
    """Mean Pass@k over an arm's runs at every step that all of them evaluated with enough judged completions."""
    steps = [
        step for step in steps_of(arm.runs[0].evaluations) if all(step in steps_of(r.evaluations) for r in arm.runs)
    ]
    rows = []
    for step in steps:
        counts = [counts_at(run.evaluations, step) for run in arm.runs]
        enough = [p for p in problems if all(p in at and at[p][0] >= max(ks) for at in counts)]
        if enough:
            pairs = np.array([[at[p] for p in enough] for at in counts], dtype=np.int64)  # (runs, problems, 2)
            means = {k: float(pass_at_k(pairs[..., 0], pairs[..., 1], k).mean()) for k in ks}
            rows += [{"arm": arm.label, "step": step, "k": k, "mean": means[k]} for k in ks]
    return rows


def crossed(values: Floats, over_runs: Floats, over_problems: Floats) -> Floats:
    """Means (resamples,) of values (runs, problems) under weights (resamples, runs) and (resamples, problems)."""
    return np.asarray(((over_runs @ values) * over_problems).sum(axis=1))


def interval(mean: float, draws: Floats) -> dict[str, float]:
    """A mean with its percentile interval from bootstrap draws."""
    low, high = np.quantile(draws, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return {"mean": mean, "low": float(low), "high": float(high)}


def tables(result: dict[str, Any]) -> list[tuple[str, list[dict[str, Any]]]]:
    """What a person sees: titles and rows, a table for every k."""
    first = result["table"][0]["arm"]
    less = {(row["arm"], row["k"]): row for row in result["differences"]}
    shown = []
    for k in result["ks"]:
        rows = [
            {
                "arm": row["arm"],
                "runs": row["runs"],
                "Pass@k [95% interval]": _percent(row[f"Pass@{k}"]),
                f"less {first}": _points(less[row["arm"], k]) if (row["arm"], k) in less else None,
            }
            for row in result["table"]
        ]
        shown.append((f"Pass@{k}, %, and differences paired by problem", rows))
    about = [
        {
            "arm": row["arm"],
            "steps": row["steps"],
            **{SHORT.get(name, name): row[name] for name in AT_END},
            "tokens": amount(row["tokens"]),
        }
        for row in result["table"]
    ]
    return [*shown, ("Training, over the last tenth of the steps", about)]


def _values(run: Run, problems: Sequence[str], k: int) -> Floats:
    counts = counts_at(run.evaluations, steps_of(run.evaluations)[-1])
    pairs = np.array([counts[name] for name in problems], dtype=np.int64)
    return pass_at_k(pairs[:, 0], pairs[:, 1], k)


def _last_steps(arm: Arm) -> str:
    steps = sorted({steps_of(run.evaluations)[-1] for run in arm.runs})
    return str(steps[0]) if len(steps) == 1 else f"{steps[0]} to {steps[-1]}"


def _at_end(arm: Arm, name: str) -> float | None:
    """Mean over runs of the mean over the last tenth of the steps."""
    found = []
    for run in arm.runs:
        values = [row[name] for row in run.log[-max(1, len(run.log) // 10) :] if row.get(name) is not None]
        found += [float(np.mean(values))] if values else []
    return float(np.mean(found)) if found else None


def _tokens(arm: Arm) -> int:
    """Completion tokens sampled for training, mean over runs."""
    return round(float(np.mean([sum(row.get("tokens") or 0 for row in run.log) for run in arm.runs])))


def _percent(row: dict[str, float]) -> str:
    return f"{100 * row['mean']:.1f} [{100 * row['low']:.1f}, {100 * row['high']:.1f}]"


def _points(row: dict[str, float]) -> str:
    return f"{signed(row['mean'])} [{signed(row['low'])}, {signed(row['high'])}]"
