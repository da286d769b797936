"""`serm clicks`: fit click models on a workspace's window into its registry, and compare them on held-out sessions."""

import hashlib
import json
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from functools import partial
from importlib.metadata import version as package_version
from pathlib import Path
from typing import Any

import polars as pl

from serm import clicks, registry
from serm.clicks import BASELINES, MODELS, ClickModel, Patterns
from serm.clicks.compare import Judged, best, compare
from serm.clicks.slices import sampled
from serm.mining.attraction import drawn
from serm.mining.traffic import believable
from serm.workspace import Workspace, WorkspaceError

SHELF = "click_models"
ALL = "all"
CONTENT = "model"  # a version's folder holds manifest.json and this


@dataclass(frozen=True)
class FittedClicks:
    """A click model in the workspace's registry."""

    version: str
    model: str
    rows: int
    sessions: int  # lists
    pairs: int
    held_out: dict[str, Any]  # its forecast of sessions that it had not seen when it was judged
    already: bool = False  # it was there; nothing was changed


@dataclass(frozen=True)
class ComparedClicks:
    """Click models side by side; `best` is the one that clicks.model=auto takes."""

    models: list[Judged]  # best first
    best: str
    sessions: int  # compared, of which `held_out` judge
    held_out: float
    window: list[str]  # from (exclusive), to


def fit_clicks(workspace: Workspace, model: str | None = None) -> list[FittedClicks]:
    """Fit one click model, or `all`, on the window's believable impressions, and keep it as an immutable version.

    Without `model` it is the one that `clicks.model` names; auto fits the best of a comparison. At most
    `clicks.sessions` sessions are used, drawn by seeded hash. The same window, data and settings fit nothing anew.

    Raises:
        WorkspaceError: there are no impressions.
        ValueError: there is no such model, or too few sessions to compare any.
    """
    wanted = workspace.config.clicks.model if model is None else model
    known = [*MODELS, *BASELINES]
    if wanted not in (*known, ALL, "auto"):
        raise ValueError(f"no click model {wanted!r}; known are {', '.join(known)}, auto and all")
    log, _, about = _window(workspace)
    settings, seed = workspace.config.clicks, workspace.config.seed
    few = sampled(log, settings.compared, seed).collect(engine="streaming")
    names = known if wanted == ALL else [best(compare(settings, few, seed, MODELS)) if wanted == "auto" else wanted]
    missing = [name for name in names if not registry.exists(workspace, _version(name, about), SHELF)]
    if missing:
        with workspace.run("fit_clicks", model=wanted) as run:
            judged = {one.model: one for one in compare(settings, few, seed, missing)}
            patterns = Patterns.of(sampled(log, settings.sessions, seed))
            for name in missing:
                fitted = clicks.fit(name, settings, patterns)
                manifest = about | {
                    "model": name, "rows": patterns.rows, "sessions": patterns.lists, "pairs": patterns.pairs.size,
                    "held_out": asdict(judged[name]),
                }  # fmt: skip
                registry.publish(workspace, _version(name, about), partial(_write, fitted), manifest, SHELF)
            run.result = {"versions": [_version(name, about) for name in missing]}
    return [_fitted(workspace, _version(name, about), name not in missing) for name in names]


def compare_clicks(workspace: Workspace) -> ComparedClicks:
    """Judge every click model on a seeded share of the window's sessions, each fitted on the rest.

    At most `clicks.compared` sessions are used; the best of the models, click-through rates left out, is named.

    Raises:
        WorkspaceError: there are no impressions.
        ValueError: there are too few sessions.
    """
    log, window, _ = _window(workspace)
    settings, seed = workspace.config.clicks, workspace.config.seed
    few = sampled(log, settings.compared, seed).collect(engine="streaming")
    judged = sorted(compare(settings, few, seed), key=lambda one: (one.conditional, one.model))
    return ComparedClicks(
        judged, best(judged), few["session"].n_unique(), settings.held_out, [moment.isoformat() for moment in window]
    )


def load_clicks(workspace: Workspace, version: str) -> ClickModel:
    """A click model from the workspace's registry.

    Raises:
        WorkspaceError: there is no such version.
    """
    return clicks.load(registry.folder(workspace, version, SHELF) / CONTENT)


def _window(workspace: Workspace) -> tuple[pl.LazyFrame, tuple[datetime, datetime], dict[str, Any]]:
    """The window's log as the click agent reads it, its bounds, and what a version is made from."""
    config, data = workspace.config, workspace.version("impressions")
    impressions = workspace.scan("impressions")
    newest = impressions.select(pl.col("ts").max()).collect(engine="streaming").item()
    if newest is None:
        raise WorkspaceError("no impressions to learn clicks from; add a log with: serm ingest, or: serm simulate")
    window = (newest - timedelta(days=config.window.days), newest)
    log = drawn(believable(impressions.filter(pl.col("ts") > window[0]), config.mining), config.mining.dwell)
    names = ("dwell", "bot_clicks", "bot_dwell", "bot_share")
    about = {
        "data_version": data,
        "window": [moment.isoformat() for moment in window],
        "settings": config.clicks.model_dump(exclude={"model"}),
        "believed": {name: getattr(config.mining, name) for name in names},
        "seed": config.seed,
        "packages": {name: package_version(name) for name in ("serm", "numpy", "polars")},
    }
    return log, window, about


def _version(name: str, about: dict[str, Any]) -> str:
    """A name that says what the model was made from: the same inputs, the same version."""
    return f"{name}-{hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:12]}"


def _write(model: ClickModel, folder: Path) -> None:
    model.save(folder / CONTENT)


def _fitted(workspace: Workspace, version: str, already: bool) -> FittedClicks:
    manifest = registry.read_manifest(workspace, version, SHELF)
    facts = {name: manifest[name] for name in ("model", "rows", "sessions", "pairs", "held_out")}
    return FittedClicks(version, **facts, already=already)
