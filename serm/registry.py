"""The model registry: immutable version folders with a manifest, and an atomic champion pointer.

A version exists once its `manifest.json` does. On this machine a version is filled in a hidden staging folder and moved
into place in one step. In an object store, which cannot move folders, its files go under a name of their own and the
manifest, written last and only if there is none, names it: of two publishers one wins whole. The champion is the last
row of the `champions` table, so promotion and rollback are single atomic commits and their history is kept.
"""

import json
import re
import shutil
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl

from serm.workspace import Workspace, WorkspaceError

VERSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
MODELS = "models"  # the shelf of relevance models; click models stand on one of their own
STALE_SECONDS = 24 * 3600.0  # a hidden folder that old belongs to a process that was killed


def publish(
    workspace: Workspace,
    version: str,
    write: Callable[[Path], None],
    manifest: dict[str, Any],
    shelf: str = MODELS,
) -> dict[str, Any]:
    """Store a model as an immutable version: `write(folder)` fills it, the manifest makes it visible.

    Publishing a version that is already there changes nothing and returns its manifest. Hidden folders that killed
    processes left more than a day ago are removed on the way.

    Raises:
        WorkspaceError: the name is not made of letters, digits, dots, dashes and underscores, or a folder that is no
            whole version is in its place.
    """
    if not VERSION.fullmatch(version):
        raise WorkspaceError(
            f"model version {version!r}: use letters, digits, '.', '-' and '_', beginning with neither"
        )
    if exists(workspace, version, shelf):
        return read_manifest(workspace, version, shelf)
    _sweep(workspace, shelf)
    staging = workspace.local(shelf, f".staging-{uuid.uuid4().hex}")
    staging.mkdir(parents=True)
    try:
        write(staging)
        content = {"version": version, "created": datetime.now(UTC).isoformat()}
        if workspace.is_local:
            _write_manifest(staging, manifest | content)
            _move(staging, workspace.local(shelf, version))
        else:
            _upload(workspace, staging, version, manifest | content | {"content": uuid.uuid4().hex}, shelf)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return read_manifest(workspace, version, shelf)


def _write_manifest(folder: Path, manifest: dict[str, Any]) -> None:
    (folder / "manifest.json").write_text(json.dumps(manifest, indent=2, default=str), encoding="utf-8")


def _move(staging: Path, target: Path) -> None:
    """Put a whole version in its place; when another process was faster, its version stays."""
    try:
        staging.rename(target)
    except OSError as error:
        if not (target / "manifest.json").exists():
            raise WorkspaceError(f"{target}: in the way and not a whole model version; move it elsewhere") from error


def _upload(workspace: Workspace, staging: Path, version: str, manifest: dict[str, Any], shelf: str) -> None:
    filesystem = workspace.filesystem()
    for path in sorted(path for path in staging.rglob("*") if path.is_file()):
        inside = path.relative_to(staging).as_posix()
        filesystem.put_file(str(path), workspace.url(shelf, version, manifest["content"], inside))
    text = json.dumps(manifest, indent=2, default=str)
    try:
        filesystem.pipe_file(workspace.url(shelf, version, "manifest.json"), text.encode(), mode="create")
    except FileExistsError:
        filesystem.rm(workspace.url(shelf, version, manifest["content"]), recursive=True)


def _sweep(workspace: Workspace, shelf: str) -> None:
    """Remove what killed processes left behind while they filled or fetched a version."""
    models = workspace.local(shelf)
    for folder in (*models.glob(".staging-*"), *models.glob(".fetch-*")):
        with suppress(FileNotFoundError):  # another process sweeps too
            if folder.stat().st_mtime < time.time() - STALE_SECONDS:
                shutil.rmtree(folder, ignore_errors=True)


def exists(workspace: Workspace, version: str, shelf: str = MODELS) -> bool:
    """Whether a whole version is there."""
    return workspace.exists(shelf, version, "manifest.json")


