"""The pages of ``gpo view``, over real HTTP and in a browser."""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from html import unescape
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx2
import pytest
from playwright.sync_api import expect
from starlette.testclient import TestClient

import gpo as library
from actors.folder import Folder
from benchmarks.simulated_endpoint import SimulatedEndpoint
from cluster.reporting.view import view_app
from tests.browser import chromium, window
from tests.commands import RunGpo
from tests.paths import ROOT
from tests.servers import free_port
from tests.unit.cluster.api.test_optimize import ROWS, arguments

MARKUP = '<script>alert("canary")</script>'


def judged(answer: str, example: library.Example) -> tuple[float, str]:
    return float(answer == example.target), MARKUP


async def hostile(messages: Sequence[dict[str, str]]) -> str:
    return f"{MARKUP} {messages[-1]['content'][-9:]}"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder ``runs``, and beside it ``later``: the run ``working`` two steps later."""
    made = tmp_path_factory.mktemp("viewed")
    runs = made / "runs"
    with SimulatedEndpoint() as endpoint:
        library.optimize(**arguments(endpoint, made, run_dir=runs / "done", metric=judged, steps=1))
        bounded = arguments(endpoint, made, metric="label", budget={"calls": 1000})
        library.optimize(**{**bounded, "run_dir": made / "later", "steps": 2})
        library.optimize(**{**bounded, "run_dir": runs / "working", "steps": 0})
        rows = {
            split: [{"text": f"{MARKUP} {row['text']}", "label": MARKUP} for row in rows]
            for split, rows in ROWS.items()
        }
        unsafe = {**rows, "prompt": f"{MARKUP} Answer:", "task_model": hostile, "run_dir": runs / "hostile"}
        library.optimize(**{**arguments(endpoint, made, metric=judged, steps=1), **unsafe})
    for folder, wall_s in ((runs / "working", 10.0), (made / "later", 20.0)):
        summary = json.loads((folder / "summary.json").read_text())
        (folder / "summary.json").write_text(json.dumps({**summary, "status": "running", "wall_s": wall_s}))
    named = runs / MARKUP.replace("/", "")
    named.mkdir()
    (named / "summary.json").write_text(json.dumps({"status": MARKUP, "trajectories": []}))
    (runs / "tuned").mkdir()
    trial = {
        "number": 0,
        "state": "complete",
        "val": 0.5,
        "params": {MARKUP: MARKUP},
        "spent": [9, 1, 0],
        "error": MARKUP,
    }
    sweep = {"status": MARKUP, "best": trial, "population": {"tasks": [MARKUP]}, "all": [trial, "damaged"]}
    (runs / "tuned/sweep.json").write_text(json.dumps(sweep))
    (runs / "tuned/report.html").write_text("<h1>Plots</h1><script>top.ran = document.title = 'drawn'</script>")
    return made


@pytest.fixture
def runs(made: Path) -> Path:
    return made / "runs"


@pytest.fixture
def client(runs: Path) -> TestClient:
    return TestClient(view_app(Folder.at(str(runs)), None), base_url="http://127.0.0.1")


def test_the_list_links_to_each_run_and_sweep(client: TestClient) -> None:
    page = client.get("/")
    assert page.status_code == 200
    assert 'href="/run/done"' in page.text
    assert 'href="/sweep/tuned"' in page.text


@pytest.mark.parametrize(
    "path",
    ["/", "/run/hostile", "/compare?run=hostile&run=done", "/sweep/tuned", f"/run/{quote(MARKUP.replace('/', ''))}"],
)
def test_texts_are_escaped_and_only_our_script_may_run(path: str, client: TestClient) -> None:
    page = client.get(path)
    assert page.status_code == 200
    assert "<script>alert" not in page.text
    assert "canary" in page.text
    (policy,) = re.findall(r'Content-Security-Policy" content="(.*?)"', page.text)
    assert policy.startswith("default-src 'none'; img-src data: 'self'; style-src 'sha256-")
    assert "unsafe" not in policy


def test_a_page_that_is_known_is_not_sent_again(client: TestClient) -> None:
    for path in ("/", "/run/done", "/compare?run=working&run=done", "/sweep/tuned"):
        page = client.get(path)
        again = client.get(path, headers={"If-None-Match": page.headers["etag"]})
        assert (again.status_code, again.text) == (304, "")
        assert f'data-version="{page.headers["etag"]}"' in page.text


def test_answers_are_sent_when_they_are_looked_at(client: TestClient) -> None:
    assert client.get("/data/hostile").json()["examples"]["answers"] == {}
    known = client.get("/answers/hostile?task=task&seed=0").json()
    assert len(known["examples"]) == 40
    assert {MARKUP in row[2] and row[3] == [MARKUP] for row in known["examples"]} == {True}
    for prompt, number in known["recorded"].items():
        answers = client.get("/answers/hostile", params={"task": "task", "seed": 0, "prompt": prompt}).json()
        assert len(answers["answers"]) == number
        assert {MARKUP in row[2] and row[5] == MARKUP for row in answers["answers"]} == {True}


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/answers/done?task=other&seed=0", 404),
        ("/answers/done?task=..%2F..&seed=0", 404),
        ("/answers/done?task=task", 400),
        ("/data/other", 404),
        ("/curves/other/done", 404),
        ("/curves/task/other", 404),
        ("/answers/other?task=task&seed=0", 404),
        ("/compare?run=done", 400),
        ("/compare?run=done&run=..", 404),
        ("/sweep/done", 404),
        ("/sweep/done/plots", 404),
    ],
)
def test_what_is_not_there_is_not_found(path: str, status: int, client: TestClient) -> None:
    assert client.get(path).status_code == status


def test_a_comparison_shows_scores_options_and_an_honest_test(runs: Path, client: TestClient, tmp_path: Path) -> None:
    page = client.get("/compare?run=working&run=done").text
    assert '<th scope="row" class="name">budget.calls</th>' in page
    assert "On test" not in page  # another metric
    for name in ("one", "other"):
        shutil.copytree(runs / "done", tmp_path / name)
    client = TestClient(view_app(Folder.at(str(tmp_path)), None), base_url="http://127.0.0.1")
    page = client.get("/compare?run=one&run=other").text
    assert "On test, the best prompt of other scores the same as that of one" in page
    assert "Different options" not in page


def test_a_comparison_is_listed_with_its_methods(runs: Path, tmp_path: Path) -> None:
    for method in ("gpo", "ape", "other"):
        shutil.copytree(runs / "hostile", tmp_path / "runs/compared" / method)
    shutil.copytree(runs / "done", tmp_path / "secret")
    methods = [{"name": name} for name in ("gpo", "ape", "gone", "../../secret", "..", None)]
    (tmp_path / "runs/compared/comparison.json").write_text(json.dumps({"status": "pending", "methods": [*methods, 3]}))
    shutil.copytree(tmp_path / "runs/compared/gpo", tmp_path / "runs/whole/gpo")
    (tmp_path / "runs/whole/comparison.json").write_text(json.dumps({"methods": [{"name": "gpo"}]}))
    damaged = tmp_path / "runs" / MARKUP.replace("/", "")
    damaged.mkdir()
    (damaged / "comparison.json").write_text("[")
    client = TestClient(view_app(Folder.at(str(tmp_path / "runs")), None), base_url="http://127.0.0.1")
    page = client.get("/").text
    assert "canary" in page
    assert "<script>alert" not in page
    (table,) = re.findall(r'id="comparisons-table">(.*?)</table>', page, re.DOTALL)
    rows = re.findall(
        r'>([^<>]+)(?:</a>)?</th>\n.*?<span class="status (\w+)">', table.partition("<tbody")[2], re.DOTALL
    )
    statuses = {unescape(name): status for name, status in rows}
    assert statuses == {"compared": "unknown", "whole": "completed", damaged.name: "unknown"}
    assert re.findall(r'href="/run/(compared.*?)"', page) == ["compared/gpo", "compared/ape"]
    (side_by_side,) = re.findall(r'href="(/compare.*?)"', page)
    assert "<h1>2 runs side by side</h1>" in client.get(unescape(side_by_side)).text
    opened = client.get("/run/compared/gpo")
    assert opened.status_code == 200
    (path,) = re.findall(r'"live": ?"(.*?)"', opened.text)
    assert client.get(f"/data/{path}").json()["rows"]
    assert client.get(f"/curves/task/{path}").status_code == 200
    assert len(client.get(f"/answers/{path}?task=task&seed=0").json()["examples"]) == 40
    for name in ("compared", "compared/other", "compared/gone", "compared/../../secret", "compared/..", "compared/"):
        assert client.get(f"/run/{quote(name, safe='')}").status_code == 404


@pytest.mark.parametrize("name", ["data", "answers", "curves", "task"])
def test_a_method_of_any_name_has_a_page(name: str, runs: Path, tmp_path: Path) -> None:
    shutil.copytree(runs / "done", tmp_path / "compared" / name)
    (tmp_path / "compared/comparison.json").write_text(json.dumps({"methods": [{"name": name}]}))
    client = TestClient(view_app(Folder.at(str(tmp_path)), None), base_url="http://127.0.0.1")
    page = client.get(f"/run/compared/{name}")
    assert (page.status_code, page.headers["content-type"].partition(";")[0]) == (200, "text/html")
    (curves,) = re.findall(r'src="(/curves/.*?)"', page.text)
    assert client.get(unescape(curves)).headers["content-type"].startswith("image/svg+xml")
    for path in (f"/data/compared/{name}", f"/answers/compared/{name}?task=task&seed=0"):
        assert client.get(path).headers["content-type"] == "application/json"


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
    assert f"4 runs in {runs}" in errors


def replaced(source: str, target: str) -> None:
    """Copies a file as a run writes its files: a reader finds the old content or the new, never a part."""
    shutil.copyfile(source, f"{target}.new")
    Path(f"{target}.new").replace(target)


def test_a_person_finds_compares_and_follows(address: str, made: Path, until: Callable[..., None]) -> None:
    with chromium() as browser, window(browser) as context:
        page = context.new_page()
        messages: list[str] = []
        page.on("pageerror", lambda error: messages.append(str(error)))
        page.on("console", lambda message: messages.append(f"{message.text} {message.location['url']}"))
        page.on("dialog", lambda dialog: messages.append(dialog.message))

        def problems() -> list[str]:
            """Messages, except that the plots of a sweep cannot reach the page."""
            return [text for text in messages if "top.ran" not in text and "cross-origin" not in text]

        # Three clicks to an answer that is wrong.
        page.goto(address)
        page.click("text=done")
        page.click("nav >> text=Examples")
        page.select_option("#examples-outcome", "wrong")
        expect(page.locator("#examples-found")).to_contain_text("examples")
        expect(page.locator("#examples-rows")).to_contain_text(MARKUP)
        page.select_option("#examples-sort", "longest")
        lengths = [int(text) for text in re.findall(r"(\d+) characters", page.inner_text("#examples-rows"))]
        longest = [max(pair) for pair in zip(lengths[::2], lengths[1::2], strict=True)]
        assert longest == sorted(longest, reverse=True)
        page.select_option("#examples-flaw", "empty")
        expect(page.locator("#examples-found")).to_have_text("No example matches.")
        page.select_option("#examples-flaw", "")
        # The same prompt twice: nothing is fixed or broken.
        page.select_option("#examples-after", page.input_value("#examples-before"))
        page.select_option("#examples-outcome", "fixed")
        expect(page.locator("#examples-found")).to_have_text("No example matches.")

        # The list, with the keyboard.
        page.click("text=All runs")
        heading = page.get_by_role("columnheader", name="Calls").first
        heading.get_by_role("button").focus()
        page.keyboard.press("Enter")
        expect(heading).to_have_attribute("aria-sort", "descending")

        def is_sorted() -> bool:
            shown = page.locator("#runs-table td:nth-child(7)").all_inner_texts()
            calls = [int(text.replace(",", "")) for text in shown]
            return len(calls) > 1 and calls == sorted(calls, reverse=True)

        until(is_sorted, "the runs are sorted by their calls")
        page.get_by_label("Search").focus()
        page.keyboard.type("working")
        expect(page.locator("#runs-table tbody tr:visible")).to_have_count(1)
        page.get_by_label("Search").fill("")
        expect(page.locator("#compare")).to_be_disabled()
        for name in ("working", "done"):
            page.get_by_label(f"Compare {name}").press("Space")
            expect(page.get_by_label(f"Compare {name}")).to_be_checked()
        page.locator("#compare").click()
        expect(page.locator("h1")).to_have_text("2 runs side by side")

        # A sweep, whose plots can reach nothing.
        page.goto(f"{address}/sweep/tuned")
        plots = page.frame_locator("iframe")
        expect(plots.locator("h1")).to_have_text("Plots")
        until(lambda: plots.locator("title").text_content() == "drawn", "the script of the plots has run")
        assert page.evaluate("window.ran") is None
        assert problems() == []

        # A run that works: what is written and opened stays when there is more.
        page.goto(f"{address}/run/working")
        expect(page.locator("#found")).to_have_text("1 to 1 of 1 prompts")
        expect(page.locator("#budget")).to_contain_text("Calls: ")
        expect(page.locator("#confusion-tables table")).to_have_count(2)
        curve = page.locator("#curves img").get_attribute("src") or ""
        page.evaluate("window.isTheSame = true")
        page.fill("#query", "classify")
        page.click("#confusion > summary")
        page.click(".lineage > summary")
        expect(page.locator(".path li")).to_have_count(1)
        shutil.copytree(made / "later", made / "runs/working", dirs_exist_ok=True, copy_function=replaced)
        expect(page.locator("#found")).not_to_have_text("1 to 1 of 1 prompts")
        expect(page.locator("#figures")).to_contain_text("Calls per second")
        expect(page.locator("#curves img")).not_to_have_attribute("src", curve)
        expect(page.locator("#lineage-1")).to_have_attribute("open", "")
        expect(page.locator("#query")).to_have_value("classify")
        cell = page.locator("#confusion-tables button.plain").first

        def is_chosen() -> bool:
            # Each file is replaced whole, but one after the other: the page may renew itself again.
            name = cell.get_attribute("aria-label") or ""
            cell.click()
            is_named = page.inner_text("#examples-cell") == f"Only {name.rpartition(':')[0]}. Show all"
            return is_named and f"of {name.rpartition(' ')[2]} examples" in page.inner_text("#examples-found")

        until(is_chosen, "the examples of a cell are shown")
        assert page.evaluate("window.isTheSame")
        assert problems() == []

        page.goto(f"{address}/run/hostile")
        expect(page.locator("#examples-rows")).to_contain_text(MARKUP)
        assert problems() == []


def test_an_address_for_others_needs_a_token(gpo: RunGpo, runs: Path) -> None:
    refused = gpo("view", str(runs), "--host", "0.0.0.0", cwd=runs)  # noqa: S104
    assert (refused.code, "but no token is set; export GPO_VIEW_TOKEN" in refused.stderr) == (2, True)
