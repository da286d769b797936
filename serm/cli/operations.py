"""Commands that keep it running: deploy it, look what is wrong, go on after something died."""

from typing import Annotated

import typer

from serm.cli.options import HERE, Debug, Json, Where, open_workspace, show
from sps import progress

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
