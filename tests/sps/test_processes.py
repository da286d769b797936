"""Two processes: the same gradient as one, under DDP and FSDP, however unevenly the rows are shared out."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

WORKER = """
import sys, torch
from sps.batch import steer
from sps.config import Config
from sps.objectives.clusters import make_clusters
from sps.processes import Processes
from sps.update import adamw, backward, score, totals
from sps.policy import Policy
from tests.sps.conftest import character_tokenizer, random_llama, random_rows

sharding, wrong, out = sys.argv[1], sys.argv[2] == "wrong", sys.argv[3]
policy = Policy(random_llama(), character_tokenizer(), head_chunk=16)
config = Config.model_validate({"trainer": {"micro_batch_tokens": 40}, "steering": {"coefficient": 0.5},
                                "objective": {"normalise": "token", "entropy_bonus": 0.05}})
processes = Processes(sharding, False, policy)
module, optimiser = processes.prepare(policy, adamw(policy, config))
rows = random_rows(3, 4)
# Process 0 has one group, process 1 two: other numbers of tokens, rows and micro-batches.
mine = rows if processes.world == 1 else [row for row in rows if (row.group == 0) == (processes.rank == 0)]
for row, values in zip(mine, score(module, mine, config, processes), strict=True):
    row.log_prob = float(values.double().sum())
coefficients, _ = steer(mine, config.steering, make_clusters(config.steering))
total = totals(mine, [], mine, config, processes)
if wrong:  # each process normalises by its own tokens
    own = sum(len(row.completion_ids) for row in mine)
    total = type(total)(own * processes.world, own * processes.world, 1.0, total.steering)
backward(module, mine, set(mine), coefficients, total, config, processes)
norm = processes.clip(module, 1e9)
found = {n.removeprefix("module."): (p.grad.full_tensor() if hasattr(p.grad, "full_tensor") else p.grad)
         for n, p in module.named_parameters() if p.grad is not None}
if processes.main:
    torch.save({"gradient": found, "norm": norm}, out)
processes.wait()
"""


def gradient(folder: Path, processes: int, sharding: str = "ddp", wrong: str = "") -> dict:
    script, out = folder / "worker.py", folder / f"{processes}-{sharding}-{wrong}.pt"
    script.write_text(WORKER, encoding="utf-8")
    command = [
        sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}",
        str(script), sharding, wrong or "right", str(out),
    ]  # fmt: skip
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run(
        command, cwd=root, capture_output=True, text=True, timeout=240, check=False,
        env={"PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(root), "ACCELERATE_USE_CPU": "true",
             "HOME": str(folder)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return torch.load(out, weights_only=True)


def difference(one: dict, other: dict) -> float:
    scale = max(float(value.abs().max()) for value in one["gradient"].values())
    assert one["gradient"].keys() == other["gradient"].keys()
    return max(float((value - other["gradient"][n]).abs().max()) for n, value in one["gradient"].items()) / scale


@pytest.mark.slow
def test_two_processes_have_the_gradient_of_one(tmp_path: Path) -> None:
    one = gradient(tmp_path, 1)
    two = gradient(tmp_path, 2)
    assert difference(one, two) < 1e-5
    assert two["norm"] == pytest.approx(one["norm"], rel=1e-5)
    assert difference(one, gradient(tmp_path, 2, wrong="wrong")) > 1e-2


@pytest.mark.slow
def test_sharded_processes_have_the_gradient_of_one(tmp_path: Path) -> None:
    one, sharded = gradient(tmp_path, 1), gradient(tmp_path, 2, "fsdp")
    assert difference(one, sharded) < 1e-5
    assert sharded["norm"] == pytest.approx(one["norm"], rel=1e-5)
