"""A real Prefect server and worker for tests: SQLite in a folder of their own, free ports, no telemetry."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import psutil

ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 600.0  # seconds for anything to happen on a busy machine


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def settings(home: Path, port: int) -> dict[str, str]:
    """The environment of a server, its workers and its clients."""
    return {
        "PREFECT_HOME": str(home),
        "PREFECT_API_URL": f"http://127.0.0.1:{port}/api",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
        "PREFECT_WORKER_QUERY_SECONDS": "1",
        "PREFECT_LOGGING_TO_API_ENABLED": "false",
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
        "POLARS_MAX_THREADS": "1",
        "PYTHONPATH": os.pathsep.join([str(ROOT), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]),
    }


def until(what: Callable[[], Any], pause: float = 0.2) -> Any:
    """Wait until `what` gives something true and return it."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        found = what()
        if found:
            return found
        time.sleep(pause)
    raise TimeoutError(f"{what} did not come true")


@contextmanager
def server(environment: dict[str, str], port: int, log: Path) -> Iterator[None]:
    """A Prefect server; it is stopped at the end."""
    command = ["server", "start", "--host", "127.0.0.1", "--port", str(port), "--no-ui"]
    with running(command, environment, log):
        until(lambda: answers(f"http://127.0.0.1:{port}/api/health"))
        yield


@contextmanager
def running(command: list[str], environment: dict[str, str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A Prefect command as a process of its own; it and its children end with the block."""
    with log.open("ab") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "prefect", *command], env=dict(os.environ) | environment,
            stdout=output, stderr=subprocess.STDOUT, cwd=log.parent,
        )  # fmt: skip
    try:
        yield process
    finally:
        end(process.pid)
        process.wait(timeout=PATIENCE)


def worker(environment: dict[str, str], log: Path) -> Any:
    """A worker of the pool `serm`."""
    return running(["worker", "start", "--pool", "serm"], environment, log)


def end(pid: int) -> None:
    """SIGKILL a process and all that it started."""
    try:
        parent = psutil.Process(pid)
    except psutil.NoSuchProcess:
        return
    for process in [*parent.children(recursive=True), parent]:
        kill(process)


def kill(process: psutil.Process) -> None:
    """SIGKILL a process that may be gone."""
    with suppress(psutil.NoSuchProcess):
        process.send_signal(signal.SIGKILL)


def processes_of(flow_run: str) -> list[psutil.Process]:
    """The processes that run a flow run, the worker not among them."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("PREFECT__FLOW_RUN_ID") == flow_run:
                found.append(process)
        except (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
            continue
    return found


def answers(address: str) -> bool:
    """Whether a GET succeeds."""
    try:
        return httpx.get(address, timeout=5).is_success
    except httpx.TransportError:
        return False
