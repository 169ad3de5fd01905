"""What every store must do, wherever its archive is.

A store's test module subclasses ``Conformance`` and gives it a ``place``::

    class TestLocal(Conformance):
        @pytest.fixture
        def place(self, tmp_path: Path) -> Place: ...
"""

import hashlib
import random
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import (
    AbstractAsyncContextManager,
    AsyncExitStack,
    aclosing,
    asynccontextmanager,
    suppress,
)
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import cache
from itertools import takewhile
from typing import Final

import anyio
import pytest
from fastcrc import crc64

from archiver.concurrency import entered, in_thread
from archiver.errors import ArchiveBusy, StoreError
from archiver.model import Footer, Kind, Network, Part, Pin, Provenance, RdbVerdict, Receipt, Stored
from archiver.stores.base import Documents, Staging, Store
from archiver.stores.scope import WHOLE, NotHeld, scope_of
from archiver.transfer.parts import plan_parts
from tests.sweeps import FULL

MIB: Final = 1024 * 1024
# The least that S3 takes for any part but the last.
# More of what takes long: ``make faults``.
PART: Final = 5 * MIB
SIZE: Final = 10 * MIB + 1234
FOLDER: Final = "r-x/2026/11/20261124T021500Z-1"
STEM: Final = f"{FOLDER}/r-x-7"
RECEIPT: Final = Receipt(
    size=SIZE,
    sha256="0" * 64,
    crc64=0,
    crc64_declared=None,
    etag=None,
    kind=Kind.RDB,
    rdb=RdbVerdict(None, Footer.NONE),
    provenance=Provenance("http://h/k", Network.PUBLIC),
    part_size=PART,
    started_at=datetime(2026, 11, 24, tzinfo=UTC),
    finished_at=datetime(2026, 11, 24, tzinfo=UTC),
    attempts=1,
    bytes_fetched=SIZE,
    bytes_fetched_again=0,
)


@dataclass(frozen=True, slots=True)
class Place:
    """One archive, and the ways to see it.

    ``make`` gives it as a fresh process would see it, on its own or as a context that ends with
    that process. ``content`` and ``staged`` block and ask past the store: the bytes under a key,
    and the names of whatever is there for files on their way. ``reads_staged`` is whether parts
    can be read back before the commit, also after a restart. A listing of ``many`` takes more than
    a page.
    """

    make: Callable[[], Store | AbstractAsyncContextManager[Store]]
    content: Callable[[str], bytes]
    staged: Callable[[], Collection[str]]
    reads_staged: bool = True
    many: int = 1_200

    def offers(self, kept: Collection[int]) -> set[int]:
        """Of the saved parts, those that a later run can use: all where they can be read back, else
        the leading ones without a gap."""
        if self.reads_staged:
            return set(kept)
        return set(takewhile(lambda index: index in kept, range(len(kept))))

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Store]:
        made = self.make()
        if isinstance(made, AbstractAsyncContextManager):
            async with made as store:
                yield store
        else:
            yield made

    @asynccontextmanager
    async def writer(self, *scopes: str) -> AsyncIterator[Store]:
        """A new process that is the only writer of these scopes, or of the instance ``r-x``."""
        async with self.open() as store, AsyncExitStack() as stack:
            for scope in scopes or ("r-x",):
                await stack.enter_async_context(store.exclusive(scope))
            yield store


@cache
def file_of(size: int, seed: int = 0) -> bytes:
    return random.Random(seed).randbytes(size)


def pin_of(data: bytes) -> Pin:
    return Pin(len(data), '"E"', crc64.xz(data))


def receipt_of(data: bytes, kind: Kind = Kind.RDB) -> Receipt:
    digest = hashlib.sha256(data).hexdigest()
    return replace(RECEIPT, size=len(data), sha256=digest, bytes_fetched=len(data), kind=kind)


def no_documents(_: Stored) -> list[tuple[str, bytes]]:
    return []


def record(stored: Stored) -> list[tuple[str, bytes]]:
    stem = stored.key.rpartition(".")[0]
    return [(f"{stem}.json", b'{"a": 1}')]


def chosen(place: Place, data: bytes, kept: Collection[int]) -> list[Part]:
    """The parts that a later run can resume."""
    return [part for part in plan_parts(len(data), PART) if part.index in place.offers(kept)]


def crcs_of(data: bytes, parts: Collection[Part]) -> dict[int, int]:
    return {part.index: crc64.xz(data[part.start : part.stop]) for part in parts}


async def write(staging: Staging, data: bytes, start: int, stop: int) -> None:
    await in_thread(staging.write, start, memoryview(data)[start:stop])


async def put_part(staging: Staging, data: bytes, part: Part) -> None:
    await write(staging, data, part.start, part.stop)
    await keep(staging, data, part)


async def keep(staging: Staging, data: bytes, part: Part) -> None:
    if not staging.can_read_back:
        await in_thread(staging.save_hash_state, part, f"measured up to {part.stop}")
    await in_thread(staging.save_part, part, crc64.xz(data[part.start : part.stop]))


