"""Commands about models: train, measure, judge, change the champion."""

from dataclasses import asdict
from typing import Annotated, Literal

import typer

from serm.cli.options import HERE, Debug, Json, Sets, Where, open_workspace, show
from sps import display

commands = typer.Typer()


@commands.command()
def update(
    round: Annotated[int | None, typer.Option(help="Round number; the newest annotated if absent.")] = None,
    method: Annotated[
        Literal["sft", "sps", "sft+sps"],
        typer.Option(help="sft: supervised; sps: reinforced, with agreed labels as reward; or both in turn.")
    ] = "sft",
    where: Where = HERE, sets: Sets = None, json: Json = False, debug: Debug = False,
) -> None:  # fmt: skip
    """Train the next candidate (the first model, if there is none). A killed run goes on from its checkpoint.

    sps needs a generative model, and before the first annotated round learns from the human train split. Its settings
    are update.sps.*; the gate asks the same of every candidate.
    """
    from serm.evolution.update import update as verb

    show("candidate", verb(open_workspace(where, sets), round, method), json)


@commands.command()
def evaluate(
    version: Annotated[str | None, typer.Argument(help="Model version; the champion if absent.")] = None,
    where: Where = HERE, sets: Sets = None, json: Json = False, debug: Debug = False,
) -> None:  # fmt: skip
    """Measure a version on human judgments: overall, by slice, and how honest its probabilities are.

    Slices are locale, language family (evaluation.families), traffic (head, torso and tail of the impression log) and
    era (evaluation.era). Intervals are 95% over queries. The whole is in a page, and as JSON beside it.
    """
    from serm.evaluation import evaluate as verb
    from serm.evaluation.page import calibration_rows, slice_rows
    from serm.evaluation.results import written

    result = verb(open_workspace(where, sets), version)
    if json:
        display.show_json(written(asdict(result)))
        return
    display.show_rows(f"{result.model}: measures, %", slice_rows(result.slices))
    display.show_rows("calibration of label probabilities", calibration_rows(result.calibration))
    display.show_facts("", {"notes": result.notes, "page": result.page})


@commands.command()
def compare(
    a: Annotated[str, typer.Argument(help="A version, or a model's folder: what is compared with.")],
    b: Annotated[str, typer.Argument(help="Another one; differences are B minus A.")],
    where: Where = HERE, sets: Sets = None, json: Json = False, debug: Debug = False,
) -> None:  # fmt: skip
    """Compare two versions, or model folders, on human judgments. Changes nothing.

    Paired tests by slice, corrected for being many (evaluation.correction), and the queries and pairs that the second
    wins and loses by most, with what both models said and the annotators' rationales: here in short, whole in a page.

      serm compare r000-1a2b3c4d5e r001-6f7a8b9c0d
    """
    from serm.evaluation import compare as verb
    from serm.evaluation.compare_page import pair_rows, query_rows, test_rows
    from serm.evaluation.results import written

    result = verb(open_workspace(where, sets), a, b)
    if json:
        display.show_json(written(asdict(result)))
        return
    display.show_rows(f"{result.b} against {result.a}: measures, %", test_rows(result.tests))
    for split, found in result.changes.items():
        for title, queries in (("wins", found.query_wins), ("losses", found.query_losses)):
            if queries:
                display.show_rows(f"queries that B {title}, {split}", query_rows(queries))
        for title, pairs in (("wins", found.pair_wins), ("losses", found.pair_losses)):
            if pairs:
                display.show_rows(f"pairs that B {title}, {split}", pair_rows(pairs))
    display.show_facts("", {"notes": result.notes, "page": result.page})


@commands.command()
def gate(
    candidate: Annotated[str, typer.Argument(help="The version that wants to be champion.")],
    where: Where = HERE, sets: Sets = None, json: Json = False, debug: Debug = False,
) -> None:  # fmt: skip
    """Ask whether a version may replace the champion. Exit code 3 if it may not."""
    from serm import registry
    from serm.evaluation import gate as verb

    workspace = open_workspace(where, sets)
    verdict = verb(workspace, candidate, registry.champion(workspace))
    show("accepted" if verdict.accepted else "refused", verdict, json)
    if not verdict.accepted:
        raise typer.Exit(3)


@commands.command()
def promote(
    version: Annotated[str, typer.Argument(help="A version in the registry.")],
    reason: Annotated[str, typer.Option(help="Kept in the history.")] = "asked for",
    where: Where = HERE, sets: Sets = None, json: Json = False, debug: Debug = False,
) -> None:  # fmt: skip
    """Make a version the champion, in one atomic step and without asking the gate."""
    from serm import registry

    workspace = open_workspace(where, sets)
    registry.promote(workspace, version, reason)
    show("champion", {"champion": registry.champion(workspace)}, json)


@commands.command()
def rollback(
    reason: Annotated[str, typer.Option(help="Kept in the history.")] = "asked for",
    where: Where = HERE, sets: Sets = None, json: Json = False, debug: Debug = False,
) -> None:  # fmt: skip
    """Put the champion before this one back."""
    from serm import registry

    show("champion", {"champion": registry.rollback(open_workspace(where, sets), reason)}, json)
