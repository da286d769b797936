"""Reading settings: YAML first, then the environment (SERM_ROOM__KEY), then --set room.key=value; the later wins."""

import os
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsError

from serm.config import Config


class Explicit(Config):
    """A configuration that is already merged: the environment has had its say."""

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Only what is given."""
        return (init_settings,)


def load(text: str = "", overrides: list[str] | None = None, source: str = "config.yaml") -> Config:
    """Read settings from YAML text, then the environment, then `room.key=value` overrides; the later wins.

    Each source is checked on its own, so that a message blames the one at fault.

    Raises:
        ValueError: the YAML does not parse, or a key or value is wrong; the message names source and field.
    """
    values = _parse(text, source)
    _validate(Explicit, values, source)
    _demand_known_rooms()
    config = _validate(Config, values, "environment")
    if not overrides:
        return config
    merged = config.model_dump()
    for override in overrides:
        _set(merged, override)
    return _validate(Explicit, merged, "--set")


def load_file(path: Path | str, overrides: list[str] | None = None) -> Config:
    """Read settings from a YAML file; see `load`."""
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"{path}: no such configuration file")
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not UTF-8 text ({error}); save it as UTF-8") from error
    return load(text, overrides, str(path))


def _parse(text: str, source: str) -> dict[str, Any]:
    """Rooms and their values; a room whose every line is commented out is absent, not null."""
    try:
        values = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(f"{source}: not YAML: {error}") from error
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise ValueError(f"{source}: expected rooms such as 'mining:', found {type(values).__name__}")
    for key in values:
        if key not in Config.model_fields:
            raise ValueError(f"{source}: no such setting {key!r}; known are {', '.join(Config.model_fields)}")
    return {key: value for key, value in values.items() if value is not None}


def _validate(settings: type[Config], values: dict[str, Any], source: str) -> Config:
    try:
        return settings(**values)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        if source == "environment":
            source = "SERM_" + "__".join(str(part) for part in first["loc"]).upper()
        what = "no such setting" if first["type"] == "extra_forbidden" else first["msg"]
        raise ValueError(f"{source}: {where}: {what} (got {str(first['input'])[:80]!r})") from error
    except SettingsError as error:
        raise ValueError(f"environment: {error}; lists and rooms are given as JSON") from error


def _demand_known_rooms() -> None:
    """A SERM_ROOM__KEY whose room is misspelt is an error: it would otherwise pass unseen."""
    for name in os.environ:
        room, nested, _ = name.upper().removeprefix("SERM_").lower().partition("__")
        if name.upper().startswith("SERM_") and nested and room not in Config.model_fields:
            raise ValueError(f"{name}: no such room {room!r}; known are {', '.join(Config.model_fields)}")


def _set(values: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals:
        raise ValueError(f"--set {override}: expected room.key=value")
    *rooms, last = key.strip().split(".")
    for room in rooms:
        if not isinstance(values.get(room), dict):
            raise ValueError(f"--set {override}: no such room {room!r}; known are {', '.join(Config.model_fields)}")
        values = values[room]
    try:
        values[last] = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(f"--set {override}: the value is not YAML: {error}") from error
