"""Two processes that share a sharded policy: each samples its own share from the whole weights of the last update."""

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

WORKER = """
import sys, torch
from sps.config import RolloutSettings
from sps.processes import Processes
from sps.rollout import make_engine
from sps.rollout.protocol import Sampling
from tests.sps.rollout_policy import PROMPTS, furthest, random_policy

kind, out = sys.argv[1], sys.argv[2]
policy, reference = random_policy(), random_policy()
processes = Processes("fsdp", False, policy)
assert processes.sharded
vllm = {"enforce_eager": True, "kv_cache_memory_bytes": 2**26, "block_size": 32} if kind == "vllm" else {}
settings = RolloutSettings(engine=kind, vllm=vllm)
engine = make_engine(policy, settings, own_copy=True)
module, _ = processes.prepare(policy, torch.optim.SGD(policy.parameters(), lr=0.1))
found = []
for _ in range(2):
    mine = PROMPTS if processes.rank == 0 else PROMPTS[:2]  # as unequal as problems are
    found.append(furthest(reference, mine, engine.generate(mine, 3, Sampling(12, seed=processes.rank))))
    with torch.no_grad():
        for weight in [*policy.parameters(), *reference.parameters()]:
            weight.mul_(1.2)
    found.append(furthest(reference, mine, engine.generate(mine, 3, Sampling(12, seed=processes.rank))))
    engine.update(policy)
engine.close()
open(f"{out}-{processes.rank}", "w").write(" ".join(map(str, found)))
processes.wait()
"""


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["transformers", "vllm"])
def test_sharded_processes_sample_from_the_whole_weights(kind: str, tmp_path: Path) -> None:
    if kind == "vllm" and find_spec("vllm") is None:
        pytest.skip("vLLM is not installed")
    script, out, root = tmp_path / "worker.py", tmp_path / "found", Path(__file__).resolve().parents[2]
    script.write_text(WORKER, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", script, kind, out],
        cwd=root, capture_output=True, text=True, timeout=400, check=False,
        env={"PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(root), "ACCELERATE_USE_CPU": "true",
             "HOME": str(tmp_path), "VLLM_CPU_OMP_THREADS_BIND": "nobind"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    for rank in range(2):
        first, stale, updated, stale_again = map(float, (tmp_path / f"found-{rank}").read_text().split())
        assert max(first, updated) < 5e-5
        assert min(stale, stale_again) > 0.01
