"""The Pass@1-Pass@64 frontier: every method with equal rollouts and updates on the tiny policy, over seeds.

    python benchmarks/frontier.py --out frontier --tasks countdown,arithmetic --seeds 0,1,2,3,4 --steps 300

Runs that are done are not run again and killed ones go on; two terminals may share the work by --seeds. At the end a
table: each method's final Pass@1 and Pass@64 as means over seeds, SPS against the line through each baseline's points
at SPS's own Pass@1, and against GRPO. Checkpoints count too: a baseline's line is that of all its evaluations.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np

from sps.configure import load
from sps.passk import pass_at_k
from sps.runs import read_evaluations
from sps.train import train

METHODS: dict[str, list[str]] = {
    "grpo": [],
    "dapo": ["objective.preset=dapo", "objective.soft_tokens=4"],
    **{f"entropy-{bonus}": [f"objective.entropy_bonus={bonus}"] for bonus in (0.003, 0.01, 0.03, 0.1)},
    "dph": ["objective.preset=dph", "objective.forward_kl=0.1"],
    "passk": ["objective.preset=passk", "objective.passk=8"],
    "weighted_reinforce": ["objective.preset=weighted_reinforce"],
    **{f"sps-{c}": [f"steering.coefficient={c}"] for c in (0.1, 0.3, 1.0, 3.0)},
    "sps-literal-0.3": ["steering.coefficient=0.3", "steering.direction=literal"],
}


def main() -> None:
    """Run what is missing and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", default="frontier", type=Path)
    parser.add_argument("--tasks", default="countdown,arithmetic")
    parser.add_argument("--seeds", default="0,1,2,3,4")
    parser.add_argument("--methods", default=",".join(METHODS))
    parser.add_argument("--steps", default=300, type=int)
    parser.add_argument("--only-table", action="store_true")
    given = parser.parse_args()
    tasks, seeds = given.tasks.split(","), [int(seed) for seed in given.seeds.split(",")]
    methods = given.methods.split(",")
    if not given.only_table:
        for seed in seeds:
            for task in tasks:
                for method in methods:
                    run(given.out / f"{task}-{method}-{seed}", task, method, seed, given.steps)
    for task in tasks:
        table(given.out, task, methods, seeds)


def run(folder: Path, task: str, method: str, seed: int, steps: int) -> None:
    """One run, unless it is done; the same policy starts all methods of a seed."""
    if (folder / "report.html").is_file():
        return
    print(folder, flush=True)
    base = ["steering.coefficient=0", f"seed={seed}", f"output={folder}", f"trainer.steps={steps}"]
    train(load(f"tiny-{task}", [*base, "evaluation.problems=200", *METHODS[method]]))


def table(out: Path, task: str, methods: list[str], seeds: list[int]) -> None:
    """Print means over seeds, and write the points as JSON."""
    points: dict[str, Any] = {}
    for method in methods:
        folders = [out / f"{task}-{method}-{seed}" for seed in seeds]
        done = [curve(folder) for folder in folders if (folder / "report.html").is_file()]
        if done:
            points[method] = {"seeds": len(done), "curve": np.mean(done, axis=0).tolist()}
    (out / f"{task}.json").write_text(json.dumps(points, indent=1), encoding="utf-8")
    print(f"\n{task}: percent after the last step, means over seeds")
    print(f"{'method':22} {'seeds':>5} {'Pass@1':>7} {'Pass@4':>7} {'Pass@16':>8} {'Pass@64':>8}")
    for method, found in points.items():
        last = 100 * np.array(found["curve"][-1])
        print(f"{method:22} {found['seeds']:5} {last[0]:7.1f} {last[1]:7.1f} {last[2]:8.1f} {last[3]:8.1f}")


def curve(folder: Path) -> list[list[float]]:
    """[Pass@1, @4, @16, @64] at every evaluation."""
    rows = read_evaluations(folder)
    return [
        [float(np.mean(pass_at_k([r["n"] for r in own], [r["c"] for r in own], k))) for k in (1, 4, 16, 64)]
        for step in sorted({row["step"] for row in rows})
        if (own := [row for row in rows if row["step"] == step])
    ]


if __name__ == "__main__":
    main()
