"""Reading a run's folder: what a training run left, as plain rows.

log.jsonl          a line per step: names and meanings in metrics.py
evaluations.jsonl  a line per evaluated step and problem: step, problem, level, n judged completions, c correct, keys
                   (distinct keys among the correct), ended (share that ended by itself), missing (without a verdict)
probes.jsonl       a line per evaluated step and trajectory: step, problem, sample, correct, logprob (nats), length
                   (tokens)
samples.jsonl      completions to read: step, problem, prompt, completion, finished, reward, correct, key
"""

import json
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from sps.config import Config
from sps.configure import validate
from sps.logs import parse_lines

Rows = list[dict[str, Any]]
EVALUATION = {"step", "problem", "n", "c"}
PROBE = {"step", "problem", "sample", "correct", "logprob", "length"}


@dataclass(frozen=True)
class Run:
    """Everything that a run's folder says; `name` is the folder's."""

    root: Path
    name: str
    config: Config
    versions: dict[str, str]
    log: Rows
    evaluations: Rows
    probes: Rows
    samples: Rows


def read_run(root: Path) -> Run:
    """A run, finished or not.

    Raises:
        ValueError: this is no run's folder, or a file in it is not what the trainer writes.
    """
    versions = root / "versions.json"
    return Run(
        root=root,
        name=root.resolve().name,
        config=read_config(root),
        versions=json.loads(versions.read_text(encoding="utf-8")) if versions.is_file() else {},
        log=read_log(root),
        evaluations=read_lines(root / "evaluations.jsonl", EVALUATION),
        probes=read_probes(root),
        samples=read_samples(root),
    )


def read_config(run: Path) -> Config:
    """The settings that a run was made with.

    Raises:
        ValueError: this is no run's folder, or another version's.
    """
    path = run / "config.yaml"
    if not path.is_file():
        raise ValueError(f"{run}: no run lies there (config.yaml is missing); give the folder that sps train wrote")
    return validate(Config, yaml.safe_load(path.read_text(encoding="utf-8")), str(path))


def read_log(run: Path) -> Rows:
    """A row per step."""
    return read_lines(run / "log.jsonl", {"step"})


def read_evaluations(run: Path) -> Rows:
    """A row per evaluated step and problem.

    Raises:
        ValueError: nothing was evaluated yet.
    """
    rows = read_lines(run / "evaluations.jsonl", EVALUATION)
    if not rows:
        raise ValueError(f"{run}: nothing was evaluated yet; let the run go on")
    return rows


def read_probes(run: Path) -> Rows:
    """A row per evaluated step and trajectory of the probe set."""
    return read_lines(run / "probes.jsonl", PROBE)


def read_samples(run: Path) -> Rows:
    """Completions kept to be read."""
    return read_lines(run / "samples.jsonl", {"step", "prompt", "completion"})


def read_lines(path: Path, fields: Collection[str] = ()) -> Rows:
    """JSON lines with at least these fields; none where there is no file.

    A last line without its end is still being written, and is left out.

    Raises:
        ValueError: a whole line is not a JSON object, or lacks a field.
    """
    rows = [row for row, _ in parse_lines(path)] if path.is_file() else []
    for number, row in enumerate(rows, 1):
        if missing := sorted(set(fields) - set(row)):
            raise ValueError(f"{path}, line {number}: {', '.join(missing)} missing; it was not written by this trainer")
    return rows


def counts_at(rows: Rows, step: int) -> dict[str, tuple[int, int]]:
    """(n, c) of each problem at one evaluated step."""
    return {row["problem"]: (row["n"], row["c"]) for row in rows if row["step"] == step}


def steps_of(rows: Rows) -> list[int]:
    """The steps that rows speak of, in order."""
    return sorted({row["step"] for row in rows})
