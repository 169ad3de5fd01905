"""``archiver doctor`` against set-ups that are broken in one way each: the first line that is not
well names the cause, says what to do, and sets the exit code."""

import errno
import json
import os
import time
from pathlib import Path

import pytest

from archiver.commands.doctor.place import check_place
from archiver.emulator import Emulator
from archiver.emulator.ram import Policy
from archiver.findings import Finding, Verdict
from archiver.sources.alibaba.checks import clock
from archiver.stores.local import disk
from archiver.stores.local.store import LocalStore
from examples.sample_rdb import write_rdb
from tests.cli.conftest import Result, Run
from tests.conftest import INSTANCE, KEY_ID, KEY_SECRET, EmulatorMaker
from tests.network.conftest import Authority, ProxyMaker
from tests.servers.seaweedfs import READER, SeaweedFS

ACTIONS = {"DescribeRegions", "DescribeInstances", "DescribeBackupPolicy", "DescribeBackups"}


@pytest.fixture
def files(files: Path) -> Path:
    day = time.strftime("%Y%m%d", time.gmtime(time.time() - 86400))
    write_rdb(files / INSTANCE / f"d_{day}021500.rdb", 2_000_000, 1)
    return files


def troubles(result: Result) -> list[tuple[str, str, str]]:
    """Verdict, check and text of each line that is not well, without what depends on the disk that
    the tests run on."""
    lines = [line for line in result.out.splitlines() if line[:4] in ("warn", "FAIL")]
    found = [(line[:4], *line[6:].partition(": ")[::2]) for line in lines]
    return [(a, b, c) for a, b, c in found if (a, b) != ("warn", "directory")]


def check_first(result: Result, code: int, check: str, *words: str) -> None:
    """The first trouble is this one, and nothing secret is shown."""
    assert result.code == code, result.out + result.err
    verdict, name, text = troubles(result)[0]
    assert (verdict, name) == ("FAIL", check)
    for word in words:
        assert word in text
    assert f"fix first: {check}" in result.err
    assert KEY_ID not in result.out + result.err
    assert KEY_SECRET not in result.out + result.err


async def test_all_is_well_and_nothing_is_changed(
    emulator: Emulator, run: Run, tmp_path: Path
) -> None:
    before = sorted(tmp_path.rglob("*"))
    result = await run("doctor", "archive", "--endpoint", emulator.endpoint)
    assert result.code == 0, result.err
    assert not troubles(result)
    for text in (
        "credentials: access key LTAI…st42 of the environment",
        f"endpoint: {emulator.endpoint} answers",
        "clock: within",
        f"DescribeBackups: {INSTANCE}: newest backup",
        "1.9 MiB at ",
        "archive: ",
        "drill servers: ",
    ):
        assert text in result.out
    assert sorted(tmp_path.rglob("*")) == before
    # Each action once; the unsigned request is not one that was authenticated.
    assert emulator.tally.calls_by_action == dict.fromkeys(ACTIONS, 1)
    assert KEY_ID not in result.out
    assert KEY_SECRET not in result.out


async def test_it_says_the_same_in_json(emulator: Emulator, run: Run) -> None:
    given = ("doctor", "--endpoint", emulator.endpoint)
    spoken = await run(*given)
    lines = [json.loads(line) for line in (await run(*given, "--json")).out.splitlines()]
    checks, last = lines[:-1], lines[-1]
    assert [one["check"] for one in checks] == [
        line[6:].partition(": ")[0] for line in spoken.out.splitlines()
    ]
    assert last["checks"] == len(checks)
    assert (last["event"], last["failed"], last["exit_code"]) == ("summary", 0, 0)


@pytest.mark.parametrize(
    ("changed", "check", "word"),
    [
        ({"ALIBABA_CLOUD_ACCESS_KEY_SECRET": "other"}, "access key", "SignatureDoesNotMatch"),
        ({"ALIBABA_CLOUD_ACCESS_KEY_ID": "LTAIother"}, "access key", "check the access key id"),
        ({"ALIBABA_CLOUD_ACCESS_KEY_ID": None}, "credentials", "ACCESS_KEY_ID is missing"),
    ],
    ids=["wrong secret", "unknown key", "half a key"],
)
async def test_a_wrong_key(
    changed: dict[str, str], check: str, word: str, emulator: Emulator, run: Run
) -> None:
    result = await run("doctor", "archive", "--endpoint", emulator.endpoint, **changed)
    check_first(result, 4, check, word)
    assert len(troubles(result)) == 1  # and not each action again
    assert "archive: " in result.out  # what does not need the key is checked all the same


