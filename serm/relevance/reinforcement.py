"""Reinforcement of a generative model by sps, with labels that were agreed on as the verifiable reward (ours).

What sps samples is what scoring reads: the prompt is the label-first prompt, token for token, and the action is the
label itself, with at most `rationale_tokens` of its rationale. A policy that reasons first and grades afterwards would
learn Pr(label | its own reasons), and nothing would hold the label-first probabilities, by which documents are ranked
and the gate measures, to it; so the probabilities that are reinforced are the very ones that are read.

The reward of a well-formed completion, which begins with a label of the scale written as scoring reads it, is
`format_weight` + (1 − format_weight) r. r is 1 for the agreed label and 0 for another (exact), or 1 minus the distance
between the two over the scale's width (ordinal). Everything else gets 0: a right label written another way would move
probability to where no score sees it.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl

from serm.config import RelevanceSettings, SpsSettings
from serm.relevance.examples import TrainingError
from serm.relevance.generative import LABEL, GenerativeModel
from sps.config import Config
from sps.configure import validate
from sps.records import Example, Tokens, Verdict
from sps.runs import read_log


@dataclass
class RelevanceTask:
    """A task of sps (`sps.records.Task`): prompts as tokens, and the agreed label as each example's answer."""

    train: Sequence[Example]
    test: Sequence[Example]
    scale: Sequence[int]
    reward: str
    format_weight: float
    name: str = field(default="relevance", init=False)

    def examples(self, split: str) -> Sequence[Example]:
        """Problems of "train" or "test"."""
        return self.train if split == "train" else self.test

    def judge(self, completion: str, example: Example) -> Verdict:
        """The reward of a completion, 0 to 1; correct if its label is the agreed one."""
        label = read_label(completion, self.scale)
        if label is None:
            return Verdict(0.0, False)
        right = label == example.answer
        earned = float(right)
        if self.reward == "ordinal":
            earned = 1 - abs(label - example.answer) / (self.scale[-1] - self.scale[0])
        return Verdict(self.format_weight + (1 - self.format_weight) * earned, right, str(label) if right else None)


def read_label(completion: str, scale: Sequence[int]) -> int | None:
    """The label that a completion begins with; None unless it is one of the scale, written as scoring reads it.

    Whatever follows is not looked at, unless it is another digit: labels of fewer tokens than the longest leave room.
    """
    found = re.match(r"(\s*)(-?\d{1,9})(?!\d)", completion)
    if found is None or found[0] != LABEL.format(grade=int(found[2])) or int(found[2]) not in scale:
        return None
    return int(found[2])


def reinforce(
    start: Path, settings: RelevanceSettings, scale: Sequence[int], pairs: pl.DataFrame, held_out: pl.DataFrame,
    sps: SpsSettings, seed: int, output: Path,
) -> tuple[GenerativeModel, dict[str, Any]]:  # fmt: skip
    """Train the model in folder `start` by sps on pairs [query, text, label]; returns (model, what sps reports).

    `output` is the folder of sps's run: a killed run goes on from its last checkpoint there and ends in the same
    weights. `held_out` has the same columns and is evaluated before and after.

    Raises:
        TrainingError: there are no pairs, or a label is off the scale.
        ValueError: update.sps.settings are none of sps's.
    """
    from sps.train import train

    for frame in (pairs, held_out):
        unknown = set(frame["label"].unique()) - set(scale)
        if frame.is_empty() or unknown:
            raise TrainingError(
                f"labels off the scale {list(scale)}: {sorted(unknown, key=str)}"
                if unknown
                else "no pairs to learn from"
            )
    model = GenerativeModel(start, settings, scale)
    task = RelevanceTask(
        _examples(model, pairs, "train"), _examples(model, held_out, "test"), scale, sps.reward, sps.format_weight
    )
    longest = max(len(label) for label in model.labels)
    config = sps_config(settings, sps, start, output, longest + sps.rationale_tokens, seed, str(model.network.dtype))
    del model
    report = train(config, task)
    rewards = [row["reward_mean"] for row in read_log(output)]
    passk = {
        str(row["k"]): {when: row[when].mean for when in ("before", "after") if row[when]} for row in report["passk"]
    }
    facts = {"steps": report["steps"], "passk": passk, "reward": rewards}
    return GenerativeModel(report["model"], settings, scale), facts


def sps_config(
    settings: RelevanceSettings, sps: SpsSettings, start: Path, output: Path, tokens: int, seed: int, dtype: str
) -> Config:
    """sps's settings for a model: serm's own choices, over which `sps.settings` are laid room by room."""
    rooms: dict[str, dict[str, Any]] = {
        "task": {"name": "relevance"},
        "policy": {
            "model": str(start), "precision": "bf16" if "bfloat16" in dtype else "fp32",
            "gradient_checkpointing": settings.gradient_checkpointing,
            "lora": None if settings.lora is None else settings.lora.model_dump(),
        },
        "rollout": {"prompts": sps.prompts, "group": sps.group, "max_tokens": tokens},
        "objective": {"normalise": "token"},
        "optimiser": {"learning_rate": sps.learning_rate, "warmup": min(10, sps.steps // 10)},
        "trainer": {
            "steps": sps.steps, "micro_batch_tokens": settings.micro_batch_tokens, "evaluate_every": sps.steps,
            "checkpoint_every": settings.checkpoint_every,
        },
        "evaluation": {"problems": sps.held_out, "samples": 4, "ks": [1, 4], "probes": 0},
    }  # fmt: skip
    for room, values in sps.settings.items():
        rooms[room] = rooms.get(room, {}) | values
    return validate(Config, {"seed": seed, "output": str(output), **rooms}, "update.sps.settings")


def _examples(model: GenerativeModel, pairs: pl.DataFrame, split: str) -> list[Example]:
    prompts = model.prompts(pairs["query"].to_list(), pairs["text"].to_list())
    return [
        Example(f"{split}-{number}", Tokens(prompt, str(model.tokenizer.decode(prompt))), label, str(label))
        for number, (prompt, label) in enumerate(zip(prompts, pairs["label"], strict=True))
    ]
