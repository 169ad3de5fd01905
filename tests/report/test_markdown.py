"""The Markdown says what the document says, and no value breaks out of its cell."""

import hashlib
import re

from archiver.report.document import encode
from archiver.report.markdown import escape, to_markdown
from examples import drill_evidence as example
from tests.report import hostile


def test_it_says_what_matters() -> None:
    data = encode(example.second())
    text = to_markdown(data).decode()
    assert text.startswith(f"# Restore drill {example.second().id}: Fail\n")
    assert "1 of 4 backup sets passed; 1 failed" in text
    assert "| RTO, slowest set | did not end | 2 min | missed |" in text
    assert hashlib.sha256(data).hexdigest() in text
    previous = example.second().previous
    assert previous is not None
    assert previous.sha256 in text
    for one in example.second().sets:
        assert f": {one.verdict}\n" in text
        for file in one.files:
            assert file.sha256 in text


def test_every_row_has_the_cells_of_its_head() -> None:
    text = to_markdown(encode(hostile.evidence())).decode()
    width = 0
    for line in text.splitlines():
        cells = len(re.findall(r"(?<!\\)\|", line))
        if line.startswith("| ---"):
            assert cells == width
        if line.startswith("|"):
            width = width or cells
            assert cells == width, line
        else:
            width = 0


def test_no_value_is_markup() -> None:
    text = to_markdown(encode(hostile.evidence())).decode()
    assert "<" not in text
    assert "\x1b" not in text
    assert escape("a|b`c`<d>&\n*e*") == r"a\|b\`c\`&lt;d>&amp; \*e\*"
