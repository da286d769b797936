"""The Pass@1-Pass@64 frontier: every method with equal rollouts and updates on the tiny policy, over seeds.

    python benchmarks/frontier.py run frontier --tasks countdown,arithmetic --seeds 0,1,2,3,4
    python benchmarks/frontier.py keep frontier      # figures alone -> benchmarks/frontier.jsonl, where days add up
    python benchmarks/frontier.py table
    sps compare frontier/countdown-grpo-0 frontier/countdown-sps-0.3-0   # pictures

Runs that are done, or kept under the same settings, are not run again, and killed ones go on; two terminals may share
the work by --seeds. One tiny policy per task and seed starts all its methods. A method's line goes through its means
over seeds at every evaluation, so it holds what stopping early would give; an SPS point is compared with each line at
the same Pass@1.
"""

import argparse
import hashlib
import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sps.config import Config
from sps.configure import load
from sps.passk import pass_at_k
from sps.runs import read_evaluations
from sps.train import train

KEPT = Path(__file__).with_suffix(".jsonl")
KS = (1, 4, 16, 64)
METHODS: dict[str, list[str]] = {
    "grpo": [],
    # Equal rollouts: groups without spread are left out, as DAPO does, but not replaced by new ones.
    "dapo": ["objective.preset=dapo", "objective.soft_tokens=4", "objective.dynamic_rounds=1"],
    **{f"entropy-{bonus}": [f"objective.entropy_bonus={bonus}"] for bonus in (0.003, 0.01, 0.02, 0.03)},
    "dph": ["objective.preset=dph", "objective.forward_kl=0.1", "objective.forward_kl_solved=0.1"],
    "passk": ["objective.preset=passk", "objective.passk=4"],
    "weighted_reinforce": ["objective.preset=weighted_reinforce"],
    **{f"sps-{c}": [f"steering.coefficient={c}"] for c in (0.1, 0.3, 0.5, 1.0)},
}
COMMON = ["steering.coefficient=0", "trainer.steps=200", "trainer.evaluate_every=100", "trainer.checkpoint_every=100",
          "evaluation.problems=200", "evaluation.samples=64", "evaluation.ks=[1,4,16,64]"]  # fmt: skip
# Chosen on seed 100, which the tables leave out: few problems, each met eleven times (sums: 32), so that reinforcement
# squeezes as it does over many epochs, and steering sees the right rollouts of a problem's last visits too. A tiny
# policy that is pre-trained on so few sums would know nothing else: it is on all 2,000.
BY_TASK = {
    "countdown": ["task.train_size=300", "steering.replay=60"],
    "arithmetic": ["trainer.problems=100", "steering.replay=60"],
}


def main() -> None:
    """Run what is missing, keep what is done, or print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("verb", choices=["run", "keep", "table"])
    parser.add_argument("folder", nargs="?", default="frontier", type=Path)
    parser.add_argument("--tasks", default="countdown,arithmetic")
    parser.add_argument("--seeds", default="0,1,2,3,4")
    parser.add_argument("--methods", default=",".join(METHODS))
    given = parser.parse_args()
    tasks, seeds, methods = (getattr(given, name).split(",") for name in ("tasks", "seeds", "methods"))
    if given.verb == "run":
        for seed in seeds:
            for task in tasks:
                for method in methods:
                    run(given.folder, task, method, int(seed))
    elif given.verb == "keep":
        keep(given.folder)
    else:
        for task in tasks:
            table(task)


def settings(folder: Path, task: str, method: str, seed: int) -> Config:
    """Of one run."""
    return load(f"tiny-{task}", [*COMMON, f"seed={seed}", f"output={folder}", *BY_TASK[task], *METHODS[method]])


def digest(config: Config) -> str:
    """What names the settings of a run, wherever it lies."""
    left_out = {"output": True, "log": True, "policy": {"tiny_cache"}}
    values = config.model_dump(mode="json", exclude=left_out, exclude_none=True)  # a new option is not a new run
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:12]


def run(root: Path, task: str, method: str, seed: int) -> None:
    """One run, unless it is done or kept."""
    config = settings(root / f"{task}-{method}-{seed}", task, method, seed)
    known = {row["settings"] for row in kept()}
    if digest(config) not in known and not (Path(config.output) / "report.html").is_file():
        print(config.output, flush=True)
        train(config)


def keep(root: Path) -> None:
    """Add the finished runs' figures to what is kept."""
    found = {row["settings"]: row for row in kept()}
    for path in sorted(root.glob("*/report.html")):
        task, method, seed = path.parent.name.split("-", 1)[0], *path.parent.name.split("-", 1)[1].rsplit("-", 1)
        steps, values = curve(path.parent)
        versions = json.loads((path.parent / "versions.json").read_text(encoding="utf-8"))
        name = digest(settings(path.parent, task, method, int(seed)))
        found[name] = {
            "settings": name, "task": task, "method": method, "seed": int(seed), "steps": steps,
            "passk": np.round(values, 5).tolist(), "torch": versions["torch"], "machine": versions["machine"],
        }  # fmt: skip
    rows = sorted(found.values(), key=lambda row: (row["task"], row["method"], row["seed"]))
    KEPT.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    print(f"{len(rows)} runs in {KEPT}")


