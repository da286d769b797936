"""The page of a backtest: its figures against the cells, and which rounds were measured."""

import json
from datetime import date
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from serm.cli import app
from serm.report import gather_backtest, report_backtest
from serm.report.backtest import difference
from serm.report.draw_backtest import answers, backtest_page, headline
from serm.workspace import WorkspaceError

MSRD = Path(__file__).resolve().parents[2] / "benchmarks" / "msrd"
GAIN = {"static": 0.0, "random": 0.05, "serm": 0.2, "click": 0.1}
QUERIES = 80


def cells(folder: Path, every_round: bool) -> dict[tuple[str, int], list[np.ndarray]]:
    """Two seeds of four strategies over three rounds; returns nDCG@10 per query after every measured round."""
    folder.mkdir()
    values = {}
    for seed in (0, 1):
        base = np.random.default_rng(seed).random(QUERIES) * 0.5
        for name, gain in GAIN.items():
            noise = np.random.default_rng(seed + 7).normal(0, 0.02, QUERIES)
            rounds = [] if name == "static" else [1, 2, 3]
            after = [base + gain * number / 3 + noise for number in rounds] or [base]
            fresh = after if every_round else after[-1:]
            facts = [{"round": n, "mined": 10, "kept": 8, "calls": 20, "precision": 0.4, "random_precision": 0.2,
                      "label_accuracy": 0.75} for n in rounds]  # fmt: skip
            told = {"query": [f"<b>q{i}" for i in range(QUERIES)]}
            cell = {
                "seed": seed, "strategy": name, "rounds": facts,
                "fresh": [told | {m: v.tolist() for m in ("nDCG@1", "nDCG@10")} for v in fresh],
                "old": told | {m: base.tolist() for m in ("nDCG@1", "nDCG@10")},
            }  # fmt: skip
            (folder / f"seed{seed}-{name}.json").write_text(json.dumps(cell))
            values[name, seed] = fresh
    return values


@pytest.mark.parametrize("every_round", [True, False])
def test_intervals_by_round_are_those_of_the_cells(tmp_path: Path, every_round: bool) -> None:
    values = cells(tmp_path / "cells", every_round)
    found = gather_backtest(tmp_path / "cells", resamples=200)
    assert found.measured == ([1, 2, 3] if every_round else [3])
    for name in GAIN:
        means = [np.mean([a.mean(), b.mean()]) for a, b in zip(values[name, 0], values[name, 1], strict=True)]
        assert [point.mean for point in found.by_round[name]["nDCG@10"]] == pytest.approx(means)
        for point in found.by_round[name]["nDCG@10"]:
            assert point.low < point.mean < point.high
    gap = difference(found, "fresh", "nDCG@10", "random")
    assert gap is not None
    assert gap.mean == pytest.approx(0.15, abs=1e-6)
    assert headline(found) == "Mined pairs teach more than random ones"
    assert [told.short for _, told in answers(found)] == ["Yes", "Yes", "Not beyond chance"]
    html = backtest_page(found, date(2026, 2, 20))
    assert ("Round 1" in html) == every_round
    assert "Only the last round" in html or every_round


def test_a_folder_without_cells_or_with_several_backtests_is_named(tmp_path: Path) -> None:
    with pytest.raises(WorkspaceError, match="no finished cells"):
        gather_backtest(tmp_path)
    for name in ("one", "two"):
        cells(tmp_path / name, False)
    with pytest.raises(WorkspaceError, match="holds 2 backtests"):
        gather_backtest(tmp_path)
    done = CliRunner().invoke(app, ["report", "--backtest", str(tmp_path / "one")])
    assert done.exit_code == 0, done.output
    assert (tmp_path / "one" / "report.html").exists()


def test_the_kept_msrd_cells_make_a_page(tmp_path: Path) -> None:
    found = report_backtest(MSRD, tmp_path / "msrd.html")
    cell = {name: [json.loads(path.read_text()) for path in sorted(MSRD.glob(f"seed*-{name}.json"))]
            for name in ("serm", "static")}  # fmt: skip
    gain = np.mean([np.mean(c["fresh"][-1]["nDCG@10"]) for c in cell["serm"]]) - np.mean(
        [np.mean(c["fresh"][-1]["nDCG@10"]) for c in cell["static"]]
    )
    assert f"{100 * gain:+.1f} points" in found.answers["Does evolving help?"]
    assert len(Path(found.path).read_bytes()) < 1_000_000
