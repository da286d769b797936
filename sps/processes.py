"""The processes that train together, through accelerate: one or many, DDP or FSDP; the trainer need not know which."""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor

from sps.policy import Policy


class Processes:
    """This process among those that train together (started with `accelerate launch` or `torchrun`)."""

    def __init__(self, sharding: str, autocast: bool, policy: Policy) -> None:
        """sharding: ddp or fsdp, without effect in a single process; autocast: bf16 forward over fp32 weights."""
        from accelerate import Accelerator
        from accelerate.utils import FullyShardedDataParallelPlugin

        plugin = None
        if sharding == "fsdp":
            blocks = sorted({type(module).__name__ for module in policy.blocks()})
            plugin = FullyShardedDataParallelPlugin(
                fsdp_version=2, auto_wrap_policy="transformer_based_wrap", transformer_cls_names_to_wrap=blocks
            )
        self._accelerator = Accelerator(mixed_precision="bf16" if autocast else "no", fsdp_plugin=plugin)
        self.rank: int = self._accelerator.process_index
        self.world: int = self._accelerator.num_processes
        self.device: torch.device = self._accelerator.device
        self.main: bool = self._accelerator.is_main_process
        self.sharded = sharding == "fsdp" and self.world > 1

    def prepare(self, policy: Policy, optimiser: torch.optim.Optimizer) -> tuple[torch.nn.Module, Any]:
        """The module to call forward on, and its optimiser."""
        module, optimiser = self._accelerator.prepare(policy, optimiser)
        return module, optimiser

    def share(self, module: torch.nn.Module) -> torch.nn.Module:
        """A frozen module, sharded as the policy is."""
        shared: torch.nn.Module = self._accelerator.prepare_model(module, evaluation_mode=True)
        return shared

    def backward(self, loss: Tensor) -> None:
        """Accumulate gradients; processes exchange them unless inside `no_sync`."""
        self._accelerator.backward(loss)

    def no_sync(self, module: torch.nn.Module) -> AbstractContextManager[Any]:
        """Within it gradients stay in this process."""
        return self._accelerator.no_sync(module)

    def clip(self, module: torch.nn.Module, largest: float) -> float:
        """Scale the gradient down to at most this norm; its norm before."""
        norm = self._accelerator.clip_grad_norm_(module.parameters(), largest)
        return float(norm.full_tensor() if hasattr(norm, "full_tensor") else norm)  # DTensor under FSDP

    def sum(self, values: Sequence[float]) -> list[float]:
        """Each value summed over processes."""
        return self._reduced(values, "sum")

    def most(self, value: int) -> int:
        """The largest of the processes' values."""
        return int(max(self._gathered([float(value)]).flatten().tolist()))

    def greatest(self, values: Sequence[float]) -> list[float]:
        """Each value's maximum over processes."""
        return self._gathered(values).amax(dim=0).tolist() if len(values) else []

    def any(self, flag: bool) -> bool:
        """Whether the flag is up in any process."""
        return self.most(int(flag)) > 0

    def gather(self, items: Sequence[Any]) -> list[Any]:
        """Everyone's items, by rank, in every process."""
        if self.world == 1:
            return list(items)
        from accelerate.utils import gather_object

        return list(gather_object(list(items)))

    def wait(self) -> None:
        """Until all are here."""
        self._accelerator.wait_for_everyone()

    def _reduced(self, values: Sequence[float], how: str) -> list[float]:
        if self.world == 1:
            return list(values)
        tensor = torch.tensor(values, dtype=torch.float64 if self.device.type != "mps" else torch.float32)
        return list(self._accelerator.reduce(tensor.to(self.device), how).tolist())

    def _gathered(self, values: Sequence[float]) -> Tensor:
        """(world, len(values))."""
        tensor = torch.tensor([list(values)], dtype=torch.float64, device=self.device)
        return tensor if self.world == 1 else self._accelerator.gather(tensor)
