"""Two models side by side on graded searches, from the answers that this machine keeps: no model is asked anew."""

from collections.abc import Sequence

import polars as pl

from serm.evaluation.changes import both, changes
from serm.evaluation.comparison import compare_slices
from serm.evaluation.judged import answers, find
from serm.evaluation.metrics import per_query
from serm.evaluation.reading import read_notes, read_slices
from serm.evaluation.verdict import decide
from serm.report.facts import Gate, Model, Reading, Round
from serm.workspace import Workspace, WorkspaceError

SPLITS = ("fresh", "anchor")
SHOWN = 5  # searches won, and lost


def overall(workspace: Workspace, first: str, champion: str) -> Gate | None:
    """What the gate would say of the champion against the first model; None where their answers are not here."""
    measure = workspace.config.evaluation.gate_measure
    try:
        measured = {
            model: {split: _per_query(pairs, measure) for split, pairs in _answers(workspace, model).items()}
            for model in (first, champion)
        }
    except WorkspaceError:
        return None
    found = decide(measured[first], measured[champion], workspace.config.evaluation, workspace.config.seed)
    return Gate(champion, first, found.accepted, found.measure, found.reasons, found.fresh, found.anchor, "")


def reading(workspace: Workspace, models: Sequence[Model], rounds: Sequence[Round]) -> Reading | None:
    """The champion beside the model that it replaced; the newest candidate beside the champion if none was replaced."""
    by_version = {model.version: model for model in models}
    judged = [round for round in rounds if round.gate and round.model in by_version]
    chosen = ([round for round in judged if round.state == "promoted"] or judged)[-1:]
    if not chosen or not chosen[0].gate:
        return None
    before, now = chosen[0].gate.champion, chosen[0].gate.candidate
    try:
        old, new = _answers(workspace, before), _answers(workspace, now)
    except WorkspaceError:
        return None
    config, measure = workspace.config, workspace.config.evaluation.gate_measure
    measured = {split: [_per_query(side[split], measure) for side in (old, new)] for split in SPLITS}
    found = {split: values for split, values in measured.items() if not values[0].is_empty()}
    slices, wins = {}, {}
    for split, (first, second) in found.items():
        slices[split], locales = read_slices(workspace, split, first["query"])
        pairs = both(old[split], new[split], read_notes(workspace, old[split]), config.labels.scale)
        wins[split] = changes(split, first, second, pairs, locales, measure, SHOWN)
    firsts, seconds = ({split: values[i] for split, values in found.items()} for i in (0, 1))
    compared = compare_slices(firsts, seconds, slices, [measure], config.evaluation, config.seed)
    return Reading(before, now, chosen[0].state == "promoted", chosen[0].number, compared, wins)


def _per_query(pairs: pl.DataFrame, measure: str) -> pl.DataFrame:
    return per_query(pairs.select("query", "doc_id", "grade"), pairs, [measure]).values


def _answers(workspace: Workspace, version: str) -> dict[str, pl.DataFrame]:
    """Split -> the version's answers on the judgments of now.

    Raises:
        UnaskedError: they are not on this machine.
        WorkspaceError: the version is gone.
    """
    subject = find(workspace, version)
    return {split: answers(workspace, subject, split, ask=False).pairs for split in SPLITS}
