"""``archiver ack`` as its users meet it."""

import json
import re
import shutil
from pathlib import Path

from examples.sample_rdb import write_rdb
from tests.archive.sample import CLUSTER as CLUSTER_DEMO
from tests.archive.sample import STARTS, put_cluster
from tests.archive.test_acknowledged import NIGHT, NIGHTS, STAMP, fail_at_the_vendor
from tests.archive.test_one_answer import CLUSTER, serve
from tests.cli.conftest import Run
from tests.cli.test_pull import assert_one_line
from tests.conftest import INSTANCE

PULL = ("pull", "--instance", CLUSTER, "--to", "archive")


async def test_a_night_that_failed_for_good(files: Path, run: Run, tmp_path: Path) -> None:
    """From the failure to the note of it, by what the failure says; and back."""
    serve(files, NIGHTS)
    fail_at_the_vendor(files, CLUSTER, f"{CLUSTER}-b/d_{STAMP}.rdb")
    failed = await run(*PULL)
    assert failed.code == 1
    assert "failed at the vendor: there is no file (acknowledge it with archiver ack" in failed.err
    [folder] = {
        line.split(": ")[1] for line in failed.err.splitlines() if line.startswith("incomplete: r-")
    }
    why = ("--reason", "ticket 4711")
    for wrong in ((), (folder,), ("--list", *why), (folder, "--withdraw", *why)):
        assert_one_line(await run("ack", "archive", *wrong), 2)
    assert_one_line(await run("ack", "nowhere", folder, *why), 2)
    assert_one_line(await run("ack", "archive", "r-x/..", *why), 2)

    done = await run("ack", "archive", folder, *why, "--by", "sre@host")
    assert (done.code, done.out) == (0, "")
    assert done.err.startswith(f"acknowledged: {folder} (stored as ")

    again = await run(*PULL)
    assert (again.code, "\nfailed: " in f"\n{again.err}") == (0, False)
    assert "acknowledged: 1, not counted as failures\n" in again.err
    assert "by sre@host on " in again.err
    quiet = (await run(*PULL, "-q")).err.splitlines()
    assert all(line.startswith("note: the newest backup of ") for line in quiet)
    checked = await run("verify", "archive", "--json")
    *_, summary = (json.loads(line) for line in checked.out.splitlines())
    assert (checked.code, summary["acknowledged"], summary["findings"]) == (0, 1, 0)
    assert "acknowledged: 1, not counted as failures\n" in checked.err
    assert ": no problems found\n" in checked.err
    listed = await run("ls", "archive")
    assert "; acknowledged by sre@host on " in listed.out
    assert listed.err.endswith("; 1 backup set acknowledged\n")
    known = await run("ack", "archive", "--list")
    assert (known.code, known.out.count("\n"), known.out.endswith("(holds)\n")) == (0, 1, True)

    assert (await run("ack", "archive", folder, "--withdraw", "--by", "auditor")).code == 0
    assert_one_line(await run("ack", "archive", folder, "--withdraw"), 1)
    assert (await run(*PULL)).code == 1
    known = await run("ack", "archive", "--list", "--json")
    assert json.loads(known.out)["state"] == "withdrawn"
    [path] = (tmp_path / "archive" / "acknowledged").rglob("*.json")
    assert f"{NIGHT:%Y%m%dT}" in path.name
    path.write_text("{")
    for command in (("ack", "archive", "--list"), ("ls", "archive"), ("verify", "archive")):
        result = await run(*command)
        assert (result.code, f"acknowledged/sets/{CLUSTER}/" in result.err) == (1, True), result.err


async def test_a_backup_that_is_here_or_damaged_did_not_fail_at_the_vendor(
    files: Path, run: Run, tmp_path: Path
) -> None:
    serve(files, NIGHTS)
    await run(*PULL)
    record = min((tmp_path / "archive" / CLUSTER).rglob(f"{CLUSTER}-*.json"))
    why = ("--reason", "ticket 4711")
    assert_one_line(await run("ack", "archive", record.stem, *why), 2, "is in the archive")
    failed = await run("ack", "archive", f"{record.stem}9", *why)
    assert (failed.code, failed.err.count("\n")) == (0, 1)  # the archive has none that failed
    [file] = [path for path in record.parent.glob(f"{record.stem}.*") if path != record]
    file.write_bytes(b"")
    assert_one_line(await run("ack", "archive", record.stem, *why), 3, "is damaged")