def read_manifest(workspace: Workspace, version: str, shelf: str = MODELS) -> dict[str, Any]:
    """A version's manifest.

    Raises:
        WorkspaceError: there is no such version.
    """
    if not exists(workspace, version, shelf):
        known = ", ".join(versions(workspace, shelf)) or "none yet"
        raise WorkspaceError(f"no model version {version!r}; there are: {known}")
    manifest: dict[str, Any] = json.loads(workspace.read_text(shelf, version, "manifest.json"))
    return manifest


def versions(workspace: Workspace, shelf: str = MODELS) -> list[str]:
    """All whole versions, oldest first."""
    if not workspace.exists(shelf):
        return []
    names = [
        entry.rstrip("/").split("/")[-1] for entry in workspace.filesystem().ls(workspace.url(shelf), detail=False)
    ]
    whole = [name for name in names if not name.startswith(".") and exists(workspace, name, shelf)]
    return sorted(whole, key=lambda name: (str(read_manifest(workspace, name, shelf)["created"]), name))


def folder(workspace: Workspace, version: str, shelf: str = MODELS) -> Path:
    """A local folder that holds the version (fetched once if the workspace is remote).

    Raises:
        WorkspaceError: there is no such version.
    """
    manifest = read_manifest(workspace, version, shelf)
    target = workspace.local(shelf, version)
    if workspace.is_local or (target / "manifest.json").exists():
        return target
    _sweep(workspace, shelf)
    staging = target.with_name(f".fetch-{uuid.uuid4().hex}")
    staging.mkdir()
    try:
        _download(workspace, workspace.url(shelf, version, manifest["content"]), staging)
        _write_manifest(staging, manifest)
        _move(staging, target)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return target


def _download(workspace: Workspace, source: str, staging: Path) -> None:
    filesystem = workspace.filesystem()
    root = filesystem._strip_protocol(source)
    for name in filesystem.find(source):
        path = staging / name.removeprefix(root).lstrip("/")
        path.parent.mkdir(parents=True, exist_ok=True)
        filesystem.get_file(name, str(path))


def history(workspace: Workspace) -> pl.DataFrame:
    """Every promotion and rollback, oldest first."""
    return workspace.read("champions").sort("sequence")


def champion(workspace: Workspace) -> str:
    """The version in charge.

    Raises:
        WorkspaceError: none has been promoted yet.
    """
    rows = history(workspace)
    if rows.is_empty():
        raise WorkspaceError("no champion yet; train a first model with: serm update")
    return str(rows["version"][-1])


def promote(workspace: Workspace, version: str, reason: str) -> None:
    """Make a version the champion; promoting the champion again changes nothing.

    Raises:
        WorkspaceError: there is no such version, or another process changed the champion at this moment.
    """
    read_manifest(workspace, version)
    _point(workspace, version, "promote", reason)


def rollback(workspace: Workspace, reason: str = "asked for") -> str:
    """Put the champion before this one back in charge and return its version.

    Raises:
        WorkspaceError: there is no earlier champion, its model is gone, or another process was faster.
    """
    rows = history(workspace)
    trail: list[str] = []
    for version, action in rows.select("version", "action").iter_rows():
        trail = trail[:-1] if action == "rollback" else [*trail, version]
    if len(trail) < 2:
        raise WorkspaceError("no earlier champion to roll back to")
    read_manifest(workspace, trail[-2])
    _point(workspace, trail[-2], "rollback", reason)
    return trail[-2]


def _point(workspace: Workspace, version: str, action: str, reason: str) -> None:
    rows = history(workspace)
    previous = None if rows.is_empty() else str(rows["version"][-1])
    if previous == version:
        return
    row = {
        "version": version, "previous": previous, "action": action, "reason": reason,
        "ts": datetime.now(UTC), "sequence": rows.height,
    }  # fmt: skip
    if not workspace.append("champions", pl.DataFrame([row], infer_schema_length=None)):
        raise WorkspaceError("the champion was changed by another process at this moment; look at serm status")
