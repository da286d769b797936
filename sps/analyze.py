"""The verb analyze: a run's dynamics, what its problems gained and lost, and how near Pass@k comes to its ceilings."""

from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from sps.ceiling import envelope, fit_ceiling, union_coverage
from sps.passk import Interval, mean_intervals, pass_at_k, pass_at_ks, pool_counts
from sps.probes import squeezing_of_probes, summary, trajectories
from sps.runs import Rows, Run, counts_at, read_run, steps_of

# Training figures that stand beside Pass@k in the table of dynamics.
BESIDE = ("reward_mean", "top_share", "effective_number", "distinct_keys", "entropy", "length_mean")
SHORT = {
    "reward_mean": "reward", "top_share": "top share", "effective_number": "effective", "distinct_keys": "keys",
    "length_mean": "length", "squeezed_out": "squeezed out", "median_gain": "median gain",
}  # fmt: skip
PERCENT = {"ceiling", "top_share", "gained", "squeezed_out", "before", "after"}


def analyze(run_folder: Path | str) -> dict[str, Any]:
    """What a run's folder says, finished or not.

    Returns a dictionary of rows, all shares from 0 to 1:
        `dynamics`: per evaluated step, Pass@k and the training figures since the evaluation before.
        `passk`: per evaluated step and k, Pass@k with its interval.
        `curve`: Pass@k at the first and last evaluation for more values of k.
        `changes`: per k, Pass@k at the end less at the start, paired by problem, with its interval.
        `problems`: how many were solved (at least once) at the start, at the end, both, neither.
        `ceilings`: three estimates, each with Pass@k at the end as a share of it.
        `fits`: the fitted limit of Pass@k at each evaluation.
        `probes`, `probe_squeezing`: see probes.py; empty without a probe set.
    and `run`, `task`, `model`, `steps`, `tokens`, `seconds`.

    Raises:
        ValueError: this is no run's folder, or nothing was evaluated yet.
    """
    return analyze_run(read_run(Path(run_folder)))


def analyze_run(run: Run) -> dict[str, Any]:
    """See `analyze`."""
    steps = steps_of(run.evaluations)
    if not steps:
        raise ValueError(f"{run.root}: nothing was evaluated yet; let the run go on")
    counts = [counts_at(run.evaluations, step) for step in steps]
    ks, resamples, seed = run.config.evaluation.ks, run.config.evaluation.resamples, run.config.seed
    passk = [
        {"step": step, **row}
        for step, now in zip(steps, counts, strict=True)
        for row in passk_rows(list(now.values()), ks, resamples, seed)
    ]
    return {
        "run": str(run.root),
        "task": run.config.task.name,
        "model": run.config.policy.model,
        "steps": max((row["step"] for row in run.log), default=0),
        "tokens": sum(row.get("tokens") or 0 for row in run.log),
        "seconds": _seconds(run.log),
        "dynamics": [
            _dynamics(run.log, before, step, passk) for before, step in zip([-1, *steps], steps, strict=False)
        ],
        "passk": passk,
        "curve": _curve(run, steps, counts, resamples, seed),
        "changes": changes(counts[0], counts[-1], ks, resamples, seed),
        "problems": _problems(counts[0], counts[-1]),
        "ceilings": _ceilings(counts, ks),
        "fits": [
            {"step": step, **asdict(fit_ceiling(list(now.values())))}
            for step, now in zip(steps, counts, strict=True)
            if any(n for n, _ in now.values())
        ],
        "probes": summary(trajectories(run.probes)),
        "probe_squeezing": squeezing_of_probes(run.probes, run.config.steering),
    }


def passk_rows(counts: Sequence[tuple[int, int]], ks: Sequence[int], resamples: int, seed: int) -> list[dict[str, Any]]:
    """k, mean, low, high, problems for every k; k without a problem of k judged completions is left out."""
    found = pass_at_ks(counts, ks, resamples, seed)
    return [{"k": k, **asdict(interval)} for k, interval in found.items() if interval is not None]


def changes(
    before: dict[str, tuple[int, int]], after: dict[str, tuple[int, int]], ks: Sequence[int], resamples: int, seed: int
) -> list[dict[str, Any]]:
    """Pass@k after less before over the problems that both have with k completions, paired, with intervals."""
    rows = []
    for k in ks:
        pairs = [(before[name], after[name]) for name in before if name in after]
        kept = np.array([[*b, *a] for b, a in pairs if min(b[0], a[0]) >= k], dtype=np.int64).reshape(-1, 4)
        if len(kept):
            was, now = pass_at_k(kept[:, 0], kept[:, 1], k), pass_at_k(kept[:, 2], kept[:, 3], k)
            columns = np.stack([was, now, now - was], axis=1)
            first, last, difference = mean_intervals(columns, resamples, seed)
            rows.append({"k": k, "before": first.mean, "after": last.mean, **asdict(difference)})
    return rows