async def test_a_typo(run: Run, tmp_path: Path) -> None:
    """What the archive has nothing of is not acknowledged, unless that is meant."""
    root = tmp_path / "archive"
    for start in STARTS:
        put_cluster(root, start)
    key = f"{CLUSTER_DEMO}/2026/11/{STARTS[0]}-1"
    node = f"{CLUSTER_DEMO}-db-2"
    for typo, what, meant in (
        (f"{key}2", "the set", key),
        (key.replace("clusterdemo", "clusterdem"), "the set", key),
        (f"{CLUSTER_DEMO}-dp-2-4711", "the node of backup", f"{node}-4711"),
        (f"{CLUSTER_DEMO}x-4711", "the node of backup", f"{CLUSTER_DEMO}-4711"),
    ):
        words = ("ack", "archive", typo, "--reason", "ticket 7")
        said = f"archiver: {root} has nothing of {what} {typo}; did you mean {meant}?"
        assert_one_line(await run(*words), 2, said)
        assert not (root / "acknowledged").exists()
        assert (await run(*words, "--nothing-came")).code == 0
        assert (await run("ack", "archive", typo, "--withdraw")).code == 0
        shutil.rmtree(root / "acknowledged")
    assert (await run("ack", "archive", f"{node}-4711", "--reason", "ticket 7")).code == 0


async def test_a_hidden_folder_may_hold_what_is_named(run_kept_out: Run, tmp_path: Path) -> None:
    month = put_cluster(tmp_path / "archive")[0].parents[1]
    words = ("--reason", "ticket 7")
    month.chmod(0)
    try:
        key = f"{CLUSTER_DEMO}/2026/11/{STARTS[0]}-1"
        assert_one_line(await run_kept_out("ack", "archive", key, *words), 6, "Permission denied")
        done = await run_kept_out("ack", "archive", f"{CLUSTER_DEMO}-db-9-4711", *words)
        assert done.code == 0, done.err
    finally:
        month.chmod(0o700)


async def test_a_backup_that_is_acknowledged_is_counted_as_one(files: Path, run: Run) -> None:
    write_rdb(files / INSTANCE / f"a_{STAMP}.rdb", 5000)
    pull = ("pull", "--instance", INSTANCE, "--to", "archive")
    assert (await run(*pull)).code == 0
    write_rdb(files / INSTANCE / "b_20261125021500.rdb", 6000)
    failed = {"b_20261125021500.rdb": {"BackupStatus": "Failed"}}
    (files / INSTANCE / "backups.json").write_text(json.dumps(failed))
    listed = await run("ls", "archive", "--remote", "--instance", INSTANCE, "--json")
    [name] = [
        f"{row['node_id']}-{row['backup_id']}"
        for row in map(json.loads, listed.out.splitlines())
        if row["state"] == "failed"
    ]
    assert (await run("ack", "archive", name, "--reason", "ticket 7")).code == 0
    known = await run("ls", "archive", "--remote", "--instance", INSTANCE)
    assert "; 1 backup acknowledged\n" in known.err


async def test_a_backup_that_was_lost_with_its_sha256sums(
    files: Path, run: Run, tmp_path: Path
) -> None:
    """By what the repair says of it."""
    serve(files, NIGHTS)
    assert (await run(*PULL)).code == 0
    assert (await run("copy", "archive", "copy")).code == 0
    for root in (tmp_path / "archive", tmp_path / "copy"):
        [sums] = root.rglob("SHA256SUMS")
        sums.unlink()
        shutil.rmtree(min(path for path in sums.parent.iterdir() if path.is_dir()))
    repair = ("verify", "archive", "--repair-from", "copy")
    told = await run(*repair)
    names = set(re.findall(r"acknowledge (\S+) \(archiver ack\)", told.err))
    assert (told.code, {one.rpartition("-")[0][-1] for one in names}) == (3, {"a", "b"})
    assert (await run(*repair)).code == 3
    assert (await run("ack", "archive", *names, "--reason", "ticket 4711")).code == 0
    assert (await run(*repair)).code == 0
    assert (await run("verify", "archive")).code == 0
