"""Fixtures that several test files share."""

from pathlib import Path

import pytest

from serm.workspace import Workspace

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture
def shared_data() -> Path:
    """The folder of real data beside the checkout; tests that need it are skipped where it is absent."""
    if not SHARED.is_dir():
        pytest.skip(f"real data not found at {SHARED}")
    return SHARED


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    """A fresh workspace with the default configuration."""
    return Workspace.create(tmp_path / "workspace", "seed: 0\n")
