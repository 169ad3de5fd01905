"""Which hosts a listing may send us to."""

import socket
from collections.abc import Sequence
from pathlib import Path

import pytest

from archiver import Archive, PullOptions, TransferOptions, network, pull
from archiver.emulator import Emulator
from archiver.errors import UnsafeInput, UsageError
from archiver.model import Backup, Network
from archiver.secret import SignedUrl
from archiver.sources.alibaba.fields import read_backup
from archiver.sources.alibaba.hosts import AllowedHosts
from archiver.transfer.download_url import NetworkChoice
from archiver.transfer.http.client import open_fetcher
from examples.sample_rdb import write_rdb
from tests.cli.conftest import Run
from tests.conftest import INSTANCE, QUICK, EmulatorMaker, everything, source_of

OPTIONS = PullOptions(transfer=TransferOptions(retry=QUICK))


def backup(url: str) -> Backup:
    item = {
        "BackupId": 1,
        "BackupStatus": "Success",
        "BackupStartTime": "2026-11-24T02:15:00Z",
        "BackupSize": 10,
        "BackupDownloadURL": url,
    }
    return read_backup(INSTANCE, item)


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("https://b.oss-cn-hangzhou.aliyuncs.com/k", None),
        ("http://b.oss-cn-hangzhou-internal.aliyuncs.com:80/k", None),
        ("https://B.OSS.ALIYUNCS.COM./k", None),
        ("http://api.example:9/k", None),
        ("http://mirror.example/k", None),
        ("http://a.b.cdn.example/k", None),
        ("http://cdn.example/k", "--allow-host cdn.example"),
        ("http://aliyuncs.com.evil.example/k", "--allow-host aliyuncs.com.evil.example"),
        ("http://evilaliyuncs.com/k", "--allow-host evilaliyuncs.com"),
        ("http://aliyuncs.com@evil.example/k", "--allow-host evil.example"),
        ("http://10.0.0.1/k", "--allow-host 10.0.0.1"),
        ("http://2852039166/k", "--allow-host 2852039166"),
        ("http://169.254.169.254/k", "link-local or metadata"),
        ("http://[::ffff:169.254.169.254]/k", "link-local or metadata"),
        ("http://100.100.100.200/k", "link-local or metadata"),
        ("http://[fe80::1]/k", "link-local or metadata"),
        ("http://[v6]/k", "only http and https"),
        ("file:///etc/passwd", "only http and https"),
        ("", "only http and https"),
    ],
)
def test_what_is_fetched(url: str, why: str | None) -> None:
    hosts = AllowedHosts("api.example", ["mirror.example", ".cdn.example"])
    refused = hosts.marked(backup(url or "x")).refused
    if why is None:
        assert refused == {}
    else:
        assert why in refused[Network.PUBLIC]


@pytest.mark.parametrize(
    "given", ["", ".", "169.254.169.254", "[fe80::1]", "http://x/", "a b", "*", "u@h"]
)
def test_what_cannot_be_allowed(given: str) -> None:
    with pytest.raises(UsageError, match="--allow-host"):
        AllowedHosts("api.example", [given])


async def test_a_foreign_host_fails_its_backup_alone(
    files: Path, emulator_of: EmulatorMaker, run: Run, emulator: Emulator
) -> None:
    """Until it is allowed. Nobody asks it before."""
    write_rdb(files / INSTANCE / "a.rdb", 20_000)
    other = await emulator_of(files)  # the same files, under another name of this machine
    port = other.port
    naming = await emulator_of(
        files, public_host=f"localhost:{port}", intranet_host=f"localhost:{port}"
    )
    command = ("pull", "--instance", INSTANCE, "--to", "archive", "--endpoint", naming.endpoint)
    result = await run(*command)
    assert result.code == 1, result.err
    assert "names localhost as the download host" in result.err
    assert other.tally.object_requests == 0
    result = await run(*command, "--allow-host", "localhost")
    assert result.code == 0, result.err
    assert other.tally.object_requests > 0
    result = await run(*command, "--allow-host", "169.254.169.254")
    assert result.code == 2, result.err


@pytest.mark.parametrize("choice", ["auto", "intranet", "public"])
async def test_only_the_networks_that_count(
    files: Path, emulator_of: EmulatorMaker, archive: Archive, choice: str
) -> None:
    """A metadata service in the place of the intranet host, which --network public never asks."""
    write_rdb(files / INSTANCE / "a.rdb", 2000)
    emulator = await emulator_of(files, intranet_host="100.100.100.200:80")
    transfer = TransferOptions(retry=QUICK, network=NetworkChoice(choice))
    async with source_of(emulator, allow_hosts=["other.example"]) as source:
        summary = await pull(source, archive, [everything()], PullOptions(transfer=transfer))
    if choice == "public":
        assert (summary.archived, summary.failures) == (1, [])
    else:
        [failure] = summary.failures
        assert isinstance(failure.error, UnsafeInput)
        assert "link-local or metadata" in str(failure.error)


async def test_a_name_that_stands_for_a_metadata_service(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever may name a host may also say where it is."""

    def of_metadata(*_: object, **__: object) -> Sequence[network.Address]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("169.254.169.254", 80))]

    dialled: list[object] = []
    monkeypatch.setattr(network, "_getaddrinfo", of_metadata)
    monkeypatch.setattr(socket.socket, "connect", lambda _, where: dialled.append(where))
    async with open_fetcher(2) as fetcher:
        url = SignedUrl.parse("http://bucket.aliyuncs.com/k")
        with pytest.raises(UnsafeInput, match="link-local or metadata"):
            async with fetcher.open(url, 0, 10, None):
                pass
    assert dialled == []
