"""Reading settings from YAML and from --set room.key=value; a wrong key or value is one sentence that says where."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from sps.config import Config

Settings = TypeVar("Settings", bound=BaseModel)


def load(path: Path | str | None = None, overrides: Sequence[str] = ()) -> Config:
    """Settings from a YAML file (all defaults without one), then `room.key=value` overrides; the later wins.

    `path` may be the name of a configuration that comes with sps, such as tiny-arithmetic.

    Raises:
        ValueError: the file is missing or does not parse, or a key or value is wrong.
    """
    source = str(path) if path else "settings"
    values = parse(read(shipped().get(source, path)), source, Config) if path else {}
    validate(Config, values, source)  # so that a message blames the one at fault
    for override in overrides:
        set_value(values, override, Config)
    return validate(Config, values, "--set" if overrides else source)


def shipped() -> dict[str, Path]:
    """Configurations that come with sps, by name: in the installed package, or in a checkout's configs/sps."""
    here = Path(__file__).resolve().parent
    folders = (here / "configs", here.parent / "configs" / "sps")
    return {path.stem: path for folder in folders for path in sorted(folder.glob("*.yaml"))}


def read(path: Path | str) -> str:
    """The text of a settings file."""
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"{path}: no such configuration file")
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not UTF-8 text ({error}); save it as UTF-8") from error


def parse(text: str, source: str, model: type[BaseModel]) -> dict[str, Any]:
    """Rooms and their values; a room whose every line is commented out is absent, not null."""
    try:
        values = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(f"{source}: not YAML: {error}") from error
    if values is None:
        return {}
    known = ", ".join(model.model_fields)
    if not isinstance(values, dict):
        raise ValueError(f"{source}: expected rooms ({known}), found {type(values).__name__}")
    for key in values:
        if key not in model.model_fields:
            raise ValueError(f"{source}: no such setting {key!r}; known are {known}")
    return {key: value for key, value in values.items() if value is not None}


def validate(model: type[Settings], values: dict[str, Any], source: str) -> Settings:
    """Settings from values; the first wrong one is named with its place and what was given."""
    try:
        return model(**values)
    except ValidationError as error:
        raise ValueError(complaint(error, source)) from error


def complaint(error: ValidationError, source: str) -> str:
    """One sentence: where, what is wrong, what was given."""
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"])
    what = "no such setting" if first["type"] == "extra_forbidden" else first["msg"].removeprefix("Value error, ")
    return f"{source}: {where}: {what} (got {str(first['input'])[:80]!r})"


def set_value(values: dict[str, Any], override: str, model: type[BaseModel]) -> None:
    """Put `room.key=value` into nested values; the value is read as YAML.

    Raises:
        ValueError: it has no equals sign, names an unknown room, or its value is not YAML.
    """
    key, equals, text = override.partition("=")
    if not equals:
        raise ValueError(f"--set {override}: expected room.key=value")
    first, *rest = key.strip().split(".")
    if first not in model.model_fields:
        kind, known = "room" if rest else "setting", ", ".join(model.model_fields)
        raise ValueError(f"--set {override}: no such {kind} {first!r}; known are {known}")
    *rooms, last = [first, *rest]
    for room in rooms:
        if not isinstance(values.setdefault(room, {}), dict):
            raise ValueError(f"--set {override}: no such room {room!r}: it is a value")
        values = values[room]
    try:
        values[last] = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(f"--set {override}: the value is not YAML: {error}") from error
