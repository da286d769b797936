"""A short memory of right completions, so that a prompt's rarer solutions stay among its demonstrations."""

from collections.abc import Iterable, Sequence
from typing import Any

import torch

from sps.batch import Row
from sps.records import Completion, Rollout, Verdict

Memory = dict[str, list[dict[str, Any]]]  # by example, oldest first; plain values, so that a checkpoint can hold it


def remember(memory: Memory, rows: Iterable[Row], step: int, window: int) -> Memory:
    """The memory with this step's correct completions, without those `window` or more steps older."""
    grown = {name: [item for item in items if item["step"] > step - window] for name, items in memory.items()}
    for row in rows:
        if row.rollout is not None and row.rollout.verdict.correct:
            grown.setdefault(row.rollout.example.id, []).append(_plain(row, step))
    return {name: items for name, items in grown.items() if items}


def recall(memory: Memory, rows: Sequence[Row]) -> list[Row]:
    """Remembered completions of the prompts that these rows answer, in the same groups."""
    groups = {row.group: row for row in rows if row.rollout is not None}
    return [
        _row(item, row)
        for row in groups.values()
        if row.rollout is not None
        for item in memory.get(row.rollout.example.id, ())
    ]


def _plain(row: Row, step: int) -> dict[str, Any]:
    assert row.rollout is not None
    completion, verdict = row.rollout.completion, row.rollout.verdict
    return {
        "step": step,
        "tokens": list(completion.token_ids),
        "logprobs": list(completion.logprobs),
        "finished": completion.finished,
        "text": completion.text,
        "reward": verdict.reward,
        "key": verdict.key,
    }


def _row(item: dict[str, Any], current: Row) -> Row:
    assert current.rollout is not None
    completion = Completion(item["tokens"], item["logprobs"], item["finished"], item["text"])
    rollout = Rollout(
        current.rollout.example, current.prompt_ids, completion, Verdict(item["reward"], True, item["key"])
    )
    old = torch.tensor(item["logprobs"], dtype=torch.float32)  # of the policy that sampled it
    return Row(current.prompt_ids, item["tokens"], current.group, rollout, old_logprobs=old)
