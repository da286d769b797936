"""Click models: what a result's place gave it taken out of its clicks. One file per model."""

from collections.abc import Callable
from pathlib import Path

import polars as pl

from serm.clicks import cascade, ctr, dbn, dcm, files, pbm, sdbn, ubm
from serm.clicks.chain import Chain
from serm.clicks.model import ClickModel
from serm.clicks.patterns import Patterns
from serm.clicks.perplexity import Perplexity, perplexity
from serm.config import ClickSettings

__all__ = ["BASELINES", "MODELS", "ClickModel", "Patterns", "Perplexity", "fit", "load", "perplexity"]

Fit = Callable[[ClickSettings, Patterns], ClickModel]

MODELS: dict[str, Fit] = {
    "pbm": pbm.fit, "cascade": cascade.fit, "dcm": dcm.fit, "dbn": dbn.fit, "sdbn": sdbn.fit, "ubm": ubm.fit,
}  # fmt: skip
BASELINES: dict[str, Fit] = {"ctr_global": ctr.fit_global, "ctr_rank": ctr.fit_rank, "ctr_pair": ctr.fit_pair}


def fit(name: str, settings: ClickSettings, log: pl.DataFrame | pl.LazyFrame | Patterns) -> ClickModel:
    """Fit the click model `name` to a log of [ts, session, query, doc_id, position, clicked].

    A list is one (session, query, ts); it need not be whole. Extra columns are ignored. The log is read slice by slice.

    Raises:
        ValueError: no model has that name, a column is absent or has nulls, a position is below 1, or no rows.
    """
    known = MODELS | BASELINES
    if name not in known:
        raise ValueError(f"no click model {name!r}; known are {', '.join(known)}")
    return known[name](settings, log if isinstance(log, Patterns) else Patterns.of(log))


def load(folder: Path) -> ClickModel:
    """Read a model that its `save` wrote.

    Raises:
        ValueError: there is none, or it is of an unknown kind.
    """
    model: ClickModel = files.load([Chain, pbm.PositionBased, ubm.UserBrowsing], folder)
    return model
