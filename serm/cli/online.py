"""Commands that read online tests: serm abtest, serm abtest plan, serm interleave."""

import math
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from serm.cli.options import HERE, Debug, Json, Sets, Where, open_workspace, pair
from sps import display


class _ReadsByDefault(TyperGroup):
    """`serm abtest LOG` is `serm abtest read LOG`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if args[:1] != ["--help"] and (not args or args[0] not in self.commands):
            args = ["read", *args]
        return super().parse_args(ctx, args)


commands = typer.Typer()
tests = typer.Typer(
    cls=_ReadsByDefault,
    help="Did the new model help users? An A/B test from a log, and how long one must run.\n\n"
    "serm abtest LOG reads a test (the same as serm abtest read LOG); serm abtest plan LOG plans one.",
)
commands.add_typer(tests, name="abtest")
Logs = Annotated[
    list[str] | None,
    typer.Argument(help="CSV, NDJSON or Parquet files or globs; the workspace's impressions if absent."),
]
Columns = Annotated[list[str] | None, typer.Option("--column", help="ours=theirs, for other column names. Repeatable.")]


@tests.command()
def read(
    log: Logs = None, column: Columns = None,
    where: Where = HERE, sets: Sets = None, json: Json = False, debug: Debug = False,
) -> None:  # fmt: skip
    """Compare the variants of a log; look as often as you like. A page is written to the workspace.

    The log needs a moment (ts), a user or a session, and a variant; query, clicked, dwell and negative make metrics
    possible. Intervals "at any look" hold however often you peek; those of "one planned look" only on the day that was
    planned. online.primary is the metric that decides, online.control the variant to compare with:

      serm abtest log.csv --column user=visitor --column variant=arm --set online.primary=reformulation

    Exit code 3: the variants did not get the users that they should have, and nothing was compared.
    """
    from serm.online.page import rows
    from serm.online.verb import abtest

    found = abtest(open_workspace(where, sets), log or [], dict(pair(item) for item in column or []))
    if json:
        display.show_json(found.to_dict())
    else:
        split = found.experiment.users.split
        if found.experiment.effects:
            hidden = ("control", "p")  # the page and --json have them
            shown = [{k: v for k, v in row.items() if k not in hidden} for row in rows(found.experiment)]
            display.show_rows(f"change to {found.experiment.control} (* decides)", shown)
        facts = {
            found.experiment.users.unit + "s": split.units,
            "split": f"p {split.p_value:.2g} (chi-square, against the intended shares)",
            "notes": found.verdict.notes,
            "page": found.page,
        }
        display.show_facts(found.verdict.headline, facts)
    if found.experiment.mismatch:
        raise typer.Exit(3)


@tests.command()
def plan(
    log: Logs = None, column: Columns = None,
    where: Where = HERE, sets: Sets = None, json: Json = False, debug: Debug = False,
) -> None:  # fmt: skip
    """How many users and days a test of two equal halves needs, from a log of traffic without or with a test.

    online.effect is the relative change worth finding (0.01 = 1%), online.power the chance to find it. Before the test
    starts, write the number of users that this names into online.tightest_units.
    """
    from serm.online.verb import plan_abtest

    found = plan_abtest(open_workspace(where, sets), log or [], dict(pair(item) for item in column or []))
    if json:
        display.show_json(found.to_dict())
        return
    from serm.online.page import value

    needs = [
        {
            "metric": need.metric.replace("_", " ") + (" *" if need.primary else ""),
            "value": value(need.value, need.metric),
            "looking daily": _days(need.days_peeking), "one look": _days(need.days), "users": need.users_peeking,
            "finds": f"{need.finds:.1%}",
        }
        for need in found.needs
    ]  # fmt: skip
    title = f"days to see a change of {100 * found.effect:g}% with {found.power:.0%} power; what {found.days} days find"
    display.show_rows(title, needs)
    facts = {"users": found.users, "new users a day": round(found.users_a_day), "left out": found.left_out}
    if found.tightest_units is not None:
        facts["before the test"] = f"--set online.tightest_units={found.tightest_units}, and leave it"
    display.show_facts(found.headline, facts)


def _days(days: float | None) -> str:
    return "> ten years" if days is None else f"{math.ceil(days):,}"


@commands.command()
def interleave(
    log: Annotated[list[str], typer.Argument(help="CSV, NDJSON or Parquet files or globs with a column team.")],
    column: Columns = None,
    where: Where = HERE, sets: Sets = None, json: Json = False, debug: Debug = False,
) -> None:  # fmt: skip
    """Which of two interleaved rankings do users prefer? From a log that says which team gave each result.

    Lists are drafted by serm.online.assign(first, second, key): the same key gets the same list again. Clicks credit
    the team that gave the result; the test is by user or session and holds at every look.
    """
    from serm.online.verb import interleave as verb

    found = verb(open_workspace(where, sets), log, dict(pair(item) for item in column or []))
    if json:
        display.show_json(found)
        return
    display.show_facts(
        found.headline,
        {
            f"wins of {found.first}": found.wins_first, f"wins of {found.second}": found.wins_second,
            "ties": found.ties, "users or sessions": found.units,
            f"preference for {found.first}": f"{found.delta:+.3f} (of 0.5 at most)",
            "at any look": None if found.safe_low is None else f"[{found.safe_low:+.3f}, {found.safe_high:+.3f}]",
            "one planned look": f"[{found.low:+.3f}, {found.high:+.3f}], sign test p {found.p:.2g}",
        },
    )  # fmt: skip
