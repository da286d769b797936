"""The command line as a person meets it: help, errors without a trace, exit codes, JSON."""

import json
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest


def run(*arguments: str, where: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "serm.cli", *arguments]
    return subprocess.run(command, cwd=where, capture_output=True, text=True, check=False)


def test_help_names_every_verb_and_loads_nothing_heavy(tmp_path: Path) -> None:
    done = run("--help", where=tmp_path)
    assert done.returncode == 0
    for verb in (
        "init", "status", "ingest", "simulate", "simulate-llm", "shift", "mine", "clicks", "annotate", "annotations",
        "attack", "review", "update", "evaluate", "compare", "gate", "promote", "rollback", "evolve", "backtest",
        "demo", "serve", "score", "distill", "export",
    ):  # fmt: skip
        assert f" {verb} " in done.stdout
    program = "import sys, serm.cli; print([m for m in ('torch', 'transformers', 'langgraph') if m in sys.modules])"
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert loaded.stdout.strip() == "[]"


def test_a_workspace_is_made_filled_and_described(tmp_path: Path) -> None:
    assert run("init", where=tmp_path).returncode == 0
    pl.DataFrame({"doc_id": ["1", "2"], "title": ["red hat", "blue hat"]}).write_csv(tmp_path / "docs.csv")
    done = run("ingest", "docs.csv", "--kind", "documents", "--json", where=tmp_path)
    assert json.loads(done.stdout)["added"] == 2
    assert json.loads(run("ingest", "docs.csv", "--kind", "documents", "--json", where=tmp_path).stdout)["added"] == 0
    status = json.loads(run("status", "--json", where=tmp_path).stdout)
    assert status["rows"]["documents"] == 2
    assert status["champion"] is None
    assert "red hat" not in run("status", where=tmp_path).stderr


def test_mistakes_end_in_one_sentence(tmp_path: Path) -> None:
    nowhere = run("status", where=tmp_path)
    assert nowhere.returncode == 1
    assert "serm init" in nowhere.stderr
    assert "Traceback" not in nowhere.stderr
    assert "Traceback" in run("status", "--debug", where=tmp_path).stderr
    assert run("status", "--nonsense", where=tmp_path).returncode == 2
    run("init", where=tmp_path)
    typo = run("status", "--set", "mining.budgt=3", where=tmp_path)
    assert typo.returncode == 1
    assert "mining.budgt" in typo.stderr


@pytest.mark.parametrize(
    ("verb", "hint"),
    [("mine", "impressions"), ("shift", "impressions"), ("annotate", "mine"), ("attack", "ingest"),
     ("update", "judgments"),
     ("evaluate", "champion"), ("evolve", "judgments"), ("rollback", "roll back"), ("backtest", "documents")],
)  # fmt: skip
def test_every_verb_says_what_an_empty_workspace_lacks(tmp_path: Path, verb: str, hint: str) -> None:
    run("init", where=tmp_path)
    done = run(verb, where=tmp_path)
    assert done.returncode == 1
    assert hint in done.stderr
    assert "Traceback" not in done.stderr


def test_verbs_are_plain_functions() -> None:
    import serm
    from serm import mining, verbs

    assert serm.mine is verbs.mine is mining.mine
    assert {name.replace("-", "_") for name in verbs.__all__} >= {"ingest", "simulate", "evolve", "backtest"}
    with pytest.raises(AttributeError, match="nothing_like_it"):
        _ = serm.nothing_like_it
