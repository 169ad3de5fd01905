"""The library from async code: pull some instances, hear what happens, act on what failed.

python -m examples.library ENDPOINT DIRECTORY INSTANCE [INSTANCE ...]
"""

import asyncio
import os
import sys
from datetime import UTC, datetime
from pathlib import Path

import aiohttp

from archiver import (
    Archive,
    Event,
    LocalStore,
    PullOptions,
    Query,
    Summary,
    TairSource,
    TimeRange,
    TransferOptions,
    default_chain,
    pull,
)


def tell(event: Event) -> None:
    """An observer: called for everything that happens, from within the event loop."""
    print(type(event).__name__)


async def commit_file(endpoint: str, directory: str, instances: list[str]) -> Summary:
    start, end = TimeRange.parse("last-7d", datetime.now(UTC)).query_bounds()
    options = PullOptions(workers=2, transfer=TransferOptions(connections=2))
    async with aiohttp.ClientSession() as session:
        chain = default_chain(session, os.environ, Path.home())
        async with TairSource(endpoint, chain.get, session=session, observer=tell) as source:
            archive = Archive(LocalStore(directory))
            queries = [Query(instance, start, end) for instance in instances]
            return await pull(source, archive, queries, options, tell)


def main() -> None:
    endpoint, directory, *instances = sys.argv[1:]
    summary = asyncio.run(commit_file(endpoint, directory, instances))
    print(f"{summary.archived} archived, {summary.held} held, {len(summary.failures)} failed")
    sys.exit(summary.exit_code)


if __name__ == "__main__":
    main()
