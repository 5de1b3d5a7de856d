"""The pages of ``gpo view``, over real HTTP and in a browser."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from starlette.testclient import TestClient

import gpo as library
from actors.folder import Folder
from benchmarks.simulated_endpoint import SimulatedEndpoint
from cluster.reporting.view import view_app
from tests.commands import RunGpo
from tests.paths import ROOT
from tests.servers import free_port
from tests.unit.cluster.api.test_optimize import arguments

CHROMIUM = shutil.which("chromium")
MARKUP = '<script>alert("canary")</script>'


def judged(answer: str, example: library.Example) -> tuple[float, str]:
    return float(answer == example.target), MARKUP


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("viewed") / "runs"
    with SimulatedEndpoint() as endpoint:
        library.optimize(**arguments(endpoint, made, run_dir=made / "done", metric=judged, steps=1))
        library.optimize(**arguments(endpoint, made, run_dir=made / "working", metric=judged, steps=0))
    summary = json.loads((made / "working/summary.json").read_text())
    (made / "working/summary.json").write_text(json.dumps({**summary, "status": "running"}))
    (made / MARKUP.replace("/", "")).mkdir()
    (made / MARKUP.replace("/", "") / "summary.json").write_text(json.dumps({"status": MARKUP, "trajectories": []}))
    return made


@pytest.fixture
def client(runs: Path) -> TestClient:
    return TestClient(view_app(Folder.at(str(runs)), None), base_url="http://127.0.0.1")


def test_the_list_links_to_the_report_of_each_run(client: TestClient) -> None:
    page = client.get("/")
    assert page.status_code == 200
    assert 'href="/run/done"' in page.text
    assert MARKUP not in page.text
    report = client.get("/run/done")
    assert 'id="examples"' in report.text
    assert MARKUP not in report.text
    assert 'http-equiv="refresh"' not in report.text
    assert 'http-equiv="refresh"' in client.get("/run/working").text


@pytest.mark.parametrize("name", ["other", "..%2f..", "%2e%2e%2fetc", "done%2f..%2f.."])
def test_nothing_outside_the_runs_is_shown(name: str, client: TestClient) -> None:
    assert client.get(f"/run/{name}").status_code == 404


def test_a_run_that_is_damaged_is_explained(runs: Path, client: TestClient, tmp_path: Path) -> None:
    (tmp_path / "gone").mkdir()
    (tmp_path / "gone/summary.json").write_text("[]")
    (tmp_path / "gone/config.yaml").write_text("x: [")
    page = TestClient(view_app(Folder.at(str(tmp_path)), None), base_url="http://localhost").get("/run/gone")
    assert page.status_code == 200


def test_another_host_is_refused_without_a_token(client: TestClient) -> None:
    assert client.get("/", headers={"Host": "attacker.example"}).status_code == 403


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 401),
        ({"Authorization": "Bearer secret"}, 200),
        ({"Authorization": "Basic YW55b25lOnNlY3JldA=="}, 200),  # anyone:secret
        ({"Authorization": "Basic YW55b25lOnd4"}, 401),
        ({"Authorization": "Basic \u00e9"}, 401),
        ({"Authorization": "Digest secret"}, 401),
    ],
)
def test_a_token_is_needed_if_there_is_one(headers: dict[str, str], status: int, runs: Path) -> None:
    client = TestClient(view_app(Folder.at(str(runs)), "secret"), base_url="http://anywhere.example")
    encoded: Any = {name: value.encode("latin-1") for name, value in headers.items()}
    page = client.get("/run/done", headers=encoded)
    assert page.status_code == status
    assert page.headers["cache-control"] == "no-store"


@pytest.fixture
def address(runs: Path, until: Callable[..., None]) -> Iterator[str]:
    """The command in a process of its own, which Ctrl-C ends."""
    port = free_port()
    command = [sys.executable, "-m", "cluster.cli", "view", str(runs), "--port", str(port)]
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)

    def answers() -> bool:
        try:
            return httpx2.get(f"http://127.0.0.1:{port}/").status_code == 200
        except httpx2.TransportError:
            return False

    until(answers, "the page is there")
    yield f"http://127.0.0.1:{port}"
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=30)
    assert (process.returncode, "Traceback" in errors) == (0, False)
    assert f"3 runs in {runs}" in errors


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium (Debian's package chromium)")
def test_a_person_finds_an_answer_in_three_clicks(address: str) -> None:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page()
        problems: list[str] = []
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("console", lambda message: problems.append(message.text))
        page.goto(address)
        page.click("text=done")
        page.click("nav >> text=Examples")
        page.select_option("#examples-outcome", "wrong")
        assert "examples" in page.inner_text("#examples-found")
        assert MARKUP in page.inner_text("#examples-rows")
        page.fill("#examples-query", "no such words anywhere")
        assert page.inner_text("#examples-found") == "No example matches."
        assert problems == []
        browser.close()


def test_an_address_for_others_needs_a_token(gpo: RunGpo, runs: Path) -> None:
    refused = gpo("view", str(runs), "--host", "0.0.0.0", cwd=runs)  # noqa: S104
    assert (refused.code, "but no token is set; export GPO_VIEW_TOKEN" in refused.stderr) == (2, True)
