"""Click models: what a result's place gave it taken out of its clicks. One file per model."""

import polars as pl

from serm.clicks import dbn, pbm
from serm.clicks.model import ClickModel, Perplexity, perplexity
from serm.config import ClickSettings

__all__ = ["ClickModel", "Perplexity", "fit", "perplexity"]


def fit(settings: ClickSettings, impressions: pl.DataFrame) -> ClickModel:
    """Fit the click model that `settings.model` names to impressions (ts, session, query, doc_id, position, clicked).

    A list is one (session, query, ts); it need not be whole. Extra columns are ignored.

    Raises:
        ValueError: a column is absent or has nulls, a position is below 1, or there are no rows.
    """
    return pbm.fit(settings, impressions) if settings.model == "pbm" else dbn.fit(settings, impressions)
