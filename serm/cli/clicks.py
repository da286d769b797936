"""Commands about click models: serm clicks fit, serm clicks compare."""

from typing import Annotated

import typer

from serm.cli.options import HERE, Debug, Json, Sets, Where, open_workspace
from sps import display

clicks = typer.Typer(
    no_args_is_help=True,
    help="Click models: what a result's place gave it, taken out of its clicks.",
)
commands = typer.Typer()
commands.add_typer(clicks, name="clicks")

COLUMNS = ["model", "perplexity", "at 1", "at 5", "at 10", "conditional", "log lik."]


@clicks.command()
def fit(
    model: Annotated[
        str | None,
        typer.Argument(
            help="pbm, cascade, dcm, dbn, sdbn, ubm, ctr_global, ctr_rank, ctr_pair, auto (the best) or all; "
            "clicks.model if absent."
        ),
    ] = None,
    where: Where = HERE, sets: Sets = None, json: Json = False, debug: Debug = False,
) -> None:  # fmt: skip
    """Fit on the window's impressions and keep the model as an immutable version, in click_models/ of the workspace.

    Spam is left out and quick returns count as skips, as for the click agent. The manifest says what it was made from
    and how well it foretold held-out sessions. The same again fits nothing anew.
    """
    from serm.clicks.verbs import fit_clicks

    fitted = fit_clicks(open_workspace(where, sets), model)
    if json:
        display.show_json(fitted)
        return
    rows = [
        {
            "version": one.version, "sessions": one.sessions, "pairs": one.pairs, "there": one.already,
            "perplexity": one.held_out["perplexity"], "conditional": one.held_out["conditional"],
        }
        for one in fitted
    ]  # fmt: skip
    display.show_rows("fitted", rows, ["version", "sessions", "pairs", "perplexity", "conditional", "there"])


@clicks.command()
def compare(where: Where = HERE, sets: Sets = None, json: Json = False, debug: Debug = False) -> None:
    """Judge every model on held-out sessions and name the best, which clicks.model=auto takes.

    Perplexity asks before any click of a list is known (1 is a perfect forecast, 2 a coin's), conditional perplexity
    knows the clicks above a result; lower is better, and the conditional one decides. ctr_ rates are for comparison.
    """
    from serm.clicks.verbs import compare_clicks

    compared = compare_clicks(open_workspace(where, sets))
    if json:
        display.show_json(compared)
        return
    rows = [
        {
            "model": one.model, "perplexity": one.perplexity, "at 1": one.at_1, "at 5": one.at_5, "at 10": one.at_10,
            "conditional": one.conditional, "log lik.": one.log_likelihood,
        }
        for one in compared.models
    ]  # fmt: skip
    display.show_rows(f"best: {compared.best} (of {compared.sessions:,} sessions)", rows, COLUMNS)
