"""The documentation says what the code does."""

from pathlib import Path

import pytest

from sps.config import PRESETS
from sps.configure import load, shipped
from sps.metrics import METRICS, glossary

DOCS = Path(__file__).resolve().parents[2] / "docs" / "sps.md"


def test_the_glossary_is_the_table_of_metrics() -> None:
    assert glossary() in DOCS.read_text(encoding="utf-8")


def test_every_preset_is_in_the_table_of_papers() -> None:
    text = DOCS.read_text(encoding="utf-8")
    assert [name for name in PRESETS if f"preset: {name}`" not in text] == []


@pytest.mark.parametrize("name", sorted(shipped()))
def test_shipped_configurations_are_valid(name: str) -> None:
    assert load(name).trainer.steps > 0


def test_a_step_logs_known_metrics_alone(model_folder: Path, tmp_path: Path) -> None:
    from sps.runs import read_log
    from tests.sps.test_trainer import run

    run(model_folder, tmp_path / "run", objective={"entropy_bonus": 0.01, "kl_coefficient": 0.1})
    logged = {name for row in read_log(tmp_path / "run") for name in row}
    assert logged - METRICS.keys() == set()
