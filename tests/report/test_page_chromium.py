"""The page in a real browser: on a phone, on a desk, on paper, in the dark."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from archiver.report.document import encode
from archiver.report.evidence import Evidence
from archiver.report.page import to_page
from examples import drill_evidence as example
from tests.report import hostile
from tests.report.chromium import EXECUTABLE, Chromium
from tests.report.png import colours
from tests.sweeps import pairs

pytestmark = [
    pytest.mark.skipif(EXECUTABLE is None, reason="no chromium on the PATH"),
    pytest.mark.xdist_group("chromium"),
]

FAIL_LIGHT, PASS_LIGHT, FAIL_DARK = (0xA4, 0x21, 0x1D), (0x17, 0x69, 0x3A), (0xFF, 0x9D, 0x96)


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chromium]:
    with Chromium(tmp_path_factory.mktemp("chromium")) as found:
        yield found


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("pages")
    found = {}
    for name, evidence in (
        ("pass", example.first()),
        ("every", example.second()),
        ("hostile", hostile.evidence()),
        ("nothing", example.drill(example.FIRST)),
        ("long", long_names()),
    ):
        found[name] = folder / f"{name}.html"
        found[name].write_bytes(to_page(encode(evidence)))
    return found


def long_names() -> Evidence:
    """Words that have no place to break, as long as ids may be and longer."""
    word = "r-" + "x" * 250
    one = example.partial(example.FIRST)
    file = example.one_file(word, word, word, one.started_at, 10**15)
    return example.drill(
        example.FIRST, example.one_set(example.FIRST, word, one.started_at, (file,))
    )


LOOKS = (
    ("every", "light", FAIL_LIGHT),
    ("every", "dark", FAIL_DARK),
    ("pass", "light", PASS_LIGHT),
)


@pytest.mark.parametrize(("look", "size"), pairs(LOOKS, ((360, 800), (1280, 900))))
def test_a_screenshot_shows_the_verdict(
    browser: Chromium,
    pages: dict[str, Path],
    look: tuple[str, str, tuple[int, int, int]],
    size: tuple[int, int],
    tmp_path: Path,
) -> None:
    (name, scheme, colour), (width, height) = look, size
    browser.show(pages[name], width=width, height=height, scheme=scheme)
    picture = browser.screenshot()
    (tmp_path / f"{name}-{scheme}-{width}.png").write_bytes(picture)
    found = colours(picture)
    assert sum(found.values()) == width * height
    assert len(found) > 50
    assert found[colour] > 500
    assert max(found.values()) < 0.9 * width * height


@pytest.mark.parametrize("name", ["pass", "every", "hostile", "nothing", "long"])
def test_nothing_is_fetched_and_nothing_refused(
    browser: Chromium, pages: dict[str, Path], name: str
) -> None:
    browser.show(pages[name], width=1280, height=900)
    assert browser.requests == [pages[name].as_uri()]
    assert browser.complaints() == []
    assert browser.evaluate("document.scripts.length") == 0


@pytest.mark.parametrize("width", [320, 360, 640, 768, 1280])
@pytest.mark.parametrize("name", ["pass", "every", "hostile", "nothing", "long"])
def test_the_page_never_scrolls_sideways(
    browser: Chromium, pages: dict[str, Path], name: str, width: int
) -> None:
    browser.show(pages[name], width=width, height=800)
    browser.evaluate("document.querySelectorAll('details').forEach(one => one.open = true)")
    assert browser.evaluate("window.innerWidth") == width
    assert browser.evaluate("document.documentElement.scrollWidth") == width


# Of every text in the page, its contrast with what is behind it (WCAG 2, relative luminance).
CONTRAST = """
(() => {
  const parse = text => text.match(/[0-9.]+/g).map(Number);
  const light = rgb => rgb.slice(0, 3).map(v => v / 255)
    .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const behind = node => {
    for (; node; node = node.parentElement) {
      const colour = parse(getComputedStyle(node).backgroundColor);
      if (colour.length === 3 || colour[3] === 1) return colour;
    }
    return [255, 255, 255];
  };
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  const poor = [];
  let seen = 0;
  while (walker.nextNode()) {
    const node = walker.currentNode;
    if (!node.textContent.trim()) continue;
    seen += 1;
    const [a, b] = [light(parse(getComputedStyle(node.parentElement).color)),
                    light(behind(node.parentElement))];
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (ratio < 4.5) poor.push(`${ratio.toFixed(2)} ${node.textContent.trim().slice(0, 40)}`);
  }
  return {poor, seen};
})()
"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_can_be_read(browser: Chromium, pages: dict[str, Path], scheme: str) -> None:
    browser.show(pages["every"], width=1280, height=900, scheme=scheme)
    found = browser.evaluate(CONTRAST)
    assert found["seen"] > 200
    assert found["poor"] == []


# Texts of the page that have no place on paper.
HIDDEN = """
[...document.querySelectorAll('details *, .scroll *')]
  .filter(one => !one.closest('[hidden]'))
  .filter(one => !one.checkVisibility({contentVisibilityAuto: true, checkOpacity: true})
    || (one.textContent.trim() && one.getBoundingClientRect().height === 0))
  .map(one => one.outerHTML.slice(0, 80))
"""


def test_paper_shows_what_is_folded_away_and_clips_nothing(
    browser: Chromium, pages: dict[str, Path]
) -> None:
    # 182 mm between the margins of A4 are 688 CSS pixels.
    browser.show(pages["every"], width=688, height=1000, scheme="dark", media="print")
    assert browser.evaluate("document.querySelectorAll('details').length") > 3
    assert browser.evaluate("document.querySelectorAll('details[open]').length") == 0
    assert browser.evaluate(HIDDEN) == []
    assert browser.evaluate("document.documentElement.scrollWidth") == 688
    assert (
        browser.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    )


def test_it_prints(browser: Chromium, pages: dict[str, Path]) -> None:
    browser.show(pages["every"], width=1280, height=900)
    data = browser.pdf()
    assert data.startswith(b"%PDF-")
    boxes = re.findall(rb"/MediaBox \[0 0 ([0-9.]+) ([0-9.]+)\]", data)
    assert 5 <= len(boxes) <= 14
    for width, height in boxes:
        assert (float(width), float(height)) == pytest.approx((595, 842), abs=1.5)


def test_the_verdict_is_clear_without_colour(browser: Chromium, pages: dict[str, Path]) -> None:
    browser.show(pages["every"], width=1280, height=900)
    words = browser.evaluate(
        "[...document.querySelectorAll('.badge')].map(one => one.innerText.trim())"
    )
    assert {"Pass", "Partial", "Unloadable", "Fail"} <= set(words)
    marks = browser.evaluate(
        "[...document.querySelectorAll('.set > header .badge use')]"
        ".map(one => one.getAttribute('href'))"
    )
    assert marks == ["#pass", "#partial", "#unloadable", "#fail"]
