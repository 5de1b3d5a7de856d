"""The report in a browser."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest
from playwright.sync_api import Browser, Page, expect

from actors.search import SearchKey
from cluster.reporting.page import report
from cluster.results.outputs import summary
from cluster.results.run_record import RunRecord
from gpo.checkpoint import Checkpoint
from gpo.prompt import Prompt, edit_distance
from gpo.score import Score
from gpo.trajectory import Candidate, Direction, Failure, Samples, Spending, Step, Trajectory
from tests.browser import chromium, window

if TYPE_CHECKING:
    from tests.conftest import Until

HOSTILE = (
    '</script><script>window.ran = 1</script><img src="x" onerror="window.ran = 2">'
    "<svg onload='window.ran = 3'><a href=\"javascript:window.ran=4\">{{ 7 * 7 }} <!--"
)
LONG = "Which-desk-is-it-" * 12


def scored(text: str, before: str, right: int) -> Candidate:
    values = tuple(float(number < right) for number in range(20))
    return Candidate(Prompt(text), Score(values), edit_distance(Prompt(before), Prompt(text)))


def search(initial: str, seed: int) -> Trajectory:
    trajectory = Trajectory(scored(initial, initial, 4))
    for index in range(3):
        current = trajectory.current.prompt.text
        candidates = tuple(
            scored(f"{current} rule{index}{number}-{seed}", current, 5 + 4 * index + number + seed)
            for number in range(4)
        )
        failure = Failure(f"ticket {HOSTILE}", "desk", f"Hm. {HOSTILE}", f"names no desk {HOSTILE}")
        direction = Direction(
            reflection=f"{HOSTILE} misses two" if index == 1 else None, failures=(failure,) if index == 1 else ()
        )
        trajectory = trajectory.append(
            Step(index, 50 - 20 * index, direction, candidates, candidates[-1], Samples(), Spending())
        )
    return trajectory


def record() -> RunRecord:
    searches = {
        SearchKey("desk", 0): search(f"Name the desk. {HOSTILE}", 0),
        SearchKey("desk", 1): search(f"Name the desk. {LONG}", 1),
        SearchKey("<b>lab</b>", 0): search("Name the laboratory.", 0),
    }
    checkpoints = {key: Checkpoint(trajectory, {}) for key, trajectory in searches.items()}
    return RunRecord(
        f"run-{HOSTILE}", 0.0, "completed", keys=tuple(searches), checkpoints=checkpoints, config=f"a: {HOSTILE}\n"
    )


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as started:
        yield started


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("report") / "report.html"
    run = record()
    path.write_text(report(run, summary(run, {"started_at": None, "finished_at": None})), encoding="utf-8")
    return path.as_uri()


@pytest.fixture
def page(browser: Browser, address: str) -> Iterator[Page]:
    """The page in a new window; it must request nothing else and log no message."""
    asked: list[str] = []
    messages: list[str] = []
    with window(browser) as context:
        opened = context.new_page()
        opened.on("request", lambda request: asked.append(request.url))
        opened.on("console", lambda entry: messages.append(entry.text))
        opened.on("pageerror", lambda error: messages.append(str(error)))
        opened.goto(address)
        yield opened
    assert [url for url in asked if not url.startswith("data:")] == [address]
    assert messages == []


def prompts(page: Page) -> list[str]:
    return page.locator("#rows .start").all_inner_texts()


def test_candidates_are_sorted_searched_and_compared_with_the_keyboard_alone(page: Page) -> None:
    expect(page.get_by_role("status")).to_have_text("1 to 25 of 39 prompts")
    by_val = page.get_by_role("columnheader", name="val, %")
    button = by_val.get_by_role("button")
    button.focus()
    page.keyboard.press("Enter")
    expect(by_val).to_have_attribute("aria-sort", "descending")
    assert prompts(page)[0].endswith("rule23-1")
    page.keyboard.press("Enter")
    expect(by_val).to_have_attribute("aria-sort", "ascending")
    assert prompts(page)[0].startswith("Name the")
    values = [float(text) for text in page.locator("#rows td:nth-child(4)").all_inner_texts()]
    assert values == sorted(values)

    by_interval = page.get_by_role("columnheader", name="90 % interval")
    by_interval.get_by_role("button").click()
    expect(by_interval).to_have_attribute("aria-sort", "descending")
    lows = [float(text.partition("–")[0]) for text in page.locator("#rows td:nth-child(5)").all_inner_texts()]
    assert lows == sorted(lows, reverse=True)

    page.get_by_role("button", name="Next").focus()
    page.keyboard.press("Enter")
    expect(page.get_by_role("status")).to_have_text("26 to 39 of 39 prompts")
    expect(page.get_by_role("button", name="Next")).to_be_disabled()

    page.get_by_label("Search").focus()
    page.keyboard.type("RULE12 laboratory")
    expect(page.get_by_role("status")).to_have_text("1 to 1 of 1 prompts")
    row = page.locator("#rows tr")
    assert row.locator("td").all_inner_texts()[:4] == ["<b>lab</b>", "0", "2", "55.0"]
    summary_line = row.locator("summary")
    summary_line.focus()
    page.keyboard.press("Enter")
    expect(row.locator("ins")).to_have_text([" rule12-0"])
    expect(row.locator("del")).to_have_count(0)
    expect(row.get_by_text("misses two")).to_be_visible()
    expect(row.get_by_text("names no desk")).to_be_hidden()
    row.get_by_text("Failures shown to the optimizer model").click()
    expect(row.get_by_text("names no desk")).to_be_visible()
    page.get_by_label("Search").fill("no such word")
    expect(page.get_by_role("status")).to_have_text("No prompt matches.")

    page.get_by_label("Search").fill("")
    page.get_by_role("combobox", name="Trajectory").select_option(label="desk, seed 1")
    expect(page.get_by_role("status")).to_have_text("1 to 13 of 13 prompts")
    page.get_by_label("accepted only").check()
    expect(page.get_by_role("status")).to_have_text("1 to 4 of 4 prompts")


def test_the_best_prompt_is_compared_with_the_initial_one(page: Page) -> None:
    page.get_by_role("link", name="Prompts of <b>lab</b>, seed 0").click()
    section = page.locator("details.trajectory[open]").last
    expect(section.locator(".diff")).to_be_visible()
    inserted = " rule03-0 rule13-0 rule23-0"
    assert section.locator("ins").all_inner_texts() == [inserted]
    assert section.locator("td").all_inner_texts()[:4] == ["12", "0", "4", "4"]
    section.get_by_text("val: 12 fixed").click()
    expect(section.get_by_text("5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16")).to_be_visible()


def test_nothing_that_a_model_wrote_runs(page: Page, until: Until) -> None:
    innermost = page.locator("li .inner .prompt").filter(has_text="names no desk").first

    def is_open() -> bool:
        page.evaluate("document.querySelectorAll('details:not([open]) > summary').forEach((one) => one.click())")
        return innermost.is_visible()

    until(is_open, "what is opened contains nothing more to open")
    assert page.evaluate("window.ran") is None
    assert page.locator("img[onerror], svg, #rows a, #rows img").count() == 0
    expect(page.locator("#rows .prompt").filter(has_text="Name the desk").first).to_contain_text(HOSTILE)
    assert page.title() == f"run-{HOSTILE}"


def test_the_page_runs_no_other_script_and_makes_no_request(browser: Browser, address: str) -> None:
    with window(browser) as context:
        page = context.new_page()
        page.goto(address)
        with page.expect_console_message(lambda message: "script-src" in message.text):
            page.evaluate(
                "document.body.append(Object.assign(document.createElement('script'), {text: 'window.ran = 5'}))"
            )
        with page.expect_console_message(lambda message: "connect-src" in message.text):
            page.evaluate("fetch('http://127.0.0.1:9/').catch(() => { window.offline = true; })")
        page.wait_for_function("window.offline")
        assert page.evaluate("window.ran") is None


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_the_page_fits_any_screen_and_is_readable(page: Page, width: int, scheme: str) -> None:
    page.emulate_media(color_scheme="dark" if scheme == "dark" else "light")
    page.set_viewport_size({"width": width, "height": 844})
    page.wait_for_function(f"window.innerWidth === {width}")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.locator("#rows tr").first.bounding_box()["width"] <= width  # type: ignore[index]
    # WCAG's contrast of 4.5 : 1 between each text and its background.
    low = page.evaluate(CONTRASTS)
    assert low == []
    # Every control has a name.
    assert page.locator("input:not([id]), button:empty, img:not([alt])").count() == 0


CONTRASTS = """() => {
  const canvas = Object.assign(document.createElement("canvas"), { width: 1, height: 1 });
  const context = canvas.getContext("2d", { willReadFrequently: true });
  const channels = (colour) => {
    context.clearRect(0, 0, 1, 1);
    context.fillStyle = colour;
    context.fillRect(0, 0, 1, 1);
    return [...context.getImageData(0, 0, 1, 1).data];
  };
  const light = (colour) => channels(colour).slice(0, 3)
    .map((value) => value / 255)
    .map((value) => (value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4))
    .reduce((sum, value, index) => sum + value * [0.2126, 0.7152, 0.0722][index], 0);
  const behind = (element) => {
    for (let at = element; at; at = at.parentElement) {
      const colour = getComputedStyle(at).backgroundColor;
      if (channels(colour)[3] === 255) return colour;
    }
    return "white";
  };
  const low = [];
  for (const element of document.querySelectorAll("body *")) {
    const text = [...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim());
    if (!text || !element.checkVisibility() || element.disabled || element.closest("script")) continue;
    const [one, other] = [light(getComputedStyle(element).color), light(behind(element))].sort((a, b) => b - a);
    if ((one + 0.05) / (other + 0.05) < 4.5) low.push(element.outerHTML.slice(0, 100));
  }
  return low;
}"""
