"""Reading a run's folder: what a training run left, as plain rows."""

import json
from pathlib import Path
from typing import Any

import yaml

from sps.config import Config


def read_config(run: Path) -> Config:
    """The settings that a run was made with.

    Raises:
        ValueError: this is no run's folder.
    """
    path = run / "config.yaml"
    if not path.is_file():
        raise ValueError(f"{run}: no run lies there (config.yaml is missing); give the folder that sps train wrote")
    return Config.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))


def read_log(run: Path) -> list[dict[str, Any]]:
    """A row per step."""
    return read_lines(run / "log.jsonl")


def read_evaluations(run: Path) -> list[dict[str, Any]]:
    """A row per evaluated step and problem.

    Raises:
        ValueError: nothing was evaluated yet.
    """
    rows = read_lines(run / "evaluations.jsonl")
    if not rows:
        raise ValueError(f"{run}: nothing was evaluated yet; let the run go on")
    return rows


def read_probes(run: Path) -> list[dict[str, Any]]:
    """A row per evaluated step and trajectory of the probe set."""
    return read_lines(run / "probes.jsonl")


def read_samples(run: Path) -> list[dict[str, Any]]:
    """Completions kept to be read."""
    return read_lines(run / "samples.jsonl")


def read_lines(path: Path) -> list[dict[str, Any]]:
    """JSON lines; a last line without its newline is still being written and is left out. None where there is no file.

    Raises:
        ValueError: a whole line is not JSON.
    """
    if not path.is_file():
        return []
    rows = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(keepends=True), 1):
        if not line.endswith("\n"):
            break
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError as error:
            raise ValueError(f"{path}, line {number}: not JSON ({error.msg})") from error
    return rows
