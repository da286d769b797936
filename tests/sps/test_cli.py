"""The command line as a person uses it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.sps.test_trainer import settings

ROOT = Path(__file__).resolve().parents[2]


def sps(*arguments: str, code: int = 0) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-m", "sps.cli", *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == code, done.stderr[-2000:]
    return done


@pytest.fixture
def given(model_folder: Path, tmp_path: Path) -> Path:
    path = tmp_path / "settings.yaml"
    path.write_text(yaml.safe_dump(settings(model_folder, tmp_path / "run")), encoding="utf-8")
    return path


@pytest.mark.slow
def test_train_eval_analyze_compare(given: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    trained = json.loads(sps("train", "-c", str(given), "--json").stdout)
    assert Path(trained["model"]).is_dir()
    assert Path(trained["report"]).is_file()
    assert trained["passk"][0].keys() == {"k", "before", "after"}

    last = trained["passk"][-1]["after"]["mean"]
    found = json.loads(sps("eval", str(run), "--json").stdout)
    kept = json.loads(sps("eval", str(run / "checkpoints" / "step-000006"), "--json").stdout)
    folder = json.loads(sps("eval", str(run / "final"), "-c", str(given), "--json").stdout)
    assert found["problems"] == kept["problems"] == folder["problems"]
    assert 0 <= last <= 1

    analysed = json.loads(sps("analyze", str(run), "--json").stdout)
    assert analysed["steps"] == 6
    page = tmp_path / "comparison.html"
    sps("train", "-c", str(given), "--set", "seed=1", "--set", f"output={tmp_path / 'other'}")
    sps("compare", str(run), str(tmp_path / "other"), "--page", str(page))
    assert "<html" in page.read_text(encoding="utf-8")[:500]
    assert sps("analyze", str(run)).stdout


def test_help_teaches() -> None:
    text = sps("--help").stdout
    assert "sps train" in text
    assert "tiny-arithmetic" in text
    for verb in ("train", "eval", "analyze", "compare"):
        assert sps(verb, "--help").stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("train", "-c", "nowhere.yaml"), "nowhere.yaml: no such configuration file"),
        (("train", "--set", "rollout.grup=3"), "rollout.grup: no such setting"),
        (("train", "--set", "rollout.group=1"), "nothing to be compared with"),
        (("train", "--set", "evaluation.samples=2"), "Pass@64 needs as many samples"),
        (("train", "--set", "objective.preset=best"), "no preset 'best'"),
        (("eval", "no/such/model"), "no/such/model"),
        (("analyze", "no/such/run"), "no/such/run"),
    ],
)
def test_a_mistake_is_one_sentence(arguments: tuple[str, ...], words: str) -> None:
    error = sps(*arguments, code=1).stderr
    assert words in error
    assert "Traceback" not in error