def kept() -> list[dict[str, Any]]:
    """Figures of earlier runs."""
    return [json.loads(line) for line in KEPT.read_text(encoding="utf-8").splitlines()] if KEPT.is_file() else []


def curve(folder: Path) -> tuple[list[int], NDArray[np.float64]]:
    """Steps evaluated, and Pass@1, 4, 16, 64 at each: (steps, 4)."""
    rows = read_evaluations(folder)
    steps = sorted({row["step"] for row in rows})
    own = [[row for row in rows if row["step"] == step] for step in steps]
    counts = [([row["n"] for row in part], [row["c"] for row in part]) for part in own]
    return steps, np.array([[float(np.mean(pass_at_k(n, c, k))) for k in KS] for n, c in counts])


def curves(task: str) -> dict[str, dict[int, NDArray[np.float64]]]:
    """Percent by method and seed, (evaluations, 4), of what is kept under the present settings."""
    found: dict[str, dict[int, NDArray[np.float64]]] = {}
    rows = {row["settings"]: row for row in kept() if row["task"] == task}
    for method in METHODS:
        for seed in range(100):
            row = rows.get(digest(settings(Path("."), task, method, seed))) if rows else None
            if row:
                found.setdefault(method, {})[seed] = 100 * np.array(row["passk"])
    return found


def table(task: str) -> None:
    """Final figures of every method; then every SPS point against every baseline's line, and against GRPO's end."""
    found = curves(task)
    if not found:
        print(f"{task}: nothing kept")
        return
    means = {method: np.mean(list(own.values()), axis=0) for method, own in found.items()}
    print(f"\n{task}: percent after the last step, means over seeds (before: {np.round(means['grpo'][0], 1)})\n")
    print("| method | seeds | Pass@1 | Pass@4 | Pass@16 | Pass@64 |\n|---|---|---|---|---|---|")
    for method, own in means.items():
        print(f"| {method} | {len(found[method])} | " + " | ".join(f"{value:.1f}" for value in own[-1]) + " |")
    baselines = [method for method in means if not method.startswith("sps")]
    entropies = [method for method in baselines if method.startswith("entropy")]
    lines: dict[str, list[str]] = {method: [method] for method in baselines}
    if len(entropies) > 1:
        lines["entropy, ends"] = ["grpo", *entropies]
    print(
        f"\n{task}: Pass@64 of SPS's end minus a baseline's at the same Pass@1 (its line; >: beyond its best Pass@1), "
        "over the seeds that both have\n"
    )
    points = [method for method in means if not method.startswith(tuple(baselines))]
    print("| line | " + " | ".join(points) + " |\n|" + "---|" * (len(points) + 1))
    for name, sources in lines.items():
        cells = []
        for point in points:
            seeds = set(found[point]).intersection(*(found[source] for source in sources))
            end = np.mean([found[point][seed][-1] for seed in seeds], axis=0)
            curves_ = [np.mean([found[source][seed] for seed in seeds], axis=0)[:, [0, 3]] for source in sources]
            line = curves_[0] if len(curves_) == 1 else np.array([curve_[-1] for curve_ in curves_])
            cells.append(f"{versus(end[0], end[3], line)} ({len(seeds)})")
        print(f"| {name} | " + " | ".join(cells) + " |")
    print(f"\n{task}: last Pass@1 and Pass@64 minus GRPO's, by seed\n")
    for method in means:
        shared = [seed for seed in found[method] if method != "grpo" and seed in found["grpo"]]
        if shared:
            gaps = np.array([found[method][seed][-1] - found["grpo"][seed][-1] for seed in shared])[:, [0, 3]]
            by_seed = ", ".join(f"{first:+.1f} / {last:+.1f}" for first, last in gaps)
            print(f"{method}: {gaps[:, 0].mean():+.1f} / {gaps[:, 1].mean():+.1f} ({by_seed})")
    print(f"\n{task}: at GRPO's last Pass@1, less one point, Pass@64 on SPS's own line minus GRPO's, by seed\n")
    for method in points:
        differences = [
            gained
            for seed, own in found[method].items()
            if seed in found["grpo"]
            and not np.isnan(gained := at(own[:, [0, 3]], found["grpo"][seed][-1, 0] - 1) - found["grpo"][seed][-1, 3])
        ]
        if differences:
            by_seed = ", ".join(f"{value:+.1f}" for value in differences)
            print(f"{method}: {np.mean(differences):+.1f} ({by_seed})")
        else:
            print(f"{method}: comes within a point of it in no seed")


def at(line: NDArray[np.float64], reached: float) -> float:
    """Pass@64 of a line (points, 2) where its Pass@1 first reaches this much; NaN where it never does."""
    for before, after in pairwise(line):
        if before[0] <= reached <= after[0]:
            share = (reached - before[0]) / (after[0] - before[0]) if after[0] > before[0] else 0.0
            return float(before[1] + share * (after[1] - before[1]))
    return float("nan")


def versus(first: float, last: float, line: NDArray[np.float64]) -> str:
    """How far a point lies above a line, in words."""
    other = at(line[np.argsort(line[:, 0])], first)
    if np.isnan(other):
        return ">" if first > line[:, 0].max() else "below its range"
    return f"{last - other:+.1f}"


if __name__ == "__main__":
    main()
