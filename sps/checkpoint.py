"""Checkpoints that are whole or absent, from which a run goes on bit for bit (in one process)."""

import os
import pickle
import shutil
import uuid
from pathlib import Path
from typing import Any

import torch
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_state_dict,
    set_state_dict,
)

from sps.processes import Processes

NAME = "step-{:06d}"


def save(
    folder: Path,
    step: int,
    module: torch.nn.Module,
    optimiser: torch.optim.Optimizer,
    state: dict[str, Any],
    processes: Processes,
    keep: int,
) -> Path:
    """Write `folder`/step-N: weights and optimiser, the trainer's state of every process, random numbers' state.

    It is written beside and renamed when whole; older ones beyond `keep` go after that, not before.

    Raises:
        OSError: the disk is full or not writable; the earlier checkpoints are as they were.
    """
    weights, moments = get_state_dict(module, optimiser, options=_whole())
    states = processes.gather([state | {"random": torch.get_rng_state()}])
    target = folder / NAME.format(step)
    if processes.main:
        folder.mkdir(parents=True, exist_ok=True)
        scratch = folder / f".{target.name}.{uuid.uuid4().hex}"
        try:
            scratch.mkdir()
            torch.save({"weights": weights, "moments": moments, "states": states}, scratch / "state.pt")
            _flush(scratch / "state.pt")
            if not target.exists():
                scratch.rename(target)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
        for old in checkpoints(folder)[:-keep]:
            shutil.rmtree(old)
    processes.wait()
    return target


def restore(
    path: Path, module: torch.nn.Module, optimiser: torch.optim.Optimizer, processes: Processes
) -> dict[str, Any]:
    """Put weights, optimiser and random numbers back, and return this process's state.

    Raises:
        ValueError: it cannot be read, or another number of processes wrote it.
    """
    try:
        saved = torch.load(path / "state.pt", map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, ValueError, pickle.UnpicklingError) as error:
        raise ValueError(
            f"{path} cannot be read ({str(error).strip().splitlines()[0] if str(error).strip() else 'empty'}); remove "
            "this folder, and the run goes on from the checkpoint before it, or from the start"
        ) from error
    states = saved["states"]
    if len(states) != processes.world:
        raise ValueError(
            f"{path}: written by {len(states)} processes, resumed by {processes.world}; start as many, "
            "or train on from final/ in a new run"
        )
    set_state_dict(
        module, optimiser, model_state_dict=saved["weights"], optim_state_dict=saved["moments"], options=_whole()
    )
    state = dict(states[processes.rank])
    torch.set_rng_state(state.pop("random"))
    return state


def whole_weights(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Every weight, gathered where they are sharded; all processes must call it."""
    options = StateDictOptions(full_state_dict=True, cpu_offload=True)
    return dict(get_model_state_dict(module, options=options))  # type: ignore[arg-type]


def weights(path: Path) -> dict[str, torch.Tensor]:
    """The weights of a checkpoint alone, by name."""
    loaded: dict[str, torch.Tensor] = torch.load(path / "state.pt", map_location="cpu", weights_only=True, mmap=True)[
        "weights"
    ]
    return loaded


def checkpoints(folder: Path) -> list[Path]:
    """Whole checkpoints in a folder, oldest first."""
    return sorted(path for path in folder.glob("step-*") if (path / "state.pt").is_file())


def latest(folder: Path) -> Path | None:
    """The newest whole checkpoint."""
    found = checkpoints(folder)
    return found[-1] if found else None


def _whole() -> StateDictOptions:
    return StateDictOptions(full_state_dict=True, cpu_offload=True, ignore_frozen_params=True)


def _flush(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())
