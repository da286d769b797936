"""Reading settings: YAML first, then the environment (SERM_ROOM__KEY), then --set room.key=value; the later wins."""

import os
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsError

from serm.config import Config
from sps.configure import complaint, parse, read, set_value, validate


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
    values = parse(text, source, Config)
    validate(Explicit, values, source)
    _demand_known_rooms()
    config = _with_environment(values)
    if not overrides:
        return config
    merged = config.model_dump()
    for override in overrides:
        set_value(merged, override, Config)
    return validate(Explicit, merged, "--set")


def load_file(path: Path | str, overrides: list[str] | None = None) -> Config:
    """Read settings from a YAML file; see `load`."""
    return load(read(path), overrides, str(path))


def _with_environment(values: dict[str, Any]) -> Config:
    try:
        return Config(**values)
    except ValidationError as error:
        name = "SERM_" + "__".join(str(part) for part in error.errors()[0]["loc"]).upper()
        raise ValueError(complaint(error, name)) from error
    except SettingsError as error:
        raise ValueError(f"environment: {error}; lists and rooms are given as JSON") from error


def _demand_known_rooms() -> None:
    """A SERM_ROOM__KEY whose room is misspelt is an error: it would otherwise pass unseen."""
    for name in os.environ:
        room, nested, _ = name.upper().removeprefix("SERM_").lower().partition("__")
        if name.upper().startswith("SERM_") and nested and room not in Config.model_fields:
            raise ValueError(f"{name}: no such room {room!r}; known are {', '.join(Config.model_fields)}")