async def begin(staging: Staging, data: bytes) -> tuple[Part, ...]:
    await in_thread(staging.begin, pin_of(data), RECEIPT.provenance, PART)
    return plan_parts(len(data), PART)


async def commit_file(
    store: Store,
    data: bytes,
    stem: str = STEM,
    documents: Documents = no_documents,
    kind: Kind = Kind.RDB,
) -> Stored:
    """What a run does with a file, whatever an earlier run left of it."""
    async with entered(store.stage(stem, len(data))) as staging:
        for key, size in staging.existing.items():
            if key == f"{stem}.{kind}" and size == len(data) and await read_all(store, key) == data:
                commit = staging.record(key, receipt_of(data, kind), documents)
                [stored] = await in_thread(store.finish, [commit])
                return stored
        here = staging.resumable
        missing: Sequence[Part]
        if here is None:
            missing = await begin(staging, data)
        else:
            assert (here.pin, here.part_size) == (pin_of(data), PART)
            parts = plan_parts(len(data), PART)
            wanted = crcs_of(data, parts)
            assert here.crcs == {index: wanted[index] for index in here.crcs}
            missing = [part for part in parts if part.index not in here.crcs]
        for part in missing:
            await put_part(staging, data, part)
        [stored] = await in_thread(
            store.finish, [staging.commit(receipt_of(data, kind), documents)]
        )
        return stored


async def read_all(store: Store, key: str) -> bytes:
    """An object, through the store."""
    block = memoryview(bytearray(MIB))
    data = b""
    async with entered(store.open(key)) as opened:
        while size := await in_thread(opened.read, len(data), block):
            data += block[:size]
    return data


async def all_at_once(store: Store, files: Mapping[str, bytes]) -> None:
    async with anyio.create_task_group() as group:
        for stem, data in files.items():
            group.start_soon(commit_file, store, data, stem)


