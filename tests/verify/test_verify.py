"""Every fault, made on a real archive, is found and named."""

import hashlib
import json
import threading
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from fractions import Fraction
from pathlib import Path
from typing import Any

import anyio
import pytest

from archiver import Archive, LocalStore, TairSource, VerifyOptions, VerifySummary, pull, verify
from archiver.archive import measure as measuring
from archiver.commands.verify import events
from archiver.commands.verify.findings import ADVICE, Fault
from archiver.commands.verify.sample import Sample
from archiver.concurrency import in_thread
from archiver.errors import (
    ArchiverError,
    NoSuchBackup,
    StoreError,
    StoreForbidden,
    UsageError,
)
from archiver.report.chain import evidence_key, link
from archiver.report.document import encode
from archiver.report.junit import to_junit
from archiver.report.markdown import to_markdown
from archiver.report.page import to_page
from archiver.stores.base import OpenedObject
from archiver.times import TimeRange
from examples import drill_evidence as example
from examples.sample_rdb import rdb, write_rdb
from tests.archive.sample import remove_lines, remove_node
from tests.conftest import INSTANCE, everything
from tests.report.test_chain import chain as evidence_chain
from tests.verify.conftest import CLUSTER, DAYS, NODES, DenyingOne, Pulled, edit, flip, forge, swap


def faults(summary: VerifySummary) -> set[tuple[str, str]]:
    """File names and faults."""
    return {(f.key.rpartition("/")[2], str(f.fault)) for f in summary.findings}


async def test_all_is_well(pulled: Pulled) -> None:
    told: list[events.ScrubEvent] = []
    summary = await verify(pulled.archive, observer=told.append)
    assert summary.findings == []
    assert summary.exit_code == 0
    assert (summary.files, summary.read) == (12, 12)
    assert summary.bytes_read == summary.size == sum(
        p.stat().st_size for p in pulled.root.rglob("*.rdb")
    )  # fmt: skip
    assert sum(e.size for e in told if isinstance(e, events.Advanced)) == summary.size
    assert sum(e.size for e in told if isinstance(e, events.ToRead)) == summary.size
    assert len([e for e in told if isinstance(e, events.Verified)]) == 12


async def test_nothing_but_the_results_is_written(pulled: Pulled) -> None:
    def tree() -> dict[str, tuple[int, bytes]]:
        return {
            pulled.key(path): (path.stat().st_mtime_ns, path.read_bytes())
            for path in pulled.root.rglob("*")
            if path.is_file()
        }

    flip(pulled.objects()[0])
    pulled.objects()[1].unlink()
    before = tree()
    await verify(pulled.archive)
    after = tree()
    written = after.keys() - before.keys()
    assert written == {f"verified/{name}/2026-11.json" for name in (INSTANCE, CLUSTER)}
    assert {key: after[key] for key in before} == before


async def test_a_flipped_byte(pulled: Pulled) -> None:
    path = pulled.objects()[1]
    before = hashlib.sha256(path.read_bytes()).hexdigest()
    flip(path)
    [finding] = (await verify(pulled.archive)).findings
    assert (finding.key, finding.fault) == (pulled.key(path), Fault.CHANGED)
    assert before in str(finding.expected)
    assert hashlib.sha256(path.read_bytes()).hexdigest() in str(finding.found)
    assert "own checksum does not agree" in finding.text


@pytest.mark.parametrize("left", [0, 1, 19_999])
async def test_a_truncation(pulled: Pulled, left: int) -> None:
    path = pulled.objects()[0]
    path.write_bytes(path.read_bytes()[:left])
    [finding] = (await verify(pulled.archive)).findings
    assert (finding.key, finding.fault) == (pulled.key(path), Fault.TRUNCATED)
    assert f"{left:,} of 20,000 bytes" in finding.text


@pytest.mark.parametrize("flipped", [False, True])
async def test_trailing_junk(pulled: Pulled, *, flipped: bool) -> None:
    path = pulled.objects()[0]
    path.write_bytes(path.read_bytes() + b"\0")
    if flipped:
        flip(path)
    [finding] = (await verify(pulled.archive)).findings
    assert (finding.key, finding.fault) == (pulled.key(path), Fault.PADDED)
    assert ("which are right" in finding.text) is not flipped


