"""The page as text: complete, escaped, self-contained. What it looks like: test_page_chromium."""

import hashlib
import re
from html.parser import HTMLParser
from itertools import pairwise

import pytest

from archiver.errors import IntegrityError
from archiver.report.document import encode
from archiver.report.page import bars, to_page
from examples import drill_evidence as example
from tests.report import hostile


class Reading(HTMLParser):
    def __init__(self, data: bytes) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self._is_style = False
        self.feed(data.decode())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._is_style = tag == "style"

    def handle_data(self, data: str) -> None:
        if not self._is_style:
            self.text += data


def test_the_verdict_comes_first() -> None:
    text = re.sub(r"\s+", " ", Reading(to_page(encode(example.second()))).text)
    order = [
        "Fail",
        "1 of 4 backup sets passed",
        "RTO: recovery took",
        "Backup sets",
        "How to check",
    ]
    places = [text.index(words, 60) for words in order]
    assert places == sorted(places)
    assert "2026-11-24T02:15:00Z (3 h 12 min before the drill)" in text


def test_it_says_what_the_document_says() -> None:
    for evidence in (example.first(), example.second()):
        data = encode(evidence)
        text = Reading(to_page(data)).text
        assert hashlib.sha256(data).hexdigest() in text
        for one in evidence.sets:
            assert one.why in text
            for file in one.files:
                assert file.sha256 in text
                assert f"{file.size:,} bytes" in text
                assert file.reason in text


def test_no_value_becomes_markup() -> None:
    page = to_page(encode(hostile.evidence()))
    reading = Reading(page)
    names = {tag for tag, _ in reading.tags}
    assert not names & {"script", "img", "iframe", "link", "object", "embed", "form", "base"}
    for tag, attributes in reading.tags:
        assert not [name for name in attributes if name.startswith("on")], tag
        assert not {"src", "srcset", "action", "xlink:href"} & attributes.keys(), tag
        assert (attributes.get("href") or "#").startswith("#"), tag
    assert "alert(1)" in reading.text
    assert "{{ 7*7 }}" in reading.text
    assert b"\x00" not in page


def test_it_needs_nothing_else() -> None:
    page = to_page(encode(example.second())).decode()
    head = page[: page.index("<style>")]
    assert "default-src 'none'; style-src 'unsafe-inline'" in head
    style = page[page.index("<style>") : page.index("</style>")]
    assert "url(" not in style
    assert "@import" not in style
    assert "<script" not in page


def test_tables_have_heads_and_landmarks_are_there() -> None:
    reading = Reading(to_page(encode(example.second())))
    assert ("html", {"lang": "en"}) in reading.tags
    names = [tag for tag, _ in reading.tags]
    assert names.count("h1") == names.count("main") == names.count("footer") == 1
    for tag, attributes in reading.tags:
        if tag == "th":
            assert attributes.get("scope") in ("col", "row")
    assert names.count("table") == names.count("caption")
    ids = [attributes["id"] for _, attributes in reading.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    for _, attributes in reading.tags:
        if (href := attributes.get("href")) and href.startswith("#"):
            assert href[1:] in ids


def test_a_drill_of_nothing_has_a_page_too() -> None:
    text = Reading(to_page(encode(example.drill(example.FIRST)))).text
    assert "No backup set was drilled, so nothing was proven." in text


def test_what_is_not_evidence_has_no_page() -> None:
    with pytest.raises(IntegrityError):
        to_page(b"{}")


def test_the_chart_ends_where_the_drill_of_the_set_ended() -> None:
    found = bars(example.ALL_PHASES)
    assert found[-1].left + found[-1].width == pytest.approx(100)
    for before, after in pairwise(found):
        assert after.left == pytest.approx(before.left + before.width)
    assert [bar.is_recovery for bar in found] == [True] * 5 + [False] * 3
