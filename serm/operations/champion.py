"""Whether the model in charge loads and gives usable scores."""

import numpy as np

from serm import registry
from serm.workspace import Workspace, WorkspaceError

PAIR = ("a search", "a document")


def ask_champion(workspace: Workspace) -> str:
    """Load the champion and let it score a pair; returns its version.

    Raises:
        WorkspaceError: there is no champion, or its probabilities are not finite or do not add up to one.
    """
    from serm.relevance import load

    version = registry.champion(workspace)
    model = load(registry.folder(workspace, version), workspace.config.relevance, workspace.config.labels.scale)
    said = model.probabilities([PAIR[0]], [PAIR[1]])
    if not (np.isfinite(said).all() and abs(float(said.sum()) - 1) < 1e-2):
        raise WorkspaceError(f"champion {version}: probabilities {said.tolist()} are no distribution; serm rollback")
    return version