async def leave(place: Place, data: bytes, kept: Collection[int], stem: str = STEM) -> None:
    """A run that ends after it saved some parts and wrote half of another one."""
    async with place.writer() as store, entered(store.stage(stem, len(data))) as staging:
        parts = await begin(staging, data)
        for part in parts:
            if part.index in kept:
                await put_part(staging, data, part)
        for part in parts:
            if part.index not in kept:
                await write(staging, data, part.start, part.start + part.size // 2)
                break


async def offered(store: Store, size: int, stem: str = STEM) -> Mapping[int, int] | None:
    """The CRCs of the parts that a resume may use; None for nothing to resume."""
    async with entered(store.stage(stem, size)) as staging:
        return dict(staging.resumable.crcs) if staging.resumable is not None else None


async def listing(store: Store, prefix: str = "") -> dict[str, int]:
    found: dict[str, int] = {}
    async for entry in store.entries(prefix):
        assert entry.key not in found
        found[entry.key] = entry.size
    return found


def assert_sorted_within_folders(keys: Collection[str]) -> None:
    folders: dict[str, list[str]] = defaultdict(list)
    for key in keys:
        folders[key.rpartition("/")[0]].append(key)
    for found in folders.values():
        assert found == sorted(found)


async def content(place: Place, key: str) -> bytes:
    return await in_thread(place.content, key)


async def staged(place: Place) -> list[str]:
    return sorted(await in_thread(place.staged))


class Listing:
    """Documents, which are written whole or not at all, and listings."""

    async def test_a_document(self, place: Place) -> None:
        async with place.writer("a") as store:
            assert await store.read("a/b.json") is None
            assert await store.size("a/b.json") is None
            await store.put("a/b.json", b"one and more")
            assert await store.read("a/b.json") == b"one and more"
            await store.put("a/b.json", b"two")
            assert await store.read("a/b.json") == b"two"
            assert await store.size("a/b.json") == 3
            assert await store.read("a/b.json/c") is None
        async with place.open() as store:
            assert await store.read("a/b.json") == b"two"

    @pytest.mark.parametrize(
        "data",
        [b"", "грёза 夢 🐘\n".encode() * 100, file_of(MIB), bytes(range(256)), b"\r\n\r\n0\r\n"],
        ids=["empty", "unicode", "1 MiB", "every byte", "like a chunk"],
    )
    async def test_any_content(self, place: Place, data: bytes) -> None:
        async with place.writer(WHOLE) as store:
            await store.put("archive.json", data)
            assert await store.read("archive.json") == data
            assert await store.size("archive.json") == len(data)
            assert await listing(store) == {"archive.json": len(data)}
        assert await content(place, "archive.json") == data

    async def test_keys_of_every_allowed_character(self, place: Place) -> None:
        letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-"
        stem = f"{letters}/2026/11/20261124T021500Z-a.b-c.D_e/{letters}-{letters}"
        data = b"REDIS0011"
        async with place.writer(scope_of(stem)) as store:
            await store.put(f"{stem}.json", b"{}")
            stored = await commit_file(store, data, stem)
            assert stored.key == f"{stem}.rdb"
            assert await listing(store) == {f"{stem}.json": 2, f"{stem}.rdb": len(data)}
        assert await content(place, stored.key) == data

    async def test_a_listing(self, place: Place) -> None:
        keys = ["b.json", "a/2.json", "a/10.json", "a/c/d.json", "ab/x", "a-b/x", "a.b/x", "B/x"]
        async with place.writer(*{scope_of(key) for key in keys}) as store:
            assert await listing(store) == {}
            for number, key in enumerate(keys):
                await store.put(key, b"x" * number)
            everything = await listing(store)
            assert everything == {key: number for number, key in enumerate(keys)}
            assert_sorted_within_folders(everything)
            assert set(await listing(store, "a/")) == {"a/2.json", "a/10.json", "a/c/d.json"}
            assert await listing(store, "a/c/") == {"a/c/d.json": 3}
            assert await listing(store, "none/") == {}
            assert await listing(store, "b.json/") == {}

    async def test_what_is_on_its_way_is_not_listed(self, place: Place) -> None:
        data = file_of(SIZE)
        async with place.writer() as store:
            await commit_file(store, b"REDIS0011", f"{FOLDER}/home")
            async with entered(store.stage(f"{FOLDER}/wrong", 9)) as staging:
                for part in await begin(staging, b"REDIS9999"):
                    await put_part(staging, b"REDIS9999", part)
                await in_thread(staging.quarantine, "wrong")
            async with entered(store.stage(STEM, SIZE)) as staging:
                for part in await begin(staging, data):
                    await put_part(staging, data, part)
                assert await listing(store) == {f"{FOLDER}/home.rdb": 9}
                assert await listing(store, f"{FOLDER}/") == {f"{FOLDER}/home.rdb": 9}
                for kind in Kind:
                    assert await store.size(f"{STEM}.{kind}") is None

    async def test_thousands(self, place: Place) -> None:
        """More than one page of any listing."""
        keys = [f"many/{n:04}.json" for n in range(place.many)]
        async with place.writer("many", WHOLE) as store:
            left = iter(keys)

            async def put() -> None:
                for key in left:
                    await store.put(key, b"1")

            async with anyio.create_task_group() as group:
                for _ in range(16):
                    group.start_soon(put)
            await store.put("more.json", b"2")
            assert list(await listing(store, "many/")) == keys
            assert set(await listing(store)) == {*keys, "more.json"}
            async with aclosing(store.entries("many/")) as entries:
                async for entry in entries:
                    assert entry.key == keys[0]
                    break


class Committing:
    """A file from its first byte to its commit."""

    async def test_which_one_a_file_is(self, place: Place) -> None:
        """A listing says it, and when it was written; some stores give no ETags there."""
        async with place.writer() as store:
            await commit_file(store, file_of(PART))
            [entry] = [one async for one in store.entries("r-x/")]
            async with entered(store.open(entry.key)) as opened:
                # A proxy may drop the header that has it, and some listings have none.
                assert "" in (entry.version, opened.version) or entry.version == opened.version
        assert entry.modified is not None
        assert abs(entry.modified - time.time_ns()) < timedelta(days=1).total_seconds() * 10**9

    @pytest.mark.parametrize(
        "size", [0, 1, 9, PART - 1, PART, PART + 1, 2 * PART, SIZE], ids=lambda size: f"{size}"
    )
    async def test_a_file(self, place: Place, size: int) -> None:
        data = file_of(size)
        async with place.writer() as store:
            stored = await commit_file(store, data, documents=record)
            assert replace(stored, versions={}, documents=()) == Stored(
                f"{STEM}.rdb", receipt_of(data)
            )
            shown = {one.key: one.version async for one in store.entries("r-x/")}
            assert f"{STEM}.json" in stored.versions
            # Some stores do not say it of what they are sent.
            assert {
                key: one for key, one in stored.versions.items() if one
            }.items() <= shown.items()
            assert await store.size(stored.key) == size
            assert await listing(store) == {f"{STEM}.rdb": size, f"{STEM}.json": 8}
        assert await content(place, stored.key) == data
        assert await staged(place) == []

    async def test_a_file_in_its_month(self, place: Place) -> None:
        """A standard instance's: what is left of it is gone on with, like a cluster's in a set."""
        data = file_of(SIZE)
        await leave(place, data, kept={0}, stem=FOLDER)
        async with place.open() as store:
            assert await store.leftovers() == ["r-x"]
        async with place.writer() as store:
            await store.sweep("r-x")
            async with entered(store.stage(FOLDER, SIZE)) as staging:
                here = staging.resumable
                assert here is not None
                assert set(here.crcs) == {0}
            await commit_file(store, data, FOLDER, record)
            assert await listing(store) == {f"{FOLDER}.rdb": SIZE, f"{FOLDER}.json": 8}
            assert await store.sweep("r-x") == []
        assert await content(place, f"{FOLDER}.rdb") == data
        assert await staged(place) == []

    async def test_parts_in_any_order_and_in_pieces(self, place: Place) -> None:
        data, piece = file_of(SIZE), MIB + 7
        async with place.writer() as store, entered(store.stage(STEM, SIZE)) as staging:
            parts = await begin(staging, data)

            async def put(part: Part) -> None:
                for start in range(part.start, part.stop, piece):
                    await write(staging, data, start, min(start + piece, part.stop))
                await keep(staging, data, part)

            await put(parts[-1])
            async with anyio.create_task_group() as group:
                for part in reversed(parts[:-1]):
                    group.start_soon(put, part)
            [stored] = await in_thread(
                store.finish, [staging.commit(receipt_of(data), no_documents)]
            )
        assert await content(place, stored.key) == data

    async def test_a_part_written_again(self, place: Place) -> None:
        """Before it is saved and after: the last write counts."""
        data, wrong = file_of(SIZE), file_of(SIZE, 1)
        async with place.writer() as store, entered(store.stage(STEM, SIZE)) as staging:
            parts = await begin(staging, data)
            await put_part(staging, wrong, parts[0])
            await put_part(staging, data, parts[2])
            await write(staging, wrong, parts[1].start, parts[1].stop - 100)
            await put_part(staging, data, parts[1])
            await put_part(staging, data, parts[0])
            [stored] = await in_thread(
                store.finish, [staging.commit(receipt_of(data), no_documents)]
            )
        assert await content(place, stored.key) == data

    async def test_a_part_written_again_is_offered_once(self, place: Place) -> None:
        data, wrong = file_of(SIZE), file_of(SIZE, 1)
        async with place.writer() as store, entered(store.stage(STEM, SIZE)) as staging:
            parts = await begin(staging, data)
            await put_part(staging, wrong, parts[0])
            await put_part(staging, data, parts[0])
        async with place.writer() as store:
            assert await offered(store, SIZE) == crcs_of(data, parts[:1])
            stored = await commit_file(store, data)
        assert await content(place, stored.key) == data

    async def test_a_small_file_written_again(self, place: Place) -> None:
        data = file_of(1000)
        async with place.writer() as store, entered(store.stage(STEM, len(data))) as staging:
            [part] = await begin(staging, data)
            await put_part(staging, file_of(1000, 1), part)
            await put_part(staging, data, part)
            [stored] = await in_thread(
                store.finish, [staging.commit(receipt_of(data), no_documents)]
            )
        assert await content(place, stored.key) == data

    async def test_kept_parts_can_be_read_back(self, place: Place) -> None:
        if not place.reads_staged:
            pytest.skip("this store cannot read what is not committed")
        data = file_of(SIZE)
        block = memoryview(bytearray(2 * PART))
        async with place.writer() as store, entered(store.stage(STEM, SIZE)) as staging:
            parts = await begin(staging, data)
            for part in parts:
                await put_part(staging, data, part)
            for start in (0, 1, PART - 3, SIZE - PART):
                assert await in_thread(staging.read, start, block[:PART]) == PART
                assert block[:PART] == data[start : start + PART]
            assert await in_thread(staging.read, SIZE - 5, block[:9]) == 5
        async with place.writer() as store, entered(store.stage(STEM, SIZE)) as staging:
            assert await in_thread(staging.read, 7, block) == len(block)
            assert block == data[7 : 7 + len(block)]

    async def test_the_object_comes_before_the_record(self, place: Place) -> None:
        """A reader that sees the record sees the object, too."""
        order = [f"{STEM}.rdb", f"{STEM}.json"]
        committed = anyio.Event()
        data = file_of(SIZE)

        async def watch(store: Store) -> None:
            while not committed.is_set():
                there = [await store.size(key) is not None for key in reversed(order)]
                assert there == sorted(there)
                await anyio.sleep(0)

        async with place.writer() as store, place.open() as reader:
            async with anyio.create_task_group() as group:
                group.start_soon(watch, reader)
                await commit_file(store, data, documents=record)
                committed.set()
            assert await store.read(order[1]) == b'{"a": 1}'

    async def test_no_document_without_its_object(self, place: Place) -> None:
        def fail(_: Stored) -> list[tuple[str, bytes]]:
            raise ZeroDivisionError

        data = file_of(SIZE)
        async with place.writer() as store:
            with pytest.raises(ZeroDivisionError):
                await commit_file(store, data, documents=fail)
            assert await store.read(f"{STEM}.json") is None
            stored = await commit_file(store, data, documents=record)
            assert await store.read(f"{STEM}.json") == b'{"a": 1}'
        assert await content(place, stored.key) == data
        assert await staged(place) == []

    async def test_two_at_once(self, place: Place) -> None:
        files = {f"{FOLDER}/r-x-{n}": file_of(SIZE, n) for n in range(2)}
        async with place.writer() as store:
            await all_at_once(store, files)
        for stem, data in files.items():
            assert await content(place, f"{stem}.rdb") == data
        assert await staged(place) == []

    async def test_many_small_ones_at_once(self, place: Place) -> None:
        files = {f"{FOLDER}/r-x-{n}": file_of(1000 + n, n) for n in range(20)}
        async with place.writer() as store:
            await all_at_once(store, files)
        for stem, data in files.items():
            assert await content(place, f"{stem}.rdb") == data
        assert await staged(place) == []

    @pytest.mark.parametrize("size", [1000, SIZE])
    async def test_committed_again(self, place: Place, size: int) -> None:
        """A run that was killed before it wrote the record is repeated."""
        data = file_of(size)
        async with place.writer() as store:
            await commit_file(store, data)
        async with place.writer() as store:
            stored = await commit_file(store, data, documents=record)
            assert await store.read(f"{STEM}.json") == b'{"a": 1}'
            assert await store.size(stored.key) == size
        assert await content(place, stored.key) == data
        assert await staged(place) == []

    @pytest.mark.parametrize("size", [1000, SIZE])
    async def test_over_a_damaged_object(self, place: Place, size: int) -> None:
        """It stays until the right one is committed, and is removed then, whatever its kind."""
        data = file_of(size)
        async with place.writer() as store:
            await store.put(f"{STEM}.rdb", b"damaged, and perhaps all there is")
            await store.put(f"{STEM}.bin", b"of another kind")
            assert await offered(store, size) is None
            assert await store.read(f"{STEM}.rdb") == b"damaged, and perhaps all there is"
            stored = await commit_file(store, data)
            assert await listing(store) == {stored.key: size}
        assert await content(place, stored.key) == data


class Resuming:
    """What a run leaves to the next one, wherever it ended."""

    async def test_only_kept_parts_are_offered(self, place: Place) -> None:
        data = file_of(SIZE)
        await leave(place, data, kept={1, 2})
        async with place.writer() as store:
            async with entered(store.stage(STEM, SIZE)) as staging:
                here = staging.resumable
                assert here is not None
                assert (here.pin, here.part_size) == (pin_of(data), PART)
                assert here.provenance == RECEIPT.provenance
                assert here.crcs == crcs_of(data, chosen(place, data, {1, 2}))
            assert await store.size(f"{STEM}.rdb") is None
            stored = await commit_file(store, data)
        assert await content(place, stored.key) == data
        assert await staged(place) == []

    async def test_within_one_run(self, place: Place) -> None:
        data = file_of(SIZE)
        async with place.writer() as store:
            async with entered(store.stage(STEM, SIZE)) as staging:
                assert staging.resumable is None
                await put_part(staging, data, (await begin(staging, data))[0])
            assert await offered(store, SIZE) == crcs_of(data, plan_parts(SIZE, PART)[:1])
            stored = await commit_file(store, data)
        assert await content(place, stored.key) == data

    async def test_again_and_again(self, place: Place) -> None:
        """Each run saves one more part; the last one only commits."""
        data = file_of(SIZE)
        parts = plan_parts(SIZE, PART)
        for index, part in enumerate(parts):
            async with place.writer() as store, entered(store.stage(STEM, SIZE)) as staging:
                if index == 0:
                    await begin(staging, data)
                else:
                    assert staging.resumable is not None
                    assert staging.resumable.crcs == crcs_of(data, parts[:index])
                await put_part(staging, data, part)
        async with place.writer() as store:
            assert await offered(store, SIZE) == crcs_of(data, parts)
            stored = await commit_file(store, data)
        assert await content(place, stored.key) == data

    async def test_a_resumed_part_is_wrong(self, place: Place) -> None:
        """It is downloaded again."""
        data = file_of(SIZE)
        await leave(place, file_of(SIZE, 1), kept={0, 1, 2})
        async with place.writer() as store, entered(store.stage(STEM, SIZE)) as staging:
            assert staging.resumable is not None
            for part in plan_parts(SIZE, PART):
                await put_part(staging, data, part)
            [stored] = await in_thread(
                store.finish, [staging.commit(receipt_of(data), no_documents)]
            )
        assert await content(place, stored.key) == data

    async def test_begun_and_nothing_kept(self, place: Place) -> None:
        data = file_of(SIZE)
        await leave(place, data, kept=())
        async with place.writer() as store:
            assert not await offered(store, SIZE)
            stored = await commit_file(store, data)
        assert await content(place, stored.key) == data
        assert await staged(place) == []

    async def test_restart_forgets(self, place: Place) -> None:
        old, data = file_of(SIZE, 1), file_of(SIZE)
        await leave(place, old, kept={0, 1, 2})
        async with place.writer() as store, entered(store.stage(STEM, SIZE)) as staging:
            assert staging.resumable is not None
            await in_thread(staging.restart)
        async with place.writer() as store:
            assert await offered(store, SIZE) is None
            async with entered(store.stage(STEM, SIZE)) as staging:
                parts = await begin(staging, old)
                await put_part(staging, old, parts[0])
                await in_thread(staging.restart)
                parts = await begin(staging, data)
                await put_part(staging, data, parts[1])
            assert await offered(store, SIZE) == crcs_of(data, chosen(place, data, {1}))
            stored = await commit_file(store, data)
        assert await content(place, stored.key) == data
        assert await staged(place) == []

    async def test_another_size_starts_over(self, place: Place) -> None:
        await leave(place, file_of(SIZE), kept={0})
        data = file_of(SIZE + 1)
        async with place.writer() as store:
            assert await offered(store, SIZE + 1) is None
            stored = await commit_file(store, data)
        assert await content(place, stored.key) == data
        assert await staged(place) == []

    async def test_cancelled_between_parts(self, place: Place) -> None:
        data = file_of(SIZE)
        async with place.writer() as store:
            with anyio.CancelScope() as scope:
                async with entered(store.stage(STEM, SIZE)) as staging:
                    parts = await begin(staging, data)
                    await put_part(staging, data, parts[0])
                    scope.cancel()
                    await put_part(staging, data, parts[1])
            assert scope.cancelled_caught
        async with place.writer() as store:
            assert await offered(store, SIZE) == crcs_of(data, parts[:1])
            stored = await commit_file(store, data)
        assert await content(place, stored.key) == data


class PuttingAside:
    """Quarantine, and what a sweep removes."""

    @pytest.mark.parametrize("size", [1000, SIZE])
    async def test_quarantine(self, place: Place, size: int) -> None:
        """The bytes stay, with a note beside them, until the right ones are committed."""
        wrong, data = file_of(size, 1), file_of(size)
        async with place.writer() as store:
            async with entered(store.stage(STEM, size)) as staging:
                for part in await begin(staging, wrong):
                    await put_part(staging, wrong, part)
                key = await in_thread(staging.quarantine, "its checksum is another: “ß”")
            assert key is not None
            assert await content(place, key) == wrong
            note = await content(place, f"{key.rpartition('.')[0]}.json")
            assert "its checksum is another" in note.decode()
            assert await listing(store) == {}
            assert await store.sweep("r-x") == []
            assert await content(place, key) == wrong
            assert await offered(store, size) is None
            async with entered(store.stage(STEM, size)) as staging:
                for part in await begin(staging, wrong[::-1]):
                    await put_part(staging, wrong[::-1], part)
                assert await in_thread(staging.quarantine, "again") == key
            assert await content(place, key) == wrong[::-1]
            stored = await commit_file(store, data)
            assert await listing(store) == {stored.key: size}
        assert await content(place, stored.key) == data
        with pytest.raises(Exception):  # noqa: B017, PT011  # each place has its own for "none"
            await content(place, key)

    @pytest.mark.parametrize("size", [1000, SIZE])
    async def test_an_object_in_its_place_is_only_read(self, place: Place, size: int) -> None:
        """Whether its staging is committed, discarded, or moved to quarantine."""
        old, wrong = file_of(size, 2), file_of(size, 1)
        async with place.writer() as store:
            key = (await commit_file(store, old)).key
            for _ in range(2):
                async with entered(store.stage(STEM, size)) as staging:
                    assert dict(staging.existing) == {key: size}
                    assert staging.resumable is None
                    for part in await begin(staging, wrong):
                        await put_part(staging, wrong, part)
                    await in_thread(staging.restart)
                    for part in await begin(staging, wrong):
                        await put_part(staging, wrong, part)
                    kept = await in_thread(staging.quarantine, "wrong")
                assert await content(place, key) == old
                if kept is not None:
                    assert await content(place, kept) == wrong
                assert await store.sweep("r-x") == []
        await leave(place, wrong, kept={0})
        assert await content(place, key) == old

    @pytest.mark.parametrize("size", [1000, SIZE])
    async def test_what_is_kept_in_quarantine_stays(self, place: Place, size: int) -> None:
        """Under its own name, however often, also when its key has other bytes by then."""
        old, newer, data = file_of(size, 2), file_of(size, 1), file_of(size)
        async with place.writer() as store:
            kept, key = list[str](), f"{STEM}.rdb"
            for was, now in ((old, newer), (newer, data)):
                await commit_file(store, was)
                async with entered(store.stage(STEM, size)) as staging:
                    for part in await begin(staging, now):
                        await put_part(staging, now, part)
                    kept.append(await in_thread(staging.copy_to_quarantine, key, "it may be right"))
                    assert await in_thread(staging.copy_to_quarantine, key, "again") == kept[-1]
                    assert await content(place, key) == was
                    await in_thread(store.finish, [staging.commit(receipt_of(now), record)])
            assert await store.sweep("r-x") == []
            assert set(await listing(store)) == {key, f"{STEM}.json"}
        assert await content(place, key) == data
        assert [await content(place, one) for one in kept] == [old, newer]

    async def test_an_object_in_its_place_is_recorded(self, place: Place) -> None:
        data, half = file_of(SIZE), file_of(SIZE, 1)
        async with place.writer() as store:
            key = (await commit_file(store, data)).key
        await leave(place, half, kept={0})
        async with place.writer() as store:
            stored = await commit_file(store, data, documents=record)
            want = Stored(key, receipt_of(data), documents=record(stored))
            assert replace(stored, versions={}) == want
            shown = {one.key: one.version async for one in store.entries("r-x/")}
            assert f"{STEM}.json" in stored.versions
            # Some stores do not say it of what they are sent.
            assert {
                key: one for key, one in stored.versions.items() if one
            }.items() <= shown.items()
            assert set(await listing(store)) == {key, f"{STEM}.json"}
            assert await content(place, key) == data
            assert await store.sweep("r-x") == []
        assert await staged(place) == []

    async def test_what_is_recorded_must_be_there(self, place: Place) -> None:
        data = file_of(1000)
        async with place.writer() as store:
            key = (await commit_file(store, data)).key
            async with entered(store.stage(STEM, 1000)) as staging:
                receipt = replace(receipt_of(data), size=999)
                with pytest.raises(StoreError):
                    await in_thread(store.finish, [staging.record(key, receipt, record)])
            assert await store.read(f"{STEM}.json") is None

    async def test_a_sweep_takes_only_what_is_of_no_use(self, place: Place) -> None:
        data, small = file_of(SIZE), file_of(1000)
        async with place.writer() as store:
            await commit_file(store, data, f"{FOLDER}/home", record)
            async with entered(store.stage(f"{FOLDER}/wrong", len(small))) as staging:
                for part in await begin(staging, small):
                    await put_part(staging, small, part)
                quarantined = await in_thread(staging.quarantine, "wrong")
                assert quarantined is not None
        await leave(place, data, kept={0, 2})
        resumable = await staged(place)
        await leave(place, small, kept=(), stem=f"{FOLDER}/small")
        async with place.writer() as store:
            before = await listing(store)
            await store.sweep("r-x")
            assert await staged(place) == resumable
            assert await store.sweep("r-x") == []
            assert await listing(store) == before
            assert await offered(store, SIZE) == crcs_of(data, chosen(place, data, {0, 2}))
            await commit_file(store, data)
        assert await content(place, f"{FOLDER}/home.rdb") == data
        assert await content(place, quarantined) == small
        assert await content(place, f"{STEM}.rdb") == data
        assert await staged(place) == []

    async def test_a_sweep_of_nothing(self, place: Place) -> None:
        async with place.writer() as store:
            assert await store.sweep("r-x") == []
            await store.put("r-x/x.json", b"{}")
            assert await store.sweep("r-x") == []
            assert await store.read("r-x/x.json") == b"{}"


class Excluding:
    """One writer at a time."""

    @pytest.fixture(autouse=True)
    def patient(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """All holders are alive here, however long a busy machine keeps one from its beat."""
        monkeypatch.setattr("archiver.stores.s3.lease._BEATS_TO_TAKE", 600.0)

    async def test_a_second_writer_is_refused(self, place: Place) -> None:
        async with place.open() as first, place.open() as second:
            async with first.exclusive("r-x"):
                with pytest.raises(ArchiveBusy) as caught:
                    async with second.exclusive("r-x"):
                        pass
                assert "\n" not in str(caught.value)
                await first.put("r-x/x.json", b"{}")
                assert await second.read("r-x/x.json") == b"{}"
            async with second.exclusive("r-x"):
                with pytest.raises(ArchiveBusy):
                    async with first.exclusive("r-x"):
                        pass
            async with first.exclusive("r-x"):
                assert await listing(first) == {"r-x/x.json": 2}

    async def test_writers_of_two_instances(self, place: Place) -> None:
        """At the same time: neither sees, sweeps or ends what is the other's."""
        data, stem = file_of(SIZE), STEM.replace("r-x", "r-y")
        await leave(place, data, kept={0})
        left = await staged(place)
        async with place.open() as first, place.open() as second, second.exclusive("r-y"):
            assert await second.leftovers() == ["r-x"]
            assert await second.sweep("r-y") == []
            assert await staged(place) == left
            async with first.exclusive("r-x"):
                with pytest.raises(ArchiveBusy, match="is writing to r-x in"):
                    async with second.exclusive("r-x", watch=False):
                        pass
                stored = [await commit_file(first, data), await commit_file(second, data, stem)]
            assert await second.leftovers() == []
        for one in stored:
            assert await content(place, one.key) == data
        assert await staged(place) == []

    async def test_one_writer_of_several_scopes(self, place: Place) -> None:
        """And of what concerns the whole archive, whose lock is another."""
        async with place.open() as first, place.open() as second:
            async with first.exclusive("r-x"), first.exclusive("r-y"), second.exclusive(WHOLE):
                for scope in ("r-x", "r-y"):
                    with pytest.raises(ArchiveBusy):
                        async with second.exclusive(scope):
                            pass
                with pytest.raises(ArchiveBusy, match="is writing to this archive"):
                    async with first.exclusive(WHOLE):
                        pass
                assert await listing(first) == {}
            async with second.exclusive("r-y"):
                pass

    async def test_a_writer_that_fails_lets_go(self, place: Place) -> None:
        async with place.open() as store:
            with pytest.raises(ZeroDivisionError):
                async with store.exclusive("r-x"):
                    raise ZeroDivisionError
            with anyio.move_on_after(0.3) as scope:
                async with store.exclusive("r-x"):
                    await anyio.sleep(30)
            assert scope.cancelled_caught
        async with place.writer() as store:
            await store.put("r-x/x.json", b"{}")

    async def test_what_is_written_without_a_lock(self, place: Place) -> None:
        """Only what verifies write. All else is refused, whatever other locks are held."""
        async with place.writer("r-y", WHOLE) as store:
            await store.put("r-x/2026/11/index.jsonl", b"{}")
            await store.put("verified/r-x/2026-11.json", b"{}")
            for write in (store.clear, store.move_to_quarantine, lambda key: store.put(key, b"")):
                with pytest.raises(NotHeld, match="without the lock of r-x"):
                    await write(f"{STEM}.json")
            with pytest.raises(NotHeld):
                async with entered(store.stage(STEM, 9)):
                    pass
            with pytest.raises(NotHeld):
                await store.sweep("r-x")
        async with place.open() as store:
            await store.put("verified/r-x/2026-11.json", b"{ }")
            with pytest.raises(NotHeld, match="without the lock of the whole archive"):
                await store.put("drills/last/r-x.json", b"{}")
            assert set(await listing(store)) == {
                "r-x/2026/11/index.jsonl", "verified/r-x/2026-11.json",
            }  # fmt: skip

    async def test_what_was_staged_under_an_earlier_lock(self, place: Place) -> None:
        """It is not committed under the next one of the same instance, even by the same process."""
        data = b"REDIS0011"
        async with place.open() as store:
            async with store.exclusive("r-x"):
                staged_before = store.stage(STEM, len(data))
                staging = await in_thread(staged_before.__enter__)
                await write(staging, data, 0, len(data))
                commit = staging.commit(receipt_of(data), record)
            async with store.exclusive("r-x"):
                with pytest.raises(NotHeld):
                    await in_thread(store.finish, [commit])
                with suppress(NotHeld):
                    await in_thread(staged_before.__exit__, None, None, None)
            assert await listing(store) == {}


class Cancelling:
    """A run may be ended at any moment."""

    @pytest.mark.parametrize("milliseconds", [1, 5, 20, 60, 150] if FULL else [5, 60])
    async def test_cancelled_anywhere(self, place: Place, milliseconds: int) -> None:
        """Saved parts can be resumed; the next run completes the file."""
        data = file_of(SIZE)
        kept: set[int] = set()

        async def put(staging: Staging, part: Part) -> None:
            await put_part(staging, data, part)
            kept.add(part.index)

        async with place.writer() as store:
            with anyio.move_on_after(milliseconds / 1000):
                async with (
                    entered(store.stage(STEM, SIZE)) as staging,
                    anyio.create_task_group() as group,
                ):
                    for part in await begin(staging, data):
                        group.start_soon(put, staging, part)
        async with place.writer() as store:
            assert place.offers(kept) <= set(await offered(store, SIZE) or ())
            stored = await commit_file(store, data)
        assert await content(place, stored.key) == data
        assert await staged(place) == []

    @pytest.mark.parametrize("size", [1000, SIZE])
    @pytest.mark.parametrize("milliseconds", [0, 1, 5, 20, 60] if FULL else [0, 20])
    async def test_cancelled_while_committing(
        self, place: Place, size: int, milliseconds: int
    ) -> None:
        data = file_of(size)
        async with place.writer() as store, entered(store.stage(STEM, size)) as staging:
            for part in await begin(staging, data):
                await put_part(staging, data, part)
            with anyio.move_on_after(milliseconds / 1000):
                await in_thread(store.finish, [staging.commit(receipt_of(data), record)])
        async with place.writer() as store:
            if await store.read(f"{STEM}.json") is not None:
                assert await store.size(f"{STEM}.rdb") == size
            await store.sweep("r-x")
            stored = await commit_file(store, data, documents=record)
            assert await store.read(f"{STEM}.json") == b'{"a": 1}'
        assert await content(place, stored.key) == data
        assert await staged(place) == []


class SettingAside:
    async def test_a_file_in_quarantine_is_kept_as_it_is(self, place: Place) -> None:
        async with place.writer() as store:
            for key in (f"{STEM}.json", f"{STEM}.rdb"):
                await store.put(key, b"its bytes")
                kept = await store.move_to_quarantine(key)
                assert await store.size(key) is None
                assert kept.startswith(".quarantine/")
                assert await content(place, kept) == b"its bytes"
            assert await listing(store) == {}


class Conformance(Listing, Committing, Resuming, PuttingAside, Excluding, Cancelling, SettingAside):
    """All of it; to be subclassed with a fixture ``place``."""
