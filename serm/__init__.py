"""serm: a search-relevance model that keeps itself current.

    import serm
    workspace = serm.Workspace.open("workspace")
    serm.mine(workspace)

The verbs whose names are not also those of rooms can be had from here; all of them are in `serm.verbs`.
"""

from importlib import import_module
from typing import Any

_VERBS = (
    "annotate", "backtest", "compare_clicks", "evaluate", "evolve", "fit_clicks", "gate", "mine", "promote",
    "review_queue", "rollback", "update",
)  # fmt: skip

__all__ = ["Workspace", *_VERBS]


def __getattr__(name: str) -> Any:
    """Load a verb when it is first asked for: `import serm` alone stays light."""
    if name == "Workspace":
        return import_module("serm.workspace").Workspace
    if name in _VERBS:
        return getattr(import_module("serm.verbs"), name)
    raise AttributeError(f"module 'serm' has no attribute {name!r}")
