"""Peak memory of scoring tokens, forward and backward: all logits at once against the chunked head.

    python benchmarks/head_memory.py --tokens 1024,2048,4096 --chunk 1024

At SmolLM2's sizes by default (576 wide, 49,152 words), in fp32. Each figure is a process of its own: its peak resident
memory (on a GPU: allocated memory) above what it held once hidden states and weights were there.
"""

import argparse
import json
import resource
import subprocess
import sys
import time

import torch
from torch import Tensor

from sps.lm_head import token_stats


def main() -> None:
    """Measure every case in a process of its own and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", default="1024,2048,4096")
    parser.add_argument("--vocabulary", type=int, default=49_152)
    parser.add_argument("--width", type=int, default=576)
    parser.add_argument("--chunk", type=int, default=1_024)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--case", help="internal: tokens,head,entropy of the one case that this process measures")
    given = parser.parse_args()
    if given.case:
        print(json.dumps(measure(given)))
        return
    print(
        f"{'tokens':>7} {'entropy':>7} {'full MiB':>9} {'chunked MiB':>11} {'ratio':>6} {'full s':>7} {'chunked s':>9}"
    )
    for tokens in given.tokens.split(","):
        for entropy in ("no", "yes"):
            full, chunked = (in_process(f"{tokens},{head},{entropy}") for head in ("full", "chunked"))
            assert abs(full["loss"] - chunked["loss"]) < 1e-3 * abs(full["loss"]), "the two heads disagree"
            print(
                f"{tokens:>7} {entropy:>7} {full['MiB']:9,.0f} {chunked['MiB']:11,.0f} "
                f"{full['MiB'] / chunked['MiB']:6.1f} {full['seconds']:7.1f} {chunked['seconds']:9.1f}",
                flush=True,
            )


def in_process(case: str) -> dict[str, float]:
    """What a fresh process measures for this case, with this one's other options."""
    command = [sys.executable, __file__, *sys.argv[1:], "--case", case]
    result: dict[str, float] = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return result


def measure(given: argparse.Namespace) -> dict[str, float]:
    """Peak MiB above the inputs, seconds, and the loss."""
    tokens, head, entropy = given.case.split(",")
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(int(tokens), given.width, generator=generator).to(given.device).requires_grad_()
    weight = (torch.randn(given.vocabulary, given.width, generator=generator) / 24).to(given.device).requires_grad_()
    targets = torch.randint(given.vocabulary, (int(tokens),), generator=generator).to(given.device)
    (hidden[:8] @ weight[:8].T).sum().backward()  # the gradients' own memory and the libraries are there before
    before, began = memory(given.device), time.monotonic()
    if head == "full":
        logprobs, entropies = full(hidden, weight, targets, entropy == "yes")
    else:
        logprobs, entropies = token_stats(hidden, weight, None, targets, 1.0, given.chunk, entropy == "yes")
    loss = -logprobs.mean() - (0.01 * entropies.mean() if entropies is not None else 0.0)
    loss.backward()
    value = loss.item()
    return {"MiB": memory(given.device) - before, "seconds": time.monotonic() - began, "loss": value}


def full(hidden: Tensor, weight: Tensor, targets: Tensor, with_entropy: bool) -> tuple[Tensor, Tensor | None]:
    """The plain way: every token's logits at once, kept for the gradient."""
    logprobs = (hidden @ weight.T).log_softmax(dim=-1)
    chosen = logprobs.gather(1, targets[:, None]).squeeze(1)
    return chosen, -(logprobs.exp() * logprobs).sum(dim=-1) if with_entropy else None


def memory(device: str) -> float:
    """This process's peak so far in MiB."""
    if device.startswith("cuda"):
        return torch.cuda.max_memory_allocated() / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main()
