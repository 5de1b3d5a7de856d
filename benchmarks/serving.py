"""Load on the evaluator service: ``python -m benchmarks.serving [OPTIONS]``.

Starts a Ray cluster and a simulated endpoint, deploys ``configs/serve/evaluator.yaml`` with short delays, and then

1. sends requests at a steady rate during a rolling update to another configuration, and counts lost requests;
2. sends more requests than one replica can serve, and waits until replicas were added and removed.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import aiohttp
import yaml

from benchmarks.measuring.servers import ROOT, EndpointProcess, RayHead, free_port

_TOKEN = "benchmark"  # noqa: S105  # protects nothing
_TIMEOUT_S = 120.0
_SETTLING_S = 5.0
_FEW, _MANY = 20, 1_000_000
"""Number of different prompts: with few, most scores come from the cache, so that the benchmark measures Serve."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rate", type=float, default=50.0, help="requests a second (default: %(default)s)")
    parser.add_argument("--busy", type=int, default=24, help="concurrent requests that make Serve add replicas")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="gpo-serving-") as folder:
        log = Path(folder) / "access.jsonl"
        with EndpointProcess(log, "--latency-ms", 200) as endpoint, RayHead(GPO_SERVE_TOKEN=_TOKEN) as head:
            application = _Application(Path(folder), endpoint.base_url, head)
            asyncio.run(_measure(application, options.rate, options.busy))


