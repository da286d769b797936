"""The report in a real Chromium: what is seen, reached by keyboard, switched, sorted, found and printed."""

import base64
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from serm.verbs import report
from tests.serm.chromium import Browser, chromium
from tests.serm.report_space import HOSTILE, empty, evolved

KEYS = {"Tab": 9, "Enter": 13, " ": 32}
OPEN_ALL = "document.querySelectorAll('details').forEach((part) => { part.open = true; })"
TOO_WIDE = """[...document.querySelectorAll('body *')].filter((node) => {
  const box = node.getBoundingClientRect();
  return box.width > 0 && box.right > innerWidth + 1 && !node.closest('nav');
}).map((node) => `${node.tagName}.${node.className} ${node.textContent.slice(0, 40)}`).slice(0, 5)"""
FOCUSED = "document.activeElement.textContent.trim()"
# Contrast by WCAG 2.2 of every piece of text with the nearest ground that is painted behind it.
FAINT = """(() => {
  const canvas = document.createElement('canvas').getContext('2d', { willReadFrequently: true });
  const rgb = (colour) => { canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = colour; canvas.fillRect(0, 0, 1, 1); return canvas.getImageData(0, 0, 1, 1).data; };
  const light = (c) => [0.2126, 0.7152, 0.0722].reduce((sum, w, i) => { const v = c[i] / 255; return sum + w * (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4); }, 0);
  const ground = (node) => { for (let n = node; n; n = n.parentElement) { const c = rgb(getComputedStyle(n).backgroundColor); if (c[3] === 255) return c; } return rgb('white'); };
  return [...document.querySelectorAll('main *, .bar *')].filter((node) => node.offsetParent && [...node.childNodes].some((c) => c.nodeType === 3 && c.data.trim())).map((node) => {
    const [a, b] = [light(rgb(getComputedStyle(node).color)), light(ground(node))];
    return [(Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05), node.className || node.tagName, node.textContent.slice(0, 30)];
  }).filter(([ratio]) => ratio < 4.5).slice(0, 5);
})()"""  # noqa: E501


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """One Chromium for this file."""
    with chromium(tmp_path_factory.mktemp("profile")) as browser:
        yield browser


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The page of two rounds, as a file."""
    return Path(report(evolved(tmp_path_factory.mktemp("report") / "shop")).path).as_uri()


@pytest.fixture
def shown(browser: Browser, address: str) -> Iterator[Browser]:
    """The page on a desk, in the light, without memory of earlier visits."""
    browser.screen(1280, 800)
    browser.open(address)
    browser.evaluate("localStorage.clear()")
    browser.errors.clear()
    browser.requests.clear()
    browser.call("Page.reload")
    browser.wait("document.readyState === 'complete' && !document.getElementById('theme').hidden")
    yield browser
    assert browser.errors == []


def press(browser: Browser, key: str) -> None:
    """A key that the page itself does not handle needs its code and its text."""
    told = {"key": key, "code": "Space" if key == " " else key, "windowsVirtualKeyCode": KEYS[key]}
    text = {"Enter": "\r", " ": " "}.get(key)
    browser.call("Input.dispatchKeyEvent", type="keyDown", **told, **({"text": text} if text else {}))
    browser.call("Input.dispatchKeyEvent", type="keyUp", **told)


def test_it_opens_by_itself_and_markup_in_the_data_is_text(shown: Browser, address: str) -> None:
    text = shown.evaluate("document.body.innerText")
    for part in ("Search got better", "Is search better?", "What changed?", "What needs a decision?", "nDCG@10"):
        assert part in text
    shown.evaluate(OPEN_ALL)
    text = shown.evaluate("document.body.innerText")
    for part in HOSTILE[:2]:
        assert part in text
    assert {url.split("#")[0] for url in shown.requests} <= {address, "data:,"}
    assert shown.evaluate("document.querySelectorAll('img, iframe, object, link[rel=stylesheet]').length") == 0


def test_a_script_that_got_into_the_page_would_not_run(browser: Browser, address: str, tmp_path: Path) -> None:
    html = Path(address.removeprefix("file://")).read_text("utf-8")
    page = tmp_path / "evil.html"
    page.write_text(html.replace("</main>", "<script>window.broken = 1</script></main>"), encoding="utf-8")
    browser.open(page.as_uri())
    assert browser.evaluate("window.broken") is None
    assert any("Content Security Policy" in error for error in browser.errors)
    browser.errors.clear()


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [390, 1280])
def test_nothing_is_cut_off_and_all_text_can_be_read(shown: Browser, width: int, dark: bool) -> None:
    shown.screen(width, 844, dark)
    shown.evaluate(OPEN_ALL)
    assert shown.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert shown.evaluate(TOO_WIDE) == []
    assert shown.evaluate(FAINT) == []


def test_the_theme_follows_the_system_until_it_is_switched(shown: Browser) -> None:
    ground = "getComputedStyle(document.body).backgroundColor"
    light = shown.evaluate(ground)
    shown.screen(1280, 800, dark=True)
    dark = shown.evaluate(ground)
    assert light != dark
    assert shown.evaluate("document.getElementById('theme').getAttribute('aria-label')") == "Use the light theme"
    shown.evaluate("document.getElementById('theme').focus()")
    press(shown, "Enter")
    assert shown.evaluate(ground) == light
    shown.call("Page.reload")
    shown.wait("document.readyState === 'complete' && document.documentElement.dataset.theme === 'light'")
    assert shown.evaluate(ground) == light
    shown.evaluate("document.getElementById('theme').click()")
    assert shown.evaluate(ground) == dark


def test_the_keyboard_reaches_and_works_everything(shown: Browser) -> None:
    press(shown, "Tab")
    assert shown.evaluate(FOCUSED) == "Skip to the report"
    assert shown.evaluate("document.activeElement.getBoundingClientRect().top >= 0")
    press(shown, "Enter")
    assert shown.evaluate("document.activeElement.id") == "content"
    reached = []
    for _ in range(12):
        press(shown, "Tab")
        reached.append(shown.evaluate("document.activeElement.tagName"))
        assert shown.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    assert "SUMMARY" in reached
    shown.evaluate("document.querySelector('summary').focus()")
    press(shown, "Enter")
    assert shown.evaluate("document.querySelector('details').open")
    count = "document.querySelectorAll('a[href], button:not([hidden]), summary, input').length"
    assert shown.evaluate(count) == shown.evaluate(
        "[...document.querySelectorAll('a[href], button:not([hidden]), summary, input')]"
        ".filter((node) => node.tabIndex === 0).length"
    )


def test_tables_sort_by_keyboard_and_are_searched(shown: Browser) -> None:
    shown.evaluate("window.rounds = document.querySelector('#rounds table')")
    first = "rounds.tBodies[0].rows[0].cells[0].textContent.trim()"
    assert shown.evaluate(first) == "2"
    shown.evaluate("rounds.querySelector('button').focus()")
    press(shown, "Enter")
    assert (shown.evaluate(first), shown.evaluate("rounds.querySelector('th').ariaSort")) == ("1", "ascending")
    press(shown, " ")
    assert (shown.evaluate(first), shown.evaluate("rounds.querySelector('th').ariaSort")) == ("2", "descending")
    shown.evaluate("location.hash = 'round-1'")
    shown.wait("document.getElementById('round-1').open")
    shown.evaluate("window.finder = document.querySelector('#round-1 .finder'); finder.querySelector('input').focus()")
    shown.call("Input.insertText", text="UNBREAKABLE")
    rows = "[...finder.parentElement.querySelectorAll('tbody tr')].filter((row) => row.offsetParent).length"
    assert shown.evaluate(rows) == 1
    assert shown.evaluate("finder.querySelector('.found').textContent").startswith("1 of ")
    shown.evaluate("document.querySelector('.fold').click()")
    assert shown.evaluate("[...document.querySelectorAll('#rounds .stack > details')].every((part) => part.open)")


def test_pictures_have_names_and_tables_behind_them(shown: Browser) -> None:
    assert shown.evaluate("document.querySelectorAll('[role=img]').length") > 0
    assert shown.evaluate(
        "[...document.querySelectorAll('[role=img]')].every((node) => node.ariaLabel.length > 20"
        " && node.closest('figure').nextElementSibling.querySelector('table'))"
    )
    assert shown.evaluate("[...document.querySelectorAll('table')].every((table) => table.caption.textContent)")
    assert shown.evaluate("[...document.querySelectorAll('input')].every((input) => input.labels.length)")
    levels = shown.evaluate("[...document.querySelectorAll('h1, h2, h3')].map((node) => Number(node.tagName[1]))")
    assert levels[0] == 1
    assert all(after - before <= 1 for before, after in pairwise(levels))


def test_it_prints_light_and_without_controls(shown: Browser) -> None:
    shown.evaluate("document.documentElement.dataset.theme = 'dark'")
    shown.call("Emulation.setEmulatedMedia", media="print")
    assert shown.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert shown.evaluate("getComputedStyle(document.querySelector('h1')).color") == "rgb(28, 30, 34)"
    assert shown.evaluate("getComputedStyle(document.querySelector('.bar')).display") == "none"
    pdf = base64.b64decode(shown.call("Page.printToPDF")["data"])
    shown.call("Emulation.setEmulatedMedia", media="")
    assert pdf.startswith(b"%PDF")
    assert len(pdf) > 50_000


def test_an_empty_workspace_has_a_page_too(browser: Browser, tmp_path: Path) -> None:
    browser.errors.clear()
    browser.open(Path(report(empty(tmp_path / "new")).path).as_uri())
    assert "Nothing to report yet" in browser.evaluate("document.body.innerText")
    assert browser.errors == []