@pytest.mark.parametrize("second", [1, 2])
async def test_files_swapped_between_nodes(pulled: Pulled, second: int) -> None:
    """Of the same size, and of different ones."""
    one, other = pulled.objects()[0], pulled.objects()[second]
    swap(one, other)
    summary = await verify(pulled.archive)
    assert faults(summary) == {(one.name, "swapped"), (other.name, "swapped")}
    assert {pulled.key(other) in f.text for f in summary.findings} == {True, False}


async def test_files_and_records_swapped_between_nodes(pulled: Pulled) -> None:
    one, other = pulled.objects()[:2]
    swap(one, other)
    swap(one.with_suffix(".json"), other.with_suffix(".json"))
    found = faults(await verify(pulled.archive))
    assert (one.with_suffix(".json").name, "misplaced") in found
    assert (other.with_suffix(".json").name, "misplaced") in found


async def test_a_missing_object(pulled: Pulled) -> None:
    path = pulled.objects()[2]
    path.unlink()
    summary = await verify(pulled.archive)
    assert faults(summary) == {(path.name, "missing")}
    assert summary.findings[0].text == "its record is here, but the file is not"
    assert summary.exit_code == 3


async def test_a_missing_node(pulled: Pulled) -> None:
    path = pulled.objects()[2]
    remove_node(path)
    assert faults(await verify(pulled.archive)) == {(path.name, "missing")}
    # Somebody has covered the traces: the sets around it have more nodes.
    remove_lines(path)
    [finding] = (await verify(pulled.archive)).findings
    assert (finding.key, finding.fault) == (pulled.key(path.parent), Fault.INCOMPLETE)
    assert "db-2 is missing: the sets of 2026-11-22" in finding.text
    [finding] = (
        await verify(pulled.archive, VerifyOptions(sets=frozenset([finding.key])))
    ).findings
    assert finding.fault is Fault.INCOMPLETE