@pytest.mark.parametrize("action", sorted(ACTIONS))
async def test_a_permission_that_is_missing(
    action: str, files: Path, emulator_of: EmulatorMaker, run: Run
) -> None:
    """Of the others, what a pull needs fails, and the rest is a warning."""
    allowed = [f"kvstore:{one}" for one in ACTIONS - {action}]
    statement = {"Effect": "Allow", "Action": allowed, "Resource": "*"}
    policy = Policy.parse({"Version": "1", "Statement": [statement]})
    emulator = await emulator_of(files, policy=policy)
    result = await run("doctor", "--endpoint", emulator.endpoint)
    hint = f"grant the RAM action kvstore:{action} on "
    if action in ("DescribeBackups", "DescribeInstances"):
        check_first(result, 4, action, hint)
    else:
        assert result.code == 0, result.out
        [(verdict, check, text)] = troubles(result)
        assert (verdict, check) == ("warn", action)
        assert hint in text


async def test_an_instance_that_is_named_needs_no_listing(
    files: Path, emulator_of: EmulatorMaker, run: Run
) -> None:
    statement = {"Effect": "Allow", "Action": "kvstore:DescribeBackups", "Resource": "*"}
    policy = Policy.parse({"Version": "1", "Statement": [statement]})
    emulator = await emulator_of(files, policy=policy)
    result = await run("doctor", "--instance", INSTANCE, "--endpoint", emulator.endpoint)
    assert result.code == 0, result.out
    assert {verdict for verdict, *_ in troubles(result)} == {"warn"}
    assert "ok    download: " in result.out


async def test_a_host_that_does_not_resolve(run: Run) -> None:
    result = await run("doctor", "--endpoint", "http://r-kvstore.invalid")
    check_first(
        result, 5, "endpoint", "its name cannot be resolved", "check --region and --endpoint"
    )


async def test_a_region_that_the_endpoint_does_not_have(emulator: Emulator, run: Run) -> None:
    given = ("--endpoint", emulator.endpoint, "--region", "cn-beijing")
    result = await run("doctor", *given)
    check_first(result, 2, "DescribeRegions", "cn-beijing is not among", "use one of cn-hangzhou")


async def test_an_endpoint_that_is_something_else(
    bucket: str, seaweed: SeaweedFS, run: Run
) -> None:
    result = await run("doctor", "--endpoint", seaweed.endpoint)
    check_first(result, 5, "endpoint", "no JSON", "check that the endpoint is the API")


@pytest.mark.parametrize("hours", [-1, 1])
async def test_a_clock_that_is_wrong(
    hours: int, files: Path, emulator_of: EmulatorMaker, run: Run
) -> None:
    emulator = await emulator_of(files, clock=lambda: time.time() - hours * 3600)
    result = await run("doctor", "--endpoint", emulator.endpoint)
    way = "ahead of" if hours > 0 else "behind"
    check_first(result, 4, "clock", f"60 min {way} the endpoint's", "set the clock")


@pytest.mark.parametrize(
    ("seconds", "verdict"),
    [
        (float("nan"), Verdict.SKIP),
        (-30, Verdict.OK),
        (61, Verdict.WARN),
        (-899, Verdict.WARN),
        (901, Verdict.FAIL),
    ],
)
def test_how_wrong_a_clock_may_be(seconds: float, verdict: Verdict) -> None:
    assert clock(seconds).verdict is verdict


async def test_a_proxy_that_refuses(
    files: Path, emulator_of: EmulatorMaker, authority: Authority, run: Run, proxy_of: ProxyMaker
) -> None:
    emulator = await emulator_of(files, tls=authority.context)
    proxy = proxy_of(refuses=403)
    given = {"SSL_CERT_FILE": str(authority.file), "HTTPS_PROXY": proxy.url}
    result = await run("doctor", "--endpoint", emulator.endpoint, **given)
    check_first(result, 5, "endpoint", f"the proxy {proxy.url} refused", "allow the host")
    assert f"proxy: {proxy.url} is used for 127.0.0.1" in result.out


async def test_a_proxy_that_wants_a_password(
    emulator: Emulator, run: Run, proxy_of: ProxyMaker
) -> None:
    proxy = proxy_of(user="someone", password="hunter2")
    result = await run("doctor", "--endpoint", emulator.endpoint, "--proxy", proxy.url)
    check_first(result, 4, "endpoint", "requires a user and password")


