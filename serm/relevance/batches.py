"""Cutting sequences of mixed lengths into padded batches."""

from collections.abc import Iterator, Sequence

CALL_COST = {"cpu": 64}  # tokens that take as long as one more call of a small network; ours, measured
ACCELERATOR_CALL_COST = 4_096


def call_cost(device: str) -> int:
    """How many tokens of padding one more call of the network is worth, on a kind of device."""
    return CALL_COST.get(device, ACCELERATOR_CALL_COST)


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
