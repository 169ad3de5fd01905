"""A real nginx with its secure_link module as the object store: nobody's of ours."""

import asyncio
import base64
import contextlib
import hashlib
import json
import os
import shutil
import subprocess
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from archiver import Archive, PullOptions, TransferOptions, events, pull
from archiver.emulator import Emulator
from archiver.transfer import download_url
from benchmarks.servers import free_port, wait_for
from examples.sample_rdb import write_rdb
from tests.conftest import INSTANCE, QUICK, everything, source_of

pytestmark = pytest.mark.skipif(
    shutil.which("nginx") is None, reason="NEEDS nginx: make setup-system"
)
SECRET = "of nobody"
OPTIONS = PullOptions(transfer=TransferOptions(part_size=64 * 1024, connections=2, retry=QUICK))


def config(work: Path, root: Path, port: int) -> str:
    return f"""
        {"user root;" if os.geteuid() == 0 else ""} pid {work}/pid; daemon off;
        events {{ }}
        http {{
            access_log {work}/access.log; client_body_temp_path {work}/b;
            proxy_temp_path {work}/p; fastcgi_temp_path {work}/f; uwsgi_temp_path {work}/u;
            scgi_temp_path {work}/s;
            server {{
                listen 127.0.0.1:{port};
                location / {{
                    root {root}; limit_rate 70k;
                    secure_link $arg_Signature,$arg_Expires;
                    secure_link_md5 "$secure_link_expires$uri {SECRET}";
                    if ($secure_link = "") {{ return 403; }}
                    if ($secure_link = "0") {{ return 403; }}
                }}
            }}
        }}"""


@pytest.fixture
async def nginx(files: Path, tmp_path: Path) -> AsyncIterator[int]:
    port, work = free_port(), tmp_path / "nginx"
    work.mkdir()
    (work / "conf").write_text(config(work, files / INSTANCE, port))
    process = subprocess.Popen(["nginx", "-c", work / "conf", "-p", work, "-e", work / "error.log"])
    try:
        await asyncio.to_thread(wait_for, port)
        yield port
    finally:
        process.terminate()
        process.wait()


def sign(name: str, port: int, lives: int) -> str:
    expires = int(time.time()) + lives
    digest = hashlib.md5(f"{expires}/{name} {SECRET}".encode()).digest()
    signature = base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
    return f"http://127.0.0.1:{port}/{name}?Expires={expires}&Signature={signature}"


async def keep_signing(files: Path, port: int, lives: int) -> None:
    """The vendor's part: whenever the backups are listed, their URLs are fresh."""
    while True:
        urls = {
            path.name: {
                "BackupDownloadURL": sign(path.name, port, lives),
                "BackupIntranetDownloadURL": "",
            }
            for path in (files / INSTANCE).glob("*.rdb")
        }
        temporary = files / "fresh"
        temporary.write_text(json.dumps(urls))
        temporary.replace(files / INSTANCE / "backups.json")
        await asyncio.sleep(0.2)


@contextlib.asynccontextmanager
async def signed(files: Path, port: int, lives: int) -> AsyncIterator[None]:
    signing = asyncio.create_task(keep_signing(files, port, lives))
    await asyncio.sleep(0.1)
    yield
    signing.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await signing


async def test_urls_that_live(
    files: Path, nginx: int, emulator: Emulator, archive: Archive
) -> None:
    originals = sorted(
        write_rdb(files / INSTANCE / f"{n}_2026112402150{n}.rdb", size, n)
        for n, size in enumerate((100_000, 5_000, 64 * 1024))
    )
    async with signed(files, nginx, 600), source_of(emulator) as source:
        summary = await pull(source, archive, [everything()], OPTIONS)
    assert summary.failures == []
    root = Path(str(archive.store))
    assert sorted(path.read_bytes() for path in root.rglob("*.rdb")) == originals


async def test_urls_that_expire_in_the_middle(
    files: Path,
    nginx: int,
    emulator: Emulator,
    archive: Archive,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from datetime import timedelta

    monkeypatch.setattr(download_url, "REFRESH_AHEAD", timedelta(days=-1))
    data = write_rdb(files / INSTANCE / "a_20261124021500.rdb", 1_000_000)
    seen: list[events.Event] = []
    async with signed(files, nginx, 2), source_of(emulator) as source:
        summary = await pull(source, archive, [everything()], OPTIONS, seen.append)
    assert summary.failures == []
    assert any(isinstance(event, events.UrlRefreshed) for event in seen)
    [kept] = Path(str(archive.store)).rglob("*.rdb")
    assert kept.read_bytes() == data
    log = (tmp_path / "nginx" / "access.log").read_text()
    assert " 403 " in log
    assert " 206 " in log
    assert " 200 " not in log


async def test_a_signature_of_somebody_else(
    files: Path, nginx: int, emulator: Emulator, archive: Archive
) -> None:
    write_rdb(files / INSTANCE / "a.rdb", 5_000)
    async with signed(files, nginx, -10), source_of(emulator) as source:
        summary = await pull(source, archive, [everything()], OPTIONS)
    assert "403" in str(summary.failures[0].error)
    assert not list(Path(str(archive.store)).rglob("*.rdb"))
