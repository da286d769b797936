"""Keep the MSRD backtest's figures without its data, and make the tables of RESULTS.md from what is kept.

    python benchmarks/msrd.py keep WORKSPACE      each finished cell -> benchmarks/msrd/SEED-STRATEGY.json
    python benchmarks/msrd.py table               strategies and differences over all that is kept

A kept cell holds measures per query, the query named by a hash, and the facts of each round: no text of the
collection. So cells measured on several days and machines add up. `benchmarks/msrd/digest` names the settings and the
data that they share.
"""

import argparse
import hashlib
import json
from pathlib import Path
from typing import Any

from serm.evolution.compare import summarise

KEPT = Path(__file__).resolve().parent / "msrd"
MEASURES = ("nDCG@1", "nDCG@10")


def main() -> None:
    """Keep or show."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["keep", "table"])
    parser.add_argument("workspace", nargs="?", type=Path)
    given = parser.parse_args()
    if given.what == "keep":
        keep(given.workspace)
    else:
        table()


def keep(workspace: Path) -> None:
    """Write the workspace's finished cells; those of another digest are refused."""
    folders = sorted((workspace / "backtests").iterdir())
    if len(folders) != 1:
        raise SystemExit(f"{workspace} holds {len(folders)} backtests; expected one")
    KEPT.mkdir(exist_ok=True)
    digest = KEPT / "digest"
    if digest.exists() and digest.read_text().strip() != folders[0].name:
        raise SystemExit(
            f"kept cells are of {digest.read_text().strip()}, these of {folders[0].name}: other settings or data"
        )
    digest.write_text(folders[0].name + "\n", encoding="utf-8")
    for path in sorted(folders[0].glob("seed*-*.json")):
        cell = json.loads(path.read_text(encoding="utf-8"))
        cell["fresh"], cell["old"] = [_without_text(values) for values in cell["fresh"]], _without_text(cell["old"])
        (KEPT / path.name).write_text(json.dumps(cell) + "\n", encoding="utf-8")
        print(path.name)


def table() -> None:
    """Print what the kept cells say."""
    cells = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(KEPT.glob("seed*.json"))]
    result = summarise(cells, 2_000, 0)
    for name in ("table", "differences"):
        print(f"\n{name}")
        for row in result[name]:
            print("  ".join(f"{key}={_word(value)}" for key, value in row.items()))


def _without_text(values: dict[str, list[Any]]) -> dict[str, list[Any]]:
    names = [hashlib.sha256(query.encode()).hexdigest()[:12] for query in values["query"]]
    return {"query": names} | {measure: [round(value, 4) for value in values[measure]] for measure in MEASURES}


def _word(value: Any) -> str:
    return f"{value:.3f}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    main()
