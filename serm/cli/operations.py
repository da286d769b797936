"""Commands that keep it running: deploy it, look what is wrong, go on after something died."""

from typing import Annotated

import typer

from serm.cli.options import HERE, Debug, Json, Sets, Where, open_workspace, show
from sps import display, progress

commands = typer.Typer()


@commands.command()
def deploy(
    serve: Annotated[
        bool, typer.Option("--serve", help="Run the flows in this process until it is stopped, for one machine.")
    ] = False,
    name: Annotated[str, typer.Option(help="The deployments' name; one a workspace.")] = "main",
    where: Where = HERE, json: Json = False, debug: Debug = False,
) -> None:  # fmt: skip
    """Put the flows on a Prefect server: a round every two weeks, a look at the searches daily.

    It needs a server: `prefect server start`, and PREFECT_API_URL=http://127.0.0.1:4200/api. Without --serve, runs are
    left to workers, which the last line says how to start. The same again changes what is there.
    """
    from flows import deploy as deployments  # the command line alone looks up to the flows: they import serm

    root = open_workspace(where, None).root
    if serve:
        progress.note(f"runs of {root} begin here; stop it with Ctrl-C")
        deployments.serve(root, name)
    else:
        show("deployed", deployments.deploy(root, name), json)


@commands.command()
def resume(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what is done and what is left.")] = False,
    where: Where = HERE, sets: Sets = None, json: Json = False, debug: Debug = False,
) -> None:  # fmt: skip
    """Go on with a round that died, from its last finished step; what is done is not done or paid for again."""
    from serm.operations.resume import resume as verb
    from serm.operations.resume import steps_of, unfinished

    workspace = open_workspace(where, sets)
    left = unfinished(workspace)
    if left is not None and not json:  # before the work, which may take hours
        display.show_rows(f"round {left}", [vars(step) for step in steps_of(workspace, left)])
    result = verb(workspace, dry_run)
    if json:
        display.show_json(result)
    elif result.summary is not None:
        display.show_facts(f"round {result.round} is finished", display.plain(result.summary))
    elif left is None:
        progress.note("no round is unfinished; serm evolve begins the next one")


@commands.command()
def doctor(where: Where = HERE, sets: Sets = None, json: Json = False, debug: Debug = False) -> None:
    """Look at everything a round will need and say what to do about what is amiss. Exit code 1 if something fails."""
    from serm.operations.doctor import doctor as verb

    checks = verb(open_workspace(where, sets))
    if json:
        display.show_json(checks)
    else:
        display.show_rows("doctor", [vars(check) for check in checks])
    if any(check.level == "fail" for check in checks):
        raise typer.Exit(1)