async def test_what_an_earlier_verify_saw_is_gone_without_a_trace(pulled: Pulled) -> None:
    await verify(pulled.archive)
    gone = [*pulled.objects(INSTANCE), *pulled.objects()]
    names = {path.name for path in gone}
    for path in gone:
        remove_node(path)
        remove_lines(path)
    gone[-1].parent.rmdir()
    assert faults(await verify(pulled.archive)) == {(name, "missing") for name in names}
    for path in sorted((pulled.root / INSTANCE).rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    summary = await verify(pulled.archive, VerifyOptions(instances=(INSTANCE,)))
    assert len(summary.findings) == len(DAYS)


async def test_a_set_that_was_never_complete(pulled: Pulled) -> None:
    """Of a cluster; a standard instance's file is complete, and is to get its line."""
    path = pulled.objects(INSTANCE)[0]
    remove_lines(path)
    remove_lines(pulled.objects()[0].parent)
    summary = await verify(pulled.archive)
    assert {(f.key, f.about, f.fault) for f in summary.findings} == {
        (pulled.set_key(pulled.objects()[0]), None, Fault.INCOMPLETE),
        (pulled.key(pulled.sums(INSTANCE)), pulled.set_key(path), Fault.SUMS),
    }
    assert summary.exit_code == 1


async def test_a_month_that_had_its_sums_when_its_catalogue_was_made(pulled: Pulled) -> None:
    keys = {pulled.key(pulled.sums(instance)) for instance in (CLUSTER, INSTANCE)}
    for key in keys:
        (pulled.root / key).unlink()
    summary = await verify(pulled.archive)
    assert {(f.key, f.about, f.fault) for f in summary.findings} == {
        (key, None, Fault.SUMS) for key in keys
    }
    assert summary.exit_code == 3


async def test_a_month_without_its_sums(pulled: Pulled) -> None:
    """No set of the cluster was ever seen complete; of the other month it is said once."""
    for index in pulled.root.rglob("index.jsonl"):
        index.unlink()
    pulled.sums().unlink()
    pulled.sums(INSTANCE).unlink()
    summary = await verify(pulled.archive)
    assert {(f.key, f.about, f.fault) for f in summary.findings} == {
        *((pulled.set_key(pulled.objects(day=day)[0]), None, Fault.INCOMPLETE) for day in DAYS),
        (pulled.key(pulled.objects(INSTANCE)[0].with_name("SHA256SUMS")), None, Fault.SUMS),
    }
    assert (len(summary.findings), summary.exit_code) == (len(DAYS) + 1, 1)


@pytest.mark.parametrize(
    "text",
    ["", "nonsense", "0" * 64 + "  ../x\n", b"\xff\xfe"],
    ids=["empty", "words", "up", "raw"],
)
async def test_sums_that_cannot_be_read(pulled: Pulled, text: str | bytes) -> None:
    pulled.sums().write_bytes(text if isinstance(text, bytes) else text.encode())
    [finding] = (await verify(pulled.archive)).findings
    assert (finding.key, finding.fault) == (pulled.key(pulled.sums()), Fault.SUMS)
    assert finding.place == pulled.key(pulled.sums().parent)


async def test_one_line_that_cannot_be_read_is_said_of_the_month_alone(pulled: Pulled) -> None:
    """The lines of all other sets are what they were."""
    sums, path = pulled.sums(), pulled.objects()[0]
    sums.write_text(sums.read_text().replace(pulled.name(path), "?"))
    forged = pulled.objects(day=DAYS[2])[0]
    forge(forged, rdb(20_000, 99))
    assert {(f.key, f.about) for f in (await verify(pulled.archive)).findings} == {
        (pulled.key(sums), None),
        (pulled.key(sums), pulled.key(forged)),
    }


async def test_sums_that_disagree(pulled: Pulled) -> None:
    sums = pulled.sums()
    digest = sums.read_text()[:64]
    sums.write_text(sums.read_text().replace(digest, "0" * 64))
    [finding] = (await verify(pulled.archive)).findings
    assert (finding.fault, finding.expected, finding.found) == (Fault.SUMS, digest, "0" * 64)
    sums.write_text(sums.read_text().replace("0" * 64, digest).partition("\n")[2])
    [finding] = (await verify(pulled.archive)).findings
    assert "does not name" in finding.text


async def test_an_object_without_a_record(pulled: Pulled) -> None:
    path = pulled.objects()[0]
    path.with_suffix(".json").unlink()
    assert faults(await verify(pulled.archive)) == {(path.name, "unrecorded")}


async def test_strays(pulled: Pulled) -> None:
    folder, month = pulled.objects()[0].parent, pulled.objects(INSTANCE)[0].parent
    for path in (folder / "notes.txt", folder.parent / "x", pulled.root / CLUSTER / "y",
                 folder / "deep" / "z.rdb", month / "v.rdb", month / "w.json",
                 folder / "SHA256SUMS", folder / "index.jsonl"):  # fmt: skip
        path.parent.mkdir(exist_ok=True)
        path.write_text("?")
    summary = await verify(pulled.archive)
    found = faults(summary)
    names = ("notes.txt", "x", "y", "z.rdb", "v.rdb", "w.json", "SHA256SUMS", "index.jsonl")
    assert found == {(name, "stray") for name in names}
    assert summary.exit_code == 1


def tampered(field: str, value: object) -> Any:
    def change(document: dict[str, Any]) -> None:
        *path, last = field.split(".")
        inner = document
        for name in path:
            inner = inner[name]
        inner[last] = value

    return change


@pytest.mark.parametrize(
    ("field", "value", "fault"),
    [
        ("sha256", "0" * 64, "contradiction"),
        ("sha256", "../etc", "bad-record"),
        ("size", 7, "contradiction"),
        ("received.BackupSize", 7, "contradiction"),
        ("crc64ecma", "1", "contradiction"),
        ("crc64ecma_declared", "1", "contradiction"),
        ("crc64ecma_declared", 1, "bad-record"),
        ("rdb.footer", "disabled", "contradiction"),
        ("rdb.version", "REDIS0001", "contradiction"),
        ("rdb", None, "bad-record"),
        ("kind", "aof", "contradiction"),
        ("received.BackupId", 7, "contradiction"),
        ("received.NodeInstanceId", "r-other", "contradiction"),
        ("received.BackupSize", "many", "contradiction"),
        ("received.BackupStartTime", "2026-11-20T02:15:01Z", "contradiction"),
        ("received.BackupType", "IncrementalBackup", "contradiction"),
        ("received.BackupMode", "Manual", "contradiction"),
        ("type", "incremental", "contradiction"),
        ("mode", "manual", "contradiction"),
        ("ended_at", "2026-11-20T02:15:00.5Z", "contradiction"),
        ("instance_id", "r-other", "misplaced"),
        ("node_id", "r-other", "misplaced"),
        ("backup_id", "7", "misplaced"),
        ("set_id", "7", "misplaced"),
        ("started_at", "2026-11-20T03:15:00Z", "misplaced"),
        ("object", "other.rdb", "misplaced"),
        ("format", 99, "bad-record"),
        ("sha256", None, "bad-record"),
        ("received", [], "bad-record"),
    ],
)
async def test_a_tampered_record(pulled: Pulled, field: str, value: object, fault: str) -> None:
    # In the set in the middle, so that a wrong count of its nodes would show at the others.
    path = pulled.objects()[1].with_suffix(".json")
    edit(path, tampered(field, value))
    summary = await verify(pulled.archive)
    assert (path.name, fault) in faults(summary)
    assert {f.place for f in summary.findings} == {pulled.key(path.parent)}


@pytest.mark.parametrize("name", ["SHA256SUMS", "index.jsonl", "notes.txt"])
async def test_a_record_that_names_what_is_no_file_of_a_backup(pulled: Pulled, name: str) -> None:
    """SHA256SUMS was called truncated, and noted as a wrong file."""
    path = pulled.objects(INSTANCE)[0].with_suffix(".json")
    (path.parent / "notes.txt").write_bytes(b"?")
    edit(path, tampered("object", name))
    summary = await verify(pulled.archive)
    found = {(one.key, one.fault) for one in summary.findings if one.fault is not Fault.STRAY}
    assert found == {
        (pulled.key(path), Fault.MISPLACED),
        (pulled.key(path), Fault.CONTRADICTION),
    }
    for results in (pulled.root / "verified").rglob("*.json"):
        assert all(key.endswith(".rdb") for key in json.loads(results.read_bytes())["files"])


async def test_object_record_and_sums_changed_together(pulled: Pulled) -> None:
    """The vendor's CRC-64 tells; when that is changed, too, what an earlier verify saw does."""
    await verify(pulled.archive)
    path = pulled.objects()[1]
    old = hashlib.sha256(path.read_bytes()).hexdigest()
    data = rdb(20_000, 99)
    path.write_bytes(data)
    new = hashlib.sha256(data).hexdigest()
    edit(path.with_suffix(".json"), tampered("sha256", new))
    pulled.sums().write_text(pulled.sums().read_text().replace(old, new))
    found = faults(await verify(pulled.archive))
    assert (path.with_suffix(".json").name, "contradiction") in found

    from fastcrc import crc64

    crc = str(crc64.xz(data))
    edit(path.with_suffix(".json"), tampered("crc64ecma", crc))
    edit(path.with_suffix(".json"), tampered("crc64ecma_declared", crc))
    [finding] = (await verify(pulled.archive)).findings
    assert (finding.key, finding.fault) == (pulled.key(path), Fault.CHANGED)
    assert old in str(finding.expected)


async def test_an_altered_object_and_sums_do_not_outvote_the_record(pulled: Pulled) -> None:
    path = pulled.objects()[1]
    old, data = hashlib.sha256(path.read_bytes()).hexdigest(), rdb(20_000, 99)
    path.write_bytes(data)
    new = hashlib.sha256(data).hexdigest()
    pulled.sums().write_text(pulled.sums().read_text().replace(old, new))
    found = faults(await verify(pulled.archive))
    assert found == {(path.name, "changed"), ("SHA256SUMS", "sums")}


@pytest.mark.parametrize("data", [b"", b"{", b"\xff" * 10])
async def test_a_record_that_cannot_be_read(pulled: Pulled, data: bytes) -> None:
    path = pulled.objects()[1].with_suffix(".json")
    path.write_bytes(data)
    assert faults(await verify(pulled.archive)) == {(path.name, "bad-record")}


def put_evidence(pulled: Pulled) -> list[Path]:
    paths = []
    for key, data in evidence_chain(3):
        path = pulled.root / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        paths.append(path)
    return paths


async def test_tampered_evidence(pulled: Pulled) -> None:
    paths = put_evidence(pulled)
    assert (await verify(pulled.archive)).findings == []
    paths[1].write_bytes(paths[1].read_bytes().replace(b" ", b"  ", 1))
    [finding] = (await verify(pulled.archive)).findings
    assert (finding.key, finding.fault) == (pulled.key(paths[1]), Fault.EVIDENCE)
    assert finding.text.startswith("altered")
    paths[1].unlink()
    [finding] = (await verify(pulled.archive)).findings
    assert (finding.key, finding.fault) == (pulled.key(paths[1]), Fault.EVIDENCE)
    assert finding.place is None


async def test_pages_that_the_evidence_does_not_make(pulled: Pulled) -> None:
    paths = put_evidence(pulled)
    makers = {".html": to_page, ".md": to_markdown, ".xml": to_junit}
    for path in paths:
        for suffix, make in makers.items():
            path.with_suffix(suffix).write_bytes(await in_thread(make, path.read_bytes()))
    assert (await verify(pulled.archive)).findings == []
    for number, suffix in enumerate(makers):
        page = paths[number].with_suffix(suffix)
        page.write_bytes(page.read_bytes().replace(b"a", b"e", 1))
    forged = paths[0].with_name("20270101T000000Z-abcdef.html")
    forged.write_text("<h1>Pass</h1>")
    summary = await verify(pulled.archive)
    assert faults(summary) == {
        *((paths[n].with_suffix(suffix).name, "evidence") for n, suffix in enumerate(makers)),
        (forged.name, "stray"),
    }
    assert summary.exit_code == 3


async def test_pages_of_another_version_are_not_judged(
    pulled: Pulled, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which is said: who looks must not believe that they were."""
    [path, *_] = put_evidence(pulled)
    path.with_suffix(".md").write_text("Worded otherwise")
    monkeypatch.setattr("archiver.commands.verify.evidence.__version__", "9.9.9")
    found = await verify(pulled.archive)
    assert found.findings == []
    [not_compared] = [note for note in found.notes if "not compared" in note.text]
    assert (not_compared.key, "9.9.9" in not_compared.text) == (pulled.key(path), True)


async def test_a_page_that_is_gone_is_said(pulled: Pulled) -> None:
    """All that it said is in the evidence; none of them may be wanted."""
    [path, *_] = put_evidence(pulled)
    path.with_suffix(".md").write_bytes(await in_thread(to_markdown, path.read_bytes()))
    found = await verify(pulled.archive)
    assert (found.findings, found.exit_code) == ([], 0)
    [note] = found.notes
    assert (note.key, note.text) == (
        pulled.key(path), ".html, .xml beside it: missing; all that they say is in this one"
    )  # fmt: skip


@pytest.mark.parametrize("key", ["drills/notes.txt", "drills/2026/12/x.html", "verified/junk.bin",
                                 "verified/r-x/2026-11.json.old"])  # fmt: skip
async def test_what_is_kept_beside_backups_and_is_nothing(pulled: Pulled, key: str) -> None:
    await verify(pulled.archive)
    path = pulled.root / key
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x")
    [finding] = (await verify(pulled.archive)).findings
    assert (finding.key, finding.fault) == (key, Fault.STRAY)


async def test_evidence_kept_elsewhere(pulled: Pulled) -> None:
    """The end of a chain shows nothing of itself."""
    [*_, last] = put_evidence(pulled)
    anchor = link(last.read_bytes())
    options = VerifyOptions(anchors=(anchor,))
    assert (await verify(pulled.archive, options)).findings == []
    last.unlink()
    assert (await verify(pulled.archive)).findings == []
    [finding] = (await verify(pulled.archive, options)).findings
    assert (finding.key, finding.fault) == (pulled.key(last), Fault.EVIDENCE)


class Watched(LocalStore):
    """A store whose reading of objects can be watched, or made to fail."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.opened: list[str] = []
        self.fails: set[str] = set()
        self.error: type[ArchiverError] = StoreError
        self.barrier: threading.Barrier | None = None
        self.refuses_puts = 0

    @contextmanager
    def open(self, key: str) -> Iterator[OpenedObject]:
        self.opened.append(key)
        if self.barrier is not None:
            self.barrier.wait(20)
        if key in self.fails:
            raise self.error(f"{key}: Input/output error")
        with super().open(key) as opened:
            yield opened

    async def put(self, key: str, data: bytes) -> str:
        if self.refuses_puts:
            self.refuses_puts -= 1
            raise self.error("Read-only file system")
        return await super().put(key, data)


@pytest.fixture
def watched(pulled: Pulled) -> Watched:
    return Watched(pulled.root)


async def test_an_object_that_the_store_does_not_give(pulled: Pulled, watched: Watched) -> None:
    path = pulled.objects()[1]
    watched.fails = {pulled.key(path)}
    [finding] = (await verify(Archive(watched))).findings
    assert (finding.key, finding.fault) == (pulled.key(path), Fault.UNREADABLE)
    assert "Input/output error" in finding.text


@pytest.mark.parametrize("error", [StoreError, StoreForbidden])
async def test_an_outage_proves_nothing(
    pulled: Pulled, watched: Watched, error: type[ArchiverError]
) -> None:
    """It is 6, and 3 as soon as anything else is wrong."""
    watched.fails, watched.error = {pulled.key(path) for path in pulled.objects()}, error
    summary = await verify(Archive(watched))
    assert [f.fault for f in summary.findings] == [Fault.UNREADABLE] * NODES
    assert summary.exit_code == 6
    flip(pulled.objects(INSTANCE)[0], 20)
    assert (await verify(Archive(watched))).exit_code == 3


async def test_a_key_that_may_only_read(pulled: Pulled, watched: Watched) -> None:
    watched.refuses_puts, watched.error = 1000, StoreForbidden
    path = pulled.objects()[0]
    flip(path)
    summary = await verify(Archive(watched), VerifyOptions(keep_every=0))
    assert faults(summary) == {(path.name, "changed")}
    assert summary.results_not_kept is not None
    assert summary.read == 12


async def test_a_slow_disk_is_reported_in_time(
    pulled: Pulled, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measuring, "_STRIDE_SECONDS", 0.0)
    monkeypatch.setattr(measuring, "BLOCK_BYTES", 1000)
    told: list[events.ScrubEvent] = []
    await verify(pulled.archive, observer=told.append)
    sizes = [event.size for event in told if isinstance(event, events.Advanced)]
    assert max(sizes) <= 1000
    assert sum(sizes) == sum(p.stat().st_size for p in pulled.root.rglob("*.rdb"))


async def test_a_link_to_nowhere_hides_what_it_stands_for(pulled: Pulled) -> None:
    link = pulled.root / INSTANCE / "2026" / "11" / "note"
    link.symlink_to(pulled.root / "nowhere")
    summary = await verify(pulled.archive)
    assert faults(summary) == {("note", "hidden")}
    assert summary.read == 12


async def test_what_was_verified_in_the_future_is_read(pulled: Pulled) -> None:
    await verify(pulled.archive)
    [results] = (pulled.root / "verified" / CLUSTER).glob("*.json")
    document = json.loads(results.read_text())
    for fields in document["files"].values():
        fields["at"] = "2099-01-01T00:00:00Z"
    results.write_text(json.dumps(document))
    summary = await verify(pulled.archive, VerifyOptions(since_verified=timedelta(days=30)))
    assert (summary.read, summary.recent) == (len(DAYS) * NODES, len(DAYS))


async def test_files_are_read_at_once(watched: Watched) -> None:
    watched.barrier = threading.Barrier(3)  # which opens for three at once, or breaks
    summary = await verify(Archive(watched), VerifyOptions(workers=3))
    assert summary.findings == []


async def test_memory_is_bounded(files: Path, source: TairSource, tmp_path: Path) -> None:
    write_rdb(files / INSTANCE / "large.rdb", 96 * 2**20)
    archive = Archive(LocalStore(tmp_path / "archive"))
    await pull(source, archive, [everything()])
    tracemalloc.start()
    try:
        summary = await verify(archive, VerifyOptions(workers=4))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert summary.bytes_read == 96 * 2**20
    assert peak < 12 * 2**20  # four blocks of 1 MiB, and what the listing takes


async def test_what_was_verified_is_passed_over(pulled: Pulled, watched: Watched) -> None:
    options = VerifyOptions(since_verified=timedelta(days=30))
    first = await verify(Archive(watched), options)
    assert (first.read, first.recent) == (12, 0)
    watched.opened.clear()
    again = await verify(Archive(watched), options)
    assert (again.read, again.recent, again.bytes_recent) == (0, 12, first.size)
    assert watched.opened == []
    # Long ago, or of another size, or wrong since: read again.
    [results] = (pulled.root / "verified" / CLUSTER).glob("*.json")
    document = json.loads(results.read_text())
    names = sorted(document["files"])
    document["files"][names[0]]["at"] = "2020-01-01T00:00:00Z"
    document["files"][names[1]]["wrong"] = {"at": "2026-01-01T00:00:00Z", "fault": "changed"}
    document["files"][names[2]]["size"] += 1
    document["files"][names[3]]["sha256"] = "0" * 64
    del document["files"][names[4]]
    results.write_text(json.dumps(document))
    summary = await verify(Archive(watched), options)
    assert {key.partition("/")[0] for key in watched.opened} == {CLUSTER}
    assert {"/".join(key.split("/")[3:]) for key in watched.opened} == set(names[:5])
    assert faults(summary) == {(names[3].rpartition("/")[2], "changed")}


async def test_wrong_once_is_read_again_though_it_was_right(pulled: Pulled) -> None:
    options = VerifyOptions(since_verified=timedelta(days=30))
    await verify(pulled.archive, options)
    path = pulled.objects()[0]
    right = path.read_bytes()
    flip(path)
    assert (await verify(pulled.archive, options)).findings == []  # as the size is still right
    for _ in range(2):
        assert faults(await verify(pulled.archive)) == {(path.name, "changed")}
        assert faults(await verify(pulled.archive, options)) == {(path.name, "changed")}
    path.write_bytes(right)
    assert (await verify(pulled.archive, options)).read == 1
    assert (await verify(pulled.archive, options)).read == 0


async def test_a_store_that_takes_nothing(watched: Watched) -> None:
    watched.refuses_puts = 1000
    told: list[events.ScrubEvent] = []
    summary = await verify(Archive(watched), VerifyOptions(keep_every=0), told.append)
    assert (summary.read, summary.exit_code) == (12, 0)
    assert summary.results_not_kept == "Read-only file system"
    assert len([e for e in told if isinstance(e, events.ResultsNotKept)]) == 1


async def test_results_of_one_instance_that_are_not_stored(pulled: Pulled) -> None:
    told: list[events.ScrubEvent] = []
    archive = Archive(DenyingOne(pulled.root))
    summary = await verify(archive, VerifyOptions(keep_every=0), told.append)
    assert summary.results_not_kept == f"verified/{CLUSTER}/2026-11.json: Permission denied"
    assert len([e for e in told if isinstance(e, events.ResultsNotKept)]) == 1
    assert sum(e.files for e in told if isinstance(e, events.ResultsKept)) == len(DAYS)
    [kept] = (pulled.root / "verified").rglob("*.json")
    assert (kept.parent.name, kept.read_text().count('"at"')) == (INSTANCE, len(DAYS))


async def test_a_put_that_a_sweep_got_in_the_way_of(pulled: Pulled, watched: Watched) -> None:
    watched.refuses_puts = 2
    assert (await verify(Archive(watched))).results_not_kept is None
    assert len(list((pulled.root / "verified").rglob("*.json"))) == 2


async def test_verify_beside_a_pull_at_work(pulled: Pulled) -> None:
    """Neither keeps the other out, and the results are kept all the same."""
    async with Archive(LocalStore(pulled.root)).writing(INSTANCE):
        summary = await verify(pulled.archive, VerifyOptions(keep_every=0))
    assert (summary.findings, summary.results_not_kept) == ([], None)


async def test_an_object_replaced_while_it_is_read(pulled: Pulled, watched: Watched) -> None:
    """A pull brings a backup anew between the survey and the reading."""
    path = pulled.objects()[1]
    data = rdb(21_000, 77)

    def replace() -> None:
        from fastcrc import crc64

        path.write_bytes(data)

        def change(document: dict[str, Any]) -> None:
            document["sha256"] = hashlib.sha256(data).hexdigest()
            document["size"] = document["received"]["BackupSize"] = len(data)
            document["crc64ecma"] = document["crc64ecma_declared"] = str(crc64.xz(data))

        edit(path.with_suffix(".json"), change)

    read, done = watched.open, False

    @contextmanager
    def opening(key: str) -> Iterator[OpenedObject]:
        nonlocal done
        if key == pulled.key(path) and not done:
            done = True
            replace()
        with read(key) as opened:
            yield opened

    watched.open = opening  # type: ignore[method-assign]
    assert (await verify(Archive(watched))).findings == []
    assert done


async def test_results_that_cannot_be_read(pulled: Pulled) -> None:
    await verify(pulled.archive)
    [path] = (pulled.root / "verified" / CLUSTER).glob("*.json")
    for data in (b"", b"[]", b'{"format": 0, "files": {}}', b'{"format": 1, "files": {"a": 7}}'):
        path.write_bytes(data)
        summary = await verify(pulled.archive)
        assert (faults(summary), summary.exit_code) == ({(path.name, "bad-results")}, 1)
        assert (await verify(pulled.archive)).findings == []
    path.write_bytes(b'{"format": 9, "files": {}}')
    summary = await verify(pulled.archive)
    assert (faults(summary), summary.exit_code) == ({(path.name, "newer")}, 2)
    assert path.read_bytes() == b'{"format": 9, "files": {}}'


async def test_cancelled_and_begun_again(pulled: Pulled, watched: Watched) -> None:
    with anyio.CancelScope() as scope:

        def observe(event: events.ScrubEvent) -> None:
            if isinstance(event, events.Verified) and len(watched.opened) >= 5:
                scope.cancel()

        await verify(Archive(watched), VerifyOptions(workers=1), observe)
    assert scope.cancelled_caught
    before = len(watched.opened)
    assert before < 12
    options = VerifyOptions(since_verified=timedelta(days=1))
    summary = await verify(Archive(watched), options)
    assert summary.read + summary.recent == 12
    assert summary.recent >= before - 1


async def test_a_sample(pulled: Pulled, watched: Watched) -> None:
    options = VerifyOptions(sample=Sample(Fraction(1, 5), 7))
    summary = await verify(Archive(watched), options)
    assert (summary.files, summary.strata) == (12, 2)
    assert summary.read == 1 + 2  # a fifth of 3 and of 9, rounded up
    chosen = set(watched.opened)
    assert {key.partition("/")[0] for key in chosen} == {INSTANCE, CLUSTER}
    watched.opened.clear()
    await verify(Archive(watched), options)
    assert set(watched.opened) == chosen
    # What was not read is found by size, record and name all the same.
    other = next(p for p in pulled.objects() if pulled.key(p) not in chosen)
    other.write_bytes(other.read_bytes()[:-1])
    assert faults(await verify(Archive(watched), options)) == {(other.name, "truncated")}


async def test_a_part_of_the_archive(pulled: Pulled, watched: Watched) -> None:
    one = await verify(Archive(watched), VerifyOptions(instances=(INSTANCE,)))
    assert one.read == len(DAYS)
    from datetime import UTC, datetime

    day = TimeRange(datetime(2026, 11, 23, tzinfo=UTC), datetime(2026, 11, 24, tzinfo=UTC))
    assert (await verify(Archive(watched), VerifyOptions(range=day))).read == NODES + 1
    with pytest.raises(NoSuchBackup, match="no backup of r-none"):
        await verify(Archive(watched), VerifyOptions(instances=("r-none",)))


async def test_no_archive(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no archive here"):
        await verify(Archive(LocalStore(tmp_path)))


async def test_an_archive_that_has_lost_its_marker(pulled: Pulled) -> None:
    (pulled.root / "archive.json").unlink()
    with pytest.raises(UsageError, match=r"something else is: r-.*a pull with --create writes it"):
        await verify(pulled.archive)


def test_every_fault_has_its_advice() -> None:
    assert set(ADVICE) == set(Fault)


@pytest.mark.parametrize("loss", ["unknown", "seen", "catalogued", "edited"])
async def test_a_pull_is_advised_where_it_writes_sha256sums(
    pulled: Pulled, source: TairSource, loss: str
) -> None:
    sums = pulled.sums(INSTANCE)
    if loss == "seen":
        await verify(pulled.archive)
    if loss in ("unknown", "seen"):
        sums.with_name("index.jsonl").unlink()
    if loss == "edited":
        sums.write_bytes(b"0123456789" + sums.read_bytes()[10:])
    else:
        sums.unlink()
    [found] = [f for f in (await verify(pulled.archive)).findings if f.fault is Fault.SUMS]
    assert ("run pull" in found.advice) == (loss == "unknown")
    await pull(source, pulled.archive, [everything()])
    assert loss != "unknown" or (await verify(pulled.archive)).findings == []


def test_evidence_helpers_are_those_of_the_report() -> None:
    first = example.drill(example.FIRST, example.partial(example.FIRST))
    assert link(encode(first)).id in evidence_key(first.id)


async def test_a_source_that_nobody_knows_is_noted_once(pulled: Pulled) -> None:
    """Whoever edits a record may name another source, so that what it sent is not compared."""
    for path in pulled.objects():
        record = path.with_suffix(".json")
        document = json.loads(record.read_text())
        document["source"]["kind"] = "nobody"
        document["ended_at"] = None
        record.write_text(json.dumps(document))
    found = await verify(pulled.archive)
    assert [note.text.partition(",")[0] for note in found.notes] == ["its source (nobody"]
