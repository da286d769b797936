"""Reward functions that a user might write, good and bad."""

import time
from typing import Any


def short(completion: str, example: Any) -> float:
    """Shorter is better."""
    return 1.0 / (1 + len(completion))


def raises(completion: str, example: Any) -> float:
    """A mistake."""
    raise KeyError("answer")


def nothing(completion: str, example: Any) -> None:
    """A forgotten return."""


def nan(completion: str, example: Any) -> float:
    """Not a number."""
    return float("nan")


def hangs(completion: str, example: Any) -> float:
    """Never comes back in time."""
    time.sleep(3)
    return 1.0


async def later(completion: str, example: Any) -> float:
    """Asks someone, and waits."""
    import asyncio

    await asyncio.sleep(0.01)
    return float(completion == example.answer["gold"])


def key(completion: str, example: Any) -> str:
    """A canonical form."""
    return completion + "!"