async def test_a_certificate_that_is_not_trusted(
    files: Path, emulator_of: EmulatorMaker, authority: Authority, run: Run, tmp_path: Path
) -> None:
    emulator = await emulator_of(files, tls=authority.context)
    result = await run("doctor", "--endpoint", emulator.endpoint)
    check_first(result, 5, "endpoint", "is not trusted", "set SSL_CERT_FILE")
    trusting = {"SSL_CERT_FILE": str(authority.file)}
    assert (await run("doctor", "--endpoint", emulator.endpoint, **trusting)).code == 0
    (tmp_path / "empty.pem").touch()
    wrong = {"SSL_CERT_FILE": str(tmp_path / "empty.pem")}
    result = await run("doctor", "--endpoint", emulator.endpoint, **wrong)
    check_first(result, 2, "certificates", "it holds no certificates", "use a file")


async def test_files_that_cannot_be_fetched(
    files: Path, emulator_of: EmulatorMaker, run: Run
) -> None:
    emulator = await emulator_of(files, public_host="127.0.0.1:9", intranet_host="127.0.0.1:9")
    result = await run("doctor", "--endpoint", emulator.endpoint)
    check_first(result, 5, "download", "connection refused")


async def test_a_bucket(
    seaweed: SeaweedFS, bucket: str, s3_writer: None, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = ("--s3-endpoint", seaweed.endpoint)
    keys = {name: os.environ[name] for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")}
    result = await run("doctor", f"s3://{bucket}/redis", *given, **keys)
    assert result.code == 0, result.out
    assert not troubles(result)
    assert "bucket key: access key AKIA…WRIT, found by env" in result.out
    assert "protection: versioning off, object lock off" in result.out
    assert seaweed.objects(bucket).keys() == {"redis/.staging/probe"}
    result = await run("doctor", "s3://no-such-bucket-here/redis", *given, **keys)
    check_first(result, 2, "bucket", "bucket")
    reader = {"AWS_ACCESS_KEY_ID": READER.key_id, "AWS_SECRET_ACCESS_KEY": READER.secret}
    result = await run("doctor", f"s3://{bucket}/redis", *given, **reader)
    check_first(result, 4, "bucket", "docs/buckets.md")
    wrong = {**keys, "AWS_SECRET_ACCESS_KEY": "other"}
    result = await run("doctor", f"s3://{bucket}/redis", *given, **wrong)
    check_first(result, 4, "bucket", "check AWS_SECRET_ACCESS_KEY")


async def test_versions_and_locks_of_a_bucket(
    seaweed: SeaweedFS, s3_writer: None, run: Run
) -> None:
    name = seaweed.make_bucket("doctor-locked", object_lock=True)
    given = ("--s3-endpoint", seaweed.endpoint)
    keys = {one: os.environ[one] for one in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")}
    result = await run("doctor", f"s3://{name}/redis", *given, **keys)
    assert "protection: versioning enabled, object lock on, no default" in result.out, result.out


async def test_a_directory_that_may_not_be_written(run_kept_out: Run, tmp_path: Path) -> None:
    folder = tmp_path / "archive"
    folder.mkdir(mode=0o500)
    result = await run_kept_out("doctor", "archive")
    check_first(result, 4, "directory", "Permission denied", "chown or chmod")
    result = await run_kept_out("doctor", "archive/below")
    check_first(result, 4, "directory", "Permission denied")


async def test_a_disk_that_is_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(disk, "write_all", full)
    [found] = [one async for one in check_place(LocalStore(tmp_path / "archive"))]
    assert found == Finding(
        "directory",
        Verdict.FAIL,
        f"{tmp_path}: No space left on device",
        "free some space, then run the command again",
        6,
    )


async def test_a_directory_with_something_else(run: Run, tmp_path: Path) -> None:
    (tmp_path / "archive").mkdir()
    (tmp_path / "archive" / "photo.jpg").touch()
    result = await run("doctor", "archive")
    check_first(result, 2, "archive", "there is no archive here", "--create")


async def test_a_server_that_is_not_there(run: Run) -> None:
    result = await run("doctor", "archive", "--server", "no-such-redis")
    check_first(result, 2, "drill servers", "does not exist")


async def test_nothing_to_check(run: Run) -> None:
    result = await run("doctor")
    assert result.code == 2
    assert "give an ARCHIVE, --region ID or --endpoint HOST" in result.err
