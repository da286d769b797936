"""A run's folder: what a training run leaves, and the only place that knows the names in it.

config.yaml, versions.json; log.jsonl (a line per step), evaluations.jsonl (a line per step and problem), probes.jsonl,
samples.jsonl; checkpoints/; initial.json (the probe set and the rehearsal set, sampled once); failure/; final/;
report.html.
"""

import json
import os
import platform
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
import yaml

from sps.batch import Row
from sps.config import Config
from sps.logs import Log
from sps.passk import pass_at_ks
from sps.records import Completion, Example, Rollout, Tokens, Verdict

PACKAGES = ("serm", "torch", "transformers", "accelerate", "peft", "vllm", "math-verify", "numpy")
# Settings that a resumed run may change: they alter no step that was made.
FREE = {("trainer", "steps"), ("trainer", "checkpoint_every"), ("trainer", "keep_checkpoints"), ("log",), ("output",)}


@dataclass
class RunFolder:
    """The folder of one run, as its main process writes it; other processes write nothing but failures."""

    root: Path
    config: Config
    main: bool = True

    def __post_init__(self) -> None:
        self.root = Path(self.root)
        self.checkpoints = self.root / "checkpoints"
        self.final = self.root / "final"
        self._logs: dict[str, Log] = {}

    def begin(self, step: int) -> None:
        """Make the folder, or go back to where `step` ended: later lines are dropped, all for -1.

        Raises:
            ValueError: the folder holds a run with other settings.
        """
        if not self.main:
            return
        self.root.mkdir(parents=True, exist_ok=True)
        path = self.root / "config.yaml"
        if path.is_file():
            _demand_same(
                yaml.safe_load(path.read_text(encoding="utf-8")), self.config.model_dump(mode="json"), self.root
            )
        write_whole(path, yaml.safe_dump(self.config.model_dump(mode="json"), sort_keys=False))
        write_whole(self.root / "versions.json", json.dumps(versions(), indent=1))
        for name in ("log", "evaluations", "probes", "samples"):
            sinks = self.config.log if name == "log" else None
            self._logs[name] = Log(self.root / f"{name}.jsonl", sinks, self.root)
            self._logs[name].truncate(step)

    def log(self, line: dict[str, Any]) -> None:
        """A step's figures."""
        self._write("log", [line])

    def observed(self, step: int, evaluations: Sequence[dict[str, Any]], probes: Sequence[dict[str, Any]]) -> None:
        """An evaluation and the probe set's log-probabilities."""
        self._write("evaluations", evaluations)
        self._write("probes", probes)
        if self.main:
            counts = [(row["n"], row["c"]) for row in evaluations]
            found = pass_at_ks(counts, self.config.evaluation.ks, resamples=1, seed=0)
            self._logs["log"].track(step, {f"pass@{k}": value.mean for k, value in found.items() if value})

    def samples(self, step: int, groups: Sequence[Sequence[Rollout]]) -> None:
        """A few completions to read: the first ones of the step's first groups."""
        chosen = [group[0] for group in groups if group][: self.config.log.samples]
        self._write("samples", [{"step": step, **_plain(rollout)} for rollout in chosen])

    def failure(self, step: int, rows: Sequence[Row], reason: str, rank: int) -> Path:
        """Keep the batch that could not be learnt from, whole, to be looked at."""
        path = self.root / "failure" / f"step-{step:06d}-process-{rank}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        content = [
            {
                "advantage": row.advantage,
                "prompt_ids": list(row.prompt_ids),
                "completion_ids": list(row.completion_ids),
                "sampler_logprobs": row.sampler_logprobs.tolist(),
                "old_logprobs": None if row.old_logprobs is None else row.old_logprobs.tolist(),
                "rollout": None if row.rollout is None else _plain(row.rollout),
            }
            for row in rows
        ]
        write_whole(path, json.dumps({"step": step, "reason": reason, "rows": content}))
        return path

    def close(self) -> None:
        """Let go of files and services."""
        for log in self._logs.values():
            log.close()

    def _write(self, name: str, lines: Sequence[dict[str, Any]]) -> None:
        if self.main:
            self._logs[name].extend(lines)  # all of them or none: a full disk leaves no half of an evaluation


def save_initial(path: Path, probes: Sequence[Row], rehearsal: Sequence[Row]) -> None:
    """Keep what the initial policy was asked for, so that a resumed run need not ask another policy."""
    rows = {"probes": probes, "rehearsal": rehearsal}
    write_whole(path, json.dumps({name: [_row(row) for row in some] for name, some in rows.items()}))


def load_initial(path: Path) -> tuple[list[Row], list[Row]]:
    """The probe set and the rehearsal set."""
    content = json.loads(path.read_text(encoding="utf-8"))
    return [_from(item, False) for item in content["probes"]], [_from(item, True) for item in content["rehearsal"]]


def versions() -> dict[str, str]:
    """What the figures depend on besides settings: packages, Python, machine."""
    found = {
        "python": platform.python_version(),
        "machine": platform.platform(),
        "threads": str(torch.get_num_threads()),
    }
    if torch.cuda.is_available():
        found["gpu"] = torch.cuda.get_device_name()
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def write_whole(path: Path, text: str) -> None:
    """Write a file that is whole or absent."""
    scratch = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        scratch.write_text(text, encoding="utf-8")
        os.replace(scratch, path)
    finally:
        scratch.unlink(missing_ok=True)


def _demand_same(before: dict[str, Any], now: dict[str, Any], root: Path) -> None:
    for room, old in before.items():
        new = now[room]
        pairs = (
            [((room, key), old.get(key), new[key]) for key in new] if isinstance(new, dict) else [((room,), old, new)]
        )
        for place, was, wanted in pairs:
            free = place in FREE or place[:1] in FREE
            constant = now["optimiser"]["schedule"] == "constant"  # otherwise the number of steps shapes every one
            if was != wanted and (not free or (place == ("trainer", "steps") and not constant)):
                raise ValueError(
                    f"{root} holds a run with {'.'.join(place)} = {was!r}, not {wanted!r}; "
                    "go on with its own settings or choose another output"
                )


def _plain(rollout: Rollout) -> dict[str, Any]:
    prompt = rollout.example.prompt
    return {
        "problem": rollout.example.id,
        "prompt": prompt.text if isinstance(prompt, Tokens) else prompt,
        "completion": rollout.completion.text,
        "finished": rollout.completion.finished,
        "reward": rollout.verdict.reward,
        "correct": rollout.verdict.correct,
        "key": rollout.verdict.key,
    }


def _row(row: Row) -> dict[str, Any]:
    assert row.rollout is not None
    tokens = {"prompt_ids": list(row.prompt_ids), "completion_ids": list(row.completion_ids)}
    return tokens | {"group": row.group, "sample": row.sample, **_plain(row.rollout)}


def _from(item: dict[str, Any], rehearsed: bool) -> Row:
    completion = Completion(item["completion_ids"], [], item["finished"], item["completion"])
    verdict = Verdict(item["reward"], item["correct"], item["key"])
    rollout = Rollout(Example(item["problem"], item["prompt"]), item["prompt_ids"], completion, verdict)
    return Row(
        item["prompt_ids"], item["completion_ids"], item["group"], rollout, rehearsed=rehearsed, sample=item["sample"]
    )
