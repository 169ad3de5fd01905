"""README.md and the pages in docs/, taken apart: blocks of code, tables, links, headings."""

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

CHECKOUT = Path(__file__).parents[2]

_FENCE = re.compile(
    r"^(?:<!-- not run: (?P<not_run>[^\n]+?) -->\n)?^```(?P<language>\w*)\n(?P<text>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)
_LINK = re.compile(r"\[[^\]]+\]\(([^)\s]+)\)")
_SPAN = re.compile(r"`([^`\n]+)`")
_OPTION = re.compile(r"(?<![\w-])(--[a-z][a-z0-9-]*)")


@dataclass(frozen=True)
class Block:
    """Code between fences; ``line`` is where its text begins, ``section`` the heading that it is
    below. ``not_run`` is the reason why no test runs it, which a comment before the block gives."""

    page: str
    section: str
    line: int
    language: str
    text: str
    not_run: str | None

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


@dataclass(frozen=True)
class Page:
    path: Path

    def __str__(self) -> str:
        return self.path.relative_to(CHECKOUT).as_posix()

    @property
    def text(self) -> str:
        return self.path.read_text()

    @property
    def blocks(self) -> list[Block]:
        found = []
        for match in _FENCE.finditer(self.text):
            before, text = self.text[: match.start("text")], match["text"]
            section = re.findall(r"^##? (.+)$", _FENCE.sub("", before), re.MULTILINE)[-1]
            line = before.count("\n") + 1
            found.append(Block(str(self), section, line, match["language"], text, match["not_run"]))
        return found

    @property
    def prose(self) -> str:
        """The text without its blocks."""
        return _FENCE.sub("", self.text)

    @property
    def spans(self) -> list[str]:
        """What is between backticks in the prose."""
        return _SPAN.findall(self.prose)

    @property
    def links(self) -> list[str]:
        return _LINK.findall(self.prose)

    @property
    def options(self) -> set[str]:
        """The options that are named as code, of whatever command."""
        code = [*self.spans, *(block.text for block in self.blocks)]
        return {option for text in code for option in _OPTION.findall(text)}

    @property
    def anchors(self) -> set[str]:
        """What GitHub makes of the headings."""
        found: Counter[str] = Counter()
        anchors = set()
        for heading in re.findall(r"^#+ (.+)$", self.prose, re.MULTILINE):
            slug = re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
            anchors.add(f"{slug}-{found[slug]}" if found[slug] else slug)
            found[slug] += 1
        return anchors

    def section(self, heading: str) -> str:
        """The text below a heading, up to the next of its level or above."""
        level = heading.partition(" ")[0]
        assert f"\n{heading}\n" in self.text, f"{self}: {heading}"
        below = self.text.partition(f"\n{heading}\n")[2]
        return re.split(rf"^#{{1,{len(level)}}} ", below, maxsplit=1, flags=re.MULTILINE)[0]


def rows(text: str) -> Iterator[list[str]]:
    """The cells of the tables in a text, without their headings."""
    bodies = re.sub(r"^\|.*\n\|[-|]+\|$", "", text, flags=re.MULTILINE)
    for line in re.findall(r"^\| .+ \|$", bodies, re.MULTILINE):
        yield [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]


README = Page(CHECKOUT / "README.md")
DOCS = {path.stem: Page(path) for path in sorted((CHECKOUT / "docs").glob("*.md"))}
PAGES = [README, *DOCS.values()]
BLOCKS = [block for page in PAGES for block in page.blocks]
