"""The review page in a real Chromium: what a person sees and does with the keyboard."""

import threading
import time
from collections.abc import Iterator
from urllib.parse import urlsplit

import polars as pl
import pytest
import uvicorn

from serm.review.decisions import decide
from serm.review.desk import Desk
from serm.review.server import application, listen
from serm.workspace import Workspace
from tests.serm.chromium import Browser, chromium
from tests.serm.review_space import MARKUP, fill

PAIRS = 45  # more than two pages of the queue
QUERY = "document.getElementById('query').textContent"
SAVED = "document.getElementById('saved').textContent === 'Saved'"


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """One Chromium for this file."""
    with chromium(tmp_path_factory.mktemp("profile")) as browser:
        yield browser


@pytest.fixture
def address(browser: Browser, workspace: Workspace) -> Iterator[str]:
    """A running server over a filled queue; the browser shows its page."""
    fill(workspace, PAIRS)
    browser.errors.clear()
    browser.requests.clear()
    browser.screen(1280, 800)
    with listen(0) as listener:
        server = uvicorn.Server(
            uvicorn.Config(application(Desk(workspace, "eva")), log_level="error", timeout_graceful_shutdown=1)
        )
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        while not server.started:
            time.sleep(0.01)
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/"
        browser.open(url)
        shows(browser, PAIRS - 1)
        yield url
        browser.open("about:blank")
        server.should_exit = True
        thread.join()


def shows(browser: Browser, number: int) -> None:
    browser.wait(f"{QUERY} === 'query {number}'")


def grades(workspace: Workspace) -> dict[str, int]:
    return dict(workspace.read("judgments").select("query", "grade").iter_rows())


def test_a_pair_is_shown_with_its_votes_and_nothing_foreign_is_loaded(browser: Browser, address: str) -> None:
    text = browser.evaluate("document.body.innerText")
    for part in (
        f"Title {PAIRS - 1}",
        "no stable label",
        "1 · fair",
        "some <b>words</b> 44",
        "because 44",
        "eva",
        "refused",
    ):
        assert part in text
    assert MARKUP in text  # markup in a document is shown as text
    assert browser.evaluate("document.title") == "Review · serm"
    marked = browser.evaluate("[...document.querySelectorAll('#text mark')].map((m) => m.textContent)")
    assert marked == ["query", "44"]
    assert {urlsplit(url).netloc for url in browser.requests} == {urlsplit(address).netloc}
    assert browser.errors == []


def test_keys_grade_skip_undo_and_move(browser: Browser, address: str, workspace: Workspace) -> None:
    top = PAIRS - 1
    browser.key("2")
    shows(browser, top - 1)
    browser.key("s")
    shows(browser, top - 2)
    browser.key("0")
    shows(browser, top - 3)
    browser.wait(SAVED)
    assert grades(workspace) == {f"query {top}": 2, f"query {top - 2}": 0}
    assert set(workspace.read("judgments")["judge"]) == {"eva"}
    browser.wait("document.getElementById('counts').textContent === '2 done · 43 left'")
    browser.key("u")
    shows(browser, top - 2)
    browser.wait(SAVED)
    assert grades(workspace) == {f"query {top}": 2}
    browser.key("ArrowLeft")
    shows(browser, top - 1)
    browser.key("ArrowLeft")
    shows(browser, top)
    assert browser.evaluate("document.querySelector('.grade[aria-pressed=true]').dataset.grade") == "2"
    browser.key("3")  # another mind
    shows(browser, top - 2)  # the skipped pair stays behind
    browser.wait(SAVED)
    assert grades(workspace) == {f"query {top}": 3}
    browser.key("u")
    shows(browser, top)
    browser.wait(SAVED)
    assert grades(workspace) == {f"query {top}": 2}
    browser.key("9")  # no grade of the scale
    browser.key("ArrowRight")
    shows(browser, top - 1)
    browser.key("?")
    browser.wait("document.getElementById('keys').open")
    browser.key("1")  # keys rest while their list is open
    browser.evaluate("document.getElementById('keys').close()")
    shows(browser, top - 1)
    assert grades(workspace) == {f"query {top}": 2}
    assert browser.errors == []


def test_the_whole_queue_is_judged_across_pages_and_ends(browser: Browser, address: str, workspace: Workspace) -> None:
    other = {"query": "query 20", "doc_id": "d20", "grade": 1, "judge": "ida", "locale": None}
    decide(workspace, pl.DataFrame([other], schema_overrides={"grade": pl.Int32, "locale": pl.String}))
    browser.key("s")
    for number in range(PAIRS - 2, -1, -1):
        if number != 20:  # judged by another meanwhile
            shows(browser, number)
            browser.key(str(number % 4))
    browser.wait("!document.getElementById('finished').hidden")
    assert "Only skipped pairs are left" in browser.evaluate("document.body.innerText")
    browser.evaluate("document.getElementById('again').click()")
    shows(browser, PAIRS - 1)
    browser.key("1")
    browser.wait("document.getElementById('finished-title').textContent === 'All pairs are judged'")
    browser.wait(SAVED)
    expected = {f"query {number}": number % 4 for number in range(PAIRS - 1)}
    assert grades(workspace) == expected | {"query 20": 1, f"query {PAIRS - 1}": 1}
    assert browser.errors == []


def test_a_decision_that_is_not_saved_comes_back_with_the_reason(
    browser: Browser, address: str, workspace: Workspace
) -> None:
    held = {"query": f"query {PAIRS - 1}", "doc_id": "x", "grade": 1, "split": "fresh", "judge": "human"}
    workspace.append("judgments", pl.DataFrame([held]))
    browser.key("2")
    browser.wait("!document.getElementById('problem').hidden")
    shows(browser, PAIRS - 1)
    assert "judged for evaluation" in browser.evaluate("document.getElementById('problem').textContent")
    assert browser.evaluate("document.querySelector('.grade[aria-pressed=true]')") is None
    assert f"query {PAIRS - 1}" not in open_queries(workspace)
    assert workspace.read("judgments").filter(judge="eva").is_empty()


def open_queries(workspace: Workspace) -> list[str]:
    return Desk(workspace, "ida").queue["query"].to_list()


@pytest.mark.parametrize("dark", [False, True])
def test_themes_have_contrast_and_a_phone_does_not_scroll_sideways(browser: Browser, address: str, dark: bool) -> None:
    luminance = """(colour) => { const [r, g, b] = colour.match(/[\\d.]+/g).map((v) => { v /= 255;
        return v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4; }); return .2126 * r + .7152 * g + .0722 * b; }"""
    for width, height in ((1280, 800), (375, 740), (320, 640)):
        browser.screen(width, height, dark)
        assert browser.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    ground = browser.evaluate(f"({luminance})(getComputedStyle(document.querySelector('.card')).backgroundColor)")
    assert (ground < 0.2) == dark
    for selector in (".text", ".eyebrow", "mark", ".label", ".silent", ".chip"):
        style = f"getComputedStyle(document.querySelector({selector!r}))"
        ink = browser.evaluate(f"({luminance})({style}.color)")
        own = browser.evaluate(f"{style}.backgroundColor")
        behind = ground if own == "rgba(0, 0, 0, 0)" else browser.evaluate(f"({luminance})({own!r})")
        low, high = sorted((ink, behind))
        assert (high + 0.05) / (low + 0.05) >= 4.5, selector  # WCAG 2.2, AA
    browser.key("Tab")
    outline = browser.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    assert outline == "solid"
