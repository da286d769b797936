"""Models, champions and verdicts, from the registry's manifests and the tables metrics, champions and runs."""

from typing import Any

import polars as pl

from serm import registry
from serm.evaluation.paired import Interval
from serm.evaluation.verdict import Comparison
from serm.records import EVALUATED
from serm.report.facts import Change, Gate, Level, Model
from serm.report.runs import results
from serm.workspace import Workspace


def gates(workspace: Workspace) -> dict[tuple[str, str], Gate]:
    """The last verdict on every (candidate, champion) that the gate compared."""
    return {
        (gate.candidate, gate.champion): gate
        for gate in map(_gate, results(workspace, "gate", ("candidate", "champion")))
    }


def models(workspace: Workspace, verdicts: dict[tuple[str, str], Gate]) -> list[Model]:
    """Every version with its levels, oldest first."""
    history = registry.history(workspace)
    champion = None if history.is_empty() else history["version"][-1]
    led = set(history["version"])
    levels = _levels(workspace)
    found = []
    for version in registry.versions(workspace):
        manifest = registry.read_manifest(workspace, version)
        role = "champion" if version == champion else "former champion" if version in led else "not promoted"
        own = {split: _from_gates(version, split, verdicts) for split in EVALUATED}
        own |= {split: levels[version, split] for split in EVALUATED if (version, split) in levels}
        found.append(
            Model(
                version, int(manifest["round"]), str(manifest["created"])[:16].replace("T", " "), manifest["parent"],
                manifest["pairs"], manifest["training"]["steps"], manifest["metrics"]["dev"], role,
                {split: level for split, level in own.items() if level is not None},
            )
        )  # fmt: skip
    return found


def changes(workspace: Workspace) -> list[Change]:
    """The champion's history, oldest first."""
    rows = registry.history(workspace).to_dicts()
    return [
        Change(row["version"], row["previous"], row["action"], row["reason"] or "", f"{row['ts']:%Y-%m-%d %H:%M}")
        for row in rows
    ]


def _gate(run: dict[str, Any]) -> Gate:
    told = run["result"]
    return Gate(
        run["candidate"], run["champion"], told["accepted"], told["measure"], list(told["reasons"]),
        _comparison(told["fresh"]), _comparison(told["anchor"]), f"{run['ts']:%Y-%m-%d %H:%M}",
    )  # fmt: skip


def _comparison(told: dict[str, Any] | None) -> Comparison | None:
    if told is None:
        return None
    return Comparison(told["champion"], told["candidate"], Interval(**told["difference"]), told["p_value"])


def _levels(workspace: Workspace) -> dict[tuple[str, str], Level]:
    """(model, split) -> the gate's measure on the newest judgments that the model was measured on."""
    measure = workspace.config.evaluation.gate_measure
    rows = (
        workspace.scan("metrics")
        .filter(pl.col("measure") == measure, pl.col("split").is_in(EVALUATED))
        .sort("judgments_version")
        .select("model", "split", "value", "low", "high", "queries", "judgments_version")
        .collect()
    )
    return {(row[0], row[1]): Level(*row[2:]) for row in rows.iter_rows()}


def _from_gates(version: str, split: str, verdicts: dict[tuple[str, str], Gate]) -> Level | None:
    """The mean that a verdict rests on, for a model that nobody evaluated by itself."""
    for gate in reversed(list(verdicts.values())):
        comparison = gate.fresh if split == "fresh" else gate.anchor
        if comparison is not None and version in (gate.candidate, gate.champion):
            value = comparison.candidate if version == gate.candidate else comparison.champion
            return Level(value, None, None, comparison.difference.queries, None)
    return None
