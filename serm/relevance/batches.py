"""Cutting sequences of mixed lengths into padded batches."""

from collections.abc import Iterator, Sequence

import torch

CPU_TOKENS = 2_048  # of a batch: on a CPU larger ones leave its caches and gain nothing; ours, measured
CPU_CALL_COST = 64  # tokens of padding that take as long as one more call of a small network; ours, measured
ACCELERATOR_CALL_COST = 4_096


def batch_tokens(setting: int, device: torch.device) -> int:
    """Most tokens of a batch on a device, at most `setting`."""
    return min(setting, CPU_TOKENS) if device.type == "cpu" else setting


def call_cost(device: torch.device) -> int:
    """How many tokens of padding one more call of the network is worth on a device."""
    return CPU_CALL_COST if device.type == "cpu" else ACCELERATOR_CALL_COST


def cut(lengths: Sequence[int], tokens: int, cost: int, beside: int = 0) -> Iterator[list[int]]:
    """Row numbers, long rows first, in batches of little padding.

    A batch times its longest row (and `beside` tokens more a row) is at most `tokens`, but for a longer row, which is
    alone. It also ends before its padding passes `cost` tokens, where another call is cheaper.
    """
    batch: list[int] = []
    padding = 0
    for row in sorted(range(len(lengths)), key=lambda row: (-lengths[row], row)):
        if batch:
            longest = lengths[batch[0]]
            padding += longest - lengths[row]
            if padding > cost or (longest + beside) * (len(batch) + 1) > tokens:
                yield batch
                batch, padding = [], 0
        batch.append(row)
    if batch:
        yield batch