def tables(result: dict[str, Any]) -> list[tuple[str, Rows]]:
    """What a person sees: titles and rows, without the empty tables."""
    dynamics = result["dynamics"]
    shown = [
        (
            "Pass@k, % [95% interval over problems]",
            [{n: v for n, v in row.items() if n not in BESIDE} for row in dynamics],
        ),
        (
            "Training, means since the evaluation before",
            [{n: v for n, v in r.items() if "@" not in n} for r in dynamics],
        ),
        ("From start to end, paired by problem", result["changes"]),
        ("Ceilings, and Pass@k at the end as a share of them", result["ceilings"]),
        ("Held-out problems solved at least once", [result["problems"]]),
        ("Probe set: what log-probability the initial policy's completions gained", result["probes"]),
    ]
    return [(title, readable(rows)) for title, rows in shown if rows]


def readable(rows: Rows) -> Rows:
    """Rows as a person reads them: percentages, intervals in one cell, short names of columns."""
    table = []
    for row in rows:
        cells: dict[str, Any] = {}
        for name, value in row.items():
            if name == "high":
                continue
            if name == "low":
                cells["interval"] = _range(value, row["high"], "mean" in row)
            elif name == "mean":
                cells["change"] = f"{100 * value:+.1f}"
            elif isinstance(value, Interval):
                cells[name] = f"{100 * value.mean:.1f} {_range(value.low, value.high, False)}"
            else:
                percent = name in PERCENT or name.startswith("Pass@")
                cells[SHORT.get(name, name)] = f"{value:.1%}" if percent and isinstance(value, float) else value
        table.append(cells)
    return table


def _range(low: float | None, high: float | None, signed: bool) -> str | None:
    if low is None or high is None:
        return None
    return f"[{100 * low:+.1f}, {100 * high:+.1f}]" if signed else f"[{100 * low:.0f}, {100 * high:.0f}]"


def _dynamics(log: Rows, before: int, step: int, passk: Rows) -> dict[str, Any]:
    row: dict[str, Any] = {"step": step}
    row |= {
        f"Pass@{p['k']}": Interval(p["mean"], p["low"], p["high"], p["problems"]) for p in passk if p["step"] == step
    }
    since = [line for line in log if before < line["step"] <= step]
    for name in BESIDE:
        values = [line[name] for line in since if line.get(name) is not None]
        row[name] = float(np.mean(values)) if values else None
    return row


def _curve(run: Run, steps: list[int], counts: list[dict[str, tuple[int, int]]], resamples: int, seed: int) -> Rows:
    """Pass@k at powers of two and at n, first and last evaluation."""
    most = run.config.evaluation.samples
    ks = sorted({1 << i for i in range(most.bit_length()) if 1 << i <= most} | {most} | set(run.config.evaluation.ks))
    ends = dict.fromkeys((0, len(steps) - 1))
    return [
        {"step": steps[i], **row} for i in ends for row in passk_rows(list(counts[i].values()), ks, resamples, seed)
    ]


def _problems(before: dict[str, tuple[int, int]], after: dict[str, tuple[int, int]]) -> dict[str, int]:
    solved_before = {name for name, (_, c) in before.items() if c}
    solved_after = {name for name, (_, c) in after.items() if c}
    return {
        "both": len(solved_before & solved_after),
        "gained": len(solved_after - solved_before),
        "lost": len(solved_before - solved_after),
        "neither": len((before.keys() | after.keys()) - solved_before - solved_after),
    }


def _ceilings(counts: list[dict[str, tuple[int, int]]], ks: Sequence[int]) -> Rows:
    """Each ceiling and, for every k, Pass@k at the end over it; the envelope has a ceiling for every k."""
    last = {row["k"]: row["mean"] for row in passk_rows(list(counts[-1].values()), ks, 1, 0)}
    if not last:
        return []
    union, fit, most = union_coverage(counts), fit_ceiling(list(pool_counts(counts).values())), max(last)
    limits: list[tuple[dict[str, Any], Callable[[int], float]]] = [
        ({"estimate": "union", "ceiling": union, "low": None, "high": None}, lambda _: union),
        (
            {"estimate": "fitted", "ceiling": fit.solvable, "low": fit.low, "high": fit.high},
            lambda _: fit.solvable,
        ),
        (
            {"estimate": f"envelope, k = {most}", "ceiling": envelope(counts, most), "low": None, "high": None},
            lambda k: envelope(counts, k),
        ),
    ]
    return [row | {f"Pass@{k}": _ratio(value, limit(k)) for k, value in last.items()} for row, limit in limits]


def _ratio(value: float, ceiling: float) -> float | None:
    return value / ceiling if ceiling else None


def _seconds(log: Rows) -> float:
    """Wall time of the steps, evaluations and checkpoints not counted."""
    return sum(
        row["tokens"] / row["tokens_per_second"] for row in log if row.get("tokens") and row.get("tokens_per_second")
    )
