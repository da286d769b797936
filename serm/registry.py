"""The model registry: immutable version folders with a manifest, and an atomic champion pointer.

A version exists once its `manifest.json` does, which is written last. The champion is the last row of the `champions`
table, so promotion and rollback are single atomic commits and their history is kept.
"""

import json
import shutil
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl

from serm.workspace import Workspace, WorkspaceError


def publish(
    workspace: Workspace, version: str, write: Callable[[Path], None], manifest: dict[str, Any]
) -> dict[str, Any]:
    """Store a model as an immutable version: `write(folder)` fills it, the manifest makes it visible.

    Publishing a version that is already there changes nothing and returns its manifest.
    """
    if exists(workspace, version):
        return read_manifest(workspace, version)
    staging = workspace.local("models", f".staging-{uuid.uuid4().hex}")
    staging.mkdir(parents=True)
    try:
        write(staging)
        content = {"version": version, "created": datetime.now(UTC).isoformat(), **manifest}
        (staging / "manifest.json").write_text(json.dumps(content, indent=2, default=str), encoding="utf-8")
        if workspace.is_local:
            target = workspace.local("models", version)
            try:
                staging.rename(target)
            except OSError:
                if not exists(workspace, version):
                    raise
        else:
            _upload(workspace, staging, version)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return read_manifest(workspace, version)


def _upload(workspace: Workspace, folder: Path, version: str) -> None:
    files = sorted(
        (path for path in folder.rglob("*") if path.is_file()), key=lambda path: path.name == "manifest.json"
    )
    for path in files:
        workspace.filesystem().put_file(
            str(path), workspace.url("models", version, path.relative_to(folder).as_posix())
        )


def exists(workspace: Workspace, version: str) -> bool:
    """Whether a whole version is there."""
    return workspace.exists("models", version, "manifest.json")


def read_manifest(workspace: Workspace, version: str) -> dict[str, Any]:
    """A version's manifest.

    Raises:
        WorkspaceError: there is no such version.
    """
    if not exists(workspace, version):
        known = ", ".join(versions(workspace)) or "none yet"
        raise WorkspaceError(f"no model version {version!r}; there are: {known}")
    manifest: dict[str, Any] = json.loads(workspace.read_text("models", version, "manifest.json"))
    return manifest


def versions(workspace: Workspace) -> list[str]:
    """All whole versions, oldest first."""
    if not workspace.exists("models"):
        return []
    names = [entry.rstrip("/").split("/")[-1] for entry in workspace.filesystem().ls(workspace.url("models"), detail=False)]
    whole = [name for name in names if not name.startswith(".") and exists(workspace, name)]
    return sorted(whole, key=lambda name: (str(read_manifest(workspace, name)["created"]), name))


def folder(workspace: Workspace, version: str) -> Path:
    """A local folder that holds the version (fetched once if the workspace is remote)."""
    read_manifest(workspace, version)
    target = workspace.local("models", version)
    if not workspace.is_local and not (target / "manifest.json").exists():
        staging = target.with_name(f".fetch-{uuid.uuid4().hex}")
        workspace.filesystem().get(workspace.url("models", version), str(staging), recursive=True)
        staging.rename(target)
    return target


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
    """Make a version the champion; promoting the champion again changes nothing."""
    read_manifest(workspace, version)
    _point(workspace, version, "promote", reason)


def rollback(workspace: Workspace, reason: str = "asked for") -> str:
    """Put the champion before this one back in charge and return its version.

    Raises:
        WorkspaceError: there is no earlier champion.
    """
    rows = history(workspace)
    trail: list[str] = []
    for version, action in rows.select("version", "action").iter_rows():
        trail = trail[:-1] if action == "rollback" else [*trail, version]
    if len(trail) < 2:
        raise WorkspaceError("no earlier champion to roll back to")
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
