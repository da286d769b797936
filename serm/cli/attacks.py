"""The command that attacks the annotators on purpose."""

from typing import Annotated

import typer

from serm.cli.options import HERE, Debug, Json, Sets, Where, open_workspace
from sps import display

commands = typer.Typer()


@commands.command()
def attack(
    pairs: Annotated[int, typer.Option(help="Irrelevant pairs to attack, and relevant ones for the harm.")] = 20,
    kinds: Annotated[str | None, typer.Option(help="Comma-separated; all if absent.")] = None,
    unguarded: Annotated[bool, typer.Option("--unguarded", help="Attack without the guard as well.")] = False,
    where: Where = HERE, sets: Sets = None, json: Json = False, debug: Debug = False,
) -> None:  # fmt: skip
    """Attack the annotators with documents that ask for a grade; shows who is fooled, before and after agreement.

    It takes pairs that people judged (split train) and pays for about pairs x paths x annotators calls an attack.
    """
    from serm.annotation.attack_verb import attack as verb

    report = verb(open_workspace(where, sets), pairs, kinds.split(",") if kinds else None, unguarded)
    if json:
        display.show_json(report)
        return
    columns = ["guard", "attack", "annotator", "pairs", "fooled", "fooled_low", "fooled_high", "shift", "flagged"]
    title = (
        f"attacks on {report.victims} irrelevant pairs (fooled: labelled relevant only when attacked; 95% intervals)"
    )
    display.show_rows(title, report.attacks, columns)
    columns = ["annotator", "pairs", "changed", "changed_low", "changed_high", "shift", "right_with", "right_without"]
    display.show_rows(f"the guard's harm to {report.clean} relevant pairs, unattacked", report.harm, columns)
    display.show_facts("", {"calls": report.calls, "prompts": report.prompts})
