"""What an archive keeps of drills and of earlier verifies: that the chain holds, that pages say
what the evidence says, and that there is nothing else."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final

from anyio import from_thread

from archiver.errors import ArchiverError
from archiver.report import chain
from archiver.report.document import decode
from archiver.report.evidence import Link
from archiver.report.junit import to_junit
from archiver.report.markdown import to_markdown
from archiver.report.page import to_page
from archiver.scrub import results
from archiver.scrub.findings import Fault, Finding, stray
from archiver.stores.base import Store
from archiver.threads import in_thread
from archiver.version import __version__

_PAGES: Final[Mapping[str, Callable[[bytes], bytes]]] = {
    chain.PAGE_SUFFIX: to_page,
    chain.MARKDOWN_SUFFIX: to_markdown,
    chain.JUNIT_SUFFIX: to_junit,
}


async def check_evidence(
    store: Store, anchors: Sequence[Link], found: Callable[[Finding], None]
) -> None:
    """Look at all below ``drills/`` and ``verified/``. ``anchors`` are ids and hashes of documents
    that were kept elsewhere. Raises StoreError."""
    keys = {entry.key async for entry in store.entries(chain.PREFIX)}
    documents = sorted(key for key in keys if key.endswith(chain.EVIDENCE_SUFFIX))
    pages = {chain.beside(key, suffix): key for key in documents for suffix in _PAGES}
    for key in sorted(keys - pages.keys() - set(documents)):
        found(stray(key))

    def read() -> Iterator[tuple[str, bytes]]:
        """Each document once, and what was made from it beside it."""
        for key in documents:
            data = from_thread.run(store.read, key) or b""
            made = {chain.beside(key, suffix): make for suffix, make in _PAGES.items()}
            for page in made.keys() & keys:
                if _is_ours(data) and from_thread.run(store.read, page) != made[page](data):
                    text = f"it is not what {key.rpartition('/')[2]} makes: somebody changed it"
                    changed.append(Finding(page, Fault.EVIDENCE, text))
            yield key, data

    changed: list[Finding] = []
    broken = await in_thread(lambda: chain.check_chain(read(), anchors=anchors))
    for wrong in broken:
        found(Finding(wrong.key, Fault.EVIDENCE, f"{wrong.fault}: {wrong.text}"))
    for finding in sorted(changed, key=lambda one: one.key):
        found(finding)
    async for entry in store.entries(results.PREFIX):
        if results.month_of(entry.key) is None:
            found(stray(entry.key))


def _is_ours(data: bytes) -> bool:
    """Whether this version made it: another one may word its pages otherwise."""
    try:
        tool = decode(data).tool
    except ArchiverError:
        return False  # the chain says so
    return (tool.name, tool.version) == ("archiver", __version__)
