"""What sets runs apart: settings that depart from a preset's defaults, and runs that differ in their seed alone."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sps.config import Config, ObjectiveSettings
from sps.runs import Run

# Settings that do not make another experiment.
FREE = (
    "seed", "output", "log.", "trainer.checkpoint_every", "trainer.keep_checkpoints", "trainer.micro_batch_tokens",
    "policy.tiny_cache", "evaluation.resamples", "evaluation.probes", "evaluation.probe_samples", "task.workers",
)  # fmt: skip
# What decides on held-out problems and how they are asked and judged; runs that differ here cannot be compared.
ASKED = {"train", "train_size", "workers"}  # of the task's settings, all but these


@dataclass(frozen=True)
class Arm:
    """Runs with the same settings but for the seed.

    Attributes:
        label: the settings that set it apart from the others, and the preset where there are several or nothing else;
            those of the objective without their room, and steering.coefficient as steering.
        family: the same without values; arms of one family differ in strength.
        strength: those values; empty for what is a preset and nothing else among these arms.
    """

    label: str
    family: str
    preset: str
    strength: tuple[Any, ...]
    runs: tuple[Run, ...]


def departures(config: Config) -> dict[str, Any]:
    """Settings, as room.key, that are not what the preset gives by default; the preset itself, where not the usual."""
    plain = Config().model_copy(update={"objective": ObjectiveSettings(preset=config.objective.preset)})
    usual = flat(plain.model_dump(mode="json")) | {"objective.preset": ObjectiveSettings().preset}
    return {name: value for name, value in flat(config.model_dump(mode="json")).items() if usual.get(name) != value}


def arms_of(runs: Sequence[Run]) -> list[Arm]:
    """Runs by what they try, in the order given.

    Raises:
        ValueError: two runs have the same settings and seed, or other held-out problems.
    """
    for run in runs[1:]:
        demand_comparable(runs[0], run)
    found = [_departing(run.config) for run in runs]
    shared = {
        name for name, value in found[0].items() if all(name in other and other[name] == value for other in found)
    }
    several = len({run.config.objective.preset for run in runs}) > 1
    groups: dict[str, list[Run]] = {}
    facts: dict[str, tuple[str, str, tuple[Any, ...]]] = {}
    for run, departing in zip(runs, found, strict=True):
        own = {_short(name): value for name, value in departing.items() if name not in shared}
        preset = own.pop("preset", run.config.objective.preset)
        named = [str(preset)] if several or not own else []
        label = ", ".join([*named, *(f"{name} {_said(value)}" for name, value in own.items())])
        facts[label] = (", ".join([*named, *own]), str(preset), tuple(own.values()))
        for other in groups.setdefault(label, []):
            if other.config.seed == run.config.seed:
                raise ValueError(f"{other.root} and {run.root} have the same settings and seed; give one of them")
        groups[label].append(run)
    return [Arm(label, *facts[label], tuple(members)) for label, members in groups.items()]


def demand_comparable(one: Run, other: Run) -> None:
    """Both were asked the same held-out problems.

    Raises:
        ValueError: they were not.
    """
    mine, theirs = one.config.task.model_dump(exclude=ASKED), other.config.task.model_dump(exclude=ASKED)
    for name, value in mine.items():
        if theirs[name] != value:
            raise ValueError(
                f"{one.root} has task.{name} {value!r} and {other.root} {theirs[name]!r}: their held-out problems are "
                "not the same, so that they cannot be compared"
            )


def flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings as room.key."""
    found: dict[str, Any] = {}
    for name, value in settings.items():
        nested = isinstance(value, Mapping) and value
        found |= flat(value, f"{prefix}{name}.") if nested else {f"{prefix}{name}": value}
    return found


def _departing(config: Config) -> dict[str, Any]:
    return {name: value for name, value in departures(config).items() if not name.startswith(FREE)}


def _short(name: str) -> str:
    return "steering" if name == "steering.coefficient" else name.removeprefix("objective.")


def _said(value: Any) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    return "none" if value is None else str(value)