class _Application:
    """The deployed application."""

    def __init__(self, folder: Path, base_url: str, head: RayHead) -> None:
        self._folder, self._head = folder, head
        self._port = free_port()
        self.url = f"http://127.0.0.1:{self._port}/v1/evaluate"
        config = {
            "run": {"name": "serving"},
            "models": {
                role: {"base_url": base_url, "model": model, "max_concurrency": 64, "check": False}
                for role, model in (("task", "task-model"), ("optimizer", "opt-model"))
            },
            "tasks": [
                {
                    "name": "triage",
                    "data": {
                        split: str(ROOT / f"tests/data/triage/{split}.jsonl") for split in ("train", "val", "test")
                    },
                    "fields": {"input": "text", "target": "label"},
                    "prompt": "Name the department.",
                    "position": "question_begin",
                    "answer": {"kind": "exact"},
                }
            ],
            "evaluation": {"val_size": 2},
            "cache": {"path": str(folder / "completions.sqlite")},
        }
        (folder / "config.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")

    async def deploy(self, *overrides: str, **deployment: Any) -> None:
        """Deploy or update the application without waiting."""
        document = yaml.safe_load((ROOT / "configs/serve/evaluator.yaml").read_text(encoding="utf-8"))
        document["http_options"] |= {"host": "127.0.0.1", "port": self._port}
        application = document["applications"][0]
        application["args"] = {"config": str(self._folder / "config.yaml"), "overrides": list(overrides)}
        evaluator = application["deployments"][1]
        evaluator["autoscaling_config"] |= {
            "upscale_delay_s": 2,
            "downscale_delay_s": 5,
            "metrics_interval_s": 1,
            "look_back_period_s": 2,
            **deployment,
        }
        evaluator["ray_actor_options"] = {"num_cpus": 0.5}
        path = self._folder / "serve.yaml"
        path.write_text(yaml.safe_dump(document), encoding="utf-8")
        command = [sys.executable, "-m", "ray.serve.scripts", "deploy", str(path), "--address", self._head.url]
        done = await asyncio.to_thread(
            subprocess.run,
            command,
            env=self._head.variables,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(done.stdout + done.stderr)

    async def status(self, session: aiohttp.ClientSession) -> dict[str, Any]:
        """Status of the application and its deployments."""
        header = {"Authorization": f"Bearer {self._head.variables['RAY_AUTH_TOKEN']}"}
        async with session.get(f"{self._head.url}/api/serve/applications/", headers=header) as reply:
            document = json.loads(await reply.text())
        return dict(document["applications"].get("gpo-evaluator", {}))


async def _measure(application: _Application, rate: float, busy: int) -> None:
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        await application.deploy(max_replicas=2)
        await _until_running(application, session)
        print("serving", flush=True)
        await _rolling(application, session, rate)
        await _scaling(application, session, busy)


async def _rolling(application: _Application, session: aiohttp.ClientSession, rate: float) -> None:
    replicas, replies = await _replicas(application, session), _Replies()
    done = asyncio.Event()
    load = asyncio.create_task(_open_loop(application.url, session, rate, replies, done))
    await asyncio.sleep(_SETTLING_S)
    before = time.monotonic()
    await application.deploy("evaluation.max_unscored=0.1", max_replicas=2)
    await _until_replaced(application, session, replicas)
    took = time.monotonic() - before
    await asyncio.sleep(_SETTLING_S)
    done.set()
    await load
    waits = sorted(replies.waits_s)
    print(
        f"rolling update under {rate:g} requests/s: all replicas replaced in {took:.1f} s; "
        f"{sum(replies.answers.values())} requests, {dict(replies.answers)}; "
        f"median {1000 * waits[len(waits) // 2]:.0f} ms, slowest {waits[-1]:.1f} s",
        flush=True,
    )


async def _scaling(application: _Application, session: aiohttp.ClientSession, busy: int) -> None:
    await application.deploy("evaluation.max_unscored=0.1", max_replicas=3, target_ongoing_requests=4)
    replies, done, began = _Replies(), asyncio.Event(), time.monotonic()
    seen: list[str] = []
    load = [asyncio.create_task(_closed_loop(application.url, session, replies, done)) for _ in range(busy)]
    most = 0
    while time.monotonic() - began < _TIMEOUT_S and not (done.is_set() and most == 3 and seen[-1].startswith("1 ")):
        status = await application.status(session)
        running = len(_running(status))
        most = max(most, running)
        if not seen or not seen[-1].startswith(f"{running} "):
            seen.append(f"{running} at {time.monotonic() - began:.0f} s")
        if most == 3:
            done.set()
        await asyncio.sleep(0.5)
    done.set()
    await asyncio.gather(*load)
    print(f"replicas under {busy} requests at once until there are 3: {', '.join(seen)}; {dict(replies.answers)}")


class _Replies:
    def __init__(self) -> None:
        self.answers: Counter[str] = Counter()
        self.waits_s: list[float] = []


async def _send(url: str, session: aiohttp.ClientSession, replies: _Replies, number: int, prompts: int) -> None:
    body = {"task": "triage", "split": "val", "prompt": f"Name the department. {number % prompts}"}
    began = time.monotonic()
    try:
        async with session.post(
            url, json=body, headers={"Authorization": f"Bearer {_TOKEN}"}, timeout=aiohttp.ClientTimeout(_TIMEOUT_S)
        ) as reply:
            text = await reply.text()
            replies.answers[str(reply.status) if reply.status == 200 else f"{reply.status} {text[:40]}"] += 1
    except (aiohttp.ClientError, TimeoutError) as error:
        replies.answers[type(error).__name__] += 1
    replies.waits_s.append(time.monotonic() - began)


async def _open_loop(
    url: str, session: aiohttp.ClientSession, rate: float, replies: _Replies, done: asyncio.Event
) -> None:
    """Send ``rate`` requests a second, whether or not earlier ones were answered."""
    began = time.monotonic()
    sent: list[asyncio.Task[None]] = []
    while not done.is_set():
        sent.append(asyncio.create_task(_send(url, session, replies, len(sent), _FEW)))
        await asyncio.sleep(max(0.0, began + len(sent) / rate - time.monotonic()))
    await asyncio.gather(*sent)


async def _closed_loop(url: str, session: aiohttp.ClientSession, replies: _Replies, done: asyncio.Event) -> None:
    while not done.is_set():
        await _send(url, session, replies, sum(replies.answers.values()), _MANY)


def _running(status: dict[str, Any]) -> set[str]:
    found = status.get("deployments", {}).get("evaluator", {}).get("replicas", [])
    return {replica["replica_id"] for replica in found if replica["state"] == "RUNNING"}


async def _replicas(application: _Application, session: aiohttp.ClientSession) -> set[str]:
    return _running(await application.status(session))


async def _is_running(application: _Application, session: aiohttp.ClientSession) -> bool:
    return (await application.status(session)).get("status") == "RUNNING"


async def _until_replaced(application: _Application, session: aiohttp.ClientSession, replicas: set[str]) -> None:
    deadline = time.monotonic() + _TIMEOUT_S
    while (await _replicas(application, session)) & replicas or not await _is_running(application, session):
        if time.monotonic() > deadline:
            raise RuntimeError("the replicas were not replaced")
        await asyncio.sleep(0.5)


async def _until_running(application: _Application, session: aiohttp.ClientSession) -> None:
    deadline = time.monotonic() + _TIMEOUT_S
    while not await _is_running(application, session):
        status = await application.status(session)
        if status.get("status") == "DEPLOY_FAILED" or time.monotonic() > deadline:
            raise RuntimeError(str(status.get("message")))
        await asyncio.sleep(0.5)


if __name__ == "__main__":
    main()
