"""Where a training run stands, in one file that is written whole or not at all."""

import os
import pickle
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from sps import progress


def write(path: Path, state: Mapping[str, Any]) -> None:
    """Write plain values and tensors."""
    scratch = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    torch.save(dict(state), scratch)
    os.replace(scratch, path)


def read(path: Path, device: torch.device) -> dict[str, Any] | None:
    """What was written; None where there is no file, or, with a note, one that cannot be read."""
    if not path.exists():
        return None
    try:
        state: dict[str, Any] = torch.load(path, map_location=device, weights_only=True)
        return state
    except (RuntimeError, EOFError, OSError, ValueError, pickle.UnpicklingError) as error:
        first = str(error).strip().split("\n")[0]
        progress.note(f"{path} cannot be read ({first}); this training begins anew")
        return None


def restore(weights: Mapping[str, torch.Tensor], saved: Mapping[str, torch.Tensor]) -> None:
    """Copy saved values into weights of the same names."""
    with torch.no_grad():
        for name, weight in weights.items():
            weight.copy_(saved[name])
