"""Trained tokens per second and peak memory, side by side: this trainer and TRL's GRPOTrainer.

    pip install -e '.[bench]'
    python benchmarks/trl_speed.py --model smollm2 --steps 3 --rounds 2

Same model, prompts (generated sums, chat template), completions per prompt, longest completion, rows in a
micro-batch, precision and objective (GRPO, no KL, one update a step), both sampling with transformers. The reward, the
share of digits, differs within every group, so that no row is spared. Each figure is a process of its own, the two take
turns; every run's first step warms up and is not counted. Tokens are completions', those that both sample and train.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

RATE = 1e-6


def main() -> None:
    """Measure both in turn and print a table with ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="a Hugging Face folder")
    parser.add_argument("--prompts", type=int, default=4)
    parser.add_argument("--group", type=int, default=8)
    parser.add_argument("--rows", type=int, default=8, help="of a micro-batch")
    parser.add_argument("--max-tokens", type=int, default=128)
    parser.add_argument("--max-prompt-tokens", type=int, default=72)
    parser.add_argument("--steps", type=int, default=3, help="counted")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="fp32")
    parser.add_argument("--side", choices=["sps", "trl"], help="internal: measure this one, here")
    given = parser.parse_args()
    if given.side:
        with tempfile.TemporaryDirectory() as folder:
            print(json.dumps({"sps": ours, "trl": theirs}[given.side](given, Path(folder))))
        return
    found: dict[str, list[dict[str, float]]] = {"sps": [], "trl": []}
    print(f"{'round':>5} {'':4} {'tokens':>7} {'length':>7} {'seconds':>8} {'tokens/s':>9} {'peak MiB':>9}")
    for turn in range(given.rounds):
        for side in ("sps", "trl"):
            command = [sys.executable, __file__, *sys.argv[1:], "--side", side]
            shown = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
            one: dict[str, float] = json.loads(shown.splitlines()[-1])
            found[side].append(one)
            print(
                f"{turn:5} {side:4} {one['tokens']:7.0f} {one['length']:7.1f} {one['seconds']:8.1f} "
                f"{one['tokens'] / one['seconds']:9.1f} {one['MiB']:9.0f}",
                flush=True,
            )
    speed = {side: sum(o["tokens"] for o in own) / sum(o["seconds"] for o in own) for side, own in found.items()}
    memory = {side: max(o["MiB"] for o in own) for side, own in found.items()}
    print(f"\ntrained tokens per second: {speed['sps'] / speed['trl']:.2f} times TRL's")
    print(f"peak memory: {memory['sps'] / memory['trl']:.2f} times TRL's")


def ours(given: argparse.Namespace, folder: Path) -> dict[str, float]:
    """This trainer's figures."""
    from sps.configure import load
    from sps.train import train

    sys.path.insert(0, str(Path(__file__).parent))
    problems = folder / "prompts.jsonl"
    problems.write_text("".join(json.dumps({"prompt": text}) + "\n" for text in prompts(given)), encoding="utf-8")
    train(
        load(
            None,
            [
                f"output={folder / 'run'}",
                "task.name=user", f"task.train={problems}", f"task.test={problems}", "task.reward=trl_speed:digits",
                f"policy.model={given.model}", f"policy.precision={given.precision}",
                f"rollout.prompts={given.prompts}", f"rollout.group={given.group}",
                f"rollout.max_tokens={given.max_tokens}",
                f"trainer.micro_batch_tokens={given.rows * (given.max_prompt_tokens + given.max_tokens)}",
                f"trainer.steps={given.steps + 1}", f"trainer.evaluate_every={10**6}",
                f"trainer.checkpoint_every={10**6}", f"optimiser.learning_rate={RATE}",
                "evaluation.problems=1", "evaluation.samples=1", "evaluation.ks=[1]", "evaluation.probes=0",
            ],
        )
    )  # fmt: skip
    steps = [json.loads(line) for line in (folder / "run" / "log.jsonl").read_text("utf-8").splitlines()][1:]
    return {
        "tokens": sum(step["tokens"] for step in steps),
        "length": float(np.mean([step["length_mean"] for step in steps])),
        "seconds": sum(step["tokens"] / step["tokens_per_second"] for step in steps),
        "MiB": memory(),
    }


def theirs(given: argparse.Namespace, folder: Path) -> dict[str, float]:
    """TRL's."""
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
    from trl import GRPOConfig, GRPOTrainer

    lengths: list[list[int]] = []
    seconds: list[float] = []

    def reward(completions: list[Any], completion_ids: list[list[int]], **_: Any) -> list[float]:
        lengths.append([len(ids) for ids in completion_ids])
        return [digits(completion[0]["content"], None) for completion in completions]

    class Clock(TrainerCallback):  # type: ignore[misc]
        def on_step_begin(self, *_: Any, **__: Any) -> None:
            seconds.append(-time.perf_counter())

        def on_step_end(self, *_: Any, **__: Any) -> None:
            seconds[-1] += time.perf_counter()

    config = GRPOConfig(
        output_dir=str(folder), per_device_train_batch_size=given.rows,
        gradient_accumulation_steps=given.prompts * given.group // given.rows, num_generations=given.group,
        max_completion_length=given.max_tokens, temperature=1.0, top_p=1.0, top_k=0, beta=0.0, loss_type="grpo",
        learning_rate=RATE, lr_scheduler_type="constant", adam_beta2=0.95, max_grad_norm=1.0,
        max_steps=given.steps + 1, bf16=given.precision == "bf16", gradient_checkpointing=False,
        use_cpu=not torch.cuda.is_available(), report_to="none", save_strategy="no", disable_tqdm=True, logging_steps=1,
    )  # fmt: skip
    trainer = GRPOTrainer(
        model=AutoModelForCausalLM.from_pretrained(given.model, dtype=torch.float32),
        processing_class=AutoTokenizer.from_pretrained(given.model), reward_funcs=reward, args=config,
        train_dataset=Dataset.from_list([{"prompt": [{"role": "user", "content": text}]} for text in prompts(given)]),
        callbacks=[Clock()],
    )  # fmt: skip
    trainer.train()
    counted = [sum(step) for step in lengths[1:]]
    return {
        "tokens": sum(counted),
        "length": float(np.mean([length for step in lengths[1:] for length in step])),
        "seconds": sum(seconds[1:]),
        "MiB": memory(),
    }


def prompts(given: argparse.Namespace) -> list[str]:
    """The same for both, a step's worth for every step."""
    from sps.config import TaskSettings
    from sps.tasks import load_task

    size = given.prompts * (given.steps + 1)
    return [str(e.prompt) for e in load_task(TaskSettings(name="arithmetic", train_size=size)).examples("train")]


def digits(completion: str, _: Any) -> float:
    """The share of digits."""
    return sum(character.isdigit() for character in completion) / max(len(completion), 1)


def memory() -> float:
    """This process's peak in MiB: allocated on a GPU where there is one, otherwise resident."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main()
