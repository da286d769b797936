"""Figures to TensorBoard, Weights & Biases or trackio, when asked; log.jsonl has them all the same."""

import json
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import yaml

from sps.config import LogSettings

Send = Callable[[int, Mapping[str, float]], None]
Close = Callable[[], None]


def open_tracker(kind: str, folder: Path, settings: LogSettings, first: int) -> tuple[Send, Close]:
    """Functions that send a step's figures, and that end the run.

    A resumed run goes on where it was. TensorBoard forgets its steps from `first` on; the other two keep the steps that
    are run again, which on one process are the same figures.

    Raises:
        ValueError: the package is not installed.
    """
    openers = {"tensorboard": _tensorboard, "wandb": _wandb, "trackio": _trackio}
    try:
        return openers[kind](folder, settings, first)
    except ImportError as error:
        raise ValueError(f"log.to names {kind}, which is not installed: pip install 'serm[{kind}]'") from error


def flat(figures: Mapping[str, Any]) -> dict[str, float]:
    """The numbers among figures; those of a nested mapping as outer/inner. Step, None and text are left out."""
    numbers: dict[str, float] = {}
    for name, value in figures.items():
        if isinstance(value, Mapping):
            numbers |= {f"{name}/{inner}": number for inner, number in flat(value).items()}
        elif isinstance(value, (int, float)) and name != "step":
            numbers[name] = float(value)
    return numbers


def _tensorboard(folder: Path, settings: LogSettings, first: int) -> tuple[Send, Close]:
    from torch.utils.tensorboard import SummaryWriter

    writer = SummaryWriter(log_dir=str(folder / "tensorboard"), purge_step=first)

    def send(step: int, figures: Mapping[str, float]) -> None:
        for name, value in figures.items():
            writer.add_scalar(name, value, step)
        writer.flush()

    return send, writer.close


def _wandb(folder: Path, settings: LogSettings, first: int) -> tuple[Send, Close]:
    import wandb

    run = wandb.init(
        project=settings.project, name=folder.name, id=_identity(folder), resume="allow",
        dir=str(folder), config=_config(folder),
    )  # fmt: skip
    return lambda step, figures: run.log(dict(figures), step=step), run.finish


def _trackio(folder: Path, settings: LogSettings, first: int) -> tuple[Send, Close]:
    import trackio

    # It resumes by name, so the name must be of this folder alone.
    name = f"{folder.name}-{_identity(folder)}"
    run = trackio.init(project=settings.project, name=name, resume="allow", config=_config(folder))
    return lambda step, figures: run.log(dict(figures), step=step), run.finish


def _config(folder: Path) -> dict[str, Any]:
    path = folder / "config.yaml"
    return dict(yaml.safe_load(path.read_text(encoding="utf-8"))) if path.is_file() else {}


def _identity(folder: Path) -> str:
    """What trackers know this run by; drawn once and kept in tracking.json."""
    path = folder / "tracking.json"
    if not path.exists():
        path.write_text(json.dumps({"id": uuid.uuid4().hex[:12]}), encoding="utf-8")
    return str(json.loads(path.read_text(encoding="utf-8"))["id"])
