"""Reference pages of the documentation, from the settings' classes and the command lines themselves.

    python -m serm.reference FOLDER     # writes configuration.md and commands.md

Generated at every build of the site (docs/build.py), so that they cannot grow stale.
"""

import inspect
import json
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

import typer
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from typer.core import TyperArgument, TyperGroup, TyperOption

from serm.config import Config
from sps.config import Config as TrainerConfig

COMMON = ("workspace", "set", "json", "debug", "help")  # options said once, not with every command


def configuration() -> str:
    """Every setting of serm and sps: name, type, default, description; as Markdown."""
    parts = [
        "# Settings",
        "Written from the code's own classes at every build. `--set` names a setting as `room.key`; in a workspace's "
        "`config.yaml` a room is a key, its settings are indented below it; in the environment `SERM_ROOM__KEY` is it. "
        "The environment wins over the file, `--set` over both. An unknown name or a wrong value ends the command with "
        "a message that names it.",
        "## serm",
        *_rooms(Config),
        "## sps",
        "Given as `--set room.key=value` or in a YAML file with `--config`.",
        *_rooms(TrainerConfig),
    ]
    return "\n\n".join(parts) + "\n"


def commands() -> str:
    """Every command of serm and sps with its options, as Markdown."""
    from serm.cli import app
    from sps.cli import app as trainer

    parts = [
        "# Commands",
        "Written from the command line's own help at every build. Commands that work in a workspace take "
        "`--workspace`/`-w` (default `workspace`, or the variable `SERM_WORKSPACE`) and `--set room.key=value` "
        "(repeatable); those with a result `--json`; all of them `--debug`, which shows the stack trace of an error, "
        "and `--help`.",
        "Exit codes: 0 done; 1 an error that the message explains; 2 a wrong flag; 3 refused (by the gate), due "
        "(`serm shift --check`) or stopped (a test whose users are split wrongly); 130 interrupted.",
    ]
    for name, application in (("serm", app), ("sps", trainer)):
        parts.append(f"## {name}")
        parts += [_command(path, command) for path, command in leaves(application, name)]
    return "\n\n".join(parts) + "\n"


def leaves(application: typer.Typer, name: str) -> Iterator[tuple[str, Any]]:
    """Every command of an application that does something: its words, and Click's object for it."""
    yield from _leaves(typer.main.get_command(application), name)


def _leaves(command: Any, path: str) -> Iterator[tuple[str, Any]]:
    if not isinstance(command, TyperGroup):
        yield path, command
        return
    if command.invoke_without_command:
        yield path, command
    for name, child in command.commands.items():
        yield from _leaves(child, f"{path} {name}")


def _command(path: str, command: Any) -> str:
    rows = []
    for parameter in command.params:
        if parameter.name in COMMON or any(option.lstrip("-") in COMMON for option in parameter.opts):
            continue
        rows.append(_parameter(parameter))
    arguments = " ".join(
        _shown(p) if p.required else f"[{_shown(p)}]" for p in command.params if isinstance(p, TyperArgument)
    )
    parts = [f"### {path}", f"```\n{path} {arguments}".rstrip() + (" [OPTIONS]" if rows else "") + "\n```"]
    parts.append(_prose(inspect.cleandoc(command.help or "")))
    if rows:
        parts.append("| | | default |\n|---|---|---|\n" + "\n".join(rows))
    return "\n\n".join(parts)


def _parameter(parameter: TyperArgument | TyperOption) -> str:
    names = ", ".join(f"`{name}`" for name in (*parameter.opts, *parameter.secondary_opts) if name.startswith("-"))
    default = parameter.default
    told = "" if default is None or callable(default) or parameter.required else f"`{_plain(default)}`"
    return f"| {names or f'`{_shown(parameter)}`'} | {_cell(parameter.help or '')} | {told} |"


def _shown(parameter: TyperArgument | TyperOption) -> str:
    return (parameter.name or "").upper() + ("..." if parameter.nargs == -1 else "")


def _prose(text: str) -> str:
    """Help text as Markdown: paragraphs, with indented lines as code."""
    return "\n".join(f"    {line.strip()}" if line.startswith("  ") else line.replace("<", "&lt;") for line in
                     text.splitlines())  # fmt: skip


def _rooms(model: type[BaseModel]) -> list[str]:
    top = {name: field for name, field in model.model_fields.items() if _room(field.annotation) is None}
    parts = [_table("", top)] if top else []
    for name, field in model.model_fields.items():
        room = _room(field.annotation)
        if room is not None:
            parts += _room_parts(name, room)
    return parts


def _room_parts(path: str, room: type[BaseModel]) -> list[str]:
    parts = [f"### {path}", _cell(inspect.getdoc(room) or ""), _table(f"{path}.", room.model_fields)]
    for name, field in room.model_fields.items():
        inner = _room(field.annotation)
        if inner is not None:
            listed = get_origin(field.annotation) is list
            parts += _room_parts(f"{path}.{name}" + ("[]" if listed else ""), inner)
    return parts


def _table(prefix: str, fields: dict[str, FieldInfo]) -> str:
    rows = ["| setting | type | default | meaning |", "|---|---|---|---|"]
    for name, field in fields.items():
        default = "required" if field.is_required() else f"`{_plain(field.get_default(call_default_factory=True))}`"
        limits = ", ".join(f"{sign} {value:g}" for sign, value in _limits(field))
        kind = _kind(field.annotation) + (f", {limits}" if limits else "")
        rows.append(f"| `{prefix}{name}` | {_cell(kind)} | {_cell(default)} | {_cell(field.description or '')} |")
    return "\n".join(rows)


def _limits(field: FieldInfo) -> Iterator[tuple[str, float]]:
    from annotated_types import Ge, Gt, Le, Lt

    for limit in field.metadata:
        match limit:
            case Ge():
                yield "≥", limit.ge  # type: ignore[misc]
            case Gt():
                yield ">", limit.gt  # type: ignore[misc]
            case Le():
                yield "≤", limit.le  # type: ignore[misc]
            case Lt():
                yield "<", limit.lt  # type: ignore[misc]


def _room(annotation: Any) -> type[BaseModel] | None:
    """The class of settings behind an annotation: itself, a list's element, or an optional one's."""
    for candidate in (annotation, *get_args(annotation)):
        if isinstance(candidate, type) and issubclass(candidate, BaseModel):
            return candidate
    return None


def _kind(annotation: Any) -> str:
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return " or ".join(map(str, inner))
    if origin in (Union, types.UnionType):
        return " or ".join("none" if each is type(None) else _kind(each) for each in inner)
    if origin is list:
        kind = _kind(inner[0])
        return f"list of {kind}s" if kind.endswith("number") else f"list of {kind}"
    if origin is dict:
        return f"{_kind(inner[0])} → {_kind(inner[1])}"
    if origin is tuple:
        return f"{len(inner)} numbers"
    words = {"str": "text", "int": "whole number", "float": "number", "bool": "true or false", "Any": "anything"}
    name = annotation.__name__ if isinstance(annotation, type) else str(annotation).removeprefix("typing.")
    return words.get(name, name)


def _plain(value: Any) -> str:
    if isinstance(value, BaseModel):
        return "see below"
    if isinstance(value, list) and any(isinstance(each, BaseModel) for each in value):
        return f"{len(value)} of them"
    if isinstance(value, str):
        return value or '""'
    return "none" if value is None else json.dumps(value, ensure_ascii=False, default=str)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;").replace("\n", " ")


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "configuration.md").write_text(configuration(), encoding="utf-8")
    (folder / "commands.md").write_text(commands(), encoding="utf-8")
